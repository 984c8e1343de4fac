//! The report of a run: what `--report` writes and `mesh status --json` prints. Field names are a contract; new ones may be added.

use serde::{Deserialize, Serialize};

/// One machine's view of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Of `mesh`.
    pub version: String,
    /// `primary` or `aux`.
    pub role: String,
    /// The run's id.
    pub run: String,
    /// RFC 3339.
    pub started: String,
    /// Since then.
    pub wall_ms: u64,
    /// What network this is.
    pub network: Network,
    /// The peers, in the order of their index; on an aux the primary alone.
    pub peers: Vec<Peer>,
    /// What the build engine did; absent on an aux.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offload: Option<Offload>,
    /// What the cache did; absent without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<Cache>,
    /// What COMMAND did; absent without one, and until it has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Command>,
    /// What was found at the rendezvous and not used, by cause.
    pub skipped: std::collections::BTreeMap<String, u64>,
    /// Datagrams and packets that were dropped, by cause.
    pub dropped: std::collections::BTreeMap<String, u64>,
}

/// What network this machine is in.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// RFC 4787 mapping behaviour.
    pub mapping: String,
    /// How external ports are drawn.
    pub ports: String,
    /// How many egress addresses were seen.
    pub egress: usize,
    /// Of the tunnel.
    pub mtu: u16,
    /// How many relays of the user's own we are registered with.
    pub relays: usize,
    /// What was passed on for others.
    pub relayed_bytes: u64,
    /// How often the NAT's mapping has moved.
    pub moves: u32,
    /// What carries the overlay on this machine: `tun`, or `userspace` where there is no TUN device.
    pub device: String,
}

/// One peer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// Of the aux; absent for the primary.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<u16>,
    /// Address inside the mesh.
    pub overlay: String,
    /// `up`, `gone` or `never`.
    pub state: String,
    /// From the moment its announcement could be read to the first authenticated packet inside the tunnel.
    pub connect_ms: Option<u64>,
    /// How packets get there.
    pub path: Path,
    /// What happened to the path since.
    pub changes: Vec<Change>,
    /// Inner bytes sent.
    pub tx_bytes: u64,
    /// Inner bytes received.
    pub rx_bytes: u64,
    /// Jobs it runs at once.
    pub slots: u16,
    /// Jobs it ran.
    pub jobs: u64,
}

/// How packets get to a peer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Path {
    /// `direct`, `relay` or `none`.
    pub kind: String,
    /// The relay, if any.
    pub via: Option<String>,
    /// Round trip, averaged.
    pub rtt_ms: f64,
    /// Why it is not direct; empty where it is.
    pub why: String,
    /// How the two NATs can be crossed.
    pub crossing: String,
    /// What the peer tells of its NAT.
    pub nat: String,
}

/// A change of a path.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Since the start.
    pub at_ms: u64,
    /// What it was.
    pub from: String,
    /// What it became.
    pub to: String,
    /// With the code of the failure taxonomy.
    pub why: String,
}

/// What the build engine did.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Offload {
    /// `distcc` or `none`.
    pub engine: String,
    /// Jobs that ran on aux.
    pub remote: u64,
    /// Compiler calls that ran on the primary, whatever they were for.
    pub local: u64,
    /// Outcomes taken from a cache; there is none yet.
    pub cached: u64,
    /// Jobs started a second time elsewhere; distcc does not.
    pub duplicated: u64,
    /// Jobs that failed away from here and were done here.
    pub failed_over: u64,
    /// Why calls ran on the primary, with counts.
    pub local_reasons: std::collections::BTreeMap<String, u64>,
    /// User and system time of COMMAND and all it started on this machine.
    pub primary_cpu_ms: u64,
}

/// What the cache did on this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cache {
    /// Look-ups that were answered.
    pub hits: u64,
    /// Of these, with what another runner had.
    pub peer_hits: u64,
    /// Other runners that have a cache, now.
    pub peers: u64,
    /// Bytes of blobs that came from them.
    pub fetched_bytes: u64,
    /// Look-ups that they did not answer in time.
    pub late: u64,
    /// Times that they gave wrong bytes, which nobody saw.
    pub wrong: u64,
    /// Look-ups that were not answered.
    pub misses: u64,
    /// Names that were set.
    pub puts: u64,
    /// Bytes that were given out.
    pub bytes: u64,
    /// What it had taken to make them, in milliseconds, as far as that was seen: time that this build did not need again.
    pub saved_ms: u64,
    /// Blobs and records that are stored.
    pub entries: u64,
    /// Bytes that they take of the disk.
    pub stored_bytes: u64,
    /// What was found damaged on the disk, and forgotten.
    pub damaged: u64,
}

impl Cache {
    /// As `mesh cache stats --json` prints it.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("plain data with text keys always serialises");
        text.push('\n');
        text
    }

    /// The same in words.
    pub fn line(&self) -> String {
        let Self { hits, misses, puts, entries, .. } = self;
        let asked = hits + misses;
        let share = (100 * hits).checked_div(asked).map_or(String::new(), |share| format!(" ({share} %)"));
        let (given, stored) = (bytes(self.bytes), bytes(self.stored_bytes));
        let saved = self.saved_ms / 1000;
        let saved = if saved == 0 { String::new() } else { format!(", which had taken {saved} s to make") };
        format!(
            "cache: {hits} of {asked} look-ups answered{share} with {given}{saved}{}; {puts} stored; it holds {entries} entries in {stored}{}",
            self.shared(),
            some(self.damaged, "damaged on the disk and forgotten")
        )
    }

    /// What peers did for it.
    fn shared(&self) -> String {
        if self.peers == 0 && self.peer_hits == 0 {
            return String::new();
        }
        format!(
            "; {} of them by {} peers with {}{}{}",
            self.peer_hits,
            self.peers,
            bytes(self.fetched_bytes),
            some(self.late, "not answered in time"),
            some(self.wrong, "with wrong bytes, not used")
        )
    }
}

/// A remark on what should not happen.
fn some(count: u64, what: &str) -> String {
    if count == 0 { String::new() } else { format!(", {count} {what}") }
}

/// What COMMAND did.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// Its exit code; 128 and the number of the signal that ended it.
    pub exit: i32,
    /// How long it ran.
    pub wall_ms: u64,
}

impl Report {
    /// As the file and `mesh status --json` have it.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("plain data with text keys always serialises");
        text.push('\n');
        text
    }

    /// A table for people: one line for each peer.
    pub fn table(&self) -> String {
        let rows = self.peers.iter().map(Peer::row);
        let header = ["peer", "path", "connect", "rtt", "slots", "jobs", "sent", "received"].map(String::from);
        align(&std::iter::once(header).chain(rows).collect::<Vec<_>>())
    }

    /// Where compiler calls ran and why, as a line below the table; empty where there were none.
    pub fn compiles(&self) -> String {
        let Some(Offload { remote, local, local_reasons, .. }) = &self.offload else { return String::new() };
        if remote + local == 0 {
            return String::new();
        }
        let reasons: Vec<String> = local_reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        let why = if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join(", ")) };
        format!("\n{remote} compiles on the aux, {local} compiler calls here{why}")
    }

    /// What was dropped, by cause, as a line below the table; empty where nothing was.
    pub fn losses(&self) -> String {
        let causes: Vec<String> = self.dropped.iter().map(|(cause, count)| format!("{count} {cause}")).collect();
        if causes.is_empty() { String::new() } else { format!("\ndropped packets: {}", causes.join(", ")) }
    }

    /// The same table for `$GITHUB_STEP_SUMMARY`.
    pub fn markdown(&self) -> String {
        let mut text = String::from(
            "| peer | path | connect | rtt | slots | jobs | sent | received |\n|---|---|---:|---:|---:|---:|---:|---:|\n",
        );
        for peer in &self.peers {
            text.push_str(&format!("| {} |\n", peer.row().join(" | ")));
        }
        text
    }
}

impl Peer {
    fn row(&self) -> [String; 8] {
        let path = match self.state.as_str() {
            "up" => match &self.path.via {
                Some(via) => format!("over {via}: {}", self.path.why),
                None => self.path.kind.clone(),
            },
            state => format!("{state}: {}", self.path.why),
        };
        let up = self.connect_ms.is_some();
        let or_dash = |known: bool, text: String| if known { text } else { "-".into() };
        [
            self.index.map_or("primary".into(), |index| format!("aux {index}")),
            path,
            or_dash(up, format!("{} ms", self.connect_ms.unwrap_or_default())),
            or_dash(self.path.rtt_ms > 0.0, format!("{:.1} ms", self.path.rtt_ms)),
            self.slots.to_string(),
            self.jobs.to_string(),
            bytes(self.tx_bytes),
            bytes(self.rx_bytes),
        ]
    }
}

/// `1.2 MB`: decimal units, as networks are measured.
pub fn bytes(count: u64) -> String {
    let units = ["kB", "MB", "GB", "TB"];
    let mut value = count as f64;
    let mut unit = "B";
    for next in units {
        if value < 1000.0 {
            break;
        }
        (value, unit) = (value / 1000.0, next);
    }
    if unit == "B" { format!("{count} B") } else { format!("{value:.1} {unit}") }
}

/// Columns padded to their widest cell: the first two to the left, numbers to the right.
fn align<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |row: &[String; N]| {
        let cells = row.iter().enumerate().map(|(column, cell)| match column {
            0 | 1 => format!("{cell:<width$}", width = widths[column]),
            _ => format!("{cell:>width$}", width = widths[column]),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_string()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_names_are_the_contract() {
        let report = Report {
            peers: vec![Peer { index: Some(0), changes: vec![Change::default()], ..Peer::default() }],
            offload: Some(Offload::default()),
            cache: Some(Cache::default()),
            command: Some(Command::default()),
            ..Report::default()
        };
        let json: serde_json::Value = serde_json::from_str(&report.to_json()).expect("JSON");
        let keys = |pointer: &str| {
            let object = json.pointer(pointer).and_then(|value| value.as_object()).expect("an object");
            object.keys().cloned().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(keys(""), "cache command dropped network offload peers role run skipped started version wall_ms");
        assert_eq!(keys("/network"), "device egress mapping moves mtu ports relayed_bytes relays");
        assert_eq!(keys("/peers/0"), "changes connect_ms index jobs overlay path rx_bytes slots state tx_bytes");
        assert_eq!(keys("/peers/0/path"), "crossing kind nat rtt_ms via why");
        assert_eq!(keys("/peers/0/changes/0"), "at_ms from to why");
        assert_eq!(keys("/command"), "exit wall_ms");
        assert_eq!(
            keys("/cache"),
            "bytes damaged entries fetched_bytes hits late misses peer_hits peers puts saved_ms stored_bytes wrong"
        );
        let offload = "cached duplicated engine failed_over local local_reasons primary_cpu_ms remote";
        assert_eq!(keys("/offload"), offload);
    }

    #[test]
    fn what_was_dropped_is_told_by_cause_and_nothing_where_nothing_was() {
        let dropped = [("not authentic".to_owned(), 3), ("short".to_owned(), 1)].into();

        assert_eq!(Report { dropped, ..Report::default() }.losses(), "\ndropped packets: 3 not authentic, 1 short");
        assert_eq!(Report::default().losses(), "");
    }

    #[test]
    fn a_table_is_aligned_and_says_why_a_peer_is_missing() {
        let up = Peer {
            index: Some(0),
            state: "up".into(),
            connect_ms: Some(142),
            path: Path { kind: "direct".into(), rtt_ms: 41.25, ..Path::default() },
            slots: 4,
            jobs: 17,
            tx_bytes: 1_234_567,
            ..Peer::default()
        };
        let never = Peer {
            index: Some(1),
            state: "never".into(),
            path: Path { why: "M104 it never published".into(), ..Path::default() },
            ..Peer::default()
        };
        let report = Report { peers: vec![up, never], ..Report::default() };
        assert_eq!(
            report.table(),
            "peer   path                            connect      rtt  slots  jobs    sent  received\n\
             aux 0  direct                           142 ms  41.2 ms      4    17  1.2 MB       0 B\n\
             aux 1  never: M104 it never published        -        -      0     0     0 B       0 B"
        );
    }

    #[test]
    fn byte_counts_have_decimal_units() {
        assert_eq!([0, 999, 1000, 52_428_800].map(bytes), ["0 B", "999 B", "1.0 kB", "52.4 MB"]);
    }
}
