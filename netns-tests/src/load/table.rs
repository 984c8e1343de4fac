//! The figures as Markdown. Not here: what they mean ([`super::verdict`]).

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use super::Plan;
use super::book::{AFTERMATH, Book, Kind, Pause};
use super::cast::{Cast, RTO_MAX_MS};
use super::watch::{History, SETTLING, Usage};

/// All of it.
pub(super) fn markdown(plan: &Plan, book: &Book, usage: &Usage, cast: &Cast) -> String {
    [conditions(plan, book, usage, cast), traffic(book, usage), pauses(book), silences(book), held(usage), codes(cast)]
        .concat()
}

fn conditions(plan: &Plan, book: &Book, usage: &Usage, cast: &Cast) -> String {
    let Plan { aux, delay, loss, reorder, rebind_every, .. } = plan;
    let relay = if plan.relay { "a relay of the user's" } else { "no relay" };
    let rebinding =
        if *rebind_every == 0 { "no rebindings".into() } else { format!("a rebinding every {rebind_every} s") };
    let patience = if cast.rto_max { format!("at most {RTO_MAX_MS} ms") } else { "as long as it likes".into() };
    let speed = if plan.rate > 0.0 { format!("at most {} MB/s", plan.rate) } else { "as fast as it goes".into() };
    format!(
        "A primary and {aux} aux behind azure NATs, each link {delay} ms one way, {loss} % lost and {reorder} % reordered; {relay}; {rebinding}; \
         each lane {speed}; TCP waits {patience} before it repeats; {:.0} s from {}.\n",
        usage.lasted.as_secs_f64(),
        book.since
    )
}

fn traffic(book: &Book, usage: &Usage) -> String {
    let [bytes, whole, answers, datagrams, echoes] =
        [&book.bytes, &book.whole, &book.answers, &book.datagrams, &book.echoes]
            .map(|count| count.load(Ordering::Relaxed));
    let speed = bytes as f64 / 1e6 / usage.lasted.as_secs_f64();
    format!(
        "\n| carried | transfers whole | broken | corrupt | TCP requests answered | datagrams echoed | rebindings |\n|---|---|---|---|---|---|---|\n\
         | {:.2} GB, {speed:.1} MB/s | {whole} | {} | {} | {answers} | {echoes} of {datagrams} | {} |\n",
        bytes as f64 / 1e9,
        book.broken().count,
        book.corrupt().count,
        book.rebindings()
    )
}

/// The longest of each kind.
fn pauses(book: &Book) -> String {
    let mut text = String::from("\n| pause of | s | between | began at | preceded by |\n|---|---|---|---|---|\n");
    for kind in Kind::ALL {
        for aftermath in [true, false] {
            let rows = book
                .pauses(kind, aftermath, |all| all.longest.iter().map(|pause| row(kind, pause)).collect::<String>());
            text += &rows;
        }
    }
    text
}

fn row(kind: Kind, pause: &Pause) -> String {
    let Pause { who, began, took, .. } = pause;
    let (began, took) = (began.as_secs_f64(), took.as_secs_f64());
    format!("| {} | {took:.2} | {who} | {began:.1} s | {} |\n", kind.name(), cause(pause))
}

fn cause(pause: &Pause) -> String {
    let Some((name, at)) = &pause.after else { return "-".into() };
    let long_ago =
        if pause.is_aftermath() { String::new() } else { format!(", more than {} s before", AFTERMATH.as_secs()) };
    format!("{name}'s rebinding at {:.1} s{long_ago}", at.as_secs_f64())
}

/// What the senders' TCP said of those of over a second.
fn silences(book: &Book) -> String {
    let silences = book.silences();
    let lines: String = silences.first.iter().map(|said| format!("- {said}\n")).collect();
    if lines.is_empty() { lines } else { format!("\nThe sender's TCP in {} such seconds:\n\n{lines}", silences.count) }
}

fn held(usage: &Usage) -> String {
    let mut text = format!(
        "\n| mesh | MiB after {} s | at the end | most | descriptors | threads | CPU |\n|---|---|---|---|---|---|---|\n",
        SETTLING.as_secs()
    );
    for history in &usage.histories {
        text += &holder(history, usage);
    }
    text
}

fn holder(history: &History, usage: &Usage) -> String {
    let History { name, samples, peak, cpu, .. } = history;
    let settled = samples.iter().find(|sample| sample.at >= SETTLING).or(samples.first());
    let (Some(first), Some(last)) = (settled, samples.last()) else {
        return format!("| {name} | - | - | - | - | - | - |\n");
    };
    let share = 100.0 * cpu.as_secs_f64() / usage.lasted.as_secs_f64();
    format!(
        "| {name} | {:.1} | {:.1} | {peak:.1} | {} to {} | {} to {} | {share:.0} % of a core |\n",
        first.mib, last.mib, first.descriptors, last.descriptors, first.threads, last.threads
    )
}

fn codes(cast: &Cast) -> String {
    let mut text = String::from("\nSaid by all:");
    for (code, count) in cast.codes() {
        // Writing to a string cannot fail.
        let _ = write!(text, " {code} {count} times,");
    }
    text.trim_end_matches([',', ':']).to_owned() + ".\n"
}
