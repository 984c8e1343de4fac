//! TCP connections led from one place to another, between this machine and the overlay: for programs that cannot reach the overlay
//! themselves, and for services that peers shall reach. Where to is not decided here but in `cli`.
//!
//! Each way ends by itself: whoever has said all can still hear the answer. A connection that fails on one side is reset on the other.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::ports::{Connection, Kernel, Listener, Ports, listen};

/// Connections at once of one forward. More wait in the kernel until others end.
const MOST: usize = 512;

/// What is copied at once, each way.
const CHUNK: usize = 32 * 1024;

/// How long a system that refuses a connection, for want of open files for one, is left alone.
const PAUSE: Duration = Duration::from_millis(100);

/// All that this process leads on. Dropped, it takes every connection with it.
#[derive(Debug)]
pub struct Forwards {
    ports: Ports,
    tasks: JoinSet<()>,
}

impl Forwards {
    /// None yet.
    pub fn new(ports: Ports) -> Self {
        Self { ports, tasks: JoinSet::new() }
    }

    /// The way to the overlay that they take.
    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    /// Leads what comes to `port` of 127.0.0.1 (0 is any) to `peer`. The port.
    pub fn forward(&mut self, port: u16, peer: SocketAddrV4) -> io::Result<u16> {
        let listener = listen(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port))?;
        let port = listener.local_addr()?.port();
        self.tasks.spawn(lead(Source::Here(listener), Target::Peer(self.ports.clone(), peer)));
        Ok(port)
    }

    /// Leads what peers send to our overlay `port` to `to` on this machine.
    pub fn expose(&mut self, port: u16, to: SocketAddrV4) -> io::Result<()> {
        let listener = self.ports.listen(port)?;
        self.tasks.spawn(lead(Source::Overlay(listener), Target::Here(to)));
        Ok(())
    }
}

/// Where connections come from.
enum Source {
    Here(TcpListener),
    Overlay(Listener),
}

impl Source {
    async fn accept(&mut self) -> io::Result<Connection> {
        match self {
            Self::Here(listener) => Ok(Box::new(Kernel::new(listener.accept().await?.0)?)),
            Self::Overlay(listener) => listener.accept().await,
        }
    }
}

/// Where they are led to.
#[derive(Clone)]
enum Target {
    Here(SocketAddrV4),
    Peer(Ports, SocketAddrV4),
}

impl Target {
    async fn connect(&self) -> io::Result<Connection> {
        match self {
            Self::Here(at) => Ok(Box::new(Kernel::new(TcpStream::connect(at).await?)?)),
            Self::Peer(ports, peer) => ports.connect(*peer).await,
        }
    }
}

async fn lead(mut source: Source, target: Target) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = source.accept(), if connections.len() < MOST => match accepted {
                Ok(connection) => drop(connections.spawn(join(connection, target.clone()))),
                Err(error) => {
                    tracing::debug!(%error, "no connection can be taken");
                    tokio::time::sleep(PAUSE).await;
                }
            },
        }
    }
}

async fn join(mut one: Connection, target: Target) {
    let joined = async {
        let mut other = target.connect().await?;
        copy_bidirectional_with_sizes(&mut one, &mut other, CHUNK, CHUNK).await
    };
    match joined.await {
        Ok((there, back)) => tracing::trace!(there, back, "a connection has ended"),
        Err(error) => tracing::debug!(%error, "a connection was cut"),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::super::stack::{Handle, Stack};
    use super::*;
    use crate::proto::overlay::Prefix;

    const HERE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
    const THERE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
    const PORT: u16 = 80;

    /// Two machines whose packets reach each other until the first is dropped, and a service on the second.
    struct Rig {
        forwards: Forwards,
        away: Forwards,
        handles: [Handle; 2],
        service: TcpListener,
        at: SocketAddrV4,
        wires: JoinSet<()>,
    }

    impl Rig {
        async fn new() -> Self {
            let overlay: Prefix = "10.77.0.0/16".parse().expect("a prefix");
            let ((one, here), (other, there)) = (Stack::new(HERE, overlay, 1), Stack::new(THERE, overlay, 2));
            let mut wires = JoinSet::new();
            wires.spawn(wire(one, other));
            let service = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let (mut forwards, mut away) =
                (Forwards::new(Ports::Stack(here.clone())), Forwards::new(Ports::Stack(there.clone())));
            let port = forwards.forward(0, SocketAddrV4::new(THERE, PORT)).expect("a free port");
            let to = service.local_addr().expect("bound").port();
            away.expose(PORT, SocketAddrV4::new(Ipv4Addr::LOCALHOST, to)).expect("it is free");
            let at = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
            Self { forwards, away, handles: [here, there], service, at, wires }
        }

        async fn connect(&self) -> (TcpStream, TcpStream) {
            let client = TcpStream::connect(self.at).await.expect("it listens");
            (client, self.service.accept().await.expect("it is led on").0)
        }
    }

    async fn wire(one: Stack, other: Stack) {
        let mut buffer = vec![0; 2048];
        loop {
            let (from, to) = tokio::select! {
                _ = one.readable() => (&one, &other),
                _ = other.readable() => (&other, &one),
            };
            while let Ok(Some(len)) = from.try_read(&mut buffer) {
                to.write(&buffer[..len]).expect("a stack takes all");
            }
        }
    }

    async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(20), work).await.unwrap_or_else(|_| panic!("{what} takes too long"))
    }

    #[tokio::test]
    async fn a_question_is_heard_to_its_end_and_then_the_answer() {
        let rig = Rig::new().await;
        let (mut client, mut server) = within("connecting", rig.connect()).await;
        let question = vec![7; 3_000_000];
        let asking = async {
            client.write_all(&question).await.expect("open");
            client.shutdown().await.expect("open");
            let mut answer = vec![];
            client.read_to_end(&mut answer).await.expect("no reset");
            answer
        };
        let answering = async {
            let mut heard = vec![];
            server.read_to_end(&mut heard).await.expect("no reset");
            server.write_all(&heard[..1_000_000]).await.expect("open");
            drop(server);
            heard
        };
        let (answer, heard) = within("the exchange", async { tokio::join!(asking, answering) }).await;
        assert!(heard == question && answer == question[..1_000_000]);
    }

    #[tokio::test]
    async fn a_client_that_breaks_off_resets_the_service() {
        let rig = Rig::new().await;
        let (client, mut server) = within("connecting", rig.connect()).await;
        client.set_zero_linger().expect("a socket");
        drop(client);
        let error = within("the reset", server.read(&mut [0; 1])).await.expect_err("no end that looks whole");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn a_service_that_breaks_off_resets_the_client() {
        let rig = Rig::new().await;
        let (mut client, server) = within("connecting", rig.connect()).await;
        server.set_zero_linger().expect("a socket");
        drop(server);
        let error = within("the reset", client.read(&mut [0; 1])).await.expect_err("no end that looks whole");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn a_port_that_nobody_exposes_and_a_service_that_is_not_there_reset_the_client() {
        let mut rig = Rig::new().await;
        let closed = rig.forwards.forward(0, SocketAddrV4::new(THERE, 81)).expect("a free port");
        rig.away.expose(82, SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1)).expect("it is free");
        let absent = rig.forwards.forward(0, SocketAddrV4::new(THERE, 82)).expect("a free port");
        for port in [closed, absent] {
            let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.expect("it listens");
            let error = within("the reset", client.read(&mut [0; 1])).await.expect_err("nobody is there");
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        }
    }

    #[tokio::test]
    async fn when_the_forwards_end_their_connections_are_reset_and_nothing_is_left() {
        let mut rig = Rig::new().await;
        let (mut client, mut server) = within("connecting", rig.connect()).await;
        client.write_all(b"some").await.expect("open");
        server.read_exact(&mut [0; 4]).await.expect("it arrives");
        let Rig { forwards, handles, .. } = &mut rig;
        *forwards = Forwards::new(forwards.ports().clone());
        assert!(within("the reset here", client.read(&mut [0; 1])).await.is_err());
        assert!(within("the reset there", server.read(&mut [0; 1])).await.is_err());
        within("the end", async {
            while handles.iter().any(|handle| handle.connections() > 0) {
                tokio::task::yield_now().await;
            }
        })
        .await;
        assert!(!rig.wires.is_empty());
    }

    #[tokio::test]
    async fn through_a_kernel_it_is_the_same() {
        let service = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let to = service.local_addr().expect("bound").port();
        let mut forwards = Forwards::new(Ports::Kernel(Ipv4Addr::LOCALHOST));
        let port = forwards.forward(0, SocketAddrV4::new(Ipv4Addr::LOCALHOST, to)).expect("a free port");
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.expect("it listens");
        let mut server = within("connecting", service.accept()).await.expect("it is led on").0;
        client.write_all(b"question").await.expect("open");
        client.shutdown().await.expect("open");
        let mut heard = vec![];
        within("the question", server.read_to_end(&mut heard)).await.expect("no reset");
        assert_eq!(heard, b"question");
        drop(forwards);
        assert!(within("the reset", client.read(&mut [0; 1])).await.is_err(), "no answer, and no end that looks whole");
    }
}
