//! The watch as the agent's source: the same notices, and a report of itself every second.

use std::os::fd::BorrowedFd;

use super::{Choice, Wanted, Watch, WatchError};
use crate::config::Settings;
use crate::daemon::{Outlet, Source};
use crate::journal;
use crate::kernel::Options;
use crate::status::{Probe, Status, Watched};

/// What the agent's settings ask of a watch.
pub fn choice(settings: &Settings) -> Choice {
    let ring_bytes = u32::try_from(settings.ring_size).unwrap_or(u32::MAX);
    let kernel = Options { ring_bytes, head: settings.head_bytes.into(), ..Options::default() };
    Choice { kernel, proxies: wanted(settings) }
}

fn wanted(settings: &Settings) -> Wanted {
    Wanted::new(settings.proxy.iter().map(String::as_str))
}

/// Attaches what the agent runs on.
pub fn attach(settings: &Settings) -> anyhow::Result<Box<dyn Source>> {
    let watch = Watch::start(&choice(settings), |_| Ok::<_, WatchError>(None))?;
    Ok(Box::new(watch))
}

impl Source for Watch {
    fn run(mut self: Box<Self>, mut outlet: Outlet, stop: BorrowedFd<'_>) -> anyhow::Result<()> {
        let mut notices = Vec::new();
        let mut on = true;
        outlet.status(self.status());
        while on {
            on = self.step(stop, &mut notices);
            if !on {
                self.finish(&mut notices);
            }
            notices.drain(..).for_each(|notice| outlet.notice(notice));
            if let Some(new) = outlet.reloaded()
                && let Err(error) = self.want(&wanted(&new))
            {
                journal::error(&format!("the new proxies are not watched: {error}"));
            }
            if self.take_beat() || !on {
                outlet.status(self.status());
            }
        }
        // The agent ends with this thread. Detached one by one, each probe would wait for every CPU, past a second
        // in all; the kernel takes them back with the process.
        std::mem::forget(self);
        Ok(())
    }
}

impl Watch {
    fn status(&self) -> Status {
        let probes = self.probes().iter().map(|probe| Probe {
            name: probe.name.into(),
            provider: probe.provider.clone().unwrap_or_else(|| "none".into()),
            attached: probe.attached,
            required: probe.required,
        });
        let totals = self.totals();
        let mut lost = totals.lost.clone();
        // There from the start, so that the first loss shows as an increase.
        lost.entry("decode".into()).or_default();
        lost.insert("engine".into(), self.counters().overflow());
        let proxies = self.proxies().iter().map(|(pid, name)| Watched { name: name.clone(), pid: *pid });
        Status {
            probes: probes.collect(),
            events: totals.events.iter().map(|(kind, count)| ((*kind).into(), *count)).collect(),
            lost,
            proxies: proxies.collect(),
        }
    }
}
