//! A packet filter between the proxy and an application that is perfectly well.

use anyhow::Result;

use super::{Fault, Plan, Setup, fault};
use crate::world::{FAR, HOST, Place, World};

const REFUSED: &str = "502 503 503 502 503 -";
const DROPPED: &str = "504 503 503 502 503 -";

pub const FAULTS: &[Fault] = &[
    fault("nft-drop-in", DROPPED, &["firewall_drop"], |s| filtered(s, Rule::nft(At::HostIn, "drop"))),
    fault("nft-drop-out", DROPPED, &["firewall_drop"], |s| filtered(s, Rule::nft(At::NearOut, "drop"))),
    fault("nft-drop-answer", DROPPED, &["firewall_drop"], |s| filtered(s, Rule::nft(At::HostOut, "drop"))),
    fault("nft-drop-loopback", DROPPED, &["firewall_drop"], |s| filtered(s, Rule::nft(At::NearIn, "drop"))),
    fault("nft-reset-in", REFUSED, &["firewall_reject"], |s| filtered(s, Rule::nft(At::HostIn, RESET))),
    fault("nft-reset-out", REFUSED, &["firewall_reject"], |s| filtered(s, Rule::nft(At::NearOut, RESET))),
    fault("nft-reset-loopback", REFUSED, &["firewall_reject"], |s| filtered(s, Rule::nft(At::NearIn, RESET))),
    fault("nft-icmp-in", REFUSED, &["firewall_reject"], |s| filtered(s, Rule::nft(At::HostIn, PROHIBITED))),
    fault("nft-icmp-out", REFUSED, &["firewall_reject"], |s| filtered(s, Rule::nft(At::NearOut, PROHIBITED))),
    fault("nft-icmp-port", REFUSED, &["firewall_reject"], |s| filtered(s, Rule::nft(At::HostIn, PORT))),
    fault("ipt-drop-in", DROPPED, &["firewall_drop"], |s| filtered(s, Rule::iptables(At::HostIn, "DROP"))),
    fault("ipt-drop-out", DROPPED, &["firewall_drop"], |s| filtered(s, Rule::iptables(At::NearOut, "DROP"))),
    fault("ipt-reset-in", REFUSED, &["firewall_reject"], |s| filtered(s, Rule::iptables(At::HostIn, "tcp-reset"))),
    fault("ipt-reset-out", REFUSED, &["firewall_reject"], |s| filtered(s, Rule::iptables(At::NearOut, "tcp-reset"))),
    fault("ipt-icmp-in", REFUSED, &["firewall_reject"], |s| {
        filtered(s, Rule::iptables(At::HostIn, "icmp-admin-prohibited"))
    }),
    fault("ipt-icmp-out", REFUSED, &["firewall_reject"], |s| {
        filtered(s, Rule::iptables(At::NearOut, "icmp-admin-prohibited"))
    }),
    // The errno does not tell a filter far away from a router that does not know the host.
    fault("far-prohibited", REFUSED, &["firewall_reject", "host_unreachable"], |s| {
        Ok(Plan::get(s.route(format!("{FAR}:2080"))))
    })
    .likely(),
];

const RESET: &str = "reject with tcp reset";
const PROHIBITED: &str = "reject with icmpx admin-prohibited";
const PORT: &str = "reject with icmpx port-unreachable";

/// Where the filter stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    NearIn,
    NearOut,
    HostIn,
    HostOut,
}

struct Rule {
    at: At,
    verdict: &'static str,
    iptables: bool,
}

impl Rule {
    fn nft(at: At, verdict: &'static str) -> Self {
        Self { at, verdict, iptables: false }
    }

    fn iptables(at: At, verdict: &'static str) -> Self {
        Self { at, verdict, iptables: true }
    }

    fn apply(&self, world: &World, port: u16) -> Result<()> {
        let ns = match self.at {
            At::NearIn | At::NearOut => &world.proxies,
            At::HostIn | At::HostOut => &world.host,
        };
        let input = matches!(self.at, At::NearIn | At::HostIn);
        let side = if self.at == At::HostOut { "sport" } else { "dport" };
        if self.iptables {
            let chain = if input { "INPUT" } else { "OUTPUT" };
            let port = port.to_string();
            let side = format!("--{side}");
            let mut args = vec!["-w", "-A", chain, "-p", "tcp", &side, &port, "-j"];
            match self.verdict {
                "DROP" => args.push("DROP"),
                with => args.extend(["REJECT", "--reject-with", with]),
            }
            return ns.run("iptables", &args).map(drop);
        }
        let hook = if input { "input" } else { "output" };
        ns.nft(&format!(
            "table inet t502 {{\n chain {hook} {{\n type filter hook {hook} priority 0; policy accept;\n \
             tcp {side} {port} {}\n }}\n}}\n",
            self.verdict
        ))
    }
}

/// A listener of its own, so that nothing but the rule is between.
fn filtered(setup: &Setup, rule: Rule) -> Result<Plan> {
    // The conduct's number makes it this fault's own listener; one rule serves all proxies.
    let place = if rule.at == At::NearIn { Place::Loopback } else { Place::Host };
    let port = setup.world.own_listener(place, setup.fault, |port| rule.apply(&setup.world, port))?;
    let host = if place == Place::Loopback { "127.0.0.1" } else { HOST };
    Ok(Plan::get(setup.route(format!("{host}:{port}"))))
}
