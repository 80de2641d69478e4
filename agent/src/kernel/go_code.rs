//! Where a function of Go begins in earnest and where it returns, read from its machine code.
//!
//! Both compilers look first whether the goroutine's stack has room, `g` being in a register of its own; where it has
//! not, the function is begun again on a larger stack. Who does not see that check does not see a Go function.

use iced_x86::{Code, Decoder, DecoderOptions, Mnemonic, OpKind, Register};

/// Where the body begins behind the check of the stack, and each return.
type Body = (usize, Vec<usize>);

/// Within so many instructions the stack is checked.
const CHECKED_WITHIN: usize = 8;

/// Where `g` keeps the end of its stack.
const STACK_GUARD: u64 = 16;

/// Any instruction that is not understood may be a return that is missed: then there is nothing.
pub fn x86_64(code: &[u8]) -> Option<Body> {
    let mut decoder = Decoder::with_ip(64, code, 0, DecoderOptions::NONE);
    let (mut begins, mut returns) = (None, Vec::new());
    let mut compared = false;
    let mut count = 0;
    while decoder.can_decode() {
        let instruction = decoder.decode();
        if instruction.is_invalid() {
            return None;
        }
        if begins.is_none() && count < CHECKED_WITHIN {
            if compared && instruction.mnemonic() == Mnemonic::Jbe {
                begins = Some(instruction.next_ip() as usize);
            }
            compared = instruction.mnemonic() == Mnemonic::Cmp
                && (0..2).any(|operand| instruction.op_kind(operand) == OpKind::Memory)
                && instruction.memory_base() == Register::R14
                && instruction.memory_displacement64() == STACK_GUARD;
        }
        if instruction.code() == Code::Retnq {
            returns.push(instruction.ip() as usize);
        }
        count += 1;
    }
    Some((begins?, returns)).filter(|(_, returns)| !returns.is_empty())
}

/// `ldr x16, [x28, #16]`
const LOAD_GUARD: u32 = 0xf940_0b90;
/// `b.ls`, without its distance.
const BRANCH_LOWER: (u32, u32) = (0xff00_001f, 0x5400_0009);
const RETURN: u32 = 0xd65f_03c0;

pub fn aarch64(code: &[u8]) -> Option<Body> {
    let words = code.chunks_exact(4).map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
    let (mut begins, mut returns) = (None, Vec::new());
    let mut loaded = false;
    for (place, word) in words.enumerate() {
        loaded |= word == LOAD_GUARD;
        if begins.is_none() && loaded && place < CHECKED_WITHIN && word & BRANCH_LOWER.0 == BRANCH_LOWER.1 {
            begins = Some(place * 4 + 4);
        }
        if word == RETURN {
            returns.push(place * 4);
        }
    }
    Some((begins?, returns)).filter(|(_, returns)| !returns.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Go 1.19's syscall.connect, shortened: check, body with a c3 inside of an instruction, return, more stack.
    const X86_64: &[u8] = &[
        0x49, 0x3b, 0x66, 0x10, // cmp 0x10(%r14),%rsp
        0x76, 0x11, // jbe more
        0x48, 0x83, 0xec, 0x30, // sub $0x30,%rsp
        0xb8, 0xc3, 0x00, 0x00, 0x00, // mov $0xc3,%eax
        0x48, 0x83, 0xc4, 0x30, // add $0x30,%rsp
        0xc3, // ret
        0xc3, // ret
        0xcc, // int3
        0xe9, 0xe4, 0xff, 0xff, 0xff, // jmp to the beginning
    ];

    #[test]
    fn returns_are_instructions_and_not_bytes() {
        assert_eq!(x86_64(X86_64), Some((6, vec![19, 20])));
    }

    #[test]
    fn large_frames_are_checked_in_two_steps() {
        let code = [
            0x4c, 0x8d, 0x64, 0x24, 0x80, // lea -0x80(%rsp),%r12
            0x4d, 0x3b, 0x66, 0x10, // cmp 0x10(%r14),%r12
            0x0f, 0x86, 0x10, 0x00, 0x00, 0x00, // jbe more
            0xc3,
        ];
        assert_eq!(x86_64(&code), Some((15, vec![15])));
    }

    #[test]
    fn what_go_did_not_compile_is_refused() {
        assert_eq!(x86_64(&X86_64[6..]), None, "no check of the stack");
        assert_eq!(x86_64(&X86_64[..19]), None, "no return");
        let mut broken = X86_64.to_vec();
        broken[21] = 0x06;
        assert_eq!(x86_64(&broken), None, "an instruction that does not exist");
        assert_eq!(x86_64(&X86_64[..24]), None, "an instruction that is cut off");
        assert_eq!(x86_64(&[]), None);
    }

    #[test]
    fn the_other_machine_has_instructions_of_one_length() {
        let words = [LOAD_GUARD, 0xeb30_63ff, 0x5400_0109, 0xf81e_0ffe, RETURN, 0xaa1e_03e3, RETURN];
        let code: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(aarch64(&code), Some((12, vec![16, 24])));
        assert_eq!(aarch64(&code[4..]), None, "no check of the stack");
        assert_eq!(aarch64(&code[..16]), None, "no return");
    }
}
