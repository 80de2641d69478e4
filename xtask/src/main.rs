//! `cargo xtask`: reads the command line and hands over to the task's module.
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use xtask::tools::Group;
use xtask::{bench, build, dist, lab, lint, packages, setup, test, vm};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Tasks of the trace502 project", disable_help_subcommand = true)]
struct Line {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what is missing on this system to build trace502
    Setup {
        /// Also what the tests and the virtual machines need
        #[arg(long)]
        tests: bool,
    },
    /// Build trace502
    Build {
        #[arg(long)]
        release: bool,
    },
    /// Set up, build and run `trace502 live`, as root or through sudo
    Live {
        /// Arguments for `trace502 live`
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Set up, build and run every test: unit, replay, host (as root) and virtual machines
    Test {
        /// Kernel series to boot
        #[arg(long, value_delimiter = ',', default_values = vm::SERIES)]
        kernel: Vec<String>,
    },
    /// Measure on real proxies and real faults whether the causes are right, exact and silent under health
    Lab {
        /// Run the cells of nginx on these kernels in virtual machines instead of on this host
        #[arg(long, value_delimiter = ',')]
        kernel: Vec<String>,
        /// The program to run there, with the lab next to it, instead of builds of its own
        #[arg(long, value_name = "FILE", requires = "kernel")]
        agent: Option<PathBuf>,
        /// Arguments for the lab, see its --help
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Measure what watching costs
    Bench {
        /// Fewer rounds
        #[arg(long)]
        quick: bool,
        /// Also write the figures to this file
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// Only this measure: call, request, storm, incident, footprint or agent
        #[arg(long, value_name = "NAME")]
        only: Vec<String>,
    },
    /// Build what users install: a Debian package and a tarball
    Dist {
        /// Folder for them [default: target/dist]
        #[arg(long, value_name = "FOLDER")]
        out: Option<PathBuf>,
    },
    /// Watch `trace502 live` explain an nginx whose upstreams fail in many ways
    Demo,
    /// Run a command on Debian's kernels in virtual machines (by default `trace502 doctor`)
    Vm(VmLine),
    /// Check formatting, clippy on both sides and the licences of what is linked in
    Lint,
    /// Install Debian packages without starting their services (as root)
    #[command(hide = true)]
    Packages { names: Vec<String> },
}

#[derive(clap::Args)]
struct VmLine {
    /// Kernel series, the newest package of each is booted
    #[arg(long, value_delimiter = ',', default_values = vm::SERIES)]
    kernel: Vec<String>,
    /// Seconds until a guest is given up
    #[arg(long, default_value_t = 120)]
    timeout: u64,
    /// Memory of the guest in MiB
    #[arg(long, default_value_t = 1024)]
    memory: u32,
    /// The program to put into the guest, instead of a build of its own
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
    /// A file or folder to put into the guest, with the libraries it needs
    #[arg(long, value_name = "HOST[:GUEST]")]
    file: Vec<String>,
    /// A kernel module to load besides the usual ones
    #[arg(long)]
    module: Vec<String>,
    /// More words for the kernel's command line, such as lockdown=confidentiality
    #[arg(long, default_value = "")]
    kernel_args: String,
    /// The command to run in the guest
    #[arg(last = true)]
    command: Vec<String>,
}

fn main() -> ExitCode {
    match run(Line::parse().task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> anyhow::Result<ExitCode> {
    match task {
        Task::Setup { tests: false } => setup::run(&[Group::Build])?,
        Task::Setup { tests: true } => setup::run(&[Group::Build, Group::Vm, Group::Tests])?,
        Task::Build { release } => {
            setup::quietly(&[Group::Build])?;
            build::trace502(release)?;
        }
        Task::Live { args } => build::live(&args)?,
        Task::Test { kernel } => return test::run(&kernel),
        Task::Lab { kernel, agent, args } => return lab::run(&kernel, agent.as_deref(), &args),
        Task::Bench { quick, json, only } => bench::run(quick, json.as_deref(), &only)?,
        Task::Dist { out } => dist::run(out.as_deref())?,
        Task::Demo => lab::demo(&[])?,
        Task::Vm(line) => return boot(line),
        Task::Lint => lint::run()?,
        Task::Packages { names } => packages::install(&names)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn boot(line: VmLine) -> anyhow::Result<ExitCode> {
    setup::quietly(&[Group::Build, Group::Vm])?;
    let agent = match &line.agent {
        Some(built) => std::path::absolute(built)?,
        None => build::trace502(true)?,
    };
    let command = if line.command.is_empty() { vec!["trace502".into(), "doctor".into()] } else { line.command };
    let mut code = 0;
    for series in &line.kernel {
        let mut guest = vm::Guest::new(&vm::Kernel::newest(series)?, &command);
        guest.file(&agent, vm::AGENT);
        for file in &line.file {
            let (host, inside) = file.split_once(':').unwrap_or((file, file));
            guest.file(&std::path::absolute(host)?, PathBuf::from(inside));
        }
        guest.modules.extend(line.module.iter().cloned());
        guest.memory_mib = line.memory;
        guest.timeout = Duration::from_secs(line.timeout);
        guest.kernel_args = line.kernel_args.clone();
        println!("== {}", guest.kernel.release);
        let report = guest.run(&mut |text| println!("{text}"))?;
        println!("== {}: exit status {} after {} s", guest.kernel.release, report.status, report.took.as_secs());
        if code == 0 {
            code = report.status;
        }
    }
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}
