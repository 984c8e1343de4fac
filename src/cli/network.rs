//! What the user is told of networks and paths, by whichever verb. What a failure is called is not here but in [`super::diagnosis`].

use std::net::SocketAddr;

use super::actions::{mask, say, warn};
use crate::proto::nat::{Behaviour, Mapping};
use crate::proto::renewal::Reason;
use crate::proto::route::Route;

/// A mapping that has moved so often is unstable.
const UNSTABLE: u32 = 3;

/// What to do about a relay that does not take us.
pub(super) const IS_IT_THERE: &str = "does `mesh relay` run there, with this key, and is its UDP port open?";

/// What to do where paths cannot be relied on.
pub(super) const A_RELAY: &str = "a relay of your own (--relay) carries the data where a direct path does not";

/// Why a fresh socket is taken.
pub(super) fn tell_fresh_socket(reason: Reason) {
    match reason {
        Reason::Lost => say("no direct path where there should be one: opening again from a fresh socket"),
        Reason::Astray(UNSTABLE) => warn(&format!(
            "M204 the NAT's mapping has moved {UNSTABLE} times, and each time every path is lost for seconds; hint: {A_RELAY}"
        )),
        Reason::Astray(_) => say("the NAT maps us elsewhere than announced: opening again from a fresh socket"),
    }
}

/// What the user is told of a mapping, once. Addresses are hidden in the logs of Actions.
pub(super) fn tell_network(nat: Behaviour, reflexive: &[SocketAddr]) {
    reflexive.iter().for_each(|addr| mask(addr.ip()));
    say(&format!("network: {nat}"));
    let Behaviour { mapping, egress, .. } = nat;
    if egress > 1 {
        warn(&format!(
            "M205 {egress} egress addresses: a peer may see another address than the STUN servers; hint: a NAT with one makes direct paths sure"
        ));
    }
    if matches!(mapping, Mapping::AddressDependent | Mapping::AddressAndPortDependent) {
        warn(&format!(
            "M202 the NAT maps {mapping}: a direct path must be searched for, and there is none to another runner behind such a NAT; hint: use \
             runners behind another NAT, or a relay of your own (--relay)"
        ));
    }
}

/// How a peer is reached, for the line that says that it is.
pub(super) fn path_words(route: Route, why: &str) -> String {
    match route {
        Route::Direct { .. } => "direct".into(),
        Route::Relayed(relay) => format!("over {relay}: {why}"),
    }
}

/// Whether a relay of the user's own takes us.
pub(super) fn tell_relay(server: SocketAddr, takes_us: bool) {
    mask(server.ip());
    if takes_us {
        say(&format!("the relay {server} takes us again"));
    } else {
        warn(&format!("M207 the relay {server} does not take us; hint: {IS_IT_THERE}"));
    }
}

/// A part of the system does not put packets together.
pub(super) fn warn_one_by_one(what: &str) {
    warn(&format!(
        "M602 {what} only one by one: large transfers through the mesh take more CPU; hint: nothing has to be done; Linux from 6.2 on can do better"
    ));
}
