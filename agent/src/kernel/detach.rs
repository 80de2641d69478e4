//! Lets go of hooks in libraries beside everything else: the kernel takes tenths of a second to remove one, in which a
//! worker's end would keep everybody's errors waiting, and the end of this program whoever stopped it.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Mutex, MutexGuard, PoisonError};

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

/// Links of many hooks that are held, whoever holds them: at the end they are let go side by side.
static LINKS: Mutex<BTreeMap<u64, OwnedFd>> = Mutex::new(BTreeMap::new());
static LINKS_MADE: AtomicU64 = AtomicU64::new(0);

/// One of them, let go when it is dropped.
#[derive(Debug)]
pub struct Held(u64);

impl Held {
    pub fn new(link: OwnedFd) -> Held {
        let number = LINKS_MADE.fetch_add(1, Ordering::Relaxed);
        links().insert(number, link);
        Held(number)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // The kernel takes its time for that: not while others wait for the table.
        let link = links().remove(&self.0);
        drop(link);
    }
}

fn links() -> MutexGuard<'static, BTreeMap<u64, OwnedFd>> {
    LINKS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets go of all hooks in libraries. To be called last: nothing else is ours any more.
///
/// For links of many hooks the kernel waits once, if they are let go side by side. Single hooks it removes one after the
/// other, with a proxy of many workers for many seconds: they are left to a child that ends with them. The agent, which
/// may make no process, waits for the kernel instead; all that it had to write is written by then.
pub fn leave_hooks() {
    let links = std::mem::take(&mut *links());
    side_by_side(links.into_values().collect());
    leave_single_hooks();
}

/// Threads that let go of links.
const HANDS: usize = 64;

/// Drops all of them.
fn side_by_side<T: Send>(all: Vec<T>) {
    let all = Mutex::new(all);
    let next = || all.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let let_go = || {
        while let Some(one) = next() {
            drop(one)
        }
    };
    let hands = all.lock().unwrap_or_else(PoisonError::into_inner).len().min(HANDS);
    std::thread::scope(|scope| {
        for _ in 1..hands {
            if std::thread::Builder::new().spawn_scoped(scope, let_go).is_err() {
                break;
            }
        }
        let_go();
    });
}

fn leave_single_hooks() {
    let (hooks, others) = open_files();
    if hooks == 0 {
        return;
    }
    // SAFETY: between fork and _exit the child makes system calls only, so that it does not matter what other threads
    // were doing; its copies of our files are its own to close.
    unsafe {
        if libc::fork() == 0 {
            for file in &others {
                libc::close(*file);
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

    #[test]
    fn links_are_let_go_with_their_holder_or_at_the_end_whichever_comes_first() {
        let file = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let (early, late) = (Held::new(file()), Held::new(file()));
        let number = early.0;
        drop(early);
        assert!(!links().contains_key(&number));
        leave_hooks();
        assert!(links().is_empty());
        drop(late);
    }

    #[test]
    fn what_waits_for_the_others_is_let_go_beside_them() {
        /// Goes only while all the others go, too.
        struct Together(std::sync::Arc<std::sync::Barrier>);
        impl Drop for Together {
            fn drop(&mut self) {
                self.0.wait();
            }
        }
        let barrier = std::sync::Arc::new(std::sync::Barrier::new(HANDS));
        side_by_side((0..HANDS).map(|_| Together(barrier.clone())).collect());
    }
}
