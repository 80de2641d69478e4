//! What stands around an attempt: where its target lives, who listens there, and what else the host is asked.

use std::sync::Arc;

use super::Case;
use crate::correlate::Counted;
use crate::host::{self, Activity, ListenerFacts, Listeners, MemoryFacts, PathFacts, ProcessFacts};
use crate::model::{Endpoint, ListenerSeen};
use crate::text;

/// The listener that an attempt was meant for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerView {
    pub endpoint: Endpoint,
    pub pid: Option<u32>,
    pub queue: u32,
    pub limit: u32,
    /// The figures are of the moment of the failure, or of shortly before or after it.
    pub then: bool,
    /// They are the kernel's own of that very moment.
    pub exact: bool,
    /// Others listen on the same address and have room: the connection may have been meant for one of them.
    pub shared: bool,
    /// It is known to have listened when the attempt began.
    pub before: bool,
}

impl ListenerView {
    /// The kernel takes one more than the limit before it is full.
    pub fn full(&self) -> bool {
        self.queue > self.limit
    }
}

/// Of the sockets that share an address, the one that speaks for them: if one overflowed, it is the fullest. `known`
/// listens there, too.
fn of_those<'a>(
    first: &'a ListenerFacts,
    others: impl Iterator<Item = &'a ListenerFacts>,
    known: Option<u32>,
) -> ListenerView {
    let full = |l: &ListenerFacts| l.queue > l.limit;
    let (mut fullest, mut all_full, mut one_owner, mut alone) = (first, full(first), true, true);
    for other in others {
        alone = false;
        all_full &= full(other);
        one_owner &= other.pid == first.pid;
        if i64::from(other.queue) - i64::from(other.limit) > i64::from(fullest.queue) - i64::from(fullest.limit) {
            fullest = other;
        }
    }
    let pid = match alone {
        true => known.or(first.pid),
        false => fullest.pid.filter(|_| one_owner || full(fullest)),
    };
    let (endpoint, queue, limit) = (first.endpoint.clone(), fullest.queue, fullest.limit);
    ListenerView { endpoint, pid, queue, limit, then: true, exact: false, shared: !alone && !all_full, before: false }
}

impl Case<'_> {
    /// The namespace of this host in which the target lives; `None`: another host, as far as is known.
    pub fn target_netns(&self) -> Option<u32> {
        let attempt = self.attempt?;
        let Endpoint::Tcp(addr) = &attempt.endpoint else { return Some(self.netns) };
        if let Some(peer) = attempt.peer.as_ref().filter(|p| p.netns != 0) {
            return Some(peer.netns);
        }
        let mut answers = self.answers.borrow_mut();
        let known = answers.netns.get_or_insert_with(|| self.host.borrow_mut().netns_of(addr.ip(), self.netns));
        // That no listener was found in the proxy's own namespace says nothing of where the target is.
        known.or_else(|| {
            let here = addr.ip().is_loopback()
                || matches!(attempt.listener, ListenerSeen::Present { .. } | ListenerSeen::Shared);
            here.then_some(self.netns)
        })
    }

    /// The target's address belongs to this host.
    pub fn is_local(&self) -> bool {
        self.target_netns().is_some()
    }

    pub fn listeners(&self) -> Listeners {
        let Some(netns) = self.target_netns() else { return Listeners::default() };
        let mut answers = self.answers.borrow_mut();
        answers.listeners.of(netns, || self.host.borrow_mut().listeners(netns)).clone()
    }

    /// The listener that takes what this attempt dialled.
    pub fn listener(&self) -> Option<ListenerView> {
        let attempt = self.attempt?;
        let netns = self.target_netns()?;
        let known = self.past.history.open(&attempt.endpoint, Some(netns));
        let began = self.began();
        match attempt.listener {
            ListenerSeen::Absent if netns == self.netns => return None,
            ListenerSeen::Present { pid, queue, limit, .. } => {
                let endpoint = known.map_or_else(|| attempt.endpoint.clone(), |l| l.endpoint.clone());
                let before = known.is_none_or(|l| l.since <= began);
                // Of very many that shared the address, it may not be known who is left.
                let pid = Some(pid).filter(|pid| *pid != 0);
                return Some(ListenerView {
                    endpoint,
                    pid,
                    queue,
                    limit,
                    then: pid.is_some(),
                    exact: pid.is_some(),
                    shared: false,
                    before,
                });
            }
            ListenerSeen::Absent | ListenerSeen::Unknown | ListenerSeen::Shared => {}
        }
        let takes = |l: &ListenerFacts| match &attempt.endpoint {
            Endpoint::Tcp(addr) => host::takes(l, *addr),
            unix => l.endpoint == *unix,
        };
        let before = known.is_some_and(|l| l.since <= began);
        // Asked about when the attempt ended.
        let all = self.listeners();
        let mut takers = all.iter().filter(|l| takes(l));
        if let Some(first) = takers.next() {
            let endpoint = first.endpoint.clone();
            let known = known.map(|l| l.pid);
            let others = takers.filter(|l| l.endpoint == first.endpoint);
            return Some(ListenerView { endpoint, before, ..of_those(first, others, known) });
        }
        if attempt.listener == ListenerSeen::Shared {
            let endpoint = attempt.endpoint.clone();
            return Some(ListenerView {
                endpoint,
                pid: None,
                queue: 0,
                limit: 0,
                then: false,
                exact: false,
                shared: true,
                before,
            });
        }
        // What it had when it began to listen says nothing of later.
        let known = known?;
        let endpoint = known.endpoint.clone();
        let (pid, limit) = (Some(known.pid), known.limit);
        Some(ListenerView { endpoint, pid, queue: 0, limit, then: false, exact: false, shared: false, before })
    }

    /// The process that serves (or served) this upstream.
    pub fn server(&self) -> Option<u32> {
        let holder = self.peer().and_then(|p| p.read_by.or(p.closed_by)).filter(|pid| *pid != self.owner.pid);
        holder.or_else(|| self.listener().and_then(|l| l.pid))
    }

    pub fn process(&self, pid: u32) -> Option<Arc<ProcessFacts>> {
        let mut answers = self.answers.borrow_mut();
        answers.process.of(pid, || self.host.borrow_mut().process(pid)).clone()
    }

    pub fn siblings(&self, like: &ProcessFacts) -> Vec<ProcessFacts> {
        let mut answers = self.answers.borrow_mut();
        answers.siblings.of(like.pid, || self.host.borrow_mut().siblings(like)).clone()
    }

    pub fn activity(&self, pid: u32) -> Option<Activity> {
        let mut answers = self.answers.borrow_mut();
        answers.activity.of(pid, || self.host.borrow_mut().activity(pid)).clone()
    }

    pub fn memory(&self, pid: u32) -> Option<MemoryFacts> {
        let mut answers = self.answers.borrow_mut();
        answers.memory.of(pid, || self.host.borrow_mut().memory(pid)).clone()
    }

    /// As they were when the error came; asked now they would be those of another moment.
    pub fn descriptors(&self, pid: u32) -> Option<Counted> {
        self.answers.borrow().descriptors.get(pid).copied().flatten()
    }

    /// The unix socket's path as the proxy sees it.
    pub fn path(&self) -> Option<PathFacts> {
        let Some(Endpoint::Unix(path)) = self.endpoint() else { return None };
        let mut answers = self.answers.borrow_mut();
        let pid = self.owner.pid;
        Some(answers.path.get_or_insert_with(|| self.host.borrow_mut().path(pid, path)).clone())
    }

    pub fn symbol(&self, address: u64) -> Option<String> {
        self.host.borrow_mut().symbol(address).map(|s| text::clipped(&s, 60))
    }
}
