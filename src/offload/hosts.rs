//! Which machines take compile jobs now, as distcc reads it (distcc(1), HOST SPECIFICATIONS). The file that carries it is in
//! `hosts_file`; who is alive is the caller's knowledge.
//!
//! distcc takes hosts from left to right, one slot of each and then the next slot of each; `localhost` comes last, so that the
//! primary keeps its cores for what only it can do: preprocessing, linking, make.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;

use super::distccd::PORT;

/// One aux that is up, and the jobs it takes at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aux {
    /// Where distcc reaches its distccd: the overlay address, or a port of this machine that leads there.
    pub address: SocketAddrV4,
    /// Jobs at once; an aux with 0 is left out.
    pub slots: u16,
}

/// How many remote slots cost the primary one of its own. A job sent away leaves 10 % (heavy C++) to 67 % (small C) of its CPU
/// time behind as preprocessing, so eight busy remote slots take about one core.
const REMOTE_SLOTS_PER_CORE: u32 = 8;

/// How many remote slots one preprocessor feeds. It runs for 10 % to 25 % of the time a typical job takes.
const REMOTE_SLOTS_PER_PREPROCESSOR: u32 = 4;

/// The primary's cores and the aux that are up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hosts {
    cores: u32,
    aux: BTreeMap<SocketAddrV4, u16>,
}

impl Hosts {
    /// A primary with `cores` (at least one) and the aux that are up. Where two have one address, the later counts.
    pub fn new(cores: u16, aux: impl IntoIterator<Item = Aux>) -> Self {
        let aux = aux.into_iter().filter(|aux| aux.slots > 0).map(|aux| (aux.address, aux.slots)).collect();
        Self { cores: cores.max(1).into(), aux }
    }

    /// Jobs that the aux take at once.
    pub fn remote_slots(&self) -> u32 {
        self.aux.values().map(|&slots| u32::from(slots)).sum()
    }

    /// Compile jobs that the primary takes beside feeding the aux: its cores less one for each 8 remote slots.
    pub fn local_slots(&self) -> u32 {
        self.cores.saturating_sub(self.remote_slots() / REMOTE_SLOTS_PER_CORE)
    }

    /// Preprocessors at once: one for each 4 remote slots, and at least two for each core, so that one which waits for the disk
    /// leaves no core idle. More would not preprocess faster, only hold more memory.
    pub fn preprocessors(&self) -> u32 {
        (2 * self.cores).max(self.remote_slots().div_ceil(REMOTE_SLOTS_PER_PREPROCESSOR))
    }

    /// All jobs at once: a good `-j`.
    pub fn total(&self) -> u32 {
        self.remote_slots() + self.local_slots()
    }

    /// The value of `DISTCC_HOSTS`. Nothing remote and no `--` option when there is no aux. `localhost/0` is an error to distcc,
    /// so a primary that only feeds is left out. No compression (`,lzo`): the primary's CPU is scarcer than the network.
    pub fn line(&self) -> String {
        if self.aux.is_empty() {
            return format!("localhost/{}", self.cores);
        }
        let mut words =
            vec![format!("--localslots={}", self.cores), format!("--localslots_cpp={}", self.preprocessors())];
        words.extend(self.aux.iter().map(|(address, slots)| format!("{}/{slots}", host(*address))));
        if self.local_slots() > 0 {
            words.push(format!("localhost/{}", self.local_slots()));
        }
        words.join(" ")
    }
}

/// `HOSTID[:PORT]`. An address, even 127.0.0.1, is a machine to distcc; only the word `localhost` is not.
fn host(address: SocketAddrV4) -> String {
    if address.port() == PORT { address.ip().to_string() } else { address.to_string() }
}

/// Whether a `DISTCC_HOSTS` line names a machine other than this one.
pub fn has_remote(line: &str) -> bool {
    line.split_whitespace().any(|word| !word.starts_with("--") && word.split('/').next() != Some("localhost"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn two_aux_of_four_slots_take_one_core_of_the_primary() {
        let hosts = Hosts::new(4, [aux(2, 4), aux(3, 4)]);
        assert_eq!(hosts.line(), "--localslots=4 --localslots_cpp=8 10.77.0.2/4 10.77.0.3/4 localhost/3");
        assert_eq!(hosts.total(), 11);
    }

    #[test]
    fn an_aux_behind_a_port_of_this_machine_is_remote_all_the_same() {
        let here = |port| Aux { address: SocketAddrV4::new([127, 0, 0, 1].into(), port), slots: 2 };
        let line = Hosts::new(2, [here(40001), here(40002)]).line();
        assert!(line.ends_with(" 127.0.0.1:40001/2 127.0.0.1:40002/2 localhost/2"), "{line}");
        assert!(has_remote(&line));
    }

    #[test]
    fn without_an_aux_nothing_is_remote() {
        let hosts = Hosts::new(4, [aux(2, 0)]);
        assert_eq!((hosts.line().as_str(), hosts.total()), ("localhost/4", 4));
        assert!(!has_remote(&hosts.line()));
    }

    #[test]
    fn a_primary_with_many_aux_only_feeds_them() {
        let hosts = Hosts::new(2, (2..22).map(|last| aux(last, 4)));
        assert_eq!((hosts.local_slots(), hosts.preprocessors(), hosts.total()), (0, 20, 80));
        assert!(!hosts.line().contains("localhost/"), "{}", hosts.line());
    }

    proptest! {
        #[test]
        fn every_aux_with_slots_is_named_once_and_nothing_with_zero_slots(
            cores: u16,
            slots in prop::collection::vec(0..300u16, 0..200),
        ) {
            let hosts = Hosts::new(cores, slots.iter().enumerate().map(|(index, &slots)| aux(index as u8 + 2, slots)));
            let line = hosts.line();
            prop_assert!(!line.split(' ').any(|word| word.ends_with("/0") || word.ends_with("=0")), "{}", line);
            prop_assert_eq!(has_remote(&line), slots.iter().any(|&slots| slots > 0));
            prop_assert_eq!(line.matches("10.77.0.").count(), slots.iter().filter(|&&slots| slots > 0).count());
            prop_assert!(hosts.total() >= 1);
        }
    }

    fn aux(last: u8, slots: u16) -> Aux {
        Aux { address: SocketAddrV4::new([10, 77, 0, last].into(), PORT), slots }
    }
}
