//! Lets go of hooks in libraries beside everything else: the kernel takes tenths of a second to remove one, in which a
//! worker's end would keep everybody's errors waiting, and the end of this program whoever stopped it.

use std::fs;
use std::sync::mpsc::{self, Sender};

/// A thread of its own, started for the first hook and ended with the last owner of this.
pub struct Detacher<T> {
    queue: Option<Sender<T>>,
}

impl<T> Default for Detacher<T> {
    fn default() -> Self {
        Self { queue: None }
    }
}

impl<T: Send + 'static> Detacher<T> {
    /// Drops it, soon and elsewhere.
    pub fn drop_later(&mut self, hook: T) {
        let Some(queue) = self.queue.take().or_else(start) else {
            // Without a thread it takes its time here.
            return drop(hook);
        };
        // The thread ends only when this end of the queue does.
        if queue.send(hook).is_ok() {
            self.queue = Some(queue);
        }
    }
}

fn start<T: Send + 'static>() -> Option<Sender<T>> {
    let (queue, hooks) = mpsc::channel::<T>();
    let work = move || hooks.into_iter().for_each(drop);
    std::thread::Builder::new().name("detach".into()).spawn(work).ok().map(|_| queue)
}

/// Lets go of all hooks in libraries. To be called last: nothing else is ours any more.
///
/// Links of many hooks are let go side by side, since the kernel waits for all of them at once. Single hooks it removes
/// one after the other, with a proxy of many workers for many seconds: they are left to a child that ends with them. The
/// agent, which may make no process, waits for the kernel instead; all that it had to write is written by then.
pub fn leave_hooks() {
    let (single, others) = held().into_iter().partition::<Vec<_>, _>(|(_, holds)| *holds == Holds::One);
    let (many, others): (Vec<_>, Vec<_>) = others.into_iter().partition(|(_, holds)| *holds == Holds::Many);
    close_all(&many.iter().map(|(file, _)| *file).collect::<Vec<_>>());
    if single.is_empty() {
        return;
    }
    // SAFETY: between fork and _exit the child makes system calls only, so that it does not matter what other threads
    // were doing; its copies of our files are its own to close.
    unsafe {
        if libc::fork() == 0 {
            for (file, _) in others {
                libc::close(file);
            }
            libc::setsid();
            libc::_exit(0);
        }
    }
}

/// Threads that let go of links.
const HANDS: usize = 64;

fn close_all(files: &[i32]) {
    let each = files.len().div_ceil(HANDS).max(1);
    std::thread::scope(|scope| {
        for some in files.chunks(each) {
            let close = move || {
                for file in some {
                    // SAFETY: the end of the program: whoever owned this file uses it no more.
                    unsafe { libc::close(*file) };
                }
            };
            if std::thread::Builder::new().spawn_scoped(scope, close).is_err() {
                close();
            }
        }
    });
}

/// What a file of ours keeps in the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Holds {
    /// One hook in a library: a perf event, or the link of a program to one.
    One,
    /// Hooks at many places.
    Many,
    Else,
}

/// All open files.
fn held() -> Vec<(i32, Holds)> {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return Vec::new() };
    let files: Vec<i32> = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    files.into_iter().map(|file| (file, holds(file))).collect()
}

fn holds(file: i32) -> Holds {
    let Ok(target) = fs::read_link(format!("/proc/self/fd/{file}")) else { return Holds::Else };
    match target.to_str() {
        Some("anon_inode:[perf_event]") => Holds::One,
        Some("anon_inode:bpf_link" | "anon_inode:bpf-link" | "anon_inode:[bpf_link]") => {
            link_of(&fs::read_to_string(format!("/proc/self/fdinfo/{file}")).unwrap_or_default())
        }
        _ => Holds::Else,
    }
}

/// What the kernel says about a link.
fn link_of(about: &str) -> Holds {
    let kind = about.lines().find_map(|line| line.strip_prefix("link_type:")).map(str::trim);
    match kind {
        // At the beginning of calls, and at their return (which newer kernels tell apart).
        Some(kind) if kind.ends_with("probe_multi") => Holds::Many,
        Some(kind) if kind.contains("perf") => Holds::One,
        _ => Holds::Else,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Says in which thread it is dropped.
    struct Hook(Sender<String>);

    impl Drop for Hook {
        fn drop(&mut self) {
            let _ = self.0.send(std::thread::current().name().unwrap_or_default().to_owned());
        }
    }

    #[test]
    fn a_program_without_hooks_leaves_nobody_behind() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let held = held();
        assert!(held.iter().all(|(_, holds)| *holds == Holds::Else), "{held:?}");
        assert!(held.contains(&(std::os::fd::AsRawFd::as_raw_fd(&file), Holds::Else)));
    }

    #[test]
    fn the_kernel_says_what_a_link_holds() {
        let link = |kind: &str| format!("pos:\t0\nflags:\t02\nlink_type:\t{kind}\nlink_id:\t81\n");
        let kinds = ["uprobe_multi", "uretprobe_multi", "perf", "perf_event", "tracing"];
        let holds = kinds.map(|kind| link_of(&link(kind)));
        assert_eq!(holds, [Holds::Many, Holds::Many, Holds::One, Holds::One, Holds::Else]);
    }

    #[test]
    fn hooks_are_dropped_by_the_thread_for_it() {
        let (say, said) = mpsc::channel();
        let mut detacher = Detacher::default();
        for _ in 0..3 {
            detacher.drop_later(Hook(say.clone()));
        }
        assert_eq!((0..3).map(|_| said.recv().unwrap()).collect::<Vec<_>>(), ["detach"; 3]);
    }
}
