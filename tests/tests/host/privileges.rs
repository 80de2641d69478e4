//! With which capabilities the program works, and what it says without them.

use trace502_tests::agent::{self, Agent};
use trace502_tests::daemon::PATIENCE;
use trace502_tests::guard::{Launch, TempDir};
use trace502_tests::world::{Ports, World, alone};

/// The program with these capabilities and no others, by number: older tools do not know the names.
fn with(capabilities: &[u32]) -> Launch {
    let named: Vec<String> = capabilities.iter().map(|number| format!(",+cap_{number}")).collect();
    let program = agent::binary().unwrap().display().to_string();
    Launch::new("setpriv").args(["--bounding-set".to_owned(), format!("-all{}", named.concat()), "--".into(), program])
}

const PERFMON: u32 = 38;
const BPF: u32 = 39;

#[test]
fn a_capability_that_is_lacking_is_named_with_the_way_out() {
    let Some(_alone) = alone() else { return };
    let dir = TempDir::of("privileges").unwrap();
    let log = dir.path().join("said.log");
    for (capabilities, lacks) in
        [(&[][..], "lacks CAP_BPF and CAP_PERFMON"), (&[BPF], "lacks CAP_PERFMON,"), (&[PERFMON], "lacks CAP_BPF,")]
    {
        for verb in ["live", "doctor"] {
            let _ = std::fs::remove_file(&log);
            let kid = with(capabilities).args([verb]).log(&log).unwrap().start().unwrap();
            let status = kid.wait(PATIENCE).unwrap();
            let said = std::fs::read_to_string(&log).unwrap();
            let words: Vec<&str> = said.split_whitespace().collect();
            let said = words.join(" ");
            assert!(!status.success(), "{verb} with {capabilities:?}: {said}");
            assert!(said.contains(lacks) && said.contains("setcap cap_bpf,cap_perfmon"), "{verb}: {said}");
        }
    }
}

#[test]
fn two_capabilities_are_enough_to_tell_a_cause() {
    let Some(_alone) = alone() else { return };
    let world = World::new(Ports::Plenty).unwrap();
    let launch = with(&[BPF, PERFMON]).args(["live", "--json"]);
    let agent = Agent::launch(launch, world.dir().join("agent.log")).unwrap();
    // It asks nginx for what nobody serves, until that is told.
    agent.wait_ready(&world).unwrap();
    let told = agent.stop().unwrap().pop().unwrap().incident;
    assert_eq!((told.proxy.name.as_str(), told.cause.as_str()), ("nginx", "no_listener"), "{told:?}");
}
