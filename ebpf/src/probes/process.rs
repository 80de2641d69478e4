//! Processes that matter: proxies, and whoever listens for them. Who starts, who dies, who killed whom.

use aya_ebpf::bindings::BPF_ANY;
use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use trace502_ebpf::*;

use crate::emit;
use crate::kernel::{self, TaskPtr};
use crate::maps::{NAMES, OWNER_NAMES, PROCS, THREADS, constant};
use crate::probes::{cgroup, listen};

const SIGHUP: i32 = 1;
const SIGQUIT: i32 = 3;
const SIGABRT: i32 = 6;
const SIGKILL: i32 = 9;
const SIGTERM: i32 = 15;
const SIGINT: i32 = 2;
const SIGSTOP: i32 = 19;

#[inline(always)]
fn class_of(tgid: u32) -> u32 {
    // SAFETY: a plain number.
    unsafe { PROCS.get(&tgid) }.copied().unwrap_or(0)
}

#[inline(always)]
fn remember(tgid: u32, class: u32) {
    if PROCS.insert(&tgid, &class, BPF_ANY.into()).is_err() {
        emit::full(Table::Processes);
    }
}

struct About {
    tgid: u32,
    other: u32,
    comm: [u8; COMM],
    cgroup: u64,
    code: u32,
    class: u32,
    rss_pages: u64,
    si_code: i32,
}

#[inline(always)]
fn tell(kind: Kind, about: About) {
    emit::record::<TaskRecord>(kind, |record| {
        // SAFETY: reserved room of that size.
        let record = unsafe { &mut *record };
        record.header = emit::header(kind as u16, IN_TASK, size_of::<TaskRecord>());
        record.tgid = about.tgid;
        record.other = about.other;
        record.comm = about.comm;
        emit::comm(&mut record.other_comm);
        record.cgroup = about.cgroup;
        record.code = about.code;
        record.class = about.class;
        record.rss_pages = about.rss_pages;
        record.si_code = about.si_code;
        record._pad = 0;
    });
}

// void sched_process_exec(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)
#[btf_tracepoint(function = "sched_process_exec")]
pub fn executed(ctx: BtfTracePointContext) -> i32 {
    let task = TaskPtr(ctx.arg(0));
    let (tgid, _) = emit::current();
    let mut comm = [0; COMM];
    emit::comm(&mut comm);
    // SAFETY: plain numbers.
    let (named, owner) = unsafe { (NAMES.get(&comm).copied(), OWNER_NAMES.get(&comm).is_some()) };
    let class = match (named, cgroup::class_in(kernel::current_task().group()), owner) {
        (Some(class), ..) => class,
        (None, class @ 1.., _) => class,
        (None, 0, true) => PROC_OWNER,
        (None, 0, false) => 0,
    };
    let class = class | listen::brought(class);
    if class != 0 {
        remember(tgid, class);
    } else {
        // One of ours may have become something else: of a proxy, whoever keeps to it has to know.
        let before = class_of(tgid);
        let _ = PROCS.remove(&tgid);
        if before & PROC_PROXY == 0 {
            return 0;
        }
    }
    let (other, cgroup) = (task.parent(), emit::cgroup());
    tell(Kind::Exec, About { tgid, other, comm, cgroup, code: 0, class, rss_pages: 0, si_code: 0 });
    0
}

// void sched_process_fork(struct task_struct *parent, struct task_struct *child)
#[btf_tracepoint(function = "sched_process_fork")]
pub fn forked(ctx: BtfTracePointContext) -> i32 {
    let (tgid, _) = emit::current();
    let child = TaskPtr(ctx.arg(1));
    let pid = child.tgid();
    // A new thread is no new process.
    if pid == tgid {
        return 0;
    }
    let class = inherited(class_of(tgid), child);
    if class == 0 {
        return 0;
    }
    remember(pid, class);
    // Where its parent is, unless it was born elsewhere; it is not there yet when the hook runs.
    let (comm, cgroup) = (child.comm(), emit::cgroup());
    tell(Kind::Fork, About { tgid: pid, other: tgid, comm, cgroup, code: 0, class, rss_pages: 0, si_code: 0 });
    0
}

/// What a child is that its parent is: unless it is born into a cgroup that makes it something else.
#[inline(always)]
fn inherited(class: u32, child: TaskPtr) -> u32 {
    let there = cgroup::class_in(child.group());
    if class & PROC_PROXY != 0 && (class & PROC_CGROUP == 0 || there != 0) {
        return class;
    }
    class & (PROC_OWNER | PROC_LISTENS) | there
}

/// A running process is from now on what it was not, or is no more.
#[inline(never)]
pub fn became(task: TaskPtr, class: u32) -> i32 {
    let tgid = task.tgid();
    remember(tgid, class);
    let (comm, cgroup) = (task.comm(), task.cgroup());
    tell(Kind::Became, About { tgid, other: task.parent(), comm, cgroup, code: 0, class, rss_pages: 0, si_code: 0 });
    0
}

// void sched_process_exit(struct task_struct *p)
// Since 6.17 with (…, bool group_dead).
#[btf_tracepoint(function = "sched_process_exit")]
pub fn exited(ctx: BtfTracePointContext) -> i32 {
    let (tgid, tid) = emit::current();
    // Whatever its process is by now: threads that end at once must not find it forgotten by the first.
    // Most are nobody's: to look for an entry costs a fraction of what it costs to take one out.
    if THREADS.get_ptr(&tid).is_some() {
        let _ = THREADS.remove(&tid);
    }
    let class = class_of(tgid);
    if class == 0 {
        return 0;
    }
    let task = TaskPtr(ctx.arg(0));
    // The last thread to go takes the process with it.
    if task.live_threads() > 0 {
        return 0;
    }
    let _ = PROCS.remove(&tgid);
    tell(
        Kind::Exit,
        About {
            tgid,
            other: task.parent(),
            comm: task.comm(),
            cgroup: emit::cgroup(),
            code: task.exit_code(),
            class,
            rss_pages: 0,
            si_code: 0,
        },
    );
    0
}

// void signal_generate(int sig, struct kernel_siginfo *info, struct task_struct *task, int group, int result)
#[btf_tracepoint(function = "signal_generate")]
pub fn signalled(ctx: BtfTracePointContext) -> i32 {
    let signal: i32 = ctx.arg(0);
    let result: i32 = ctx.arg(4);
    // TRACE_SIGNAL_IGNORED and TRACE_SIGNAL_OVERFLOW_FAIL: it never reaches the process.
    if result == 1 || result == 3 {
        return 0;
    }
    let fatal = matches!(signal, SIGHUP | SIGINT | SIGQUIT | SIGABRT | SIGKILL | SIGTERM | SIGSTOP)
        // SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV, SIGSYS
        || matches!(signal, 4 | 5 | 7 | 8 | 11 | 31);
    if !fatal {
        return 0;
    }
    let target = TaskPtr(ctx.arg(2));
    let tgid = target.tgid();
    let class = class_of(tgid);
    if class == 0 {
        return 0;
    }
    let (sender, _) = emit::current();
    tell(
        Kind::Signal,
        About {
            tgid,
            other: sender,
            comm: target.comm(),
            cgroup: target.cgroup(),
            code: signal as u32,
            class,
            rss_pages: 0,
            si_code: kernel::signal_code(ctx.arg(1)),
        },
    );
    0
}

// void mark_victim(struct task_struct *task, uid_t uid)
// Before 6.9: (int pid).
#[btf_tracepoint(function = "mark_victim")]
pub fn chosen(ctx: BtfTracePointContext) -> i32 {
    let about = if constant!(SETTINGS.victim_task) != 0 {
        let task = TaskPtr(ctx.arg(0));
        let tgid = task.tgid();
        About {
            tgid,
            other: 0,
            comm: task.comm(),
            cgroup: task.cgroup(),
            code: 0,
            class: class_of(tgid),
            rss_pages: task.resident_pages(),
            si_code: 0,
        }
    } else {
        let tgid: i32 = ctx.arg(0);
        let tgid = tgid as u32;
        About { tgid, other: 0, comm: [0; COMM], cgroup: 0, code: 0, class: class_of(tgid), rss_pages: 0, si_code: 0 }
    };
    tell(Kind::Oom, about);
    0
}
