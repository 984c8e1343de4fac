//! How the user writes what is led where: `LISTEN:PEER:PORT`.

use std::fmt;
use std::str::FromStr;

use crate::proto::role::Role;

/// A port of this machine that leads to a peer's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// On 127.0.0.1; 0 is any.
    pub listen: u16,
    /// Whose port.
    pub peer: Role,
    /// On its overlay address.
    pub port: u16,
}

impl FromStr for Forward {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || "use LISTEN:PEER:PORT, such as 8080:aux0:80 or 5432:primary:5432".to_string();
        let [listen, peer, port] = text.split(':').collect::<Vec<_>>()[..] else { return Err(form()) };
        let listen = listen.parse().map_err(|_| form())?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(form)?;
        let peer = Role::from_slug(peer).ok_or_else(|| format!("`{peer}` is no peer: use primary, aux0, aux1, ..."))?;
        Ok(Self { listen, peer, port })
    }
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.listen, self.peer.slug(), self.port)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_forward_names_both_ports_and_the_peer() {
        let forward = |listen, peer, port| Ok(Forward { listen, peer, port });
        assert_eq!("8080:aux0:80".parse(), forward(8080, Role::Aux(0), 80));
        assert_eq!("0:primary:5432".parse(), forward(0, Role::Primary, 5432));
    }

    #[test]
    fn what_is_no_forward_is_refused_with_what_is_one() {
        for text in ["", "80", "80:aux0", "80:aux0:0", "x:aux0:80", "80:aux0:80:1", "65536:aux0:80"] {
            assert!(text.parse::<Forward>().expect_err("no forward").contains("8080:aux0:80"), "{text}");
        }
        for text in ["80:aux:80", "80:auxx:80", "80:aux+1:80", "80:aux65536:80", "80:10.77.0.2:80"] {
            assert!(text.parse::<Forward>().expect_err("no peer").contains("primary, aux0"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(listen: u16, index in 0..=Role::MAX_INDEX, port in 1..=u16::MAX) {
            let forward = Forward { listen, peer: Role::Aux(index), port };
            prop_assert_eq!(forward.to_string().parse(), Ok(forward));
        }
    }
}
