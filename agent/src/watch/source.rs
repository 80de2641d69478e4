//! The watch as the agent's source: the same notices, and a report of itself every second.

use std::os::fd::BorrowedFd;

use super::{Choice, Wanted, Watch, WatchError};
use crate::config::Settings;
use crate::daemon::{Outlet, Source};
use crate::kernel::Options;
use crate::status::{Probe, Status, Watched};

/// What the agent's settings ask of a watch.
pub fn choice(settings: &Settings) -> Choice {
    let ring_bytes = u32::try_from(settings.ring_size).unwrap_or(u32::MAX);
    let kernel = Options { ring_bytes, head: settings.head_bytes.into(), ..Options::default() };
    Choice { kernel, proxies: Wanted::new(settings.proxy.iter().map(String::as_str)) }
}

/// Attaches what the agent runs on.
pub fn attach(settings: &Settings) -> anyhow::Result<Box<dyn Source>> {
    let watch = Watch::start(&choice(settings), |_| Ok::<_, WatchError>(None))?;
    Ok(Box::new(watch))
}

impl Source for Watch {
    fn run(mut self: Box<Self>, outlet: Outlet, stop: BorrowedFd<'_>) -> anyhow::Result<()> {
        let mut notices = Vec::new();
        let mut on = true;
        while on {
            on = self.step(stop, &mut notices);
            if !on {
                self.finish(&mut notices);
            }
            notices.drain(..).for_each(|notice| outlet.notice(notice));
            if self.take_beat() || !on {
                outlet.status(self.status());
            }
        }
        Ok(())
    }
}

impl Watch {
    fn status(&self) -> Status {
        let probes = self.probes().iter().map(|probe| Probe {
            name: probe.name.into(),
            provider: probe.provider.clone().unwrap_or_default(),
            attached: probe.attached,
            required: probe.required,
        });
        let totals = self.totals();
        let mut lost = totals.lost.clone();
        let overflow = self.counters().overflow();
        if overflow > 0 {
            lost.insert("engine".into(), overflow);
        }
        let proxies = self.proxies().iter().map(|(pid, name)| Watched { name: name.clone(), pid: *pid });
        Status {
            probes: probes.collect(),
            events: totals.events.iter().map(|(kind, count)| ((*kind).into(), *count)).collect(),
            lost,
            proxies: proxies.collect(),
        }
    }
}
