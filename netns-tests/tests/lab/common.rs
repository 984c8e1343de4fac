//! Packets that the tests of the lab send and wait for. Not here: what they show.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use netns_tests::lab::{Lab, Link, Nat, Runner, Server, mapped_addr};

/// For a packet that is expected.
pub(crate) const SOON: Duration = Duration::from_secs(5);

/// For packets that must not come. On an undelayed path of the lab a packet takes less than a millisecond.
pub(crate) const SILENCE: Duration = Duration::from_millis(400);

/// Leaves its own NAT and dies at the other edge router.
pub(crate) const LOW_TTL: u32 = 4;
pub(crate) const FULL_TTL: u32 = 64;

/// A lab with one public server and no runner yet.
pub(crate) fn lab_with_server(name: &str) -> (Lab, Server) {
    let lab = Lab::new(name).expect("the lab comes up");
    let server = lab.server("world").expect("a server is added");
    (lab, server)
}

pub(crate) fn runner(lab: &Lab, name: &str, nat: Nat) -> Runner {
    lab.runner(name, nat, Link::default()).expect("a runner is added")
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

pub(crate) fn send(socket: &UdpSocket, to: SocketAddr, text: &str, ttl: u32) {
    socket.set_ttl(ttl).expect("a TTL can be set");
    socket.send_to(text.as_bytes(), to).expect("a packet can be sent");
}

/// The next packet and who sent it.
pub(crate) fn receive(socket: &UdpSocket) -> (String, SocketAddr) {
    let mut buffer = [0; 1500];
    let (len, from) = socket.recv_from(&mut buffer).expect("a packet comes");
    (String::from_utf8_lossy(&buffer[..len]).into_owned(), from)
}

/// Packets of which one at least must come, until none has come for [`SILENCE`].
pub(crate) fn receive_all(socket: &UdpSocket) -> Vec<String> {
    let first = receive(socket).0;
    std::iter::once(first).chain(drain(socket)).collect()
}

/// Packets until none has come for [`SILENCE`]; maybe there are none.
pub(crate) fn drain(socket: &UdpSocket) -> Vec<String> {
    socket.set_read_timeout(Some(SILENCE)).expect("a timeout can be set");
    let mut buffer = [0; 1500];
    let drained = std::iter::from_fn(|| {
        let len = socket.recv(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..len]).into_owned())
    })
    .collect();
    socket.set_read_timeout(Some(SOON)).expect("a timeout can be set");
    drained
}
