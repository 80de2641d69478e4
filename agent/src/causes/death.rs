//! Which death, if any, explains that an attempt was refused or broke. The causes about processes ask here.
//!
//! A death counts where the kernel links it: the process that closed the upstream's end of the connection, or the
//! one that held the listener, or a child of it. Nearness in time alone never does.

use super::{Case, Wait};
use crate::correlate::history::{Death, Listener, SignalSeen};
use crate::model::{ExitStatus, ListenerSeen, Nanos};
use crate::text::{MILLI, SECOND};

/// After a broken connection: how long an exit that is under way may take to show.
pub const SETTLE: Nanos = 10 * MILLI;
/// After a fatal signal or an OOM kill: how long the exit may take to show.
pub const EXIT_WAIT: Nanos = 250 * MILLI;
/// From the end of a process to that of its connections, as its proxy learns it.
const CLOSES: Nanos = 250 * MILLI;
/// A process may close its listener or connections this long before it is gone, or be reaped after.
const NEAR: Nanos = 5 * SECOND;
/// A signal that asks to stop explains an exit up to this much later (graceful stops).
const GRACE: Nanos = 35 * SECOND;
/// One process of a unit killed for memory takes the others with it within this time.
const UNIT: Nanos = 10 * SECOND;

/// Signals that mean a defect of the program itself.
pub const CRASHES: [i32; 7] =
    [libc::SIGSEGV, libc::SIGABRT, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGSYS, libc::SIGTRAP];
/// Signals with which processes are stopped. (SIGHUP, where it is handled, means to reload.)
pub const STOPS: [i32; 4] = [libc::SIGKILL, libc::SIGTERM, libc::SIGINT, libc::SIGQUIT];

/// How the death is linked to the attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// It closed the upstream's end.
    Connection,
    /// Its listener closed.
    Listener(Nanos),
    /// It is the listener's process or a child of it, and died while the request was with it.
    Family,
}

pub enum Search<'a> {
    None,
    Wait(Wait),
    /// A fatal signal was sent to it and no exit was seen yet.
    Doomed {
        pid: u32,
        signal: &'a SignalSeen,
    },
    Dead(&'a Death, Link),
}

/// What a death was.
#[derive(Clone, Debug, PartialEq)]
pub enum How<'a> {
    /// The OOM killer, at this time, took this process.
    Oom {
        at: Nanos,
        rss: Option<u64>,
        victim: u32,
    },
    Crash {
        signal: i32,
        core: bool,
    },
    /// By a signal, with its sender where that was seen.
    Killed {
        signal: i32,
        by: Option<&'a SignalSeen>,
    },
    Exited(i32),
}

/// The death that explains this attempt.
pub fn of<'a>(case: &Case<'a>) -> Search<'a> {
    if case.broken() && !usable(case) {
        return broken(case);
    }
    if let Some(listener) = lost_listener(case) {
        return refused(case, listener);
    }
    Search::None
}

/// The listener that this refused attempt would have reached, had it not closed.
pub fn lost_listener<'a>(case: &Case<'a>) -> Option<&'a Listener> {
    let missing = case.is_unix() && case.failed_with(&[libc::ENOENT]);
    if !(case.refused() || missing) || case.listener().is_some_and(|l| l.before) {
        return None;
    }
    let netns = case.target_netns()?;
    case.past.history.lost(case.endpoint()?, Some(netns), case.at)
}

/// It got an answer whose head is whole: what happened after is another story.
fn usable(case: &Case<'_>) -> bool {
    use crate::wire::{fastcgi, http};
    let reply = case.reply();
    http::response(reply).is_some_and(|r| r.complete) || fastcgi::response(reply).is_some_and(|r| r.complete)
}

fn broken<'a>(case: &Case<'a>) -> Search<'a> {
    let history = &case.past.history;
    let settle = case.at + SETTLE;
    // Who read from it holds it; a close may be seen in the context of another that runs just then.
    let holder = case.peer().and_then(|p| p.read_by.or(p.closed_by));
    if let Some(pid) = holder.filter(|pid| *pid != case.owner.pid) {
        let closed = case.peer().and_then(|p| p.closed).unwrap_or(case.at);
        return match history.death_of(pid) {
            Some(death) if death.at + NEAR >= closed && led_to(death, closed) => Search::Dead(death, Link::Connection),
            // A death that began after the end of the connection is another story.
            Some(death) if death.at + NEAR >= closed => Search::None,
            _ => expected(case, pid, closed, settle),
        };
    }
    // Who closed it is not known: a unix socket, or a connection that was never accepted.
    let listener = case.attempt.map(|a| a.listener);
    let owner = match listener {
        Some(ListenerSeen::Present { pid, .. }) if pid != 0 => Some(pid),
        _ if case.is_local() => {
            let open = case.listener().and_then(|l| l.pid);
            open.or_else(|| Some(history.lost(case.endpoint()?, case.target_netns(), case.at)?.pid))
        }
        _ => None,
    };
    let Some(owner) = owner else { return Search::None };
    // A process that ends takes its connections with it at once: another that ended long before did not hold this one.
    let ended = case.conn().and_then(|c| c.reset.or(c.fin)).unwrap_or(case.at);
    let from = case.began().max(ended.saturating_sub(CLOSES));
    let related = |d: &&Death| d.at >= from && d.at <= settle && led_to(d, case.at) && history.descends(d.pid, owner);
    let mut deaths: Vec<&Death> = history.deaths().filter(related).collect();
    // The one nearest to the end of the connection.
    deaths.sort_by_key(|d| (d.at.abs_diff(case.at), d.pid));
    match deaths.first() {
        Some(death) => Search::Dead(death, Link::Family),
        None if case.now < settle => Search::Wait(Wait { until: settle, exit_of: None }),
        None => Search::None,
    }
}

fn refused<'a>(case: &Case<'a>, listener: &'a Listener) -> Search<'a> {
    let history = &case.past.history;
    let closed = listener.closed.unwrap_or(case.at);
    // It was gone when the connection was tried, or already on its way out when the listener closed.
    let near = |d: &Death| d.at.abs_diff(closed) <= NEAR && (d.at <= case.at || led_to(d, closed));
    let dead = |pid: u32| history.death_of(pid).filter(|d| near(d));
    let owner = dead(listener.pid);
    let closer = listener.closed_by.and_then(dead);
    let link = Link::Listener(closed);
    // A child that was killed for memory just before takes its parent with it.
    let mut children = history.deaths().filter(|d| near(d) && d.at <= closed && history.descends(d.pid, listener.pid));
    let oom = children.rfind(|d| d.life.oom.is_some());
    if let Some(death) = oom.or(owner).or(closer) {
        return Search::Dead(death, link);
    }
    if case.past.history.life_of(listener.pid).is_none() && case.process(listener.pid).is_none() {
        return Search::None;
    }
    expected(case, listener.pid, closed, (closed + SETTLE).min(case.at + SETTLE))
}

/// Whether the death, or what brought it about, came before this moment. Who ends by himself may close first.
fn led_to(death: &Death, moment: Nanos) -> bool {
    let oom = death.life.oom.is_some_and(|oom| oom.at <= moment);
    let mut stops = death.life.signals.iter().filter(|s| is_stop(s.signal) && s.at <= death.at);
    let told = stops.clone().any(|s| s.at <= moment && death.at - s.at <= GRACE);
    let by_itself = matches!(death.status, ExitStatus::Code(_)) && stops.next().is_none();
    death.at <= moment || oom || told || (by_itself && death.at <= moment + SETTLE)
}

/// The process lives, as far as is known: whether its exit is to be waited for.
fn expected<'a>(case: &Case<'a>, pid: u32, closed: Nanos, settle: Nanos) -> Search<'a> {
    let life = case.past.history.life_of(pid);
    let before = |s: &&SignalSeen| is_stop(s.signal) && s.at <= closed && s.at + GRACE >= case.at;
    let signal = life.and_then(|l| l.signals.iter().rev().find(before));
    let doomed = signal.is_some() || life.is_some_and(|l| l.oom.is_some_and(|oom| oom.at <= closed));
    let until = if doomed { case.at + EXIT_WAIT } else { settle };
    if case.now < until {
        return Search::Wait(Wait { until, exit_of: Some(pid) });
    }
    match signal {
        Some(signal) => Search::Doomed { pid, signal },
        None => Search::None,
    }
}

fn is_stop(signal: i32) -> bool {
    STOPS.contains(&signal) || CRASHES.contains(&signal)
}

/// What the death was, from what was seen before it.
pub fn how<'d>(case: &Case<'_>, death: &'d Death) -> How<'d> {
    if let Some(oom) = death.life.oom {
        return How::Oom { at: oom.at, rss: oom.rss, victim: death.pid };
    }
    let signals = &death.life.signals;
    match death.status {
        ExitStatus::Signal { signal, core } => {
            // Who catches a signal of another may send it to himself to die of it.
            let of_another = |s: &&SignalSeen| {
                s.signal == signal && s.sender.pid != death.pid && death.at.saturating_sub(s.at) <= SECOND
            };
            let sent = signals.iter().rev().find(|s| s.signal == signal);
            let sent = signals.iter().rev().find(of_another).or(sent);
            let foreign = sent.filter(|s| !s.from_kernel && s.sender.pid != death.pid);
            if CRASHES.contains(&signal) && foreign.is_none() {
                return How::Crash { signal, core };
            }
            if let Some(oom) = unit_oom(case, death, sent) {
                return oom;
            }
            How::Killed { signal, by: sent }
        }
        ExitStatus::Code(code) => {
            let asked = |s: &&SignalSeen| {
                // A master aborts a worker that hangs, which may still end in good order.
                let abort = s.signal == libc::SIGABRT && !s.from_kernel && death.at.saturating_sub(s.at) <= SECOND;
                let stop = STOPS.contains(&s.signal) && death.at.saturating_sub(s.at) <= GRACE;
                (stop || abort) && s.at <= death.at && s.sender.pid != death.pid
            };
            match signals.iter().rev().find(asked) {
                Some(s) => unit_oom(case, death, Some(s)).unwrap_or(How::Killed { signal: s.signal, by: Some(s) }),
                None => How::Exited(code),
            }
        }
    }
}

/// The service manager stops a unit when one of its processes was killed for memory.
fn unit_oom<'d>(case: &Case<'_>, death: &Death, sent: Option<&SignalSeen>) -> Option<How<'d>> {
    // 1 is the root: everybody's, so nobody's.
    if death.life.cgroup <= 1 || !sent.is_none_or(|s| s.from_kernel || s.sender.pid <= 1) {
        return None;
    }
    let killed = |d: &&Death| {
        let oom = d.life.oom.filter(|oom| oom.at <= death.at && death.at - oom.at <= UNIT);
        oom.is_some() && d.life.cgroup == death.life.cgroup
    };
    let victim = case.past.history.deaths().rev().find(killed)?;
    let oom = victim.life.oom?;
    Some(How::Oom { at: oom.at, rss: oom.rss, victim: victim.pid })
}

/// Whether it ended because of itself rather than because somebody ended it.
pub fn by_itself(case: &Case<'_>, death: &Death) -> bool {
    matches!(how(case, death), How::Crash { .. } | How::Exited(_) | How::Oom { .. })
}

/// The link in words, for the evidence.
pub fn consequence(case: &Case<'_>, link: Link) -> Option<(Nanos, &'static str, String)> {
    match link {
        Link::Listener(at) => Some((at, "listener_closed", format!("the listener on {} closed", case.place()))),
        Link::Connection | Link::Family => None,
    }
}
