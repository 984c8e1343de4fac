//! A router that is a NAT: its rules, its flows, and how it forgets them. Not here: the rules themselves ([`super::nat`]), and its addresses
//! ([`super::builder`]).

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Netns;
use super::nat::Nat;
use super::nat::rules::{Setting, ruleset};

#[derive(Debug)]
pub(super) struct Router {
    netns: Netns,
    nat: Nat,
    setting: Mutex<Setting>,
}

impl Router {
    /// Loads the rules into `netns`.
    pub(super) fn start(netns: Netns, nat: Nat, setting: Setting) -> Result<Self> {
        let router = Self { netns, nat, setting: Mutex::new(setting) };
        router.load(&setting)?;
        Ok(router)
    }

    pub(super) fn netns(&self) -> &Netns {
        &self.netns
    }

    pub(super) fn nat(&self) -> Nat {
        self.nat
    }

    pub(super) fn rebind(&self) -> Result<()> {
        self.nat.check_rebinding()?;
        let mut setting = self.setting.lock().unwrap_or_else(PoisonError::into_inner);
        setting.ports = setting.ports.other();
        self.load(&setting)?;
        self.netns.run("conntrack", &["-F"], "").map(drop)
    }

    pub(super) fn set_udp_timeouts(&self, unreplied: Duration, replied: Duration) -> Result<()> {
        ensure!(unreplied.as_secs() > 0 && replied.as_secs() > 0, "a NAT keeps a mapping for a second at least");
        self.netns.sysctl("netfilter/nf_conntrack_udp_timeout", &unreplied.as_secs().to_string())?;
        self.netns.sysctl("netfilter/nf_conntrack_udp_timeout_stream", &replied.as_secs().to_string())?;
        let mut setting = self.setting.lock().unwrap_or_else(PoisonError::into_inner);
        setting.keep = replied;
        self.load(&setting)
    }

    pub(super) fn flows(&self) -> Result<String> {
        self.netns.run("conntrack", &["-L", "-p", "udp"], "")
    }

    fn load(&self, setting: &Setting) -> Result<()> {
        self.netns.nft(&ruleset(self.nat, setting)).with_context(|| format!("make a NAT of kind {:?}", self.nat))
    }
}
