//! The agent as a process: what starts in which order, who runs on which thread, and how it ends.
//!
//! The only place that starts threads of the agent. What sees the kernel comes in as a [`Source`]; nothing here knows
//! probes.

mod instance;
mod outlet;
mod signals;
#[cfg(test)]
mod tests;

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use tokio::sync::watch;

pub use instance::{Instance, InstanceError};
pub use outlet::Outlet;
use signals::{Event, Flag, Signals};

use crate::config::{Config, ConfigError, Settings};
use crate::history::{Claim, Retention, Sink, Writer};
use crate::http::{Access, Door, Recent, Site, bind, serve};
use crate::journal;
use crate::metrics::Metrics;
use crate::notify::Notifier;
use crate::privilege::{self, Shelter, Walls};
use crate::status::Board;
use crate::watch::{Stop, Stopper};

/// The kernel side and the engine, attached and ready to run.
pub trait Source: Send {
    /// Runs until `stop` is readable, then tells what is still open and returns. Publishes a status, or at least
    /// beats, every two seconds; never waits for what the outlet does.
    fn run(self: Box<Self>, outlet: Outlet, stop: &Stop) -> anyhow::Result<()>;
}

/// How long each part has to end, so that all is over within a second.
const ENGINE_END: Duration = Duration::from_millis(500);
const SINKS_END: Duration = Duration::from_millis(400);
/// How often the agent looks after itself.
const ROUND: Duration = Duration::from_secs(10);

/// How long the history is kept, as the settings say.
fn retention(settings: &Settings) -> Retention {
    Retention { age: settings.history_max_age, size: settings.history_max_size }
}

/// Reads the configuration, at the start and at each reload.
pub type Load<'a> = &'a dyn Fn() -> Result<Config, ConfigError>;

/// Runs the agent until a signal ends it. `attach` has all privileges; what it returns runs with what remains.
pub fn run(load: Load<'_>, attach: impl FnOnce(&Settings) -> anyhow::Result<Box<dyn Source>>) -> anyhow::Result<()> {
    let settings = load()?.settings;
    let _instance = Instance::claim(settings.instance.as_deref())?;
    let access = Access::load(&settings)?;
    let listeners = listen(&settings)?;
    let _claim = settings.history.as_deref().map(Claim::take).transpose()?;
    if let Some(file) = &settings.history {
        Writer::check(file)?;
    }
    let signals = Signals::block().context("cannot receive signals")?;
    let notifier = Notifier::from_env();
    let source = attach(&settings)?;
    let mut agent = Agent::start(settings, access, listeners, source)?;
    notifier.ready(&agent.status());
    journal::info(&agent.status());
    let result = agent.mind(load, &signals, &notifier);
    notifier.stopping();
    agent.end();
    result
}

fn listen(settings: &Settings) -> anyhow::Result<Vec<TcpListener>> {
    let bind = |addr: &std::net::SocketAddr| {
        bind(*addr).with_context(|| {
            format!("cannot listen on {addr}; `--listen ADDR:PORT` names another address, `--listen off` none")
        })
    };
    settings.listen.iter().map(bind).collect()
}

/// A thread of the agent; its end is told on a channel, so that it can be waited for with a limit.
struct Worker {
    name: &'static str,
    handle: JoinHandle<anyhow::Result<()>>,
    ended: Receiver<()>,
}

impl Worker {
    fn spawn(
        name: &'static str,
        bell: &Flag,
        work: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
    ) -> anyhow::Result<Worker> {
        let (alive, ended) = channel::<()>();
        let bell = bell.clone();
        let body = move || {
            // Dropped last, also when the work panics.
            let _signs_off = SignsOff { bell, alive: Some(alive) };
            work()
        };
        let handle = std::thread::Builder::new().name(name.into()).spawn(body).context("cannot start a thread")?;
        Ok(Worker { name, handle, ended })
    }

    /// Whether it ended in time.
    fn wait(&self, limit: Duration) -> bool {
        // Nothing is ever sent: the sender goes away with the thread.
        !matches!(self.ended.recv_timeout(limit), Err(std::sync::mpsc::RecvTimeoutError::Timeout))
    }

    fn is_over(&self) -> bool {
        self.wait(Duration::ZERO)
    }

    fn outcome(self) -> anyhow::Result<()> {
        let name = self.name;
        match self.handle.join() {
            Ok(result) => result.with_context(|| format!("the {name} thread failed")),
            Err(_) => Err(anyhow!("the {name} thread panicked; this is a bug, please report what stands above")),
        }
    }
}

struct SignsOff {
    bell: Flag,
    alive: Option<std::sync::mpsc::Sender<()>>,
}

impl Drop for SignsOff {
    fn drop(&mut self) {
        // Whoever hears the bell finds the thread ended.
        drop(self.alive.take());
        self.bell.raise();
    }
}

/// Everything that runs.
struct Agent {
    settings: Settings,
    board: Board,
    metrics: Arc<Metrics>,
    door: Door,
    history: Option<Sink>,
    /// New settings for the engine.
    news: watch::Sender<Settings>,
    engine: Option<Worker>,
    sinks: Vec<Worker>,
    stop_engine: Stopper,
    stop_http: watch::Sender<bool>,
    /// Rung when a thread ends.
    bell: Flag,
}

impl Agent {
    fn start(
        settings: Settings,
        access: Access,
        listeners: Vec<TcpListener>,
        source: Box<dyn Source>,
    ) -> anyhow::Result<Agent> {
        let remaining = if settings.keep_privileges { None } else { Some(privilege::give_up()?) };
        let board = Board::default();
        let metrics = Arc::new(Metrics::new(settings.max_series, settings.series_idle, board.clone()));
        let recent = Recent::default();
        let door = Door::new(access);
        let bell = Flag::new()?;
        let (stop, stop_engine) = Stop::new()?;
        let (stop_http, http_stops) = watch::channel(false);
        let (news, engine_news) = watch::channel(settings.clone());
        let confined = remaining.is_some();

        let mut sinks = Vec::new();
        let history = match settings.history.clone() {
            None => None,
            Some(file) => {
                let folder = file.parent().unwrap_or(Path::new("/")).to_owned();
                let (sink, writer) = Writer::new(file, retention(&settings), board.clone(), journal::warn);
                sinks.push(Worker::spawn("history", &bell, move || {
                    withdraw(confined, &[Path::new("/dev/urandom")], &[folder])?;
                    writer.run();
                    Ok(())
                })?);
                Some(sink)
            }
        };
        let site = Site { board: board.clone(), metrics: metrics.clone(), recent: recent.clone() };
        let its_door = door.clone();
        let (told_walls, walls) = channel();
        sinks.push(Worker::spawn("http", &bell, move || {
            // Whoever asked may have gone already, on its way out.
            let _ = told_walls.send(withdraw(confined, &[Path::new("/proc/self")], &[])?);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(serve(listeners, site, its_door, http_stops)).context("cannot serve HTTP")
        })?);
        // A thread that failed is noticed in the first round.
        let walls = walls.recv().unwrap_or(Walls::None);

        let outlet = Outlet::new(metrics.clone(), recent, history.clone(), board.clone(), engine_news);
        let engine = Worker::spawn("engine", &bell, move || source.run(outlet, &stop))?;
        board.running(match &remaining {
            Some(remaining) => {
                format!("{remaining}; the threads for HTTP and history have no capabilities, and {walls}")
            }
            None => "everything that it was started with (--keep-privileges)".to_owned(),
        });
        let engine = Some(engine);
        Ok(Agent { settings, board, metrics, door, history, news, engine, sinks, stop_engine, stop_http, bell })
    }

    fn status(&self) -> String {
        let listen = self.settings.words("listen").join(", ");
        let history = self.settings.words("history").join("");
        format!("probes attached; metrics on {listen}, history in {history}")
    }

    /// Looks after everything until it is told to stop or something ends that should not.
    fn mind(&mut self, load: Load<'_>, signals: &Signals, notifier: &Notifier) -> anyhow::Result<()> {
        let round = notifier.watchdog().map_or(ROUND, |every| every.min(ROUND));
        loop {
            match signals.wait(&self.bell, round) {
                Event::Stop => return Ok(()),
                Event::Reload => {
                    notifier.reloading();
                    self.reload(load);
                    notifier.ready(&self.status());
                }
                Event::Bell => self.look_for_ended()?,
                Event::Time => {}
            }
            let now = Instant::now();
            self.metrics.expire(now);
            // A manager that hears nothing restarts us, which is what a hanging engine needs.
            if self.board.snapshot().alive(now) {
                notifier.alive();
            }
        }
    }

    fn look_for_ended(&mut self) -> anyhow::Result<()> {
        if let Some(engine) = self.engine.take_if(|engine| engine.is_over()) {
            engine.outcome()?;
            return Err(anyhow!("the engine ended by itself"));
        }
        if let Some(at) = self.sinks.iter().position(Worker::is_over) {
            let sink = self.sinks.swap_remove(at);
            let name = sink.name;
            sink.outcome()?;
            return Err(anyhow!("the {name} thread ended by itself"));
        }
        Ok(())
    }

    /// Takes up what can change; a configuration with a mistake changes nothing.
    fn reload(&mut self, load: Load<'_>) {
        let new = match load() {
            Ok(config) => config.settings,
            Err(error) => return journal::error(&format!("not reloaded: {error}")),
        };
        let changes = self.settings.changes(&new);
        // Also without a changed name: the token or the certificate in the file may be new.
        match Access::load(&self.settings.reloaded(&new)) {
            Ok(access) => self.door.change(access),
            Err(error) => return journal::error(&format!("not reloaded: {error}")),
        }
        self.settings = self.settings.reloaded(&new);
        self.metrics.limit(self.settings.max_series, self.settings.series_idle);
        if let Some(history) = &self.history {
            history.retention(retention(&self.settings));
        }
        self.news.send_replace(self.settings.clone());
        let list = |keys: &[&str]| if keys.is_empty() { "nothing".to_owned() } else { keys.join(", ") };
        journal::info(&format!("reloaded; changed: {}", list(&changes.live)));
        if !changes.restart.is_empty() {
            journal::warn(&format!("takes a restart: {}", list(&changes.restart)));
        }
    }

    /// Ends everything within a second; what does not end by then is left behind with a word.
    fn end(mut self) {
        self.board.stopping();
        self.stop_engine.stop();
        if let Some(engine) = self.engine.take() {
            report_end(engine, ENGINE_END);
        }
        // The engine's sink is gone with it; with this one the writer ends, once all is on disk.
        self.history = None;
        self.stop_http.send_replace(true);
        let deadline = Instant::now() + SINKS_END;
        for sink in self.sinks.drain(..) {
            report_end(sink, deadline.saturating_duration_since(Instant::now()));
        }
    }
}

fn report_end(worker: Worker, limit: Duration) {
    if !worker.wait(limit) {
        journal::warn(&format!("the {} thread did not end in time", worker.name));
    } else if let Err(error) = worker.outcome() {
        journal::error(&format!("{error:#}"));
    }
}

/// The thread gives up what it does not need, if the process did.
fn withdraw(confined: bool, reads: &[&Path], writes: &[PathBuf]) -> anyhow::Result<Walls> {
    if !confined {
        return Ok(Walls::None);
    }
    let writes: Vec<&Path> = writes.iter().map(PathBuf::as_path).collect();
    Ok(privilege::hermit(Shelter { reads, writes: &writes })?)
}
