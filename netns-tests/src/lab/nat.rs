//! The kinds of NAT, and what each is able to do. Not here: the rules that make them ([`rules`]), and the routers with them
//! ([`super::router`]).
//!
//! Words of RFC 4787. Mapping, which outside port an inside port gets: EIM, endpoint-independent: the same, whoever is spoken to; ADM,
//! address-dependent: another one for each address; APDM, address- and port-dependent. Filtering, who may answer: EIF: everybody; ADF:
//! every port of an address that was spoken to; APDF: only an address and port that was spoken to.

pub(super) mod rules;

use anyhow::{Result, bail, ensure};

/// How a runner is connected to the internet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Nat {
    /// Not at all by a NAT: the runner has a public address of its own.
    None,
    /// Linux `masquerade`: EIM, keeps the port, APDF. A packet that comes before the runner has sent binds its port
    /// (the null binding), after which the runner gets another one.
    Masq,
    /// What GitHub's runners on Azure have shown: EIM, does not keep the port, APDF. Clashes like [`Nat::Masq`].
    Azure,
    /// A full cone: EIM, keeps the port, EIF.
    EimEif,
    /// A restricted cone: EIM, keeps the port, ADF, and what comes too early leaves no trace.
    EimAdf,
    /// A good home router: EIM, keeps the port, APDF, and what comes too early leaves no trace.
    EimApdf,
    /// What Azure's load balancer is documented to do: ADM, with a block of ports for each address, APDF. Clashes like [`Nat::Masq`].
    AzureAdm,
    /// Linux `masquerade random`: APDM, APDF. Clashes like [`Nat::Masq`].
    MasqRand,
    /// Linux `masquerade fully-random`: as [`Nat::MasqRand`], and every port is drawn anew.
    MasqFrand,
    /// Lets TCP and ICMP out as [`Nat::Masq`] does, and no UDP.
    Block,
    /// Two public addresses: as [`Nat::Azure`] on each, and which of them a flow leaves by depends on the address and the port it goes to.
    TwoEgress,
}

impl Nat {
    /// The kinds of the matrix in which every pair has one known outcome.
    pub const MATRIX: [Self; 9] = [
        Self::Masq,
        Self::Azure,
        Self::EimEif,
        Self::EimAdf,
        Self::EimApdf,
        Self::AzureAdm,
        Self::MasqRand,
        Self::MasqFrand,
        Self::Block,
    ];

    /// Its name in tables, such as `eim_apdf`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Masq => "masq",
            Self::Azure => "azure",
            Self::EimEif => "eim_eif",
            Self::EimAdf => "eim_adf",
            Self::EimApdf => "eim_apdf",
            Self::AzureAdm => "azure_adm",
            Self::MasqRand => "masq_rand",
            Self::MasqFrand => "masq_frand",
            Self::Block => "block",
            Self::TwoEgress => "two_egress",
        }
    }

    /// Whether one inside port has one outside port and one outside address, whoever is spoken to.
    pub const fn is_endpoint_independent(self) -> bool {
        matches!(self, Self::Masq | Self::Azure) || self.keeps_a_table()
    }

    /// Whether the outside port is the inside one, if that is free.
    pub const fn keeps_the_port(self) -> bool {
        matches!(self, Self::Masq) || self.keeps_a_table()
    }

    /// Whether its mappings live in a table of their own, not in conntrack. Then a stranger's packet finds the host behind it, or is dropped
    /// before conntrack keeps it, so that it never binds a port.
    pub const fn keeps_a_table(self) -> bool {
        matches!(self, Self::EimEif | Self::EimAdf | Self::EimApdf)
    }

    /// Fails with the reason if no rules can move its mappings.
    pub(super) fn check_rebinding(self) -> Result<()> {
        match self {
            Self::None => bail!("there is no NAT"),
            Self::Masq => bail!("Nat::Masq keeps the port, so that nothing would move"),
            Self::Block => bail!("Nat::Block maps no UDP"),
            _ => Ok(()),
        }
    }

    /// Fails with the reason if hosts behind it cannot reach each other by their outside ports.
    pub(super) fn check_hairpin(self) -> Result<()> {
        ensure!(
            self.is_endpoint_independent(),
            "{self:?} cannot hairpin: a host has no outside port that holds for others"
        );
        Ok(())
    }
}

/// Which ports a NAT hands out. Rebinding changes to the other ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Ports {
    #[default]
    First,
    Second,
}

impl Ports {
    pub(super) const fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }
}
