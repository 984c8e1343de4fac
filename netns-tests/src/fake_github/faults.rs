//! The switches for faults: rules that say which route fails, how, and how often.
//!
//! Not here: how a fault is carried out ([`super::server`] for whole answers; artifacts and blobs for their content).

use std::sync::Mutex;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::route::Route;
use super::service::lock;

/// One fault. Of the rules that match a request the first that is not spent decides, alone.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The route that fails.
    pub route: Route,
    /// Only for requests of this job.
    #[serde(default)]
    pub job: Option<String>,
    /// Answer with this status, from 400 to 599, and an error of the route's protocol.
    #[serde(default)]
    pub status: Option<u16>,
    /// The error's text instead of the usual one.
    #[serde(default)]
    pub message: Option<String>,
    /// A `Retry-After` header with the error; whole seconds in JSON.
    #[serde(default, deserialize_with = "seconds")]
    pub retry_after: Option<Duration>,
    /// Wait before anything else; `delay_ms` in JSON.
    #[serde(default, rename = "delay_ms", deserialize_with = "milliseconds")]
    pub delay: Option<Duration>,
    /// Close the connection without an answer.
    #[serde(default)]
    pub drop: bool,
    /// Do what was asked first, then fail: the answer is lost and not the request.
    #[serde(default)]
    pub after: bool,
    /// How many requests the rule breaks; absent: all.
    #[serde(default)]
    pub times: Option<u32>,
    /// `FinalizeArtifact` fails (500, or `status`) and leaves the name burnt: taken for ever and never visible.
    #[serde(default)]
    pub burn: bool,
    /// `Download` answers other bytes than were uploaded.
    #[serde(default)]
    pub tamper: Option<Tamper>,
    /// Lists leave out what was finalized less than this ago; `visible_after_ms` in JSON.
    #[serde(default, rename = "visible_after_ms", deserialize_with = "milliseconds")]
    pub visible_after: Option<Duration>,
}

/// What happens to the bytes of a download.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tamper {
    /// The lowest bit of the middle byte is flipped.
    Flip,
    /// The second half is missing, in an answer that is whole in itself.
    Truncate,
}

/// A rule that could never do what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadRule {
    /// `status` is no error.
    Status(u16),
    /// `burn` on a route other than `FinalizeArtifact`.
    Burn(Route),
    /// `tamper` on a route other than `Download`.
    Tamper(Route),
    /// `visible_after_ms` on a route that lists nothing.
    VisibleAfter(Route),
    /// `after` without `status`, `drop` or `burn`.
    After(Route),
    /// Nothing is switched on.
    Nothing(Route),
}

impl std::fmt::Display for BadRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Status(status) => write!(f, "a fault's status is from 400 to 599, not {status}"),
            Self::Burn(route) => write!(f, "burn is for FinalizeArtifact, not for {route:?}"),
            Self::Tamper(route) => write!(f, "tamper is for Download, not for {route:?}"),
            Self::VisibleAfter(route) => {
                write!(f, "visible_after_ms is for ListArtifacts and RestList, not for {route:?}")
            }
            Self::After(route) => write!(f, "after needs status, drop or burn in the rule for {route:?}"),
            Self::Nothing(route) => {
                write!(f, "the rule for {route:?} has none of status, delay_ms, drop, burn, tamper, visible_after_ms")
            }
        }
    }
}

impl std::error::Error for BadRule {}

impl Rule {
    /// A rule for `route` that does nothing yet.
    pub fn on(route: Route) -> Self {
        Self {
            route,
            job: None,
            status: None,
            message: None,
            retry_after: None,
            delay: None,
            drop: false,
            after: false,
            times: None,
            burn: false,
            tamper: None,
            visible_after: None,
        }
    }

    fn check(&self) -> Result<(), BadRule> {
        match self {
            Self { status: Some(status), .. } if !(400..=599).contains(status) => Err(BadRule::Status(*status)),
            Self { burn: true, route, .. } if *route != Route::FinalizeArtifact => Err(BadRule::Burn(*route)),
            Self { tamper: Some(_), route, .. } if *route != Route::Download => Err(BadRule::Tamper(*route)),
            Self { visible_after: Some(_), route, .. } if !route.lists() => Err(BadRule::VisibleAfter(*route)),
            Self { after: true, status: None, drop: false, burn: false, route, .. } => Err(BadRule::After(*route)),
            rule if rule.is_idle() => Err(BadRule::Nothing(rule.route)),
            _ => Ok(()),
        }
    }

    fn is_idle(&self) -> bool {
        let whole = self.status.is_none() && self.delay.is_none() && !self.drop && !self.burn;
        whole && self.tamper.is_none() && self.visible_after.is_none()
    }

    fn matches(&self, route: Route, job: Option<&str>) -> bool {
        let of_this_job = self.job.is_none() || self.job.as_deref() == job;
        self.route == route && of_this_job && self.times != Some(0)
    }
}

/// The rules of a running server, first to last.
#[derive(Debug, Default)]
pub struct Faults(Mutex<Vec<Rule>>);

impl Faults {
    /// Adds rules behind those that are there; none of them when one is bad.
    ///
    /// # Errors
    /// When a rule could never do what it says.
    pub fn add(&self, rules: impl IntoIterator<Item = Rule>) -> Result<(), BadRule> {
        let rules: Vec<Rule> = rules.into_iter().collect();
        rules.iter().try_for_each(Rule::check)?;
        lock(&self.0).extend(rules);
        Ok(())
    }

    /// Ends all faults.
    pub fn clear(&self) {
        lock(&self.0).clear();
    }

    /// The rule for this request; counts it as one of the rule's times.
    pub(super) fn take(&self, route: Route, job: Option<&str>) -> Option<Rule> {
        let mut rules = lock(&self.0);
        let rule = rules.iter_mut().find(|rule| rule.matches(route, job))?;
        rule.times = rule.times.map(|times| times - 1);
        Some(rule.clone())
    }
}

fn seconds<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_secs))
}

fn milliseconds<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_millis))
}
