//! `mesh cache get NAME -- COMMAND`: what is not there is made, by one runner, and kept for all. Not here: how it moves ([`super::transfer`]).

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};

use tempfile::NamedTempFile;
use tokio::process::Command;

use super::super::Outcome;
use super::super::actions::{line, say, warn};
use super::super::control::done;
use super::sink::Sink;
use super::transfer::{self, What, failure, missing};
use crate::cache::front::client::{self, Door, Turn};
use crate::exit::{Exit, Failure};
use crate::privilege::not_started;

/// What somebody else has made may be gone again before we get it: then it is our turn, after so many.
const ATTEMPTS: usize = 3;

/// From the cache to `output`, or to stdout; made by `command` first, if there is one and nothing is there.
pub(super) async fn get(what: What, output: Option<&Path>, command: &[OsString]) -> Outcome {
    let door = match transfer::door(&what, command.is_empty()).await? {
        Ok(door) => door,
        Err(refusal) => return done(refusal),
    };
    let name = &what.name;
    for _ in 0..ATTEMPTS {
        if let Some(code) = transfer::get(&door, name, output).await? {
            return Ok(code);
        }
        if command.is_empty() {
            return Err(missing(name));
        }
        match client::turn(&door, name).await.map_err(|trouble| failure(&format!("get `{name}`"), trouble))? {
            Turn::Made => {}
            // The right lasts as long as this does.
            Turn::Ours(_lease) => return make(&door, name, output, command).await,
        }
    }
    make(&door, name, output, command).await
}

/// Runs `command` and keeps what it wrote, if it was content with it.
async fn make(door: &Door, name: &str, output: Option<&Path>, command: &[OsString]) -> Outcome {
    say(&format!("nobody has `{name}` yet: making it"));
    let file = NamedTempFile::new().map_err(|error| no_room(&error))?;
    let stdout = file.reopen().map_err(|error| no_room(&error))?;
    let status = Command::new(&command[0]).args(&command[1..]).stdin(Stdio::null()).stdout(stdout).status().await;
    let code = match status {
        Ok(status) => code(status),
        Err(error) => {
            let (code, what) = not_started(&command[0], &error);
            say(&what);
            code
        }
    };
    if code != Exit::Ok.code() {
        say(&format!("COMMAND ended with {code}, so what it wrote is not kept as `{name}`"));
        return Ok(code);
    }
    // It is made, and the caller waits for it: whether it can be kept is the lesser matter.
    if let Err(refusal) = transfer::keep(door, name, Some(file.path())).await {
        warn(&line(&refusal));
    }
    let mut sink = Sink::open(output)?;
    let mut made = std::fs::File::open(file.path()).map_err(|error| no_room(&error))?;
    let mut piece = vec![0; 1 << 16];
    loop {
        match std::io::Read::read(&mut made, &mut piece).map_err(|error| no_room(&error))? {
            0 => return sink.finish().map(|()| code),
            len => sink.write(&piece[..len])?,
        }
    }
}

/// 128 and the signal, where one ended it.
fn code(status: ExitStatus) -> u8 {
    let signal = || status.signal().map(|signal| 128 + signal);
    status.code().or_else(signal).and_then(|code| u8::try_from(code).ok()).unwrap_or(Exit::Failure.code())
}

fn no_room(error: &std::io::Error) -> Failure {
    let folder = std::env::temp_dir();
    let what = format!("cannot keep what COMMAND writes in {}: {error}", folder.display());
    Failure::new(Exit::Failure, "M805", what, "make room there, or choose another folder with TMPDIR")
}
