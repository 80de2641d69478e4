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

/// Leaves the hooks in libraries to a child that ends with them: with a proxy of many workers the kernel needs many
/// seconds for all of them, one after the other. To be called last: nothing else is ours any more. The agent, which may
/// make no process, waits for the kernel instead; all that it had to write is written by then.
pub fn leave_hooks() {
    let (hooks, others) = open_files();
    if hooks == 0 {
        return;
    }
    // SAFETY: between fork and _exit the child makes system calls only, so that it does not matter what other threads
    // were doing; its copies of our files are its own to close.
    unsafe {
        if libc::fork() == 0 {
            for file in others {
                libc::close(file);
            }
            libc::setsid();
            libc::_exit(0);
        }
    }
}

/// How many files hold a hook in a library, and all files that do not.
fn open_files() -> (usize, Vec<i32>) {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return (0, Vec::new()) };
    let all: Vec<i32> = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    let (hooks, others): (Vec<i32>, Vec<i32>) = all.into_iter().partition(|file| holds_hook(*file));
    (hooks.len(), others)
}

/// A perf event, or the link of a program to one.
fn holds_hook(file: i32) -> bool {
    let Ok(target) = fs::read_link(format!("/proc/self/fd/{file}")) else { return false };
    match target.to_str() {
        Some("anon_inode:[perf_event]") => true,
        Some("anon_inode:bpf_link" | "anon_inode:bpf-link") => {
            let about = fs::read_to_string(format!("/proc/self/fdinfo/{file}")).unwrap_or_default();
            about.lines().any(|line| line.starts_with("link_type:") && line.contains("perf"))
        }
        _ => false,
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
        let (hooks, others) = open_files();
        assert_eq!(hooks, 0);
        assert!(others.contains(&std::os::fd::AsRawFd::as_raw_fd(&file)));
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
