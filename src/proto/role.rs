//! Who a peer is in its run: the primary or one of the aux. Not an identity: that is its key.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A place in the mesh, fixed by the user's command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "u16", try_from = "u16")]
pub enum Role {
    /// Runs COMMAND; the hub of the star.
    Primary,
    /// Auxiliary I, counted from 0.
    Aux(u16),
}

impl Role {
    /// The greatest index of an aux. One below `u16::MAX`, since its number is one more.
    pub const MAX_INDEX: u16 = u16::MAX - 2;

    /// The number on the wire and in overlay addresses: 0 for the primary, I + 1 for aux I.
    pub fn number(self) -> u16 {
        match self {
            Self::Primary => 0,
            Self::Aux(index) => index + 1,
        }
    }

    /// The role with this number; `None` beyond [`Self::MAX_INDEX`].
    pub fn from_number(number: u16) -> Option<Self> {
        match number {
            0 => Some(Self::Primary),
            n if n - 1 <= Self::MAX_INDEX => Some(Self::Aux(n - 1)),
            _ => None,
        }
    }

    /// As in artifact names: `primary`, `aux3`.
    pub fn slug(self) -> String {
        match self {
            Self::Primary => "primary".into(),
            Self::Aux(index) => format!("aux{index}"),
        }
    }

    /// The inverse of [`Self::slug`].
    pub fn from_slug(slug: &str) -> Option<Self> {
        if slug == "primary" {
            return Some(Self::Primary);
        }
        let digits = slug.strip_prefix("aux")?;
        let index: u16 = digits.parse().ok()?;
        (index <= Self::MAX_INDEX && index.to_string() == digits).then_some(Self::Aux(index))
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Primary => f.write_str("primary"),
            Self::Aux(index) => write!(f, "aux {index}"),
        }
    }
}

impl From<Role> for u16 {
    fn from(role: Role) -> Self {
        role.number()
    }
}

impl TryFrom<u16> for Role {
    type Error = String;

    fn try_from(number: u16) -> Result<Self, String> {
        Self::from_number(number).ok_or_else(|| format!("no role has the number {number}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_and_slug_lead_back_to_the_role() {
        for role in [Role::Primary, Role::Aux(0), Role::Aux(255), Role::Aux(Role::MAX_INDEX)] {
            assert_eq!(Role::from_number(role.number()), Some(role));
            assert_eq!(Role::from_slug(&role.slug()), Some(role));
        }
    }

    #[test]
    fn other_spellings_are_refused() {
        for slug in ["", "aux", "aux-1", "aux01", "aux65535", "aux65534", "Primary", "aux+1"] {
            assert_eq!(Role::from_slug(slug), None, "{slug}");
        }
        assert_eq!(Role::from_number(u16::MAX), None);
    }
}
