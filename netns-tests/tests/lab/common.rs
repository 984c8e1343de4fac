//! Packets that the tests of the lab send and wait for. Not here: what they show.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use netns_tests::lab::{Access, Lab, Link, Nat, Netns, Runner, Server, Site, mapped_addr};

/// For a packet that is expected.
pub(crate) const SOON: Duration = Duration::from_secs(5);

/// For packets that must not come. On an undelayed path of the lab a packet takes less than a millisecond.
pub(crate) const SILENCE: Duration = Duration::from_millis(400);

/// Leaves its own NAT and dies at the other edge router.
pub(crate) const LOW_TTL: u32 = 4;
pub(crate) const FULL_TTL: u32 = 64;

/// RFC 8489, section 5.
const STUN_MAGIC: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];

/// A lab with one public server and no runner yet.
pub(crate) fn lab_with_server(name: &str) -> (Lab, Server) {
    let lab = Lab::new(name).expect("the lab comes up");
    let server = lab.server("world").expect("a server is added");
    (lab, server)
}

pub(crate) fn runner(lab: &Lab, name: &str, nat: Nat) -> Runner {
    lab.runner(name, nat, Link::default()).expect("a runner is added")
}

pub(crate) fn runner_with(lab: &Lab, name: &str, access: Access) -> Runner {
    lab.runner_with(name, access).expect("a runner is added")
}

pub(crate) fn site(lab: &Lab, access: Access) -> Site<'_> {
    lab.site_with("site", access).expect("a site is added")
}

/// A socket whose reads end after [`SOON`].
pub(crate) fn socket(runner: &Runner, port: u16) -> UdpSocket {
    let socket = runner.udp_socket(port).expect("the port is free");
    socket.set_read_timeout(Some(SOON)).expect("a timeout can be set");
    socket
}

/// As [`socket`], on this address of the server.
pub(crate) fn server_socket(server: &Server, addr: SocketAddr) -> UdpSocket {
    let socket = server.enter(|| UdpSocket::bind(addr)).expect("the server is there").expect("the address is free");
    socket.set_read_timeout(Some(SOON)).expect("a timeout can be set");
    socket
}

/// A socket of the runner and what the lab's STUN server says its address is.
pub(crate) fn mapped_socket(lab: &Lab, runner: &Runner, port: u16) -> (UdpSocket, SocketAddr) {
    let [stun, _] = lab.stun_servers().expect("coturn answers");
    let socket = socket(runner, port);
    let mapped = mapped_addr(&socket, stun).expect("coturn answers the runner");
    (socket, mapped)
}

/// What the STUN server says on the first port of its first address, the second port, the first port of its second address, the second.
pub(crate) fn mappings(lab: &Lab, socket: &UdpSocket) -> [SocketAddr; 4] {
    let [first, second] = lab.stun_servers().expect("coturn answers");
    let asked = [first, SocketAddr::new(first.ip(), 3479), second, SocketAddr::new(second.ip(), 3479)];
    asked.map(|server| mapped_addr(socket, server).expect("coturn answers the runner"))
}

pub(crate) fn send(socket: &UdpSocket, to: SocketAddr, text: &str, ttl: u32) {
    socket.set_ttl(ttl).expect("a TTL can be set");
    socket.send_to(text.as_bytes(), to).expect("a packet can be sent");
}

/// The next packet and who sent it.
pub(crate) fn receive(socket: &UdpSocket) -> (String, SocketAddr) {
    next(socket).expect("a packet comes")
}

/// Without what a STUN server says twice: on a loaded machine it may have been asked twice.
fn next(socket: &UdpSocket) -> io::Result<(String, SocketAddr)> {
    let mut buffer = [0; 1500];
    loop {
        let (len, from) = recv_from(socket, &mut buffer)?;
        if buffer[..len].get(4..8) != Some(&STUN_MAGIC) {
            return Ok((String::from_utf8_lossy(&buffer[..len]).into_owned(), from));
        }
    }
}

/// As the method, but goes on when interrupted. A read with a timeout is, when a child of another thread ends while some thread has SIGCHLD
/// blocked, as it has while it starts one.
pub(crate) fn recv_from(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    loop {
        match socket.recv_from(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

/// Packets of which one at least must come, until none has come for [`SILENCE`].
pub(crate) fn receive_all(socket: &UdpSocket) -> Vec<String> {
    let first = receive(socket).0;
    std::iter::once(first).chain(drain(socket)).collect()
}

/// Packets until none has come for [`SILENCE`]; maybe there are none.
pub(crate) fn drain(socket: &UdpSocket) -> Vec<String> {
    socket.set_read_timeout(Some(SILENCE)).expect("a timeout can be set");
    let drained = std::iter::from_fn(|| Some(next(socket).ok()?.0)).collect();
    socket.set_read_timeout(Some(SOON)).expect("a timeout can be set");
    drained
}

/// As [`drain`] for all of them, none of which gets a packet after this call.
pub(crate) fn drain_all<'a>(sockets: impl Iterator<Item = &'a UdpSocket>) -> Vec<String> {
    let sockets: Vec<_> = sockets.collect();
    let (first, rest) = sockets.split_first().expect("sockets");
    let mut drained = drain(first);
    for socket in rest {
        socket.set_nonblocking(true).expect("a socket can do that");
        drained.extend(drain(socket));
        socket.set_nonblocking(false).expect("a socket can do that");
    }
    drained
}

/// One of the counters of ICMP in `/proc/net/snmp`.
pub(crate) fn icmp_counter(netns: &Netns, name: &str) -> u64 {
    let snmp = netns.proc_net("snmp").expect("the kernel counts ICMP");
    let mut lines = snmp.lines().filter(|line| line.starts_with("Icmp:")).map(str::split_ascii_whitespace);
    let (names, mut values) = (lines.next().expect("a line of names"), lines.next().expect("a line of values"));
    let index = { names }.position(|known| known == name).expect("this is counted");
    values.nth(index).and_then(|value| value.parse().ok()).expect("a number")
}
