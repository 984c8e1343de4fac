//! The overlay: the prefix inside the tunnel and who has which address of it. Setting addresses and routes is not here but in
//! `link::tun`.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use super::role::Role;

/// The inner MTU. 1500 on the wire of every known runner, less 20 (IPv4), 8 (UDP) and 32 (WireGuard) leaves 1440; 20 are kept for a
/// relay header, so that a relayed packet needs no other MTU.
pub const MTU: u16 = 1420;

/// An IPv4 prefix with host bits zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Prefix {
    base: Ipv4Addr,
    len: u8,
}

/// Why a text is not a usable prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrefixError {
    /// Not `A.B.C.D/LEN`.
    #[error("`{0}` is not an IPv4 prefix such as 10.77.0.0/16")]
    Malformed(String),
    /// Host bits are set.
    #[error("`{0}` has bits set beyond its length; the prefix is {1}")]
    HostBits(String, Prefix),
    /// Of this machine, of multicast, or of nobody.
    #[error("`{0}` holds addresses that no machine can have in a network")]
    Reserved(String),
    /// Smaller than a primary and one aux need, or so large that it cannot be private.
    #[error("`{0}` has a length outside 8 to 29")]
    Length(String),
}

impl Prefix {
    /// `base/len` with the host bits cleared.
    pub fn new(base: Ipv4Addr, len: u8) -> Self {
        Self { base: Ipv4Addr::from_bits(base.to_bits() & mask(len)), len: len.min(32) }
    }

    /// The first address.
    pub fn base(&self) -> Ipv4Addr {
        self.base
    }

    /// How many leading bits are fixed.
    pub fn len(&self) -> u8 {
        self.len
    }

    /// Whether it covers every address (0.0.0.0/0: a default route).
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether `addr` lies within.
    pub fn contains(&self, addr: Ipv4Addr) -> bool {
        addr.to_bits() & mask(self.len) == self.base.to_bits()
    }

    /// Whether an address lies in both.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.base) || other.contains(self.base)
    }

    /// The address of `role`: .0.1 for the primary, the (I+2)-th for aux I. `None` when the prefix is too small.
    pub fn address(&self, role: Role) -> Option<Ipv4Addr> {
        let addr = Ipv4Addr::from_bits(self.base.to_bits().checked_add(u32::from(role.number()) + 1)?);
        (self.contains(addr) && addr.to_bits() != self.base.to_bits() | !mask(self.len)).then_some(addr)
    }

    /// The role at `addr`, the inverse of [`Self::address`].
    pub fn role_at(&self, addr: Ipv4Addr) -> Option<Role> {
        let number = addr.to_bits().checked_sub(self.base.to_bits())?.checked_sub(1)?;
        let role = Role::from_number(u16::try_from(number).ok()?)?;
        (self.address(role) == Some(addr)).then_some(role)
    }
}

fn mask(len: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(len.min(32))).unwrap_or(0)
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let malformed = || PrefixError::Malformed(text.into());
        let (addr, len) = text.split_once('/').ok_or_else(malformed)?;
        let addr: Ipv4Addr = addr.parse().map_err(|_| malformed())?;
        let len: u8 = len.parse().map_err(|_| malformed())?;
        if !(8..=29).contains(&len) {
            return Err(PrefixError::Length(text.into()));
        }
        let prefix = Self::new(addr, len);
        let reserved = |first: u8| first == 0 || first == 127 || first >= 224;
        if reserved(addr.octets()[0]) {
            return Err(PrefixError::Reserved(text.into()));
        }
        if prefix.base != addr {
            return Err(PrefixError::HostBits(text.into(), prefix));
        }
        Ok(prefix)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.len)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().expect("a valid prefix")
    }

    #[test]
    fn the_primary_has_the_first_address_and_aux_follow() {
        let overlay = prefix("10.77.0.0/16");
        assert_eq!(overlay.address(Role::Primary), Some(Ipv4Addr::new(10, 77, 0, 1)));
        assert_eq!(overlay.address(Role::Aux(0)), Some(Ipv4Addr::new(10, 77, 0, 2)));
        assert_eq!(overlay.address(Role::Aux(254)), Some(Ipv4Addr::new(10, 77, 1, 0)));
    }

    #[test]
    fn a_small_prefix_has_no_address_for_a_high_index_nor_for_its_broadcast() {
        let overlay = prefix("192.168.7.8/29");
        assert_eq!(overlay.address(Role::Aux(4)), Some(Ipv4Addr::new(192, 168, 7, 14)));
        assert_eq!(overlay.address(Role::Aux(5)), None);
        assert_eq!(overlay.role_at(Ipv4Addr::new(192, 168, 7, 15)), None);
    }

    #[test]
    fn bad_prefixes_are_named_with_what_is_wrong() {
        assert_eq!("10.77.0.0".parse::<Prefix>(), Err(PrefixError::Malformed("10.77.0.0".into())));
        assert_eq!("10.77.0.0/30".parse::<Prefix>(), Err(PrefixError::Length("10.77.0.0/30".into())));
        for reserved in ["127.0.0.0/8", "224.0.0.0/8", "0.0.0.0/8"] {
            assert_eq!(reserved.parse::<Prefix>(), Err(PrefixError::Reserved(reserved.into())));
        }
        let error = "10.77.1.0/16".parse::<Prefix>().expect_err("host bits");
        assert_eq!(error.to_string(), "`10.77.1.0/16` has bits set beyond its length; the prefix is 10.77.0.0/16");
    }

    proptest! {
        #[test]
        fn an_address_leads_back_to_its_role(base: u32, len in 8u8..=29, number: u16) {
            let overlay = Prefix::new(Ipv4Addr::from_bits(base), len);
            let role = Role::from_number(number).unwrap_or(Role::Primary);
            if let Some(addr) = overlay.address(role) {
                prop_assert!(overlay.contains(addr));
                prop_assert_eq!(overlay.role_at(addr), Some(role));
            }
        }

        #[test]
        fn overlap_is_symmetric(a: u32, b: u32, la in 0u8..=32, lb in 0u8..=32) {
            let (a, b) = (Prefix::new(Ipv4Addr::from_bits(a), la), Prefix::new(Ipv4Addr::from_bits(b), lb));
            prop_assert_eq!(a.overlaps(&b), b.overlaps(&a));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,40}") {
            let _ = text.parse::<Prefix>();
        }
    }
}
