//! The STUN server (coturn) and a Binding request made by hand, so that tests do not check `mesh` by `mesh`. Not here: TURN.

use std::fs::File;
use std::io::{ErrorKind, Read, Seek};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::{Netns, wait_until};

const PORT: u16 = 3478;
const ALTERNATE_PORT: u16 = 3479;

/// coturn answers after about 0.1 s; this much on a loaded machine.
const START_DEADLINE: Duration = Duration::from_secs(10);

/// A request is repeated after this time and given up after [`GIVE_UP`]. No path of the lab is slower than 100 ms.
const REPEAT: Duration = Duration::from_millis(200);
const GIVE_UP: Duration = Duration::from_secs(3);

/// RFC 8489, section 5.
const MAGIC: u32 = 0x2112_A442;
const BINDING_REQUEST: [u8; 2] = [0x00, 0x01];
const BINDING_SUCCESS: [u8; 2] = [0x01, 0x01];
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
/// RFC 5780, section 7.4.
const OTHER_ADDRESS: u16 = 0x802C;
const HEADER: usize = 20;

#[derive(Debug)]
pub(super) struct StunServer {
    child: Child,
    addrs: [Ipv4Addr; 2],
    log: File,
}

impl StunServer {
    /// Starts coturn on both addresses of `host` and waits until it answers. `from` is where the requests that find out come from.
    pub(super) fn start(host: &Netns, addrs: [Ipv4Addr; 2], from: &Netns) -> Result<Self> {
        let [first, second] = addrs.map(|addr| format!("--listening-ip={addr}"));
        let ports = [format!("--listening-port={PORT}"), format!("--alt-listening-port={ALTERNATE_PORT}")];
        let log = tempfile::tempfile().context("make a file for the words of turnserver")?;
        let child = host
            .command("turnserver")
            .args([
                "-n",
                "--stun-only",
                "--no-tls",
                "--no-dtls",
                "--no-tcp",
                "--no-cli",
                "--simple-log",
                "--log-file=stdout",
            ])
            .args(["--pidfile=/dev/null", "--relay-threads=1"])
            .args([first, second])
            .args(ports)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log.try_clone()?)
            .spawn()
            .context("start turnserver")?;
        let mut stun = Self { child, addrs, log };
        stun.wait_until_up(from)?;
        Ok(stun)
    }

    pub(super) fn addrs(&self) -> [SocketAddr; 2] {
        self.addrs.map(|addr| (addr, PORT).into())
    }

    /// Collects the exit code of the killed process.
    pub(super) fn reap(&mut self) {
        if let Err(error) = self.child.wait() {
            tracing::warn!(%error, "cannot wait for turnserver");
        }
    }

    fn last_words(&self) -> String {
        let mut text = vec![];
        let read = (&self.log).rewind().and_then(|()| (&self.log).read_to_end(&mut text));
        read.map_or_else(|error| error.to_string(), |_| last_line(&String::from_utf8_lossy(&text)).to_string())
    }

    fn wait_until_up(&mut self, from: &Netns) -> Result<()> {
        let socket = from.udp_socket(0)?;
        let addrs = self.addrs();
        wait_until(START_DEADLINE, "turnserver to answer", || match self.child.try_wait() {
            Ok(Some(status)) => Some(Err(anyhow!("turnserver ended at once with {status}: {}", self.last_words()))),
            _ => addrs.iter().all(|addr| ask(&socket, *addr, REPEAT).is_ok()).then_some(Ok(())),
        })?
    }
}

fn last_line(text: &str) -> &str {
    text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing")
}

/// What a Binding response says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    /// The address the request seemed to come from (XOR-MAPPED-ADDRESS).
    pub mapped: SocketAddr,
    /// The server's other address and port (OTHER-ADDRESS of RFC 5780).
    pub other: Option<SocketAddr>,
}

/// Asks `server` which address this socket has outside. Other packets that come meanwhile are lost.
///
/// # Errors
/// If there is no valid answer within three seconds.
pub fn mapped_addr(socket: &UdpSocket, server: SocketAddr) -> Result<SocketAddr> {
    Ok(binding(socket, server)?.mapped)
}

/// As [`mapped_addr`], with the rest of the answer.
///
/// # Errors
/// As there.
pub fn binding(socket: &UdpSocket, server: SocketAddr) -> Result<Reply> {
    ask(socket, server, GIVE_UP).with_context(|| format!("ask STUN server {server}"))
}

fn ask(socket: &UdpSocket, server: SocketAddr, give_up: Duration) -> Result<Reply> {
    let transaction: [u8; 12] = rand::random();
    let deadline = Instant::now() + give_up;
    let timeout_before = socket.read_timeout()?;
    socket.set_read_timeout(Some(REPEAT))?;
    let reply = loop {
        socket.send_to(&request(transaction), server)?;
        if let Some(reply) = receive(socket, server, transaction)? {
            break Some(reply);
        }
        if Instant::now() >= deadline {
            break None;
        }
    };
    socket.set_read_timeout(timeout_before)?;
    reply.with_context(|| format!("no answer within {give_up:?}"))
}

/// `None` if the read timeout passes first.
fn receive(socket: &UdpSocket, server: SocketAddr, transaction: [u8; 12]) -> Result<Option<Reply>> {
    let mut buffer = [0; 1500];
    loop {
        match socket.recv_from(&mut buffer) {
            Ok((len, from)) if from == server => {
                if let Ok(reply) = parse(&buffer[..len], transaction) {
                    return Ok(Some(reply));
                }
            }
            Ok(_) => {}
            // Interrupted: a read with a timeout ends when a child of another thread does, if some thread has SIGCHLD blocked just then.
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::Interrupted) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

fn request(transaction: [u8; 12]) -> [u8; HEADER] {
    let mut message = [0; HEADER];
    message[..2].copy_from_slice(&BINDING_REQUEST);
    message[4..8].copy_from_slice(&MAGIC.to_be_bytes());
    message[8..].copy_from_slice(&transaction);
    message
}

fn parse(message: &[u8], transaction: [u8; 12]) -> Result<Reply> {
    let (header, attributes) = message.split_at_checked(HEADER).context("shorter than a STUN header")?;
    ensure!(header[..2] == BINDING_SUCCESS, "not a Binding success response");
    ensure!(header[4..8] == MAGIC.to_be_bytes() && header[8..] == transaction, "the answer to another request");
    let mapped = find(attributes, XOR_MAPPED_ADDRESS).context("no XOR-MAPPED-ADDRESS")?;
    let other = find(attributes, OTHER_ADDRESS).map(|value| addr_of(value, 0)).transpose()?;
    Ok(Reply { mapped: addr_of(mapped, MAGIC)?, other })
}

fn find(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    while let [t0, t1, l0, l1, rest @ ..] = attributes {
        let len = usize::from(u16::from_be_bytes([*l0, *l1]));
        let value = rest.get(..len)?;
        if u16::from_be_bytes([*t0, *t1]) == wanted {
            return Some(value);
        }
        attributes = rest.get(len.next_multiple_of(4)..)?;
    }
    None
}

fn addr_of(value: &[u8], mask: u32) -> Result<SocketAddr> {
    let &[_, 1, p0, p1, a, b, c, d] = value else { bail!("not an IPv4 address") };
    let port = u16::from_be_bytes([p0, p1]) ^ (mask >> 16) as u16;
    let addr = Ipv4Addr::from(u32::from_be_bytes([a, b, c, d]) ^ mask);
    Ok((addr, port).into())
}
