//! What a tool waits for, over HTTP on a connection that it keeps: a hit on what only peers have, and a known miss, beside the round trip that ping measures in the same
//! run. Three `mesh` processes behind NATs: two are home to each name, so only a third one has to ask for it.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mesh::cache::store::Name;
use mesh::proto::placement::homes;
use mesh::proto::role::Role;

use super::statistics::{median, millis, rank};
use super::{Plan, begin};
use crate::interrupt::Interrupt;
use crate::lab::{Link, wait_until};
use crate::stage::{Crew, Member};

/// One way, in ms.
const DELAYS: [u64; 2] = [0, 5];

const ROLES: [Role; 3] = [Role::Primary, Role::Aux(0), Role::Aux(1)];

/// Who asks, and who stores.
const ASKER: usize = 0;
const WRITER: usize = 1;

/// The writer, for ping.
const PEER: &str = "10.77.0.2";

const SIZE: usize = 4 << 10;
const SOON: Duration = Duration::from_secs(30);

/// Milliseconds of one round.
struct Round {
    trip: f64,
    hit: (f64, f64),
    here: f64,
    miss: (f64, f64),
    astray: u64,
}

/// The table as Markdown.
///
/// # Errors
/// If the crew does not form, or the cache answers wrongly.
pub(super) fn measure(plan: &Plan, interrupt: &Interrupt) -> Result<String> {
    let crew = Crew::start("sharing", &[&[], &[], &[]])?;
    let mut text = format!(
        "\nLatency over the overlay, over HTTP on a kept connection, 4 KB: ms, {} of each a round, median of {} rounds. *Over the trip*: the median hit without the median round \
         trip. The goals: 1 ms over the trip, and 0.2 ms for a known miss. *Astray*: look-ups that were not what their column says.\n\n\
         | one way | round trip | hit on a peer p50 | p99 | over the trip | known miss p50 | p99 | hit here p50 | astray |\n|---|---|---|---|---|---|---|---|---|\n",
        plan.count(),
        plan.rounds()
    );
    for delay in DELAYS {
        for member in &crew.members {
            member.runner.set_link(Link { delay: Duration::from_millis(delay), ..Link::default() })?;
        }
        let mut rounds = vec![];
        for number in 1..=plan.rounds() {
            begin(interrupt, &format!("latency, {delay} ms one way, round {number} of {}", plan.rounds()))?;
            rounds.push(round(&crew, plan.count(), &format!("{delay}/{number}"))?);
        }
        let of = |part: fn(&Round) -> f64| median(rounds.iter().map(part));
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {delay} ms | {:.2} | {:.2} | {:.2} | {:.2} | {:.3} | {:.3} | {:.3} | {} |",
            of(|one| one.trip),
            of(|one| one.hit.0),
            of(|one| one.hit.1),
            of(|one| one.hit.0 - one.trip),
            of(|one| one.miss.0),
            of(|one| one.miss.1),
            of(|one| one.here),
            rounds.iter().map(|one| one.astray).sum::<u64>()
        );
    }
    Ok(text)
}

fn round(crew: &Crew, count: usize, prefix: &str) -> Result<Round> {
    let (asker, writer) = (&crew.members[ASKER], &crew.members[WRITER]);
    let names = foreign(prefix, count)?;
    let (mut here, mut there) = (Door::open(asker)?, Door::open(writer)?);
    for name in &names {
        ensure!(there.put(name)? < 300, "the writer's cache does not take {name}");
    }
    wait_until(SOON, "the news of names", || known(&mut here, &names))?;
    let trip = ping(asker, count)?;
    let (hits, mut astray) = counted(asker, "peer_hits", &mut here, &names, 200)?;
    let (again, _) = counted(asker, "peer_hits", &mut here, &names, 200)?;
    let absent: Vec<String> = (0..count).map(|at| format!("absent/{prefix}/{at}")).collect();
    let (misses, asked) = counted(asker, "misses", &mut here, &absent, 404)?;
    astray += asked;
    let both = |times: &[f64]| (median(times.iter().copied()), rank(times.iter().copied(), 0.99));
    Ok(Round { trip, hit: both(&hits), here: both(&again).0, miss: both(&misses), astray })
}

/// Names at which the asker is not at home.
fn foreign(prefix: &str, count: usize) -> Result<Vec<String>> {
    let mut names = vec![];
    for at in 0.. {
        if names.len() == count {
            break;
        }
        let name = format!("{prefix}/{at}");
        // As the front does (src/cache/front.rs): its own name, and the token's namespace.
        let hash = Name::new("mesh.main", name.as_str())?.hash();
        if !homes(&hash, ROLES).contains(&ROLES[ASKER]) {
            names.push(name);
        }
    }
    Ok(names)
}

/// HEAD fetches nothing.
fn known(door: &mut Door, names: &[String]) -> Option<()> {
    names.iter().all(|name| door.ask("HEAD", name, &[]).is_ok_and(|status| status == 200)).then_some(())
}

/// The times of look-ups, all answered with `status`, and how many of them are not counted as what they should be.
fn counted(member: &Member, counter: &str, door: &mut Door, names: &[String], status: u16) -> Result<(Vec<f64>, u64)> {
    let before = member.count(counter)?;
    let mut times = vec![];
    let mut others = 0;
    for name in names {
        let began = Instant::now();
        let answer = door.ask("GET", name, &[])?;
        times.push(millis(began.elapsed()));
        others += u64::from(answer != status);
    }
    let so = member.count(counter)? - before;
    ensure!(others * 10 <= names.len() as u64, "{others} of {} look-ups were not answered with {status}", names.len());
    Ok((times, (names.len() as u64).saturating_sub(so)))
}

/// The median of echo requests through the overlay.
fn ping(member: &Member, count: usize) -> Result<f64> {
    let mut command = member.plain("ping");
    command.env("LC_ALL", "C").args(["-n", "-i", "0.01", "-c", &count.to_string(), PEER]);
    let said = String::from_utf8(command.output().context("start ping")?.stdout)?;
    let times: Vec<f64> = said.lines().filter_map(trip).collect();
    ensure!(times.len() * 2 > count, "ping said: {said}");
    Ok(median(times))
}

/// `64 bytes from 10.77.0.2: icmp_seq=1 ttl=64 time=0.335 ms`
fn trip(line: &str) -> Option<f64> {
    line.split_once("time=")?.1.strip_suffix(" ms")?.trim().parse().ok()
}

/// A tool's connection to the cache on its runner.
struct Door {
    stream: BufReader<TcpStream>,
    token: String,
    body: Vec<u8>,
}

impl Door {
    fn open(member: &Member) -> Result<Self> {
        let url = member.variable("MESH_CACHE_URL")?;
        let addr = url.strip_prefix("http://").context("the cache speaks HTTP")?.trim_end_matches('/').to_owned();
        let stream = member.runner.enter(|| TcpStream::connect(&addr))??;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SOON))?;
        Ok(Self { stream: BufReader::new(stream), token: member.variable("MESH_CACHE_TOKEN")?, body: vec![] })
    }

    fn put(&mut self, name: &str) -> Result<u16> {
        let mut bytes = name.as_bytes().to_vec();
        bytes.resize(SIZE, b'.');
        self.ask("PUT", name, &bytes)
    }

    /// The status, once all of the answer has come.
    fn ask(&mut self, method: &str, name: &str, body: &[u8]) -> Result<u16> {
        let mut request = format!(
            "{method} /mesh/{name} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n\r\n",
            self.token,
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        self.stream.get_mut().write_all(&request)?;
        let (mut line, mut status, mut len) = (String::new(), None, 0);
        loop {
            line.clear();
            ensure!(self.stream.read_line(&mut line)? > 0, "the cache closed the connection");
            let text = line.trim_end().to_ascii_lowercase();
            if text.is_empty() {
                break;
            } else if status.is_none() {
                status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
            } else if let Some(told) = text.strip_prefix("content-length:") {
                len = told.trim().parse()?;
            }
        }
        self.body.resize(if method == "HEAD" { 0 } else { len }, 0);
        self.stream.read_exact(&mut self.body)?;
        status.context("the cache says no status")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ping_tells_each_round_trip() {
        assert_eq!(trip("64 bytes from 10.77.0.2: icmp_seq=1 ttl=64 time=0.335 ms"), Some(0.335));
        assert_eq!(trip("3 packets transmitted, 0 received, 100% packet loss, time 146ms"), None);
    }

    #[test]
    fn the_asker_is_home_to_none_of_the_names() {
        let names = foreign("a", 20).expect("names");

        assert_eq!(names.len(), 20);
        assert!(names.last().is_some_and(|name| name != "a/19"));
    }
}
