//! TCP resets on behalf of a peer that is gone, so that no program here waits minutes for it: a build's job whose aux vanished fails
//! over at once instead of after distcc's 300 s. Other connections that stand outlive a silence, as on any network. When a peer is gone is
//! not decided here but in [`super::peer`].
//!
//! A reset is believed only with the sequence number that the receiver expects next (RFC 9293 section 3.10.7.4, RFC 5961 section 3.2). That
//! is the acknowledgement number of the last segment that the program's own TCP sent, which we saw on its way into the tunnel; where it is
//! behind, the program's TCP answers with a challenge that carries the right one, and we reset again.

use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;

use super::checksum::Sum;
use super::ipv4::{self, ACK, FIN, HEADER, RST, SYN, TCP, TCP_HEADER};

/// Connections remembered; a build has one for each running job.
const MAX_CONNECTIONS: usize = 4096;

/// Of those, so many that have said all: most are over, which is not seen from this side alone, and some still wait for an answer.
const MAX_CLOSING: usize = 512;

/// A peer's address and the two ports, as the program here sends them.
type Flow = (Ipv4Addr, [u8; 4]);

/// What is known of a connection.
#[derive(Debug, Clone, Copy)]
struct Last {
    /// Our own address.
    here: Ipv4Addr,
    /// The last acknowledgement number that was sent.
    ack: u32,
    /// Whether a FIN was sent.
    closing: bool,
}

/// A segment that a program here has sent into the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Segment {
    from: Ipv4Addr,
    to: Ipv4Addr,
    ports: [u8; 4],
    seq: u32,
    ack: u32,
    flags: u8,
    payload: u32,
}

/// The connections that programs here have through the tunnel.
#[derive(Debug)]
pub struct Connections {
    job_port: [u8; 2],
    open: BTreeMap<Flow, Last>,
    /// In the order in which they said all; some may have ended since.
    closing: VecDeque<Flow>,
}

impl Connections {
    /// None yet. `job_port`: where jobs are served, here or there.
    pub fn new(job_port: u16) -> Self {
        Self { job_port: job_port.to_be_bytes(), open: BTreeMap::new(), closing: VecDeque::new() }
    }

    /// Notes a packet on its way into the tunnel.
    pub fn note(&mut self, packet: &[u8]) {
        let Some(segment) = parse(packet) else { return };
        let flow = (segment.to, segment.ports);
        if segment.flags & (RST | SYN) != 0 {
            self.open.remove(&flow);
        }
        let known = self.open.get(&flow).copied();
        let is_open = segment.flags & ACK != 0 && segment.flags & RST == 0;
        if !is_open || known.is_none() && self.open.len() >= MAX_CONNECTIONS {
            return;
        }
        let was_closing = known.is_some_and(|last| last.closing);
        let closing = was_closing || segment.flags & FIN != 0;
        self.open.insert(flow, Last { here: segment.from, ack: segment.ack, closing });
        if closing && !was_closing {
            self.note_closing(flow);
        }
    }

    /// A FIN is kept and not taken for the end: what acknowledges the peer's own comes after it, and would look like a new connection.
    fn note_closing(&mut self, flow: Flow) {
        self.closing.push_back(flow);
        while self.closing.len() > MAX_CLOSING {
            let oldest = self.closing.pop_front();
            if let Some(oldest) = oldest.filter(|oldest| self.open.get(oldest).is_some_and(|last| last.closing)) {
                self.open.remove(&oldest);
            }
        }
    }

    /// Resets for every connection to `peer`, as packets that look as if it had sent them.
    pub fn reset_all(&mut self, peer: Ipv4Addr) -> Vec<Vec<u8>> {
        self.reset(peer, |_| true)
    }

    /// As [`Self::reset_all`], for jobs alone.
    pub fn reset_jobs(&mut self, peer: Ipv4Addr) -> Vec<Vec<u8>> {
        let job_port = self.job_port;
        self.reset(peer, |ports| is_job(ports, job_port))
    }

    /// Whether a packet to a peer that is silent is of a connection that stands and may wait for it.
    pub fn outlives_silence(&self, packet: &[u8]) -> bool {
        let stands = |segment: &Segment| segment.flags & (ACK | SYN | RST) == ACK;
        parse(packet).is_some_and(|segment| stands(&segment) && !is_job(segment.ports, self.job_port))
    }

    fn reset(&mut self, peer: Ipv4Addr, which: impl Fn([u8; 4]) -> bool) -> Vec<Vec<u8>> {
        let all = self.open.range((peer, [0; 4])..=(peer, [255; 4]));
        let lost: Vec<_> = all.filter(|((_, ports), _)| which(*ports)).map(|(key, to)| (*key, *to)).collect();
        for (key, _) in &lost {
            self.open.remove(key);
        }
        lost.into_iter().map(|((peer, ports), last)| reset(peer, last.here, ports, last.ack, 0, RST)).collect()
    }
}

/// Whether one of the two ports is that of jobs.
fn is_job(ports: [u8; 4], job_port: [u8; 2]) -> bool {
    ports[..2] == job_port || ports[2..] == job_port
}

/// The reset that answers a segment to a peer that is gone; `None` for what is not TCP or is itself a reset.
pub fn answer(packet: &[u8]) -> Option<Vec<u8>> {
    let segment = parse(packet)?;
    if segment.flags & RST != 0 {
        return None;
    }
    let Segment { from, to, ports, .. } = segment;
    Some(if segment.flags & ACK != 0 {
        reset(to, from, ports, segment.ack, 0, RST)
    } else {
        let length = segment.payload + u32::from(segment.flags & SYN != 0) + u32::from(segment.flags & FIN != 0);
        reset(to, from, ports, 0, segment.seq.wrapping_add(length), RST | ACK)
    })
}

fn parse(packet: &[u8]) -> Option<Segment> {
    let (ip, header) = ipv4::tcp_headers_len(packet)?;
    let tcp = &packet[ip..];
    let word = |at: usize| u32::from_be_bytes([tcp[at], tcp[at + 1], tcp[at + 2], tcp[at + 3]]);
    Some(Segment {
        from: ipv4::source(packet)?,
        to: ipv4::destination(packet)?,
        ports: [tcp[0], tcp[1], tcp[2], tcp[3]],
        seq: word(4),
        ack: word(8),
        flags: tcp[13],
        payload: (tcp.len() - header) as u32,
    })
}

/// A segment without payload from `peer` to `here`; `ports` are those of the segment it answers.
fn reset(peer: Ipv4Addr, here: Ipv4Addr, ports: [u8; 4], seq: u32, ack: u32, flags: u8) -> Vec<u8> {
    let mut packet = vec![0; HEADER + TCP_HEADER];
    packet[0] = 0x45;
    packet[3] = (HEADER + TCP_HEADER) as u8;
    packet[8] = 64;
    packet[9] = TCP;
    packet[12..16].copy_from_slice(&peer.octets());
    packet[16..20].copy_from_slice(&here.octets());
    ipv4::seal_header(&mut packet, HEADER);

    let tcp = &mut packet[HEADER..];
    tcp[..4].copy_from_slice(&[ports[2], ports[3], ports[0], ports[1]]);
    tcp[4..8].copy_from_slice(&seq.to_be_bytes());
    tcp[8..12].copy_from_slice(&ack.to_be_bytes());
    tcp[12] = (TCP_HEADER as u8 / 4) << 4;
    tcp[13] = flags;
    let checksum = ipv4::pseudo_header(&packet, TCP_HEADER).and(Sum::of(&packet[HEADER..])).checksum();
    packet[HEADER + 16..HEADER + 18].copy_from_slice(&checksum);
    packet
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HERE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
    const PEER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
    const PORTS: [u8; 4] = [0xc0, 0x01, 0x0e, 0x30];

    #[test]
    fn a_connection_is_reset_at_the_number_its_program_expects_next() {
        let mut connections = connections();
        connections.note(&segment(7, 100, ACK));
        connections.note(&segment(8, 200, ACK));
        let resets = connections.reset_all(PEER);
        assert_eq!(resets.len(), 1);
        let reset = parse(&resets[0]).expect("a TCP segment");
        assert_eq!((reset.from, reset.to, reset.seq, reset.flags), (PEER, HERE, 200, RST));
        assert_eq!(reset.ports, [0x0e, 0x30, 0xc0, 0x01]);
        assert!(connections.reset_all(PEER).is_empty());
    }

    #[test]
    fn a_connection_that_was_reset_and_those_of_others_are_left_alone() {
        let mut connections = connections();
        connections.note(&segment(7, 100, ACK));
        connections.note(&segment(7, 100, ACK | RST));
        assert!(connections.reset_all(PEER).is_empty());
        connections.note(&segment(7, 100, ACK));
        assert!(connections.reset_all(Ipv4Addr::new(10, 77, 0, 3)).is_empty());
    }

    #[test]
    fn of_a_silent_peer_s_connections_only_jobs_are_reset() {
        let mut connections = connections();
        let other = reset(HERE, PEER, [0x12, 0x34, 0, 22], 7, 300, ACK);
        connections.note(&segment(7, 100, ACK));
        connections.note(&other);
        let ack = |resets: Vec<Vec<u8>>| resets.iter().filter_map(|reset| parse(reset)).map(|one| one.seq).collect();
        let (jobs, rest): (Vec<_>, Vec<_>) = (ack(connections.reset_jobs(PEER)), ack(connections.reset_all(PEER)));
        assert_eq!((jobs, rest), (vec![100], vec![300]));
        assert!(connections.outlives_silence(&other));
        assert!(!connections.outlives_silence(&segment(7, 100, ACK)), "a job");
        assert!(!connections.outlives_silence(&reset(HERE, PEER, [0x12, 0x34, 0, 22], 7, 0, SYN)), "a new connection");
    }

    #[test]
    fn a_connection_that_has_said_all_and_waits_for_its_answer_is_reset_too() {
        let mut connections = connections();
        connections.note(&segment(7, 100, ACK | FIN));
        connections.note(&segment(8, 300, ACK));
        let resets = connections.reset_all(PEER);
        assert_eq!(resets.iter().filter_map(|reset| parse(reset)).map(|reset| reset.seq).collect::<Vec<_>>(), [300]);
    }

    #[test]
    fn however_many_connections_have_ended_a_new_one_is_remembered() {
        let mut connections = connections();
        for port in 0..2 * MAX_CONNECTIONS as u16 {
            for (ack, flags) in [(1, ACK), (2, ACK | FIN), (3, ACK)] {
                connections.note(&from_port(port, ack, flags));
            }
        }
        connections.note(&from_port(60_000, 7, ACK));
        let resets = connections.reset_all(PEER);
        assert_eq!(resets.len(), MAX_CLOSING + 1);
        assert!(resets.iter().filter_map(|reset| parse(reset)).any(|reset| reset.seq == 7));
    }

    #[test]
    fn a_new_connection_to_a_peer_that_is_gone_is_refused_as_a_closed_port_would() {
        let reset = parse(&answer(&segment(41, 0, SYN)).expect("an answer")).expect("a TCP segment");
        assert_eq!((reset.seq, reset.ack, reset.flags), (0, 42, RST | ACK));
    }

    #[test]
    fn a_reset_is_not_answered_with_a_reset() {
        assert_eq!(answer(&segment(1, 2, RST)), None);
        assert_eq!(answer(&segment(1, 2, RST | ACK)), None);
    }

    #[test]
    fn checksums_are_right() {
        let packet = answer(&segment(41, 7, ACK)).expect("an answer");
        assert!(Sum::of(&packet[..HEADER]).is_intact());
        assert!(ipv4::pseudo_header(&packet, TCP_HEADER).and(Sum::of(&packet[HEADER..])).is_intact());
    }

    proptest! {
        #[test]
        fn garbage_never_panics(mut packet in prop::collection::vec(any::<u8>(), 0..80)) {
            if packet.len() > 10 {
                (packet[0], packet[9]) = (0x40 | packet[0] & 0xf, TCP);
            }
            connections().note(&packet);
            let _ = answer(&packet);
        }
    }

    fn connections() -> Connections {
        Connections::new(u16::from_be_bytes([PORTS[2], PORTS[3]]))
    }

    fn from_port(port: u16, ack: u32, flags: u8) -> Vec<u8> {
        let [high, low] = port.to_be_bytes();
        reset(HERE, PEER, [PORTS[2], PORTS[3], high, low], 7, ack, flags)
    }

    fn segment(seq: u32, ack: u32, flags: u8) -> Vec<u8> {
        reset(HERE, PEER, [PORTS[2], PORTS[3], PORTS[0], PORTS[1]], seq, ack, flags)
    }
}
