//! As many runners as GitHub gives one run, on the simulated internet.

use std::time::Duration;

use mesh::proto::role::Role;

use crate::sim::nat::{AZURE, EIM_APDF, MASQ};
use crate::sim::{Internet, Weather};

/// From the last announcement that was read.
const ALL_UP: Duration = Duration::from_secs(15);

#[test]
fn two_hundred_and_fifty_six_runners_are_up_within_fifteen_seconds_of_the_last_announcement() {
    let weather = Weather { rendezvous_jitter: Duration::from_secs(3), loss: 0.01, ..Weather::default() };
    let mut net = Internet::new(1, weather);
    net.host(Role::Primary, AZURE);
    for index in 0..255 {
        net.host(Role::Aux(index), [AZURE, MASQ, EIM_APDF][usize::from(index % 3)]);
    }
    assert!(net.run_until(Duration::from_secs(30), Internet::all_up), "{} are up", net.hosts[0].up.len());
    assert!(net.now - net.last_reading < ALL_UP);
    assert_eq!(net.violations, [""; 0]);
}
