//! Benchmarks in the lab: `bench connect` measures how long a mesh takes to form, `bench hold` what it loses while it stands, `bench userspace`
//! what a stream through it gives without a TUN device, `bench scale` what a primary costs with many aux, `bench tunnel` how the tunnel
//! compares with those of others, `bench load` what an hour of load does to a mesh, `bench cache` how the cache compares with nginx and redis, `bench sharing`
//! what it costs and brings that runners share theirs. Figures go to stdout; only by those of `load` something passes
//! or fails.

#![expect(clippy::print_stdout, reason = "its output is its result")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use netns_tests::caching;
use netns_tests::interrupt::{Interrupt, Interrupted};
use netns_tests::lab::Nat;
use netns_tests::load;
use netns_tests::scale::{self, Figures};
use netns_tests::sharing;
use netns_tests::stage::{DELAY, Process, Stage};
use netns_tests::throughput::{Device, Rig};
use netns_tests::tunnel::{self, Outcome};

/// Measures mesh in the lab; needs root
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// From the start of all runners to all up, and from a readable announcement to the tunnel
    Connect {
        /// How many aux
        #[arg(long, default_value_t = 11, value_parser = clap::value_parser!(u16).range(1..=64))]
        aux: u16,
        /// How many meshes, one after the other
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
        rounds: u16,
    },
    /// Echo requests through the tunnel, five a second, for longer than WireGuard keeps a key (120 s)
    Hold {
        /// How long
        #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u16).range(10..=3600))]
        seconds: u16,
    },
    /// One TCP stream over the userspace stack, beside the same over TUN devices
    Userspace {
        /// How much, each time
        #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=10_000))]
        megabytes: u16,
        /// How often; the median counts
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
        rounds: u16,
    },
    /// CPU of one primary: to connect simulated aux, and while all idle
    Scale {
        /// How many aux, one mesh for each number
        #[arg(long, value_delimiter = ',', default_value = "2,8,32,64,128,255", value_parser = clap::value_parser!(u16).range(1..=255))]
        aux: Vec<u16>,
        /// How long to idle
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=600))]
        seconds: u16,
        /// Where to write a plot, as SVG
        #[arg(long, value_name = "FILE")]
        plot: Option<PathBuf>,
    },
    /// The cache beside nginx and redis, on loopback
    Cache {
        #[command(flatten)]
        plan: caching::Plan,
    },
    /// What it costs and brings that runners share their caches
    Sharing {
        #[command(flatten)]
        plan: sharing::Plan,
        /// Where to write a plot of what it costs, as SVG
        #[arg(long, value_name = "FILE")]
        plot: Option<PathBuf>,
    },
    /// Mixed load over a bad network whose NATs are rebound: nothing corrupt, no leak, no stall, or it fails
    Load {
        #[command(flatten)]
        plan: Box<load::Plan>,
    },
    /// The tunnel beside boringtun, gotatun and wireguard-go: streams, round trips, delay and loss, many peers
    Tunnel {
        #[command(flatten)]
        plan: Box<tunnel::Plan>,
        /// Where to write a plot, as SVG
        #[arg(long, value_name = "FILE")]
        plot: Option<PathBuf>,
    },
}

/// A round that takes longer has failed.
const DEADLINE: Duration = Duration::from_secs(120);

fn main() -> Result<ExitCode> {
    let done = match Args::parse().what {
        What::Connect { aux, rounds } => connect(aux, rounds),
        What::Hold { seconds } => hold(seconds),
        What::Userspace { megabytes, rounds } => userspace(megabytes.into(), rounds),
        What::Scale { aux, seconds, plot } => scale(&aux, Duration::from_secs(seconds.into()), plot),
        What::Cache { plan } => cache(&plan),
        What::Sharing { plan, plot } => sharing(&plan, plot),
        What::Load { plan } => load(&plan),
        What::Tunnel { plan, plot } => tunnel(&plan, plot),
    };
    match done {
        Err(error) if error.is::<Interrupted>() => Ok(ExitCode::from(130)),
        done => done.map(|()| ExitCode::SUCCESS),
    }
}

fn cache(plan: &caching::Plan) -> Result<()> {
    print!("{}", caching::run(plan, &Interrupt::listen()?)?);
    Ok(())
}

fn sharing(plan: &sharing::Plan, plot: Option<PathBuf>) -> Result<()> {
    let drawn = sharing::run(plan, &Interrupt::listen()?, |text| println!("{text}"))?;
    plot.zip(drawn).map_or(Ok(()), |(path, svg)| write(&path, &svg))
}

fn connect(aux: u16, rounds: u16) -> Result<()> {
    println!("{aux} aux and a primary behind azure NATs, {} ms one way", DELAY.as_millis());
    println!("round  all up after  connect_ms: min  median  max");
    let (mut totals, mut all) = (vec![], vec![]);
    for round in 1..=rounds {
        let (total, mut connects) = one_mesh(aux)?;
        connects.sort_unstable();
        let (min, max) = (connects[0], connects[connects.len() - 1]);
        println!("{round:>5}  {:>10.2} s  {min:>15}  {:>6}  {max:>3}", total.as_secs_f64(), median(&connects));
        totals.push(total.as_millis() as u64);
        all.extend(connects);
    }
    totals.sort_unstable();
    all.sort_unstable();
    println!("median: all up after {:.2} s, connect_ms {}", median(&totals) as f64 / 1000.0, median(&all));
    Ok(())
}

fn hold(seconds: u16) -> Result<()> {
    let stage = Stage::new("hold")?;
    let (home, away) = (stage.runner("primary", Nat::Azure)?, stage.runner("aux0", Nat::Azure)?);
    let count = (u32::from(seconds) * 5).to_string();
    let ping = ["--", "ping", "-q", "-i", "0.2", "-c", &count, "10.77.0.2"];
    let args = ["primary", "--aux", "1", "--min-aux", "1", "--offload", "none"];
    let mut primary = stage.mesh(&home, &[&args[..], &ping].concat())?;
    let mut aux = stage.mesh(&away, &["aux", "--index", "0"])?;
    let code = primary.wait(Duration::from_secs(u64::from(seconds) + 60))?;
    println!("{}", primary.output().trim_end());
    ensure!(code == 0, "the primary ended with {code}");
    ensure!(aux.wait(DEADLINE)? == 0, "the aux failed: {}", aux.output());
    Ok(())
}

/// A far network, where a window bounds a stream, and a near one, where the machine does.
const FAR_AND_NEAR: [Duration; 2] = [DELAY, Duration::from_millis(1)];

fn userspace(megabytes: usize, rounds: u16) -> Result<()> {
    println!(
        "one TCP stream of {megabytes} MB between runners behind azure NATs: MB/s, median of {rounds}, and CPU of both meshes"
    );
    println!("one way  to       TUN             userspace       ratio");
    for delay in FAR_AND_NEAR {
        let rigs = [Rig::new(Device::Tun, delay)?, Rig::new(Device::Userspace, delay)?];
        for back in [false, true] {
            let [tun, stack] = side_by_side(&rigs, megabytes, rounds, back)?;
            let cell = |(speed, cost): (f64, f64)| format!("{speed:>5.1} {cost:>4.1} s/GB");
            let (ms, to) = (delay.as_millis(), if back { "primary" } else { "aux" });
            println!("{ms:>4} ms  {to:<7}  {}  {}  {:>5.2}", cell(tun), cell(stack), stack.0 / tun.0);
        }
        rigs.into_iter().try_for_each(Rig::end)?;
    }
    Ok(())
}

fn scale(counts: &[u16], idle: Duration, plot: Option<PathBuf>) -> Result<()> {
    println!("one primary and a crowd of simulated aux behind azure NATs, then {} s of idling", idle.as_secs());
    println!("| aux | all up after | CPU to connect | first minute | idle | memory |\n|---|---|---|---|---|---|");
    let mut all = vec![];
    for aux in counts {
        let figures = scale::measure(*aux, idle)?;
        all.push(figures);
        let Figures { wall, connect, fresh, idle, mib, .. } = figures;
        let (wall, connect) = (wall.as_secs_f64(), connect.as_secs_f64() * 1000.0);
        println!("| {aux} | {wall:.2} s | {connect:.0} ms | {fresh:.2} % | {idle:.2} % | {mib:.1} MiB |");
    }
    plot.map_or(Ok(()), |path| write(&path, &scale::svg(&all)))
}

fn tunnel(plan: &tunnel::Plan, plot: Option<PathBuf>) -> Result<()> {
    let Outcome { figures, conditions, failures, interrupted } = tunnel::run(plan, &Interrupt::listen()?)?;
    println!("{conditions}{}", tunnel::markdown(&figures));
    plot.map_or(Ok(()), |path| write(&path, &tunnel::svg(&figures)))?;
    ensure!(!interrupted, Interrupted);
    ensure!(failures == 0, "{failures} measurements came to nothing");
    Ok(())
}

fn load(plan: &load::Plan) -> Result<()> {
    let load::Outcome { text, complaints, interrupted } = load::run(plan, &Interrupt::listen()?)?;
    println!("{text}");
    ensure!(!interrupted, Interrupted);
    ensure!(complaints.is_empty(), "the mesh did not bear the load:\n- {}", complaints.join("\n- "));
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

/// For each: megabytes a second, and seconds of CPU for a gigabyte. They take turns, as the machine may have other work.
fn side_by_side(rigs: &[Rig; 2], megabytes: usize, rounds: u16, back: bool) -> Result<[(f64, f64); 2]> {
    let (mut speeds, mut spent) = ([vec![], vec![]], [Duration::ZERO; 2]);
    for _ in 0..rounds {
        for (at, rig) in rigs.iter().enumerate() {
            let before = rig.cpu()?;
            speeds[at].push(rig.measure(megabytes, back)?);
            spent[at] += rig.cpu()? - before;
        }
    }
    let gigabytes = (megabytes * usize::from(rounds)) as f64 / 1000.0;
    Ok([0, 1].map(|at| {
        speeds[at].sort_by(f64::total_cmp);
        (speeds[at][speeds[at].len() / 2], spent[at].as_secs_f64() / gigabytes)
    }))
}

/// All runners start at once, as the jobs of a matrix at best do.
fn one_mesh(count: u16) -> Result<(Duration, Vec<u64>)> {
    let stage = Stage::new("bench")?;
    let home = stage.runner("primary", Nat::Azure)?;
    let runners =
        (0..count).map(|index| stage.runner(&format!("aux{index}"), Nat::Azure)).collect::<Result<Vec<_>>>()?;
    let started = Instant::now();
    let expected = count.to_string();
    let args = ["primary", "--aux", &expected, "--min-aux", &expected, "--offload", "none", "--", "true"];
    let mut primary = stage.mesh(&home, &args)?;
    let start = |(index, runner): (usize, _)| stage.mesh(runner, &["aux", "--index", &index.to_string()]);
    let mut aux = runners.iter().enumerate().map(start).collect::<Result<Vec<Process>>>()?;
    primary.wait_for("mesh is up", DEADLINE)?;
    let total = started.elapsed();
    ensure!(primary.wait(DEADLINE)? == 0, "the primary failed: {}", primary.output());
    for aux in &mut aux {
        ensure!(aux.wait(DEADLINE)? == 0, "an aux failed: {}", aux.output());
    }
    let report = stage.report(&home)?;
    let peers = report["peers"].as_array().context("a report has peers")?;
    let connects =
        peers.iter().map(|peer| peer["connect_ms"].as_u64().context("every peer is up")).collect::<Result<_>>()?;
    Ok((total, connects))
}

fn median(sorted: &[u64]) -> u64 {
    sorted[sorted.len() / 2]
}
