//! What a TCP transfer lives through: NATs that forget their mappings in mid-flow, a way that is cut, an outage, an aux that freezes or dies,
//! loss. The exact bounds are not here but in `tests/it`, in virtual time; `--nocapture` shows what everything took.

mod run;

use std::time::Duration;

use netns_tests::lab::Runner;
use nix::sys::signal::Signal;

use self::run::Run;
use crate::common::SOON;

/// Without a relay: the time to notice, and three times the way through the rendezvous, on a loaded machine.
const REPAIRED: Duration = Duration::from_secs(60);

/// Of 6 s until it is noticed, 7 s until a relay carries and 12 s until a peer is gone, on a machine that runs nothing else.
const NOTICED: Duration = Duration::from_secs(12);
const GONE: Duration = Duration::from_secs(25);

/// TCP doubles its pauses: it tries again when it has waited for as long once more.
const STALL: Duration = Duration::from_secs(30);

/// What a loaded machine adds to what TCP waits.
const SLACK: Duration = Duration::from_secs(20);

/// For two megabytes; it takes a quarter of that.
const LOSSY: Duration = Duration::from_secs(120);

/// Four pings in a row are lost once in a thousand times, which counts when TCP happens to be silent too. It is told of twice: over the
/// relay, and back.
const FALSE_ALARMS: usize = 2;

const OUTAGE: Duration = Duration::from_secs(60);
const FROZEN: Duration = Duration::from_secs(20);

// --- without a relay

#[test]
fn a_transfer_survives_that_the_aux_s_nat_forgets_its_mappings() {
    is_repaired("moved-aux", |_, aux| aux.rebind().unwrap());
}

#[test]
fn a_transfer_survives_that_the_primary_s_nat_forgets_its_mappings() {
    is_repaired("moved-primary", |primary, _| primary.rebind().unwrap());
}

#[test]
fn a_transfer_survives_that_both_nats_forget_their_mappings() {
    is_repaired("moved-both", rebind_both);
}

fn is_repaired(name: &str, disturb: impl Fn(&Runner, &Runner)) {
    let mut run = Run::without_relay(name);
    run.disturb(disturb);
    run.assert_both_say("M501", REPAIRED);
    run.assert_goes_on(REPAIRED);
    run.assert_ends_whole(REPAIRED);
}

fn rebind_both(primary: &Runner, aux: &Runner) {
    primary.rebind().unwrap();
    aux.rebind().unwrap();
}

// --- with a relay of the user's

#[test]
fn a_transfer_goes_over_the_relay_when_the_aux_s_nat_forgets_its_mappings_and_comes_back() {
    goes_over_the_relay_and_comes_back("relayed-aux", |_, aux| aux.rebind().unwrap());
}

#[test]
fn a_transfer_goes_over_the_relay_when_the_primary_s_nat_forgets_its_mappings_and_comes_back() {
    goes_over_the_relay_and_comes_back("relayed-primary", |primary, _| primary.rebind().unwrap());
}

#[test]
fn a_transfer_goes_over_the_relay_when_both_nats_forget_their_mappings_and_comes_back() {
    goes_over_the_relay_and_comes_back("relayed-both", rebind_both);
}

fn goes_over_the_relay_and_comes_back(name: &str, disturb: impl Fn(&Runner, &Runner)) {
    let mut run = Run::with_relay(name);
    run.disturb(disturb);
    goes_over_the_relay(&mut run);
    run.assert_is_direct(SOON);
    run.assert_goes_on(STALL);
    let stall = run.assert_ends_whole(STALL);
    assert!(stall < STALL, "{stall:?}");
}

fn goes_over_the_relay(run: &mut Run) {
    run.assert_is_noticed(NOTICED);
    run.assert_is_relayed(NOTICED);
    run.assert_connects();
}

#[test]
fn a_transfer_goes_over_the_relay_while_the_direct_way_is_cut_for_a_minute() {
    let mut run = Run::with_relay("cut");
    run.disturb(|primary, aux| primary.cut_from(aux, true).unwrap());
    goes_over_the_relay(&mut run);
    run.assert_goes_on(STALL);
    run.assert_stands_for(OUTAGE);
    run.assert_goes_on(NOTICED);
    run.disturb(|primary, aux| primary.cut_from(aux, false).unwrap());
    run.assert_is_direct(SOON);
    run.assert_goes_on(STALL);
    let stall = run.assert_ends_whole(STALL);
    assert!(stall < STALL, "{stall:?}");
}

#[test]
fn a_transfer_outlives_a_minute_without_a_network() {
    let mut run = Run::with_relay("outage");
    run.disturb(|_, aux| aux.block_udp(true).unwrap());
    run.assert_is_noticed(NOTICED);
    run.assert_primary_says("aux 0 is gone: M503", GONE);
    run.assert_stands_for(OUTAGE);
    run.disturb(|_, aux| aux.block_udp(false).unwrap());
    run.assert_primary_says("aux 0 is back", SOON);
    run.assert_is_direct(SOON);
    run.assert_goes_on(OUTAGE + SLACK);
    run.assert_ends_whole(REPAIRED);
}

#[test]
fn a_transfer_outlives_an_aux_that_is_frozen_for_a_while() {
    let mut run = Run::with_relay("frozen");
    run.signal_aux(Signal::SIGSTOP);
    run.assert_is_noticed(NOTICED);
    run.assert_primary_says("aux 0 is gone: M503", GONE);
    run.assert_stands_for(FROZEN);
    run.signal_aux(Signal::SIGCONT);
    run.assert_primary_says("aux 0 is back", SOON);
    run.assert_is_direct(SOON);
    run.assert_goes_on(FROZEN + SLACK);
    run.assert_ends_whole(REPAIRED);
}

#[test]
fn an_aux_that_is_killed_is_missed_and_another_process_takes_its_place() {
    let mut run = Run::with_relay("replaced");
    run.signal_aux(Signal::SIGKILL);
    run.assert_is_noticed(NOTICED);
    run.assert_primary_says("aux 0 is gone: M503", GONE);
    run.replace_aux();
    run.assert_goes_on(SOON);
    run.assert_ends_whole(STALL);
}

#[test]
fn where_every_tenth_packet_is_lost_a_transfer_gets_through_and_nothing_is_taken_for_lost() {
    let mut run = Run::with_relay_and_loss("lossy", 10.0);
    run.disturb(|_, _| ());
    run.assert_brings(2_000_000, LOSSY);
    run.assert_is_direct(SOON);
    run.assert_says_at_most(FALSE_ALARMS, "M50");
    run.assert_says_at_most(0, "M503");
    run.assert_ends_whole(REPAIRED);
}
