//! What the audience sees, all of it on stderr: headings, text, and one line that is rewritten on a terminal. Not here: what is said.

#![expect(clippy::print_stderr, reason = "the room of the demo that speaks to the user")]

use std::io::{IsTerminal, stderr};

/// Where the demo speaks.
#[derive(Debug)]
pub(super) struct Screen {
    terminal: bool,
    live: bool,
    spaced: bool,
}

impl Screen {
    /// stderr, as it is.
    pub(super) fn new() -> Self {
        Self { terminal: stderr().is_terminal(), live: false, spaced: false }
    }

    /// Whether the live line is rewritten, so that it may change often.
    pub(super) fn is_live(&self) -> bool {
        self.terminal
    }

    /// Begins a chapter.
    pub(super) fn heading(&mut self, text: &str) {
        self.space();
        if self.terminal {
            eprintln!("\x1b[1m{text}\x1b[0m\n");
        } else {
            eprintln!("{text}\n{}\n", "-".repeat(text.len()));
        }
        self.spaced = true;
    }

    /// A paragraph.
    pub(super) fn text(&mut self, text: &str) {
        self.space();
        text.lines().for_each(|line| eprintln!("{}", format!("  {line}").trim_end()));
        eprintln!();
        self.spaced = true;
    }

    /// One line of somebody.
    pub(super) fn line(&mut self, who: &str, text: &str) {
        self.end_live();
        eprintln!("  {who:<8} {text}");
        self.spaced = false;
    }

    /// Puts this in place of the line before, on a terminal.
    pub(super) fn live(&mut self, text: &str) {
        if self.terminal {
            eprint!("\r\x1b[K  {text}");
            self.live = true;
        } else {
            eprintln!("  {text}");
        }
        self.spaced = false;
    }

    /// Leaves the live line as it is, for good.
    pub(super) fn end_live(&mut self) {
        if std::mem::take(&mut self.live) {
            eprintln!();
        }
    }

    /// Ends what came before with one empty line.
    fn space(&mut self) {
        self.end_live();
        if !std::mem::replace(&mut self.spaced, true) {
            eprintln!();
        }
    }
}

/// The network that the lab is about to build.
pub(super) fn picture(aux: u16) -> String {
    let last = aux - 1;
    let many = if aux == 1 { "aux 0".into() } else { format!("aux 0 .. {last}") };
    format!(
        "GitHub's runners cannot reach each other: each sits behind a NAT that lets nobody in. Here are {} of them, as network\n\
         namespaces of this machine, with NATs like those of GitHub's runners, 20 ms of delay each way, and a small\n\
         GitHub that only knows artifacts. Nothing leaves this machine.\n\
         \n\
         {:>12} --- NAT ---+          +--- STUN server\n\
         {:>12}            +- routers -+\n\
         {:>12} --- NAT ---+          +--- GitHub (artifacts)",
        usize::from(aux) + 1,
        "primary",
        "",
        many,
    )
}
