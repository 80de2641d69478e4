//! How much the kernel side may keep, as flags of the verbs that watch.

use crate::kernel::{CONNECTIONS, Options};
use crate::watch::FOUND;

/// How much the kernel side may keep.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Kernel side")]
pub struct Tuning {
    /// MiB of buffer between kernel and program
    #[arg(long, value_name = "MIB", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub ring: u32,
    /// Bytes of each request and answer that are kept, 0 to 256
    #[arg(long, value_name = "BYTES", default_value_t = 256, value_parser = clap::value_parser!(u32).range(0..=256))]
    pub head: u32,
    /// Connections of proxies that there is room for, 1024 to 1048576, rounded up to a power of two (800 bytes each)
    /// [default: one for each quarter of a megabyte of memory, 16384 to 131072]
    #[arg(long, value_name = "N", value_parser = room_for())]
    pub connections: Option<u32>,
    /// Do not look inside the TLS libraries of proxies: errors of clients that speak TLS stay unseen
    #[arg(long)]
    pub no_tls: bool,
    /// Treat as a proxy, too, every process that listens on a TCP port and makes TCP connections of its own: finds
    /// proxies of unknown names, and applications that need other services
    #[arg(long)]
    pub any: bool,
}

fn room_for() -> clap::builder::RangedI64ValueParser<u32> {
    let (least, most) = CONNECTIONS.into_inner();
    clap::value_parser!(u32).range(i64::from(least)..=i64::from(most))
}

impl Tuning {
    pub fn options(&self) -> Options {
        Options {
            ring_bytes: self.ring << 20,
            head: self.head,
            places: self.connections,
            tls: !self.no_tls,
            found: if self.any { FOUND } else { 0 },
            ..Options::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Cli {
        #[command(flatten)]
        tuning: Tuning,
    }

    fn places(args: &[&str]) -> Result<Option<u32>, clap::Error> {
        Ok(Cli::try_parse_from([&["live"], args].concat())?.tuning.options().places)
    }

    #[test]
    fn room_for_connections_is_asked_for_within_bounds() {
        assert_eq!(places(&[]).unwrap(), None, "then the host's memory decides");
        assert_eq!(places(&["--connections", "1024"]).unwrap(), Some(1024));
        assert_eq!(places(&["--connections", "1048576"]).unwrap(), Some(1 << 20));
        for word in ["0", "1023", "1048577", "many", ""] {
            let refused = places(&["--connections", word]).unwrap_err().to_string();
            assert!(refused.contains("--connections"), "{refused}");
        }
    }
}
