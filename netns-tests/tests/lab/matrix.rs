//! Which pairs of NATs come together when both open with a low TTL and then send at full TTL, learning from which address the other is heard.
//! It is measured with bare sockets, and is what `mesh` has to keep up with. Not here: relays and guesses of ports, which go further.

use std::net::SocketAddr;
use std::thread;

use netns_tests::lab::{Lab, Nat, Runner};

use crate::common::{lab_with_server, runner};
use crate::punch::{End, outcomes};

/// The words are those of [`outcomes`].
const EXPECTED: &str = "
A\\B        masq       azure      eim_eif    eim_adf    eim_apdf   azure_adm  masq_rand  masq_frand block
masq       both       both       both       both       both       none       none       none       blocked
azure      both       both       both       both       both       none       none       none       blocked
eim_eif    both       both       both       both       both       both       both       both       blocked
eim_adf    both       both       both       both       both       both       both       both       blocked
eim_apdf   both       both       both       both       both       none       none       none       blocked
azure_adm  none       none       both       both       none       none       none       none       blocked
masq_rand  none       none       both       both       none       none       none       none       blocked
masq_frand none       none       both       both       none       none       none       none       blocked
block      blocked    blocked    blocked    blocked    blocked    blocked    blocked    blocked    blocked
";

const KINDS: usize = Nat::MATRIX.len();
const PORT: u16 = 48_000;

/// All pairs at once: they share NATs, but no ports.
#[test]
fn every_pair_of_nats_comes_together_or_does_not_as_the_table_says() {
    let (lab, _server) = lab_with_server("matrix");
    let sides = ["a", "b"].map(|side| Nat::MATRIX.map(|nat| add_runner(&lab, side, nat)));
    let [rows, columns] = sides.each_ref().map(|runners| ends(&lab, runners));
    let pairs: Vec<_> = (0..KINDS).flat_map(|a| (0..KINDS).map(move |b| (a, b))).collect();
    let pairs: Vec<_> = pairs.into_iter().map(|(a, b)| (&rows[a][b], &columns[b][a])).collect();

    let measured = table(&outcomes(&pairs));

    assert!(measured == EXPECTED, "measured:\n{measured}\nexpected:\n{EXPECTED}");
}

fn add_runner(lab: &Lab, side: &str, nat: Nat) -> Runner {
    runner(lab, &format!("{side}-{}", nat.name().replace('_', "-")), nat)
}

/// For each runner one end for each of the other side.
fn ends(lab: &Lab, runners: &[Runner; KINDS]) -> Vec<Vec<End>> {
    let [stun, _] = lab.stun_servers().expect("coturn answers");
    thread::scope(|scope| {
        let askers: Vec<_> = runners.iter().map(|runner| scope.spawn(move || ends_of(runner, stun))).collect();
        askers.into_iter().map(|asker| asker.join().expect("a socket is bound")).collect()
    })
}

/// Where nobody answers once, nobody is asked again.
fn ends_of(runner: &Runner, stun: SocketAddr) -> Vec<End> {
    let mut stun = Some(stun);
    let ends = (PORT..).take(KINDS).map(|port| {
        let end = End::new(runner, port, stun);
        stun = stun.filter(|_| end.has_answer());
        end
    });
    ends.collect()
}

fn table(outcomes: &[&str]) -> String {
    let line = |cells: Vec<&str>| {
        let padded: String = cells.into_iter().map(|cell| format!("{cell:<11}")).collect();
        format!("{}\n", padded.trim_end())
    };
    let names = Nat::MATRIX.map(Nat::name);
    let head = line(["A\\B"].into_iter().chain(names).collect());
    let rows = names.iter().zip(outcomes.chunks(KINDS));
    let rows: String = rows.map(|(name, row)| line([*name].into_iter().chain(row.iter().copied()).collect())).collect();
    format!("\n{head}{rows}")
}
