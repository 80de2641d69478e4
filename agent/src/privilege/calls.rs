//! System calls that an agent at work never makes, refused by the kernel from then on.
//!
//! A list of what is refused, not of what is allowed: a C library or an allocator that learns a new call must not
//! break an agent in the night. What a break-in would want is on the list: start a program, look into or signal
//! another process, mount, load code into the kernel, change identity, open other kinds of sockets.

use std::collections::BTreeMap;

use libc::*;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter,
};

/// Refused whatever the arguments are.
const REFUSED: &[c_long] = &[
    SYS_execve,
    SYS_execveat,
    SYS_ptrace,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    SYS_pidfd_getfd,
    SYS_pidfd_send_signal,
    SYS_kill,
    SYS_tkill,
    SYS_rt_sigqueueinfo,
    SYS_rt_tgsigqueueinfo,
    SYS_mount,
    SYS_umount2,
    SYS_pivot_root,
    SYS_chroot,
    SYS_open_tree,
    SYS_move_mount,
    SYS_fsopen,
    SYS_fsconfig,
    SYS_fsmount,
    SYS_fspick,
    SYS_mount_setattr,
    SYS_unshare,
    SYS_open_by_handle_at,
    SYS_init_module,
    SYS_finit_module,
    SYS_delete_module,
    SYS_kexec_load,
    SYS_reboot,
    SYS_swapon,
    SYS_swapoff,
    SYS_acct,
    SYS_quotactl,
    SYS_sethostname,
    SYS_setdomainname,
    SYS_settimeofday,
    SYS_clock_settime,
    SYS_adjtimex,
    SYS_clock_adjtime,
    SYS_add_key,
    SYS_request_key,
    SYS_keyctl,
    SYS_userfaultfd,
    SYS_io_uring_setup,
    SYS_io_uring_enter,
    SYS_io_uring_register,
    SYS_setuid,
    SYS_setgid,
    SYS_setreuid,
    SYS_setregid,
    SYS_setresuid,
    SYS_setresgid,
    SYS_setgroups,
    SYS_setfsuid,
    SYS_setfsgid,
    SYS_mknodat,
    SYS_personality,
    SYS_vhangup,
    SYS_syslog,
    #[cfg(target_arch = "x86_64")]
    SYS_fork,
    #[cfg(target_arch = "x86_64")]
    SYS_vfork,
    #[cfg(target_arch = "x86_64")]
    SYS_mknod,
    #[cfg(target_arch = "x86_64")]
    SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    SYS_modify_ldt,
    #[cfg(target_arch = "x86_64")]
    SYS_kexec_file_load,
];

/// Commands of bpf(2) that make something new. Maps are read and probes attached to libraries as before.
const BPF_MAKES: [u64; 4] = [
    0,  // BPF_MAP_CREATE
    5,  // BPF_PROG_LOAD
    18, // BPF_BTF_LOAD
    36, // BPF_TOKEN_CREATE
];

/// Sockets that an agent has use for.
const FAMILIES: [c_int; 4] = [AF_UNIX, AF_INET, AF_INET6, AF_NETLINK];

/// From here on this thread, and those it starts, are confined. Says why not, if they are not.
pub fn confine() -> Result<(), String> {
    // clone3 hides its flags in memory. "No such call" makes the C library use clone, whose flags can be seen.
    let hidden = BTreeMap::from([(SYS_clone3, vec![])]);
    apply(hidden, ENOSYS)?;
    apply(refused()?, EPERM)
}

fn apply(rules: BTreeMap<c_long, Vec<SeccompRule>>, errno: c_int) -> Result<(), String> {
    let arch = std::env::consts::ARCH.try_into().map_err(|_| "not known for this machine".to_owned())?;
    let refuse = SeccompAction::Errno(errno.unsigned_abs());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch).map_err(|e| e.to_string())?;
    let program: BpfProgram = filter.try_into().map_err(|e: seccompiler::BackendError| e.to_string())?;
    apply_filter(&program).map_err(|e| format!("the kernel refused the filter: {e}"))
}

fn refused() -> Result<BTreeMap<c_long, Vec<SeccompRule>>, String> {
    let mut rules: BTreeMap<c_long, Vec<SeccompRule>> = REFUSED.iter().map(|call| (*call, vec![])).collect();
    let when = |conditions: &[(u8, Op, u64)]| {
        let conditions: Result<Vec<_>, _> = conditions
            .iter()
            .map(|(arg, op, value)| SeccompCondition::new(*arg, Len::Qword, op.clone(), *value))
            .collect();
        conditions.and_then(SeccompRule::new).map_err(|e| e.to_string())
    };
    let number = |n: c_int| n as u64;
    // A process of its own, not a thread.
    let thread = number(CLONE_THREAD);
    rules.insert(SYS_clone, vec![when(&[(0, Op::MaskedEq(thread), 0)])?]);
    // Into network namespaces only.
    rules.insert(SYS_setns, vec![when(&[(1, Op::Ne, number(CLONE_NEWNET))])?]);
    // Signals to itself are how a program aborts.
    rules.insert(SYS_tgkill, vec![when(&[(0, Op::Ne, u64::from(std::process::id()))])?]);
    let families: Vec<(u8, Op, u64)> = FAMILIES.iter().map(|family| (0, Op::Ne, number(*family))).collect();
    rules.insert(SYS_socket, vec![when(&families)?]);
    let makes: Result<Vec<_>, String> = BPF_MAKES.iter().map(|command| when(&[(0, Op::Eq, *command)])).collect();
    rules.insert(SYS_bpf, makes?);
    // Memory that is written and run.
    let both = number(PROT_WRITE | PROT_EXEC);
    for call in [SYS_mmap, SYS_mprotect, SYS_pkey_mprotect] {
        rules.insert(call, vec![when(&[(2, Op::MaskedEq(both), both)])?]);
    }
    Ok(rules)
}
