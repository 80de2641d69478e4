//! The loop between source, state and terminal: takes incidents in portions, keys as they come, and draws at most
//! fifteen times a second.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::app::{App, Effect, Sheet};
use super::query::Query;
use super::source::{Flow, Source};
use super::terminal::{Input, Screen, ScreenError, Signals, inputs, panicked};
use super::view::{self, Theme};

/// Between two pictures.
const FRAME: Duration = Duration::from_millis(67);
/// Between two looks at the source while nothing moves.
const LOOK: Duration = Duration::from_millis(30);
/// Between two snapshots.
const TICK: Duration = Duration::from_millis(250);
/// Incidents taken before keys are looked at again.
const PORTION: usize = 1_000;

#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Only these, to begin with; the flags of the command line.
    pub query: Query,
    /// Where `w` and `e` write.
    pub directory: PathBuf,
}

/// Shows the source until the user leaves or the source stops. Returns a line that sums up what was seen.
pub fn run(source: &mut dyn Source, options: Options) -> Result<String, ScreenError> {
    let signals = Signals::listen().map_err(ScreenError::Unusable)?;
    let mut screen = Screen::enter()?;
    let inputs = inputs().map_err(ScreenError::Unusable)?;
    let mut session = Session {
        app: App::new(source.span(), source.now(), options.query),
        theme: Theme::from_environment(),
        directory: options.directory,
        copying: false,
    };
    let result = session.watch(source, &mut screen, &inputs, &signals);
    drop(screen);
    // The engine's end of the channel may be gone because its thread panicked.
    if panicked() {
        return Err(ScreenError::Panicked);
    }
    result.map(|()| session.app.farewell())
}

struct Session {
    app: App,
    theme: Theme,
    directory: PathBuf,
    /// The ordinary screen is in front.
    copying: bool,
}

impl Session {
    fn watch(
        &mut self,
        source: &mut dyn Source,
        screen: &mut Screen,
        inputs: &Receiver<Input>,
        signals: &Signals,
    ) -> Result<(), ScreenError> {
        let mut portion = Vec::with_capacity(PORTION);
        let (mut changed, mut drawn, mut ticked) = (true, None::<Instant>, None::<Instant>);
        while !signals.asked() {
            let begun = Instant::now();
            if ticked.is_none_or(|at| begun - at >= TICK) {
                self.app.tick(source.now(), source.snapshot());
                ticked = Some(begun);
                changed = true;
            }
            let flow = source.take(PORTION, &mut portion);
            changed |= !portion.is_empty();
            portion.drain(..).for_each(|incident| self.app.add(incident));
            if flow == Flow::Stop {
                return Ok(());
            }
            let due = drawn.map_or(Duration::ZERO, |at| FRAME.saturating_sub(at.elapsed()));
            if changed && due.is_zero() && !self.copying {
                let (app, theme) = (&self.app, &self.theme);
                let mut seen = None;
                screen.draw(|frame| seen = Some(view::draw(frame, app, theme)))?;
                self.app.seen(seen.unwrap_or_default());
                (changed, drawn) = (false, Some(Instant::now()));
            }
            let wait = match flow {
                Flow::More => Duration::ZERO,
                _ if changed && !self.copying => due.min(LOOK),
                _ => LOOK,
            };
            match inputs.recv_timeout(wait) {
                Ok(Input::Key(key)) => {
                    let effect = self.app.key(key);
                    if effect == Effect::Quit {
                        return Ok(());
                    }
                    self.act(effect, screen)?;
                    changed = true;
                }
                Ok(Input::Resized) => changed = true,
                Ok(Input::Lost(error)) => return Err(ScreenError::Lost(error)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(ScreenError::Lost(io::Error::other("no more keys can be read from it")));
                }
            }
        }
        Ok(())
    }

    fn act(&mut self, effect: Effect, screen: &mut Screen) -> Result<(), ScreenError> {
        match effect {
            Effect::Suspend => screen.suspend()?,
            Effect::Save { name, body } => {
                let what = if name.ends_with(".txt") { "incident" } else { "incidents" };
                let saved = save(&self.directory, &name, &body);
                self.app.told(saved.as_deref().map_err(Clone::clone), what);
            }
            Effect::None | Effect::Quit => {}
        }
        match (&self.app.sheet, self.copying) {
            (Sheet::Copy(text), false) => {
                screen.print(&format!("\n{text}\n-- any key goes back to the screen, q leaves --"))?;
                self.copying = true;
            }
            (Sheet::Copy(_), true) => {}
            (_, true) => {
                screen.resume()?;
                self.copying = false;
            }
            (_, false) => {}
        }
        Ok(())
    }
}

/// Never overwrites, never follows a link, and readable for its owner only: paths of requests may be private.
fn save(directory: &Path, name: &str, body: &str) -> Result<PathBuf, String> {
    let (stem, end) = name.rsplit_once('.').unwrap_or((name, "txt"));
    for n in 1..100 {
        let name = if n == 1 { name.to_owned() } else { format!("{stem}-{n}.{end}") };
        let path = directory.join(name);
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(mut file) => {
                let written = file.write_all(body.as_bytes());
                return written.map(|()| path.clone()).map_err(|error| format!("{}: {error}", path.display()));
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(format!("{}: {error}; start in a directory that you may write", path.display())),
        }
    }
    Err(format!("{} and 98 more exist already; remove some", directory.join(name).display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_never_overwritten() {
        let directory = std::env::temp_dir().join(format!("trace502-save-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let first = save(&directory, "a.txt", "one").unwrap();
        let second = save(&directory, "a.txt", "two").unwrap();
        assert_ne!(first, second);
        assert_eq!(std::fs::read_to_string(&first).unwrap(), "one");
        assert_eq!(std::fs::read_to_string(&second).unwrap(), "two");
        std::fs::remove_dir_all(&directory).unwrap();
        let error = save(&directory, "a.txt", "three").unwrap_err();
        assert!(error.contains("start in a directory"), "{error}");
    }
}
