//! The cache beside nginx and redis, on loopback, in turns: how many requests of each size each answers in a second. Figures, no verdict.

#![expect(clippy::print_stderr, reason = "says where it is")]

mod load;
mod others;

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use tempfile::TempDir;

use self::load::Wrk;
use self::others::{Nginx, Redis};
use crate::interrupt::{Interrupt, Interrupted};
use crate::stage::Home;

/// How much, and how often.
#[derive(Debug, Clone, Args)]
pub struct Plan {
    /// How often each is measured; the median counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub rounds: u16,
    /// How long each time
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=60))]
    pub seconds: u16,
    /// Connections at once
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub clients: u16,
}

/// What is asked for, by its size.
const SIZES: [(&str, usize); 3] = [("4 KB", 4 << 10), ("100 KB", 100 << 10), ("10 MB", 10 << 20)];

/// Requests a second of each contender, round by round.
#[derive(Debug, Default)]
struct Row {
    what: String,
    rates: Vec<[Option<f64>; 3]>,
}

/// The table as Markdown. Says on stderr where it is.
///
/// # Errors
/// If a contender cannot start, or answers wrongly.
pub fn run(plan: &Plan, interrupt: &Interrupt) -> Result<String> {
    let folder = TempDir::new()?;
    let below = |name: &str| -> Result<_> {
        let path = folder.path().join(name);
        std::fs::create_dir(&path)?;
        Ok(path)
    };
    let home = Home::start(&below("mesh")?)?;
    let (nginx, redis) = (Nginx::start(&below("nginx")?)?, Redis::start(&below("redis")?)?);
    let arena = Arena { plan, home, nginx, redis };
    let mut rows: Vec<Row> = vec![];
    for (name, size) in SIZES {
        arena.store(size)?;
        let mut row = Row { what: format!("GET of {name}"), ..Row::default() };
        for round in 1..=plan.rounds {
            begin(plan, interrupt, &row.what, round)?;
            row.rates.push(arena.get(size)?);
        }
        rows.push(row);
    }
    let mut row = Row { what: "PUT of 4 KB".into(), ..Row::default() };
    for round in 1..=plan.rounds {
        begin(plan, interrupt, &row.what, round)?;
        row.rates.push(arena.put(SIZES[0].1, round, folder.path())?);
    }
    rows.push(row);
    Ok(markdown(plan, &rows))
}

fn begin(plan: &Plan, interrupt: &Interrupt, what: &str, round: u16) -> Result<()> {
    if interrupt.came() {
        bail!(Interrupted);
    }
    eprintln!("bench cache: {what}, round {round} of {}", plan.rounds);
    Ok(())
}

struct Arena<'a> {
    plan: &'a Plan,
    home: Home,
    nginx: Nginx,
    redis: Redis,
}

impl Arena<'_> {
    fn time(&self) -> Duration {
        Duration::from_secs(self.plan.seconds.into())
    }

    fn wrk(&self) -> Wrk {
        Wrk { clients: self.plan.clients, time: self.time() }
    }

    /// The same bytes with each.
    fn store(&self, size: usize) -> Result<()> {
        let bytes = load::content(size);
        let (url, token) = self.door(size)?;
        load::upload(&url, &token, &bytes)?;
        self.nginx.store(size, &bytes)?;
        self.redis.store(size, &bytes)
    }

    fn door(&self, size: usize) -> Result<(String, String)> {
        let url = self.home.variable("MESH_CACHE_URL")?;
        Ok((format!("{url}/webdav/{size}"), self.home.variable("MESH_CACHE_TOKEN")?))
    }

    fn get(&self, size: usize) -> Result<[Option<f64>; 3]> {
        let (url, token) = self.door(size)?;
        let mesh = self.wrk().get(&url, Some(&token))?;
        let nginx = self.wrk().get(&self.nginx.url(size), None)?;
        Ok([Some(mesh), Some(nginx), Some(self.redis.get(size, self.plan.clients, self.time())?)])
    }

    /// New names and new bytes each time, so that nothing is there already.
    fn put(&self, size: usize, round: u16, folder: &Path) -> Result<[Option<f64>; 3]> {
        let (url, token) = self.door(size)?;
        let mesh = self.wrk().put(&format!("{url}/{round}/"), Some(&token), size, folder)?;
        let nginx = self.wrk().put(&self.nginx.dav(round), None, size, folder)?;
        Ok([Some(mesh), Some(nginx), Some(self.redis.set(size, self.plan.clients, self.time())?)])
    }
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

fn markdown(plan: &Plan, rows: &[Row]) -> String {
    let Plan { rounds, seconds, clients } = plan;
    let mut text = format!(
        "Requests a second over loopback, {clients} connections, median of {rounds} rounds of {seconds} s; ratios are of the same round.\n\n\
         | | mesh | nginx | redis | mesh / nginx | mesh / redis |\n|---|---|---|---|---|---|\n"
    );
    for Row { what, rates } in rows {
        let of = |at: usize| median(rates.iter().filter_map(|rates| rates[at]).collect());
        let ratio = |at: usize| median(rates.iter().filter_map(|rates| Some(rates[0]? / rates[at]?)).collect());
        let shown =
            |value: Option<f64>, decimals: usize| value.map_or("-".into(), |value| format!("{value:.decimals$}"));
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {what} | {} | {} | {} | {} | {} |",
            shown(of(0), 0),
            shown(of(1), 0),
            shown(of(2), 0),
            shown(ratio(1), 2),
            shown(ratio(2), 2)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_one_round() {
        let plan = Plan { rounds: 3, seconds: 3, clients: 8 };
        let rates = [[10.0, 20.0, 5.0], [100.0, 50.0, 50.0], [30.0, 30.0, 10.0]].map(|rates| rates.map(Some));
        let row = Row { what: "GET".into(), rates: rates.to_vec() };

        let text = markdown(&plan, &[row]);

        assert!(text.ends_with("| GET | 30 | 30 | 10 | 1.00 | 2.00 |\n"), "{text}");
    }
}
