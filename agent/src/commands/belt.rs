//! Between the thread that watches and the one that prints: incidents by the batch, so many at most.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use crate::model::Notice;

/// What one look at the ring came to: incidents and nothing else.
pub type Batch = Vec<Notice>;

/// From the watch to the printer, as many at a time as a look at the ring brought: a thread that is woken for each
/// costs more than the error.
pub fn belt(most: usize) -> (Belt, Waiting) {
    let (send, receive) = channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    (Belt { send, waiting: waiting.clone(), most }, Waiting { receive, waiting })
}

pub struct Belt {
    send: Sender<Batch>,
    waiting: Arc<AtomicUsize>,
    most: usize,
}

/// The end where they are taken from.
pub struct Waiting {
    receive: Receiver<Batch>,
    waiting: Arc<AtomicUsize>,
}

impl Belt {
    /// Returns how many did not fit; `None`: nobody takes any more.
    pub fn put(&self, mut incidents: Batch) -> Option<usize> {
        let room = self.most.saturating_sub(self.waiting.load(Ordering::Relaxed));
        let over = incidents.len().saturating_sub(room);
        incidents.truncate(room);
        if incidents.is_empty() {
            // Each empty batch would wait, too, for as long as nobody takes any.
            return Some(over);
        }
        self.waiting.fetch_add(incidents.len(), Ordering::Relaxed);
        self.send.send(incidents).ok().map(|()| over)
    }
}

impl Waiting {
    pub fn next(&self, wait: Duration) -> Result<Batch, RecvTimeoutError> {
        let incidents = self.receive.recv_timeout(wait)?;
        self.waiting.fetch_sub(incidents.len(), Ordering::Relaxed);
        Ok(incidents)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::correlate::fixture::World;

    #[test]
    fn what_does_not_fit_is_counted_and_what_was_taken_makes_room() {
        let mut world = World::new("nginx");
        let attempt = world.refused();
        world.tell(attempt).pass(80_000).answered(502);
        let incident = Notice::Incident(Box::new(world.incident()));
        let (to, from) = belt(3);
        assert_eq!(to.put(vec![incident.clone(); 2]), Some(0));
        assert_eq!(to.put(vec![incident.clone(); 2]), Some(1));
        assert_eq!(to.put(vec![incident.clone(); 2]), Some(2), "and leaves nothing behind");
        assert_eq!(from.next(Duration::ZERO).map(|batch| batch.len()), Ok(2));
        assert_eq!(to.put(vec![incident.clone(); 2]), Some(0));
        assert_eq!(from.next(Duration::ZERO).map(|batch| batch.len()), Ok(1));
        drop(from);
        assert_eq!(to.put(vec![incident]), None, "nobody takes any more");
    }
}
