//! How a site gets to the internet, and what its LAN allows. Not here: how that is built ([`super::site`]).

use anyhow::{Result, ensure};

use super::{Link, Nat};

/// What stands between the runners of a site and the internet. Without more words there is one NAT, which does not hairpin,
/// a LAN on which hosts reach each other, an unshaped link, and IPv4 alone.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Access {
    pub(super) nat: Nat,
    pub(super) carrier: Option<Nat>,
    pub(super) link: Link,
    pub(super) isolated: bool,
    pub(super) hairpin: bool,
    pub(super) ipv6: bool,
}

impl Access {
    /// Behind one NAT of this kind.
    pub fn behind(nat: Nat) -> Self {
        Self { nat, carrier: None, link: Link::default(), isolated: false, hairpin: false, ipv6: false }
    }

    /// Shapes what leaves the outermost NAT towards the internet.
    #[must_use]
    pub fn link(self, link: Link) -> Self {
        Self { link, ..self }
    }

    /// The NAT's outside is not the internet but a carrier's network, 100.64.0.0/10 (RFC 6598), behind a NAT of this kind.
    #[must_use]
    pub fn carrier(self, nat: Nat) -> Self {
        Self { carrier: Some(nat), ..self }
    }

    /// Hosts of the LAN cannot reach each other by their LAN addresses, as in a wireless network with client isolation.
    #[must_use]
    pub fn isolated(self) -> Self {
        Self { isolated: true, ..self }
    }

    /// The NAT hairpins: hosts of the LAN reach each other by their outside addresses and ports, which they also see (RFC 4787, section 6),
    /// as far as its filtering allows. Not to be had behind a carrier, whose NAT never does.
    #[must_use]
    pub fn hairpin(self) -> Self {
        Self { hairpin: true, ..self }
    }

    /// Each runner has a global IPv6 address too. It is routed, not translated; a NAT's router lets in only what answers or belongs to what
    /// went out.
    #[must_use]
    pub fn ipv6(self) -> Self {
        Self { ipv6: true, ..self }
    }

    /// The kind of the NAT next to the runners.
    pub fn nat(&self) -> Nat {
        self.nat
    }

    pub(super) fn check(&self) -> Result<()> {
        if self.hairpin {
            self.nat.check_hairpin()?;
            ensure!(
                self.carrier.is_none(),
                "nobody behind a carrier knows its NAT's outside address: it cannot hairpin"
            );
        }
        ensure!(self.nat != Nat::None || self.carrier.is_none(), "a host without a NAT of its own has no carrier");
        ensure!(self.carrier != Some(Nat::None), "a carrier without a NAT is none: leave it out");
        Ok(())
    }
}
