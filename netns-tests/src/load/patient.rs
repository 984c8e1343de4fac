//! Connections that are waited for step by step, so that everything ends when the load is over. Not here: what goes over them.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use socket2::SockRef;

use super::book::{Book, Kind, Pulse};
use crate::lab::Runner;

/// Nobody waits for longer without a look at whether it is over.
pub(super) const STEP: Duration = Duration::from_millis(500);

/// A connection over which nothing comes for so long is broken.
const SILENCE: Duration = Duration::from_secs(60);

/// An attempt to connect, long enough for three SYN.
const ATTEMPT: Duration = Duration::from_secs(8);

/// A listener whose `accept` returns every now and then.
pub(super) fn listen(runner: &Runner, addr: Ipv4Addr) -> Result<TcpListener> {
    let listener = runner.enter(|| TcpListener::bind((addr, 0)))?.with_context(|| format!("listen on {addr}"))?;
    SockRef::from(&listener).set_read_timeout(Some(STEP))?;
    Ok(listener)
}

/// The next connection; `None` when it is over.
pub(super) fn accept<'a>(listener: &TcpListener, book: &'a Book) -> Option<Patient<'a>> {
    while !book.is_over() {
        if let Ok((stream, _)) = listener.accept()
            && let Ok(stream) = Patient::new(stream, book)
        {
            return Some(stream);
        }
    }
    None
}

/// How long it takes is written down.
pub(super) fn connect<'a>(from: &Runner, to: SocketAddr, book: &'a Book, who: &str) -> Result<Patient<'a>> {
    let (began, opening) = (Instant::now(), Pulse::new(book, Kind::Opening, who));
    opening.beat();
    loop {
        let tried = from.enter(|| TcpStream::connect_timeout(&to, ATTEMPT))?;
        match tried {
            Ok(stream) => {
                opening.stop();
                return Patient::new(stream, book);
            }
            Err(error) if error.kind() == ErrorKind::TimedOut && began.elapsed() < SILENCE && !book.is_closing() => {}
            Err(error) => {
                opening.stop();
                bail!("connect: {error}");
            }
        }
    }
}

/// A connection that nobody waits for longer than it lasts.
#[derive(Debug)]
pub(super) struct Patient<'a> {
    pub(super) stream: TcpStream,
    pub(super) book: &'a Book,
}

impl<'a> Patient<'a> {
    fn new(stream: TcpStream, book: &'a Book) -> Result<Self> {
        stream.set_read_timeout(Some(STEP))?;
        stream.set_write_timeout(Some(STEP))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, book })
    }

    /// As [`Read::read`].
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        self.patiently("read", |stream| stream.read(buffer))
    }

    /// As [`Read::read_exact`]; `false` at the end of the stream, if nothing has come.
    pub(super) fn read_all(&mut self, buffer: &mut [u8]) -> Result<bool> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read(&mut buffer[filled..])? {
                0 if filled == 0 => return Ok(false),
                0 => bail!("the stream ends within a message"),
                count => filled += count,
            }
        }
        Ok(true)
    }

    /// As [`Write::write_all`].
    pub(super) fn write_all(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let count = self.patiently("write", |stream| stream.write(bytes))?;
            ensure!(count > 0, "write: nothing is taken");
            bytes = &bytes[count..];
        }
        Ok(())
    }

    fn patiently<T>(&mut self, what: &str, mut work: impl FnMut(&mut TcpStream) -> io::Result<T>) -> Result<T> {
        let began = Instant::now();
        loop {
            match work(&mut self.stream) {
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    ensure!(!self.book.is_over(), "{what}: not yet done when the load was over");
                    ensure!(began.elapsed() < SILENCE, "{what}: silence for {} s", SILENCE.as_secs());
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                outcome => return outcome.with_context(|| what.to_owned()),
            }
        }
    }
}
