//! Which errors a function of BoringSSL puts, read from its machine code:
//! `ERR_put_error(int library, int unused, int reason, const char *file, unsigned line)`.

use iced_x86::{Code, Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};

/// Bytes of a function that are looked at: those that are wanted have a few hundred.
pub const LONGEST: u64 = 8192;

/// `ERR_LIB_SSL`.
const LIBRARY: u64 = 16;

/// What one function puts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Puts {
    /// Where it begins.
    pub at: u64,
    pub errors: Vec<u32>,
    /// The function that takes the errors.
    pub through: u64,
    /// Whatever else it calls.
    pub calls: Vec<u64>,
    /// It saves a register first, as only the beginning of a function does: a return can be hooked there.
    pub saves: bool,
}

/// What is in the registers that carry the arguments.
#[derive(Default)]
struct Arguments {
    library: Option<u64>,
    reason: Option<u64>,
    /// The path of the source file is in its place.
    file: bool,
}

/// `None` for what puts no error with this source file, or is not understood.
pub fn puts(code: &[u8], at: u64, is_file: &dyn Fn(u64) -> bool) -> Option<Puts> {
    let mut found = Puts { at, errors: Vec::new(), through: 0, calls: Vec::new(), saves: saves(code) };
    let mut arguments = Arguments::default();
    for instruction in Decoder::with_ip(64, code, at, DecoderOptions::NONE) {
        if instruction.is_invalid() {
            // Only behind the last one, where others begin that are not ours.
            break;
        }
        match instruction.mnemonic() {
            Mnemonic::Call | Mnemonic::Jmp => {
                let near = (instruction.code() == Code::Call_rel32_64).then(|| instruction.near_branch_target());
                let given = std::mem::take(&mut arguments);
                if given.file && given.library == Some(LIBRARY) {
                    found.errors.push(given.reason? as u32);
                    match near {
                        Some(through) if found.through == 0 || found.through == through => found.through = through,
                        Some(_) => return None,
                        // Several share one call.
                        None => {}
                    }
                } else if let Some(near) = near {
                    found.calls.push(near);
                }
            }
            _ => arguments.loaded(&instruction, is_file),
        }
    }
    (found.through != 0).then_some(found)
}

/// push, behind endbr64 or not.
fn saves(code: &[u8]) -> bool {
    let code = code.strip_prefix(&[0xf3, 0x0f, 0x1e, 0xfa]).unwrap_or(code);
    matches!(code, [0x50..=0x57, ..] | [0x41, 0x50..=0x57, ..])
}

impl Arguments {
    fn loaded(&mut self, instruction: &Instruction, is_file: &dyn Fn(u64) -> bool) {
        if instruction.op_count() == 0 || instruction.op0_kind() != OpKind::Register {
            return;
        }
        let number = (instruction.code() == Code::Mov_r32_imm32).then(|| instruction.immediate(1));
        match instruction.op0_register() {
            Register::EDI | Register::RDI => self.library = number,
            Register::EDX | Register::RDX => self.reason = number,
            Register::ECX | Register::RCX => {
                self.file = instruction.is_ip_rel_memory_operand() && is_file(instruction.ip_rel_memory_address());
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From Envoy 1.40: the end of SSL_write, put together: two errors, of which the second jumps to the first's call.
    const CODE: &[u8] = &[
        0x55, // push %rbp
        0xe8, 0x00, 0x10, 0x00, 0x00, // call 0x2006
        0x48, 0x8d, 0x0d, 0xf3, 0x2f, 0x00, 0x00, // lea 0x4000(%rip), %rcx
        0xbf, 0x10, 0x00, 0x00, 0x00, // mov $16, %edi
        0x31, 0xf6, // xor %esi, %esi
        0xba, 0x42, 0x00, 0x00, 0x00, // mov $66, %edx
        0x41, 0xb8, 0xc2, 0x03, 0x00, 0x00, // mov $962, %r8d
        0xe8, 0xdc, 0x1f, 0x00, 0x00, // call 0x3000
        0xb8, 0xff, 0xff, 0xff, 0xff, // mov $-1, %eax
        0x5d, 0xc3, // pop %rbp; ret
        0x48, 0x8d, 0x0d, 0xce, 0x2f, 0x00, 0x00, // lea 0x4000(%rip), %rcx
        0xbf, 0x10, 0x00, 0x00, 0x00, // mov $16, %edi
        0x31, 0xf6, // xor %esi, %esi
        0xba, 0xe2, 0x00, 0x00, 0x00, // mov $226, %edx
        0x41, 0xb8, 0xc7, 0x03, 0x00, 0x00, // mov $967, %r8d
        0xeb, 0xd9, // jmp to the call
        0xcc,
    ];
    const AT: u64 = 0x1000;
    const FILE: u64 = 0x4000;

    #[test]
    fn errors_are_read_whether_they_have_a_call_of_their_own_or_not() {
        let found = puts(CODE, AT, &|at| at == FILE).unwrap();
        assert_eq!(found, Puts { at: AT, errors: vec![66, 226], through: 0x3000, calls: vec![0x2006], saves: true });
    }

    #[test]
    fn errors_of_other_files_and_libraries_are_not_ours() {
        assert_eq!(puts(CODE, AT, &|at| at == FILE + 1), None);
        let mut other = CODE.to_vec();
        let library = other.iter().position(|byte| *byte == 0xbf).unwrap() + 1;
        other[library] = 0x14;
        let found = puts(&other, AT, &|at| at == FILE);
        assert_eq!(found, None, "one call is left that takes an error, and that is the first's");
    }

    #[test]
    fn an_error_whose_number_is_not_known_makes_the_function_unknown() {
        let mut other = CODE.to_vec();
        let reason = other.iter().rposition(|byte| *byte == 0xba).unwrap();
        // mov %ebx, %edx; nop
        other[reason..reason + 5].copy_from_slice(&[0x89, 0xda, 0x0f, 0x1f, 0x00]);
        assert_eq!(puts(&other, AT, &|at| at == FILE), None);
    }
}
