//! Which client request a thread serves: the birth of an attempt is bound here.
//!
//! nginx, Apache and Envoy serve the request they read last, HAProxy the oldest that is not served yet
//! (`PROC_OLDEST`). Both need only what this very thread did before. A retry reads nothing new: it is bound to the
//! request whose attempt failed last on the thread.
//!
//! Of streams Envoy reads all that there are, and then begins what each of them needs, one behind the other: a turn. Who
//! takes a connection that is there already begins none, so the order alone tells whose each is only where as many were
//! begun as streams were read. How many they were is kept until the streams are answered.

use aya_ebpf::bindings::BPF_ANY;
use trace502_ebpf::{
    CONN_CHECK, CONN_CHOICE, CONN_ENDED, CONN_IN_TURN, CONN_RETRY, CONN_SEALED, Conn, DELAYED, DISORDER,
    PHASE_CONNECTING, PROC_LOOSE, PROC_OLDEST, PROC_POOLED, STREAM, TLS_WRITES, TURNS, Table, Thread, Turn, WAITING,
    Waiting,
};

use crate::maps::{SCRATCH_THREAD, THREADS};
use crate::sealed;
use crate::{emit, kernel};

const MASK: u32 = WAITING as u32 - 1;
pub const NOBODY: Waiting = Waiting { client: 0, request: 0, since: 0 };

/// Empties a place by two stores. Assigned as a whole it would be a loop over its bytes, in a function of its own.
#[inline(always)]
fn clear(place: &mut Waiting) {
    // SAFETY: a place of the map, eight bytes and eight bytes.
    unsafe {
        core::ptr::write_volatile(&raw mut place.client, 0);
        core::ptr::write_volatile((&raw mut place.request).cast::<u64>(), 0);
    }
}

/// What is in a place, which is empty then.
#[inline(always)]
fn take_out(place: &mut Waiting) -> Waiting {
    let found = *place;
    clear(place);
    found
}

/// State of a thread, made when it is first seen.
#[inline(always)]
pub fn of(tid: u32) -> Option<&'static mut Thread> {
    if let Some(thread) = THREADS.get_ptr_mut(tid) {
        // SAFETY: a map value of plain numbers. Other threads take out what they answer or see leave: a race costs one binding.
        return Some(unsafe { &mut *thread });
    }
    // SAFETY: an all-zero template that nobody writes.
    let empty = unsafe { &*SCRATCH_THREAD.get_ptr(0)? };
    if THREADS.insert(tid, empty, BPF_ANY.into()).is_err() {
        emit::full(Table::Threads);
    }
    // SAFETY: as above.
    THREADS.get_ptr_mut(tid).map(|thread| unsafe { &mut *thread })
}

/// The thread read the first bytes of a new client request.
#[inline(always)]
pub fn asked(thread: &mut Thread, conn: &mut Conn) {
    conn.slot = wait(thread, conn.cookie, conn.request, conn.asked);
}

/// A request waits for the thread to serve it; returns its slot.
#[inline(always)]
pub fn wait(thread: &mut Thread, client: u64, request: u32, asked: u64) -> u32 {
    let slot = thread.tail & MASK;
    let waiting = Waiting { client, request, since: micros(asked) };
    let bit = 1 << slot;
    if thread.open & bit == 0 {
        thread.open |= bit;
        thread.live += 1;
    }
    thread.streams &= !bit;
    if request & STREAM != 0 {
        if thread.open & thread.streams == 0 {
            thread.together = 0;
        }
        thread.together = thread.together.saturating_add(1);
        thread.streams |= bit;
    }
    thread.waiting[slot as usize] = waiting;
    thread.tail = thread.tail.wrapping_add(1);
    thread.last = waiting;
    clear(&mut thread.retry);
    thread.requests += 1;
    heard(thread, client);
    slot
}

/// A stream that waits since just now, of a thread that serves them in turns: number of its turn, and its rank in that.
/// Which client's turn it was before, and whether the stream is the next one of that client, was known before it waited.
#[inline(always)]
pub fn in_its_turn(thread: &mut Thread, client: u64, turning: u64, next: bool) -> (u32, u32) {
    let sleeps = kernel::sleeps();
    let last = thread.turns[(thread.turn % TURNS as u32) as usize];
    // Whether it slept since says nothing: what it read before and began nothing for leaves more to choose from, that is all.
    let goes_on = turning == client && (last.begun == 0 || last.begun == DISORDER);
    // Where nobody counts how often it slept, nothing tells where a turn ends.
    thread.turning = if sleeps == 0 { 0 } else { client };
    thread.turned = sleeps;
    if !goes_on {
        thread.turn = thread.turn.wrapping_add(1);
    }
    let number = thread.turn;
    // Ranks are told from the numbers of streams, among which none may be missing, and from their slots.
    let whole = next && last.read < WAITING as u16;
    let turn = match goes_on {
        false => Turn { number, read: 1, begun: 0 },
        true if whole => Turn { number, read: last.read + 1, begun: last.begun },
        true => Turn { number, read: last.read, begun: DISORDER },
    };
    let read = turn.read;
    thread.turns[(number % TURNS as u32) as usize] = turn;
    (number, read.into())
}

/// One more than there are streams in a turn for which no connection was begun, 0 if nothing tells: of so many that were
/// begun in a row, the one for the stream of this rank is the last or an earlier one.
#[inline(always)]
pub fn begun_for(thread: &Thread, number: u32, rank: u32) -> u32 {
    let turn = thread.turns[(number % TURNS as u32) as usize];
    let (read, begun) = (u32::from(turn.read), u32::from(turn.begun));
    if turn.number != number || rank == 0 || rank > read || begun > read {
        return 0;
    }
    read - begun + 1
}

/// The thread read more of a request it knows.
#[inline(always)]
pub fn continued(thread: &mut Thread, conn: &Conn) {
    thread.last = Waiting { client: conn.cookie, request: conn.request, since: 0 };
    clear(&mut thread.retry);
    heard(thread, conn.cookie);
}

/// The thread read from a client. More of what that one is still sending is no turn to something else.
#[inline(always)]
pub fn heard(thread: &mut Thread, client: u64) {
    if thread.closing.client != client {
        acted(thread);
    }
}

/// The thread turned to a client that is not tracked: what it begins now is for nobody that we know.
#[inline(always)]
pub fn turned(thread: &mut Thread) {
    clear(&mut thread.last);
    clear(&mut thread.retry);
    acted(thread);
}

/// The thread did something: what it closes next has nothing to do with what it wrote before, nor has what it
/// writes next with a connect() that failed before.
#[inline(always)]
pub fn acted(thread: &mut Thread) {
    began(thread);
    thread.turning = 0;
}

/// The same where what it did was to begin an attempt: more of the same turn may follow.
#[inline(always)]
pub fn began(thread: &mut Thread) {
    clear(&mut thread.closing);
    thread.in_call = 0;
    thread.ended = 0;
}

/// The thread has not waited for anything since it did what it did last: what it does now is part of that.
#[inline(always)]
pub fn awake(thread: &Thread) -> bool {
    thread.sleeps == kernel::sleeps()
}

/// The thread closes an upstream connection. Right behind an error that it wrote to a client, this is what led to
/// the error: HAProxy and lighttpd end both in one go.
#[inline(always)]
pub fn ended(thread: &mut Thread, conn: &mut Conn) -> bool {
    let closing = thread.closing;
    // What failed in the call is closed before its error is written.
    clear(&mut thread.closing);
    if closing.client == 0 || conn.flags & CONN_CHECK != 0 || !awake(thread) {
        return false;
    }
    conn.bound = closing.client;
    conn.bound_request = closing.request;
    conn.choices = 1;
    conn.flags &= !(CONN_CHOICE | CONN_RETRY);
    conn.flags |= CONN_ENDED;
    true
}

/// The answer of a request began: nobody will serve it any more.
#[inline(always)]
pub fn answered(thread: &mut Thread, conn: &Conn, error: bool) {
    done(thread, conn.slot, conn.cookie, conn.request, error);
}

#[inline(always)]
pub fn done(thread: &mut Thread, slot: u32, client: u64, request: u32, error: bool) {
    thread.answers += 1;
    if !error {
        acted(thread);
    }
    leave(thread, slot, client, request);
    if same(&thread.last, client, request) {
        clear(&mut thread.last);
    }
    if same(&thread.retry, client, request) {
        clear(&mut thread.retry);
    }
    thread.answered = Waiting { client, request, since: 0 };
}

/// Whether the thread has begun to answer the request that an upstream connection served: no error of it is to come.
/// Of streams, others may have been answered since.
#[inline(always)]
pub fn has_answered(thread: &Thread, conn: &Conn) -> bool {
    conn.bound_request & STREAM == 0
        && thread.answered.client == conn.bound
        && thread.answered.request == conn.bound_request
}

/// The client is gone: nobody will serve its request.
#[inline(always)]
pub fn gone(thread: &mut Thread, conn: &Conn) {
    leave(thread, conn.slot, conn.cookie, conn.request);
}

#[inline(always)]
pub fn leave(thread: &mut Thread, slot: u32, client: u64, request: u32) {
    if same(&thread.waiting[(slot & MASK) as usize], client, request) {
        take(thread, slot);
    }
    give_up(thread, client, request);
}

/// Of the streams of a client each is its own; of other requests there is one at a time.
#[inline(always)]
fn same(waiting: &Waiting, client: u64, request: u32) -> bool {
    waiting.client == client && (request & STREAM == 0 || waiting.request == request)
}

/// No further try will be made for this request.
#[inline(always)]
fn give_up(thread: &mut Thread, client: u64, request: u32) {
    if thread.delayed_head == thread.delayed_tail {
        return;
    }
    for place in thread.delayed.iter_mut() {
        if same(place, client, request) {
            clear(place);
        }
    }
}

#[inline(always)]
fn micros(nanos: u64) -> u32 {
    (nanos / 1_000) as u32
}

/// Binds the request that an upstream connection begins to serve with what this thread does now.
#[inline(always)]
pub fn bind(conn: &mut Conn, tid: u32) {
    let Some(thread) = of(tid) else { return };
    thread.garbled = 0;
    if conn.flags & CONN_CHECK != 0 {
        acted(thread);
        return;
    }
    if conn.phase != PHASE_CONNECTING {
        // It was there already: nothing that was begun for this turn.
        thread.turning = 0;
    }
    let bound = choose(thread, conn.class);
    began(thread);
    conn.flags &= !(CONN_CHOICE | CONN_RETRY | CONN_SEALED | CONN_IN_TURN);
    conn.flags |= bound.flags;
    conn.bound = bound.to.client;
    conn.bound_request = bound.to.request;
    conn.choices = bound.choices;
    if thread.sealed != 0 && conn.bound != 0 {
        sealed::asked(conn);
    }
}

/// The same for a connection that was one before, which is seldom. Global to the verifier, which walks through it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub fn bind_again(conn: *mut Conn, tid: u32) -> i32 {
    // SAFETY: the verifier knows that there is a connection, where there is anything.
    if let Some(conn) = unsafe { conn.as_mut() } {
        bind(conn, tid);
    }
    0
}

/// Whether the thread is in a call of its TLS library that writes.
#[inline(always)]
pub fn writes(tid: u32) -> bool {
    // SAFETY: a map value; only this thread changes it.
    THREADS.get_ptr(tid).is_some_and(|thread| unsafe { (*thread).call.ssl != 0 && (*thread).doing & TLS_WRITES != 0 })
}

/// A request that was chosen, and how sure that is.
#[derive(Clone, Copy)]
pub struct Choice {
    pub to: Waiting,
    pub choices: u8,
    pub flags: u16,
}

/// Chooses the request that the thread serves with what it starts now.
#[inline(always)]
pub fn choose(thread: &mut Thread, class: u32) -> Choice {
    // Where the rule is exact there is no choice, however many requests are in flight.
    let streams = thread.open & thread.streams;
    thread.births = thread.births.wrapping_add(1);
    if class & PROC_POOLED != 0 && thread.turning != 0 {
        let next = next_in_turn(thread);
        if next.flags & CONN_IN_TURN != 0 {
            thread.bound = next.to;
            return next;
        }
    }
    let choices = if class & PROC_LOOSE != 0 { thread.live.min(255) } else { count(streams).clamp(1, 255) } as u8;
    let mut flags = 0;
    // Another stream may be next, and not the one that is to be tried again: which one, nothing tells.
    let more = streams != 0 && class & PROC_POOLED != 0 && thread.retry.request & STREAM != 0;
    let choices = if more && thread.retry.client != 0 { choices.saturating_add(1) } else { choices };
    let to = if class & PROC_OLDEST != 0 && thread.in_call != 0 {
        // It had no chance to turn to anything else.
        flags |= CONN_RETRY;
        thread.bound
    } else if class & PROC_OLDEST != 0 {
        in_turn(thread, &mut flags)
    } else if thread.retry.client != 0 && !more {
        flags |= CONN_RETRY;
        take_out(&mut thread.retry)
    } else if thread.last.request & STREAM != 0 && streams != 0 {
        // Several are read at once, and served in that order.
        first(thread, streams)
    } else {
        thread.last
    };
    let choices = if class & PROC_POOLED != 0 && to.request & STREAM != 0 {
        // Those that waited with it may have been served in another order, and one that is served already needs no more.
        let spare = streams == 0 && flags & CONN_RETRY == 0;
        choices.max(thread.together.min(255) as u8).max(1 + spare as u8)
    } else {
        choices
    };
    if choices > 1 {
        flags |= CONN_CHOICE;
    }
    thread.bound = to;
    Choice { to, choices, flags }
}

/// The next stream of the turn that the thread is in, if it is in one still.
#[inline(always)]
fn next_in_turn(thread: &mut Thread) -> Choice {
    let turn = &mut thread.turns[(thread.turn % TURNS as u32) as usize];
    let (read, begun) = (turn.read, turn.begun);
    if thread.turned == kernel::sleeps() && begun < read {
        turn.begun = begun + 1;
        let left = read - begun;
        let slot = thread.tail.wrapping_sub(left.into());
        let flags = CONN_IN_TURN | if left > 1 { CONN_CHOICE } else { 0 };
        return Choice { to: take(thread, slot), choices: left as u8, flags };
    }
    if thread.turned == kernel::sleeps() {
        turn.begun = DISORDER;
    }
    thread.turning = 0;
    Choice { to: NOBODY, choices: 0, flags: 0 }
}

/// A request that was read this recently is what a connect now is for, in microseconds.
const FRESH: u32 = 50_000;
/// Requests that are passed over at once because they wait in the proxy's own queue.
const STALE: u32 = 4;
/// Another try follows a failure at once, or after at least this long.
const AT_ONCE: u32 = 5_000;
const LATER: u32 = 100_000;

/// HAProxy serves requests in the order in which it read them, and tries again a second after a failure: then it
/// has read other things since. A connect for which there is neither is a check of its own.
#[inline(always)]
fn in_turn(thread: &mut Thread, flags: &mut u16) -> Waiting {
    let now = micros(emit::now());
    if thread.retry.client != 0 {
        let retry = take_out(&mut thread.retry);
        if now.wrapping_sub(retry.since) <= AT_ONCE {
            *flags |= CONN_RETRY;
            give_up(thread, retry.client, retry.request);
            return retry;
        }
    }
    let fresh = fresh(thread, now);
    if fresh.client != 0 {
        return fresh;
    }
    let due = due(thread, now);
    if due.client != 0 {
        *flags |= CONN_RETRY;
    }
    due
}

/// Takes the oldest request that was read just now. Older ones wait for room in the proxy's own queue: what is
/// started now is not for them, and when their turn comes nothing tells.
#[inline(always)]
fn fresh(thread: &mut Thread, now: u32) -> Waiting {
    for _ in 0..STALE {
        let found = oldest(thread);
        if found.client == 0 || now.wrapping_sub(found.since) <= FRESH {
            return found;
        }
    }
    NOBODY
}

/// Takes the request that has waited longest for another try.
#[inline(always)]
fn due(thread: &mut Thread, now: u32) -> Waiting {
    for _ in 0..DELAYED {
        if thread.delayed_head == thread.delayed_tail {
            break;
        }
        let slot = (thread.delayed_head & (DELAYED as u32 - 1)) as usize;
        let found = thread.delayed[slot];
        if found.client != 0 && now.wrapping_sub(found.since) < LATER {
            break;
        }
        thread.delayed_head = thread.delayed_head.wrapping_add(1);
        clear(&mut thread.delayed[slot]);
        if found.client != 0 {
            return found;
        }
    }
    NOBODY
}

/// Takes the oldest request that is neither answered nor served.
///
/// By bits, not by a loop: its 32 rounds were a quarter of what the verifier had to walk through.
#[inline(always)]
fn oldest(thread: &mut Thread) -> Waiting {
    if thread.open == 0 { NOBODY } else { first(thread, thread.open) }
}

/// Takes the oldest of these slots.
#[inline(always)]
fn first(thread: &mut Thread, open: u64) -> Waiting {
    // The slot to be written next holds the oldest.
    let turned = open.rotate_right(thread.tail & MASK);
    let slot = thread.tail.wrapping_add(lowest(turned));
    take(thread, slot)
}

/// Empties a slot.
#[inline(always)]
fn take(thread: &mut Thread, slot: u32) -> Waiting {
    let slot = slot & MASK;
    if thread.open & 1 << slot != 0 {
        thread.open &= !(1 << slot);
        thread.live = thread.live.saturating_sub(1);
    }
    take_out(&mut thread.waiting[slot as usize])
}

/// Number of the lowest bit that is set: there is no instruction for it, and a table would be a map.
#[inline(always)]
fn lowest(bits: u64) -> u32 {
    count((bits & bits.wrapping_neg()).wrapping_sub(1))
}

#[inline(always)]
fn count(bits: u64) -> u32 {
    core::hint::black_box(bits).count_ones()
}

/// An attempt of this thread failed: what it starts next without reading anything is a retry.
#[inline(always)]
pub fn failed(thread: &mut Thread, class: u32, of: Waiting, at_once: bool) {
    if !at_once {
        // Nor is it of the turn that the thread was in. What fails in the call may be one of several that are begun yet.
        thread.turning = 0;
    }
    // One that is closed after its client was answered is at its end.
    if of.client == 0 || of.client == thread.answered.client && of.request == thread.answered.request {
        return;
    }
    if class & PROC_OLDEST == 0 {
        thread.retry = of;
        return;
    }
    let of = Waiting { since: micros(emit::now()), ..of };
    if at_once {
        thread.retry = of;
    }
    if thread.delayed_tail.wrapping_sub(thread.delayed_head) >= DELAYED as u32 {
        thread.delayed_head = thread.delayed_tail.wrapping_sub(DELAYED as u32 - 1);
    }
    let slot = (thread.delayed_tail & (DELAYED as u32 - 1)) as usize;
    thread.delayed[slot] = of;
    thread.delayed_tail = thread.delayed_tail.wrapping_add(1);
}
