//! Who may do what: a token names a namespace and whether it may be written to, and carries a MAC of both under a secret of the run. So no list of tokens
//! is kept, and a reader of one namespace cannot make a token for another. Pure.

use std::fmt;

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac};
use sha2::Sha256;

/// Letters of a namespace, at most.
const LONGEST: usize = 64;

/// Bytes of the MAC that a token carries: half of HMAC-SHA256 (RFC 2104, section 5).
const MAC: usize = 16;

/// What a token's bearer may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    namespace: String,
    writes: bool,
}

impl Grant {
    /// In this namespace, of 1 to 64 letters, digits, `-` and `_`; `None` where it is not.
    pub fn new(namespace: &str, writes: bool) -> Option<Self> {
        let letters = namespace.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
        let good = letters && (1..=LONGEST).contains(&namespace.len());
        good.then(|| Self { namespace: namespace.into(), writes })
    }

    /// Where.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Whether it may write there, and not only read.
    pub fn writes(&self) -> bool {
        self.writes
    }

    fn text(&self) -> String {
        format!("{}.{}", if self.writes { "rw" } else { "ro" }, self.namespace)
    }

    fn parse(text: &str) -> Option<Self> {
        let (mode, namespace) = text.split_once('.')?;
        Self::new(
            namespace,
            match mode {
                "rw" => true,
                "ro" => false,
                _ => return None,
            },
        )
    }
}

/// What peers say instead of a grant: no namespace can be written so.
const PEER: &str = "peer";

/// Makes tokens, and knows its own.
#[derive(Clone)]
pub struct Tokens {
    /// The first makes tokens, all are good.
    secrets: Vec<[u8; 32]>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Tokens")
    }
}

impl Tokens {
    /// Of the run's secrets, the current one first: the same on each of its runners.
    pub fn new(secrets: impl IntoIterator<Item = [u8; 32]>) -> Self {
        Self { secrets: secrets.into_iter().collect() }
    }

    fn sign(secret: &[u8; 32], text: &str) -> String {
        let mac = mac(secret, text).finalize().into_bytes();
        format!("{text}.{}", BASE64_URL_SAFE_NO_PAD.encode(&mac[..MAC]))
    }

    /// What the token says, if one of our secrets has signed it.
    fn verify<'a>(&self, token: &'a str) -> Option<&'a str> {
        let (text, code) = token.rsplit_once('.')?;
        let code = BASE64_URL_SAFE_NO_PAD.decode(code).ok().filter(|code| code.len() == MAC)?;
        self.secrets.iter().any(|secret| mac(secret, text).verify_truncated_left(&code).is_ok()).then_some(text)
    }

    /// A token for who may do this.
    pub fn issue(&self, grant: &Grant) -> String {
        self.secrets.first().map(|secret| Self::sign(secret, &grant.text())).unwrap_or_default()
    }

    /// What the bearer of this token may do; `None` for one that is not ours.
    pub fn check(&self, token: &str) -> Option<Grant> {
        Grant::parse(self.verify(token)?)
    }

    /// What a peer says that it is one: a token by each secret, as it may have only one of them while keys are rotated.
    pub fn peer_header(&self) -> String {
        let tokens: Vec<String> = self.secrets.iter().map(|secret| Self::sign(secret, PEER)).collect();
        format!("Bearer {}", tokens.join(","))
    }

    /// Whether this is said by a peer.
    pub fn is_peer(&self, header: &str) -> bool {
        header.strip_prefix("Bearer ").is_some_and(|tokens| tokens.split(',').any(|one| self.verify(one) == Some(PEER)))
    }

    /// What an `Authorization` header permits: `Bearer TOKEN`, or `Basic` with the token as the password (RFC 6750, RFC 7617).
    pub fn authorize(&self, header: &str) -> Option<Grant> {
        let (scheme, rest) = header.split_once(' ')?;
        if scheme.eq_ignore_ascii_case("bearer") {
            return self.check(rest.trim());
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let decoded = String::from_utf8(BASE64_STANDARD.decode(rest.trim()).ok()?).ok()?;
        decoded.split_once(':').and_then(|(_, password)| self.check(password))
    }
}

fn mac(secret: &[u8; 32], text: &str) -> Hmac<Sha256> {
    // INVARIANT: HMAC takes keys of every length.
    let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(secret).expect("HMAC takes keys of every length");
    mac.update(text.as_bytes());
    mac
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn grant(namespace: &str, writes: bool) -> Grant {
        Grant::new(namespace, writes).expect("a grant")
    }

    #[test]
    fn a_token_is_good_as_bearer_and_as_password() {
        let tokens = Tokens::new([[1; 32]]);
        let token = tokens.issue(&grant("main", true));
        let basic = BASE64_STANDARD.encode(format!("mesh:{token}"));

        assert_eq!(tokens.authorize(&format!("Bearer {token}")), Some(grant("main", true)));
        assert_eq!(tokens.authorize(&format!("basic {basic}")), Some(grant("main", true)));
        assert_eq!(tokens.authorize(&token), None);
        assert_eq!(tokens.authorize(&format!("Digest {token}")), None);
    }

    #[test]
    fn a_reader_cannot_become_a_writer_nor_go_elsewhere() {
        let tokens = Tokens::new([[1; 32]]);
        let token = tokens.issue(&grant("main", false));

        assert_eq!(tokens.check(&token), Some(grant("main", false)));
        assert_eq!(tokens.check(&token.replace("ro.", "rw.")), None);
        assert_eq!(tokens.check(&token.replace("main", "mine")), None);
        assert_eq!(Tokens::new([[2; 32]]).check(&token), None);
        assert_eq!(tokens.check(token.trim_end_matches(|letter| letter != '.')), None, "without its MAC");
    }

    #[test]
    fn peers_that_have_one_key_in_common_know_each_other() {
        let (old, both, other) = (Tokens::new([[1; 32]]), Tokens::new([[2; 32], [1; 32]]), Tokens::new([[3; 32]]));

        assert!(old.is_peer(&both.peer_header()) && both.is_peer(&old.peer_header()));
        assert!(!other.is_peer(&both.peer_header()) && !both.is_peer(&other.peer_header()));
        let grant = grant("peer", true);
        assert!(!old.is_peer(&format!("Bearer {}", old.issue(&grant))), "a tool is no peer");
        assert_eq!(old.authorize(&old.peer_header()), None, "and a peer no tool");
    }

    #[test]
    fn a_namespace_is_letters_digits_and_little_else() {
        assert!(["", "a.b", "a/b", "ä", &"a".repeat(65)].into_iter().all(|name| Grant::new(name, true).is_none()));
    }

    proptest! {
        #[test]
        fn no_header_panics_and_none_is_let_in_by_chance(header: String, bytes: Vec<u8>) {
            let tokens = Tokens::new([[1; 32]]);

            prop_assert_eq!(tokens.authorize(&header), None);
            prop_assert_eq!(tokens.authorize(&format!("Bearer {header}")), None);
            prop_assert_eq!(tokens.authorize(&format!("Basic {}", BASE64_STANDARD.encode(bytes))), None);
        }
    }
}
