//! The faults, a table: what is broken, what each proxy answers to it, and what the agent must say.
//!
//! The answers stand in the order of [`Kind`]: nginx, HAProxy, Apache, Caddy, Envoy, PHP-FPM; `-` where a proxy cannot
//! have the fault or does not mind it; `a|b` where both are right.

mod apps;
mod connect;
mod firewall;
mod fpm;
mod inside;
mod none;
mod process;
mod response;
mod secure;
mod wait;

use std::any::Any;
use std::cell::RefCell;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use trace502::model::Confidence;

use crate::client::{Answer, Ask, Client};
use crate::proxies::{Kind, Proxy};
use crate::route::Route;
use crate::truth::{Exchange, Expect};
use crate::world::World;

/// One row of the table.
#[derive(Clone, Copy)]
pub struct Fault {
    pub name: &'static str,
    pub answers: &'static str,
    pub causes: &'static [&'static str],
    pub prepare: fn(&Setup) -> Result<Plan>,
    pub confidence: Confidence,
    /// Behind these the proof cannot be seen.
    pub unproven: &'static [Kind],
    pub says: &'static [&'static str],
    /// What the record must say behind each proxy, in the order of the answers: what one tells, another keeps.
    pub reasons: [&'static str; 6],
    /// It disturbs the whole proxy, so nothing else runs meanwhile.
    pub alone: bool,
}

const fn fault(
    name: &'static str,
    answers: &'static str,
    causes: &'static [&'static str],
    prepare: fn(&Setup) -> Result<Plan>,
) -> Fault {
    let (confidence, reasons) = (Confidence::Certain, [""; 6]);
    Fault { name, answers, causes, prepare, confidence, unproven: &[], says: &[], reasons, alone: false }
}

impl Fault {
    const fn likely(mut self) -> Self {
        self.confidence = Confidence::Likely;
        self
    }

    const fn likely_behind(mut self, kinds: &'static [Kind]) -> Self {
        self.unproven = kinds;
        self
    }

    const fn unknown(mut self) -> Self {
        self.confidence = Confidence::Unknown;
        self
    }

    const fn says(mut self, words: &'static [&'static str]) -> Self {
        self.says = words;
        self
    }

    const fn reasons(mut self, words: [&'static str; 6]) -> Self {
        self.reasons = words;
        self
    }

    const fn alone(mut self) -> Self {
        self.alone = true;
        self
    }

    /// What this proxy's client may get; empty where the fault does not apply.
    pub fn answers(&self, kind: Kind) -> Vec<&'static str> {
        let column = self.answers.split_whitespace().nth(kind.column()).unwrap_or("-");
        column.split('|').filter(|answer| *answer != "-").collect()
    }
}

/// Every fault there is.
pub fn all() -> Vec<Fault> {
    [
        process::FAULTS,
        connect::FAULTS,
        firewall::FAULTS,
        wait::FAULTS,
        response::FAULTS,
        secure::FAULTS,
        inside::FAULTS,
        apps::FAULTS,
        fpm::FAULTS,
        none::FAULTS,
    ]
    .concat()
}

/// What a fault is prepared from.
pub struct Setup {
    pub world: Arc<World>,
    pub kind: Kind,
    pub fault: &'static str,
}

impl Setup {
    /// A process name for this cell that fits the kernel's 15 bytes.
    pub fn service(&self, role: &str) -> String {
        let tag = &self.kind.name()[..2];
        format!("{role}-{tag}-{}", self.world.port() % 1000)
    }

    pub fn route(&self, server: impl Into<String>) -> Route {
        Route::to(self.fault, server)
    }
}

/// What is done, once. Not consumed by it: what it holds lives until the cell is judged.
pub type Act = Box<dyn Fn(&Session) -> Result<()> + Send>;

/// A fault prepared for one proxy.
pub struct Plan {
    pub route: Route,
    pub act: Act,
    /// More words that the record must say, known only now.
    pub says: Vec<String>,
    /// Where the failed attempt goes; by default the route's only server.
    pub upstream: Option<String>,
    /// Lives as long as the cell.
    pub hold: Vec<Box<dyn Any + Send>>,
}

impl Plan {
    /// One GET on a connection of its own.
    pub fn get(route: Route) -> Self {
        Self::new(route, |session| session.fail(session.get()))
    }

    pub fn new(route: Route, act: impl Fn(&Session) -> Result<()> + Send + 'static) -> Self {
        let upstream = match &route.servers[..] {
            [one] if !route.resolve => Some(one.clone()),
            _ => None,
        };
        Self { route, act: Box::new(act), says: Vec::new(), upstream, hold: Vec::new() }
    }

    pub fn hold(mut self, thing: impl Any + Send) -> Self {
        self.hold.push(Box::new(thing));
        self
    }

    pub fn says(mut self, word: impl Into<String>) -> Self {
        self.says.push(word.into());
        self
    }

    /// The proxy makes no attempt, or which one it makes does not matter.
    pub fn no_upstream(mut self) -> Self {
        self.upstream = None;
        self
    }

    pub fn expect(&self, fault: &Fault, kind: Kind) -> Expect {
        let mut says: Vec<String> = fault.says.iter().map(|word| (*word).to_owned()).collect();
        says.extend(self.says.iter().cloned());
        says.extend(fault.reasons.get(kind.column()).map(|words| (*words).to_owned()));
        // Goroutines change threads: with several requests at once their attempts are told apart by less than proof.
        let unproven = kind == Kind::Caddy || fault.unproven.contains(&kind);
        let most = if unproven { Confidence::Likely } else { Confidence::Certain };
        Expect {
            answers: fault.answers(kind),
            causes: fault.causes,
            confidence: fault.confidence.min(most),
            says,
            upstream: self.upstream.clone(),
        }
    }
}

/// The requests of one cell, each with a path that no other has.
pub struct Session<'a> {
    pub world: &'a World,
    pub proxy: &'a Proxy,
    pub fault: &'static str,
    exchanges: RefCell<Vec<Exchange>>,
    asides: RefCell<Vec<String>>,
    kept: RefCell<Vec<Box<dyn Any>>>,
}

impl<'a> Session<'a> {
    pub fn new(world: &'a World, proxy: &'a Proxy, fault: &'static str) -> Self {
        Self {
            world,
            proxy,
            fault,
            exchanges: RefCell::default(),
            asides: RefCell::default(),
            kept: RefCell::default(),
        }
    }

    /// The judged requests and the good ones.
    pub fn exchanges(&self) -> Vec<Exchange> {
        self.exchanges.borrow().clone()
    }

    /// Paths of requests that do not count.
    pub fn asides(&self) -> Vec<String> {
        self.asides.borrow().clone()
    }

    /// Lives until the cell is judged: the end of a service would be a fact about its fault.
    pub fn keep(&self, thing: impl Any) {
        self.kept.borrow_mut().push(Box::new(thing));
    }

    pub fn path(&self, word: &str) -> String {
        let n = self.exchanges.borrow().len() + self.asides.borrow().len();
        format!("/{}/{}/{n}/{word}", self.fault, self.proxy.kind.name())
    }

    pub fn get(&self) -> Ask {
        Ask::get(self.path("x"))
    }

    pub fn post(&self, body: usize) -> Ask {
        Ask::post(self.path("x"), body)
    }

    pub fn connect(&self) -> Result<Client> {
        Client::connect(self.proxy.addr).with_context(|| self.proxy.state())
    }

    /// A request that is to fail for the reason of this cell.
    pub fn fail(&self, ask: Ask) -> Result<()> {
        self.on(&mut self.connect()?, ask, true).map(drop)
    }

    /// A request that is to go well.
    pub fn well(&self, ask: Ask) -> Result<()> {
        self.well_on(&mut self.connect()?, ask)
    }

    pub fn well_on(&self, client: &mut Client, ask: Ask) -> Result<()> {
        let path = ask.path.clone();
        let answer = self.on(client, ask, false)?;
        ensure!(answer == Answer::Status(200), "{path} should go well, and got {}", answer.word());
        Ok(())
    }

    pub fn fail_on(&self, client: &mut Client, ask: Ask) -> Result<()> {
        self.on(client, ask, true).map(drop)
    }

    fn on(&self, client: &mut Client, ask: Ask, judged: bool) -> Result<Answer> {
        let local = client.local().map(|addr| addr.to_string()).unwrap_or_default();
        let answer = client.ask(&ask);
        self.note(ask.path, local, answer.clone(), judged);
        Ok(answer)
    }

    /// An answer that was got by other means.
    pub fn note(&self, path: String, client: String, answer: Answer, judged: bool) {
        self.exchanges.borrow_mut().push(Exchange { path, client, answer, secure: false, judged });
    }

    /// What a client got that asked in its own way.
    pub fn note_exchange(&self, exchange: Exchange) {
        self.exchanges.borrow_mut().push(exchange);
    }

    /// A request that may fail on the way to the fault, and is not judged.
    pub fn aside(&self, ask: Ask) -> Result<()> {
        let path = ask.path.clone();
        self.connect()?.ask(&ask);
        self.note_aside(path);
        Ok(())
    }

    pub fn note_aside(&self, path: String) {
        self.asides.borrow_mut().push(path);
    }
}
