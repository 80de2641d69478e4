//! Lets go of hooks beside the engine: the kernel takes tenths of a second to remove one, in which a worker's end
//! would keep everybody's errors waiting.

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
    fn hooks_are_dropped_by_the_thread_for_it() {
        let (say, said) = mpsc::channel();
        let mut detacher = Detacher::default();
        for _ in 0..3 {
            detacher.drop_later(Hook(say.clone()));
        }
        assert_eq!((0..3).map(|_| said.recv().unwrap()).collect::<Vec<_>>(), ["detach"; 3]);
    }
}
