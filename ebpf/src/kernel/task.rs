//! What a task says of itself.

use super::*;

/// A task that a hook was given.
#[derive(Clone, Copy)]
pub struct TaskPtr(pub Ptr);

impl TaskPtr {
    #[inline(always)]
    pub fn tgid(self) -> u32 {
        read_or_zero(self.0, offset!(task_tgid))
    }

    #[inline(always)]
    pub fn tid(self) -> u32 {
        read_or_zero(self.0, offset!(task_pid))
    }

    #[inline(always)]
    pub fn comm(self) -> [u8; trace502_ebpf::COMM] {
        read_or_zero(self.0, offset!(task_comm))
    }

    #[inline(always)]
    pub fn parent(self) -> u32 {
        let parent: u64 = read_or_zero(self.0, offset!(task_parent));
        if parent == 0 { 0 } else { TaskPtr(parent as Ptr).tgid() }
    }

    /// Its group in the hierarchy of version 2; null where this kernel does not let it be read.
    #[inline(always)]
    pub fn group(self) -> GroupPtr {
        let (sets, group) = (offset!(task_cgroups), offset!(css_set_group));
        if sets == MISSING || group == MISSING {
            return GroupPtr(0);
        }
        let set: u64 = read_or_zero(self.0, sets);
        GroupPtr(if set == 0 { 0 } else { read_or_zero(set as Ptr, group) })
    }

    /// Its cgroup v2 id, as the current task's helper would say it; 0 where this kernel does not let it be read.
    #[inline(always)]
    pub fn cgroup(self) -> u64 {
        self.group().id()
    }

    /// The wait status of the whole process once it goes.
    #[inline(always)]
    pub fn exit_code(self) -> u32 {
        let signal: u64 = read_or_zero(self.0, offset!(task_signal));
        let group: u32 = if signal == 0 { 0 } else { read_or_zero(signal as Ptr, offset!(signal_group_exit_code)) };
        if group != 0 { group } else { read_or_zero(self.0, offset!(task_exit_code)) }
    }

    /// Threads of the process that are still alive.
    #[inline(always)]
    pub fn live_threads(self) -> i32 {
        let signal: u64 = read_or_zero(self.0, offset!(task_signal));
        if signal == 0 { 0 } else { read_or_zero(signal as Ptr, offset!(signal_live)) }
    }

    /// Resident pages: file, anonymous and shared memory.
    #[inline(always)]
    pub fn resident_pages(self) -> u64 {
        let stride = constant!(SETTINGS.rss_stride) as usize;
        let mm: u64 = read_or_zero(self.0, offset!(task_mm));
        if stride == 0 || mm == 0 {
            return 0;
        }
        let base = (mm as Ptr).wrapping_add(offset!(mm_rss));
        let file: i64 = read_or_zero(base, 0);
        let anon: i64 = read_or_zero(base, stride);
        // The third counts swap entries, the fourth shared memory.
        let shared: i64 = read_or_zero(base, 3 * stride);
        (file.max(0) + anon.max(0) + shared.max(0)) as u64
    }
}

/// The open files of the current process.
pub struct Descriptors {
    slots: u64,
    /// One past the highest number that there is room for.
    pub room: u32,
}

impl Descriptors {
    #[inline(always)]
    pub fn of_current() -> Descriptors {
        let files: u64 = read_or_zero(current_task().0, offset!(task_files));
        let table: u64 = read_or_zero(files as Ptr, offset!(files_fdt));
        let slots = read_or_zero(table as Ptr, offset!(fdt_fd));
        Descriptors { slots, room: read_or_zero(table as Ptr, offset!(fdt_max)) }
    }

    /// Port and network namespace of the TCP socket that listens under this number; `None` for everything else.
    #[inline(always)]
    pub fn listening(&self, number: u32) -> Option<(u16, u32)> {
        let file: u64 = read_or_zero(self.slots as Ptr, number as usize * 8);
        if file == 0 {
            return None;
        }
        let socket: u64 = read_or_zero(file as Ptr, offset!(file_private));
        // What a file keeps there is anything, but only a socket knows its file.
        if socket == 0 || read_or_zero::<u64>(socket as Ptr, offset!(socket_file)) != file {
            return None;
        }
        let sk = read_or_zero::<u64>(socket as Ptr, offset!(socket_sk)) as Ptr;
        let family: u16 = read_or_zero(sk, offset!(sk_family));
        let listens = state_at(sk as u64) == TCP_LISTEN && matches!(family, AF_INET | AF_INET6);
        listens.then(|| (read_or_zero(sk, offset!(sk_num)), netns(sk)))
    }
}

/// A cgroup.
#[derive(Clone, Copy)]
pub struct GroupPtr(pub u64);

impl GroupPtr {
    #[inline(always)]
    pub fn id(self) -> u64 {
        let (node, id) = (offset!(group_node), offset!(node_id));
        if self.0 == 0 || node == MISSING || id == MISSING {
            return 0;
        }
        let node: u64 = read_or_zero(self.0 as Ptr, node);
        if node == 0 { 0 } else { read_or_zero(node as Ptr, id) }
    }

    /// The group on its way to the root that is this far below it, itself included.
    #[inline(always)]
    pub fn ancestor(self, level: u32) -> GroupPtr {
        let own: u32 = read_or_zero(self.0 as Ptr, offset!(group_level));
        if self.0 == 0 || level > own {
            return GroupPtr(0);
        }
        let all = (self.0 as Ptr).wrapping_add(offset!(group_ancestors));
        GroupPtr(read_or_zero(all, level as usize * size_of::<u64>()))
    }

    /// Whether both are of one hierarchy.
    #[inline(always)]
    pub fn is_kin(self, other: GroupPtr) -> bool {
        let root = |group: GroupPtr| -> u64 { read_or_zero(group.0 as Ptr, offset!(group_root)) };
        self.0 != 0 && other.0 != 0 && root(self) == root(other)
    }
}

#[inline(always)]
pub fn current_task() -> TaskPtr {
    // SAFETY: no arguments.
    TaskPtr(unsafe { bpf_get_current_task_btf() } as Ptr)
}

#[inline(always)]
pub fn signal_code(info: u64) -> i32 {
    // 0, 1 and 2 are no pointers: SEND_SIG_NOINFO, SEND_SIG_PRIV and their like.
    match info {
        0 => 0,
        1 | 2 => 0x80,
        _ => read_or_zero(info as Ptr, offset!(siginfo_code)),
    }
}

/// How often the current task went to sleep by itself: the same figure means that it has not waited for anything since.
#[inline(always)]
pub fn sleeps() -> u32 {
    let at = offset!(task_nvcsw);
    if at == MISSING {
        return 0;
    }
    // SAFETY: no arguments.
    let task = unsafe { bpf_get_current_task_btf() } as Ptr;
    read_or_zero::<u64>(task, at) as u32
}

/// Network namespace of the current task.
#[inline(always)]
pub fn current_netns() -> u32 {
    // SAFETY: no arguments.
    let task = unsafe { bpf_get_current_task_btf() } as Ptr;
    let proxy: u64 = read_or_zero(task, offset!(task_nsproxy));
    if proxy == 0 { 0 } else { inode_of(read_or_zero(proxy as Ptr, offset!(nsproxy_net))) }
}
