//! Proxies by their cgroup: who is in one that the user named is a proxy, from its start or from when it moves there.
//!
//! A cgroup is known by its path. A service that starts again gets a new one of the same name: it is known at its making.

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use trace502_ebpf::*;

use crate::kernel::{self, GroupPtr, TaskPtr};
use crate::maps::{CGROUP_PATHS, CGROUPS, PROCS, SCRATCH_PATH, SCRATCH_THREAD};
use crate::probes::process;

/// What a process in this cgroup is because of it, 0 if nothing.
#[inline(always)]
pub fn class_in(group: GroupPtr) -> u32 {
    for slot in 0..GROUPS as u32 {
        let Some(named) = CGROUPS.get_ptr(slot) else { break };
        // SAFETY: plain numbers.
        let named = unsafe { *named };
        if named.class == 0 {
            break;
        }
        if named.id != 0 && group.ancestor(named.level).id() == named.id {
            return named.class;
        }
    }
    0
}

// void cgroup_mkdir(struct cgroup *cgrp, const char *path)
#[btf_tracepoint(function = "cgroup_mkdir")]
pub fn cgroup_made(ctx: BtfTracePointContext) -> i32 {
    const { assert!(size_of::<Thread>() >= GROUP_PATH, "there are zeros enough for a path") };
    let group = GroupPtr(ctx.arg(0));
    let (Some(path), Some(zeros)) = (SCRATCH_PATH.get_ptr_mut(0), SCRATCH_THREAD.get_ptr(0)) else { return 0 };
    // The hierarchies of version 1 have paths that look the same.
    if !group.is_kin(kernel::current_task().group()) {
        return 0;
    }
    kernel::copy(path.cast(), zeros.cast(), GROUP_PATH);
    if kernel::copy_text(path.cast(), GROUP_PATH as u32, ctx.arg(1)) <= 0 {
        return 0;
    }
    // SAFETY: scratch of this CPU, used in the context of who makes a cgroup only; a value of the map.
    let slot = unsafe { CGROUP_PATHS.get(&*path) }.copied();
    if let Some(slot) = slot
        && let Some(named) = CGROUPS.get_ptr_mut(slot)
    {
        // SAFETY: a plain number.
        unsafe { (*named).id = group.id() };
    }
    0
}

// void cgroup_attach_task(struct cgroup *dst_cgrp, const char *path, struct task_struct *task, bool threadgroup)
#[btf_tracepoint(function = "cgroup_attach_task")]
pub fn cgroup_joined(ctx: BtfTracePointContext) -> i32 {
    let (group, task) = (GroupPtr(ctx.arg(0)), TaskPtr(ctx.arg(2)));
    let tgid = task.tgid();
    // A thread that moves alone takes nobody with it.
    if tgid != task.tid() || !group.is_kin(task.group()) {
        return 0;
    }
    // SAFETY: a plain number.
    let before = unsafe { PROCS.get(&tgid) }.copied().unwrap_or(0);
    let class = class_in(group);
    if class != 0 && before & PROC_PROXY == 0 {
        process::became(task, before & !PROC_FOUND | class);
    } else if class == 0 && before & PROC_CGROUP != 0 {
        process::became(task, before & (PROC_OWNER | PROC_LISTENS));
    }
    0
}
