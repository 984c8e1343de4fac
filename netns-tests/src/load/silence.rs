//! What TCP says of a transfer that stands still, at its sender: whether it waits to repeat what was lost, and for how long. Not here: how long it stood
//! still ([`super::book`]).

use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::Duration;

use super::book::{Book, Pulse};
use crate::lab::Runner;

/// Asked after so much silence, and again after as much more.
const WORTH: Duration = Duration::from_secs(1);

const STEP: Duration = Duration::from_millis(100);

/// Of what a socket says of itself, what tells why it waits.
const TELLING: [&str; 11] =
    ["rto:", "backoff:", "rtt:", "mss:", "pmtu:", "cwnd:", "unacked:", "retrans:", "lost:", "sacked:", "lastrcv:"];

/// Asks as often as `pulse` is silent, until the load is over. `port` is the sender's, 0 while nothing is under way.
pub(super) fn watch(from: &Runner, who: &str, port: &AtomicU16, pulse: &Pulse<'_>, book: &Book) {
    let mut asked = 0;
    while !book.is_over() {
        thread::sleep(STEP);
        let silent = pulse.silent_for();
        let due = (silent.as_secs_f64() / WORTH.as_secs_f64()) as u32;
        if due > asked {
            let said = ask(from, port.load(Ordering::Relaxed));
            book.note_silence(format!("{who}, after {:.1} s: {said}", silent.as_secs_f64()));
        }
        asked = due;
    }
}

fn ask(from: &Runner, port: u16) -> String {
    let said = from.netns().run("ss", &["-tinoH", "sport", "=", &port.to_string()], "");
    said.map_or_else(|error| format!("{error:#}"), |text| telling(&text))
}

fn telling(text: &str) -> String {
    let is_telling = |word: &&str| TELLING.iter().any(|name| word.starts_with(name)) || word.starts_with("timer:");
    text.split_whitespace().filter(is_telling).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tells_why_a_socket_waits_is_picked_from_what_it_says() {
        let said = "ESTAB 0 5 10.77.0.2:4000 10.77.0.3:5000 timer:(on,880ms,2)\n\t bbr wscale:7,7 rto:1000 backoff:2 rtt:11/2 cwnd:4 unacked:5";

        assert_eq!(telling(said), "timer:(on,880ms,2) rto:1000 backoff:2 rtt:11/2 cwnd:4 unacked:5");
    }
}
