//! What distccd has done, from its statistics page (`distccd --stats`, port 3633). Who asks, and how often, is not here.
//!
//! The page is text: `argv /distccd`, then `NAME VALUE` lines between `<distccstats>` and `</distccstats>`.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpStream;

/// The page of a busy daemon has about 800 bytes.
const MAX_LEN: u64 = 64 * 1024;

/// For the whole exchange. The page is made from counters in memory.
pub const TIMEOUT: Duration = Duration::from_secs(1);

/// Counters since this distccd started, and what it has just now. A line that a version of distccd does not print counts as 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Jobs that gave an object file.
    pub jobs: u64,
    /// Jobs that the compiler refused.
    pub errors: u64,
    /// Jobs that ran into `--job-lifetime`.
    pub timeouts: u64,
    /// Jobs whose client went away first.
    pub disconnects: u64,
    /// Requests that distccd could not read, or had no room for.
    pub rejected: u64,
    /// Requests that ended in another way.
    pub other: u64,
    /// The most jobs at once (`--jobs`).
    pub slots: u64,
    /// Runnable processes on the machine (`dcc_current_load`), not jobs.
    pub runnable: u64,
}

impl Stats {
    /// Reads a page. Unknown lines and values that are no number are skipped.
    pub fn parse(page: &str) -> Result<Self, Malformed> {
        let (_, body) = page.split_once("<distccstats>").ok_or(Malformed)?;
        let (body, _) = body.split_once("</distccstats>").ok_or(Malformed)?;
        let mut stats = Self::default();
        let mut counted = false;
        for (name, value) in body.lines().filter_map(|line| line.split_once(' ')) {
            let Ok(value) = value.trim().parse() else { continue };
            counted |= name == "dcc_compile_ok";
            stats.set(name, value);
        }
        counted.then_some(stats).ok_or(Malformed)
    }

    fn set(&mut self, name: &str, value: u64) {
        match name {
            "dcc_compile_ok" => self.jobs = value,
            "dcc_compile_error" => self.errors = value,
            "dcc_compile_timeout" => self.timeouts = value,
            "dcc_cli_disconnect" => self.disconnects = value,
            "dcc_rej_bad_req" | "dcc_rej_overload" => self.rejected = self.rejected.saturating_add(value),
            "dcc_other" => self.other = value,
            "dcc_max_kids" => self.slots = value,
            "dcc_current_load" => self.runnable = value,
            _ => {}
        }
    }
}

/// What answered is not the statistics page of a distccd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no statistics page of distccd")]
pub struct Malformed;

/// The page of the distccd whose statistics port is `address`. It comes without being asked for, and asking harms: distccd closes
/// with our request unread, and the reset that follows may overtake the page. Fails after a second, and on more than 64 KiB.
pub async fn fetch(address: SocketAddr) -> io::Result<Stats> {
    let page = async { page(TcpStream::connect(address).await?).await };
    parse(tokio::time::timeout(TIMEOUT, page).await??)
}

/// The page that comes over a connection to such a port, by whatever way it was made. Fails as [`fetch`] does.
pub async fn read(connection: impl AsyncRead + Unpin) -> io::Result<Stats> {
    parse(tokio::time::timeout(TIMEOUT, page(connection)).await??)
}

async fn page(connection: impl AsyncRead + Unpin) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    connection.take(MAX_LEN).read_to_end(&mut page).await?;
    Ok(page)
}

fn parse(page: Vec<u8>) -> io::Result<Stats> {
    Stats::parse(&String::from_utf8_lossy(&page)).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Counts jobs on across restarts of a distccd, whose own counter begins at 0 each time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JobCounter {
    before: u64,
    last: u64,
}

impl JobCounter {
    /// Takes what distccd says and returns the jobs of all its lives. Never falls. What was done between the last look and a death
    /// is lost, and a restart goes unnoticed when the new counter has already passed the old one: both count too few, never
    /// too many.
    pub fn observe(&mut self, jobs: u64) -> u64 {
        if jobs < self.last {
            self.before = self.before.saturating_add(self.last);
        }
        self.last = jobs;
        self.total()
    }

    /// The jobs counted so far.
    pub fn total(&self) -> u64 {
        self.before.saturating_add(self.last)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    const PAGE: &str = "HTTP/1.0 200 OK\r\n\r\nargv /distccd\n<distccstats>\ndcc_tcp_accept 9\ndcc_rej_bad_req 1\n\
        dcc_rej_overload 2\ndcc_compile_ok 5\ndcc_compile_error 3\ndcc_longest_job a b.c\ndcc_longest_job_time_msecs -1\n\
        dcc_max_kids 4\ndcc_current_load 7\ndcc_load1 0.59\ndcc_free_space 73435 MB\n</distccstats>\n";

    #[test]
    fn the_page_of_distccd_3_4_is_read() {
        let stats = Stats { jobs: 5, errors: 3, rejected: 3, slots: 4, runnable: 7, ..Stats::default() };
        assert_eq!(Stats::parse(PAGE), Ok(stats));
    }

    #[test]
    fn a_page_cut_short_or_of_another_server_is_refused() {
        let (cut, _) = PAGE.split_at(PAGE.len() - 20);
        for page in ["", "<html>", "<distccstats>\n</distccstats>", cut] {
            assert_eq!(Stats::parse(page), Err(Malformed), "{page:?}");
        }
    }

    #[test]
    fn a_restart_does_not_lower_the_count() {
        let mut counter = JobCounter::default();
        assert_eq!([3, 5, 0, 2, 2, 1].map(|jobs| counter.observe(jobs)), [3, 5, 5, 7, 7, 8]);
    }

    #[tokio::test]
    async fn a_server_that_says_nothing_costs_a_second_and_one_that_says_too_much_is_cut_off() {
        let silent = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let error = fetch(silent.local_addr().expect("bound")).await.expect_err("nobody answers");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);

        let endless = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let address = endless.local_addr().expect("bound");
        let server = tokio::spawn(async move {
            let (mut stream, _) = endless.accept().await.expect("a client");
            while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
        });
        let error = fetch(address).await.expect_err("no page");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        server.await.expect("the client hung up");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(page in any::<String>()) {
            let _ = Stats::parse(&page);
            let _ = Stats::parse(&format!("<distccstats>{page}</distccstats>"));
        }

        #[test]
        fn whatever_numbers_are_printed_come_back(jobs: u64, errors: u64, noise in "[a-z_0-9 .\n-]{0,80}") {
            let page = format!("<distccstats>\n{noise}\ndcc_compile_ok {jobs}\ndcc_compile_error {errors}\n</distccstats>");
            let stats = Stats::parse(&page).expect("both lines are there");
            prop_assert_eq!((stats.jobs, stats.errors), (jobs, errors));
        }

        #[test]
        fn the_count_never_falls_and_is_never_less_than_what_was_seen(seen in prop::collection::vec(any::<u32>(), 1..20)) {
            let mut counter = JobCounter::default();
            let mut last = 0;
            for jobs in seen {
                let total = counter.observe(jobs.into());
                prop_assert!(total >= last && total >= jobs.into());
                last = total;
            }
        }
    }
}
