//! The terminal itself: taken over, given back whatever happens, and the keys and signals that reach us through it.
//!
//! Knows nothing of what is shown. Keys are read by a thread of their own, so that neither drawing on a slow line
//! nor a flood of incidents delays them, and because a reader of a terminal that was hung up may never return.

use std::io::{self, BufWriter, IsTerminal as _, Stdout, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Once};
use std::time::Duration;
use std::{env, panic, thread};

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::event::{self, Event, KeyEvent, KeyEventKind};
use ratatui::crossterm::terminal::{
    BeginSynchronizedUpdate, EndSynchronizedUpdate, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode,
    enable_raw_mode,
};
use ratatui::crossterm::{cursor, execute, queue};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP};
use signal_hook::{SigId, flag, low_level};
use thiserror::Error;

#[derive(Debug, Error)]
pub enum ScreenError {
    #[error("the terminal cannot show a full-screen view: {0}; use --plain or --json")]
    Unusable(#[source] io::Error),
    #[error("the terminal went away: {0}")]
    Lost(#[source] io::Error),
    #[error("a part of the program panicked; the message is above")]
    Panicked,
}

/// Whether there is a person at a terminal on both ends.
pub fn usable() -> bool {
    let term = env::var("TERM").unwrap_or_default();
    io::stdin().is_terminal() && io::stdout().is_terminal() && !term.is_empty() && term != "dumb"
}

/// The terminal is ours and must be given back.
static TAKEN: AtomicBool = AtomicBool::new(false);
/// The screen is over; nobody waits for keys any more.
static OVER: AtomicBool = AtomicBool::new(false);
static PANICKED: AtomicBool = AtomicBool::new(false);
static HOOK: Once = Once::new();

type Backend = CrosstermBackend<BufWriter<Stdout>>;

#[derive(Debug)]
pub struct Screen {
    terminal: Terminal<Backend>,
}

impl Screen {
    pub fn enter() -> Result<Screen, ScreenError> {
        HOOK.call_once(|| {
            let before = panic::take_hook();
            panic::set_hook(Box::new(move |info| {
                // The message must land on a terminal that shows it, whichever thread panics.
                if give_back() {
                    PANICKED.store(true, Ordering::Release);
                }
                before(info);
            }));
        });
        let out = BufWriter::with_capacity(1 << 16, io::stdout());
        let terminal = Terminal::new(CrosstermBackend::new(out)).map_err(ScreenError::Unusable)?;
        let mut screen = Screen { terminal };
        OVER.store(false, Ordering::Release);
        screen.take().map_err(ScreenError::Unusable)?;
        Ok(screen)
    }

    fn take(&mut self) -> io::Result<()> {
        TAKEN.store(true, Ordering::Release);
        enable_raw_mode()?;
        execute!(io::stdout(), EnterAlternateScreen, cursor::Hide)?;
        self.terminal.clear()
    }

    /// One picture at once, so that nothing flickers on the way.
    pub fn draw(&mut self, picture: impl FnOnce(&mut ratatui::Frame<'_>)) -> Result<(), ScreenError> {
        if panicked() {
            return Err(ScreenError::Panicked);
        }
        let update = || {
            queue!(self.terminal.backend_mut(), BeginSynchronizedUpdate)?;
            self.terminal.draw(picture)?;
            execute!(self.terminal.backend_mut(), EndSynchronizedUpdate)
        };
        update().map_err(ScreenError::Lost)
    }

    /// Plain text on the ordinary screen, where the terminal can mark, wrap and scroll it.
    pub fn print(&mut self, text: &str) -> Result<(), ScreenError> {
        let show = || {
            let mut out = io::stdout().lock();
            execute!(out, LeaveAlternateScreen)?;
            for line in text.lines() {
                write!(out, "{line}\r\n")?;
            }
            out.flush()
        };
        show().map_err(ScreenError::Lost)
    }

    /// Back from [`Screen::print`].
    pub fn resume(&mut self) -> Result<(), ScreenError> {
        self.take().map_err(ScreenError::Lost)
    }

    /// Ctrl-Z: the shell gets its terminal, and we go on when it lets us.
    pub fn suspend(&mut self) -> Result<(), ScreenError> {
        give_back();
        low_level::raise(SIGTSTP).map_err(ScreenError::Lost)?;
        self.resume()
    }
}

/// Some thread panicked while the terminal was ours.
pub fn panicked() -> bool {
    PANICKED.load(Ordering::Acquire)
}

impl Drop for Screen {
    fn drop(&mut self) {
        OVER.store(true, Ordering::Release);
        give_back();
    }
}

/// Leaves the terminal as it was found; true if it was ours. Errors have nobody to go to: the terminal is gone.
fn give_back() -> bool {
    let ours = TAKEN.swap(false, Ordering::AcqRel);
    if ours {
        let mut out = io::stdout();
        let _ = execute!(out, EndSynchronizedUpdate, LeaveAlternateScreen, cursor::Show);
        let _ = disable_raw_mode();
    }
    ours
}

/// Signals that ask us to leave, for as long as this lives.
#[derive(Debug)]
pub struct Signals {
    asked: Arc<AtomicBool>,
    over: Arc<AtomicBool>,
    _ids: Vec<SigId>,
}

impl Signals {
    pub fn listen() -> io::Result<Signals> {
        let asked = Arc::new(AtomicBool::new(false));
        let over = Arc::new(AtomicBool::new(false));
        let mut ids = Vec::new();
        for signal in [SIGTERM, SIGHUP, SIGINT, SIGQUIT] {
            ids.push(flag::register_conditional_default(signal, Arc::clone(&over))?);
            // The second one ends us even while a stalled terminal holds us in a write.
            ids.push(flag::register_conditional_shutdown(signal, 1, Arc::clone(&asked))?);
            ids.push(flag::register(signal, Arc::clone(&asked))?);
        }
        Ok(Signals { asked, over, _ids: ids })
    }

    pub fn asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // Handlers cannot be taken back to the default; from now on they act as the default would.
        self.asked.store(false, Ordering::Release);
        self.over.store(true, Ordering::Release);
    }
}

#[derive(Debug)]
pub enum Input {
    Key(KeyEvent),
    Resized,
    Lost(io::Error),
}

/// Reads keys until the receiver is gone.
pub fn inputs() -> io::Result<Receiver<Input>> {
    let (sender, receiver) = sync_channel(64);
    thread::Builder::new().name("keys".into()).spawn(move || read(&sender))?;
    Ok(receiver)
}

fn read(sender: &SyncSender<Input>) {
    loop {
        let input = match event::poll(Duration::from_millis(200)).and_then(|ready| ready.then(event::read).transpose())
        {
            Ok(Some(Event::Key(key))) if key.kind != KeyEventKind::Release => Input::Key(key),
            Ok(Some(Event::Resize(..))) => Input::Resized,
            Ok(_) if OVER.load(Ordering::Acquire) => return,
            Ok(_) => continue,
            Err(error) => Input::Lost(error),
        };
        let lost = matches!(input, Input::Lost(_));
        if sender.send(input).is_err() || lost {
            return;
        }
    }
}
