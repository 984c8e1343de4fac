//! Whom does this NAT let in? Asks a STUN server to answer from elsewhere (RFC 5780 section 4.4). Only `mesh doctor` wants to know: the
//! order of opening works whatever the filtering.
//!
//! To be asked from a fresh socket: one that has already sent to the server's other address is let in from there by any NAT.

use std::net::SocketAddr;

use bytecodec::{DecodeExt, EncodeExt};
use rand::{Rng, RngCore};
use serde::Serialize;
use stun_codec::rfc5389::methods::BINDING;
use stun_codec::rfc5780::Attribute;
use stun_codec::rfc5780::attributes::{ChangeRequest, OtherAddress};
use stun_codec::{Message, MessageClass, MessageDecoder, MessageEncoder, TransactionId};

/// Which outside senders a mapping admits (RFC 4787 section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Filtering {
    /// Everyone.
    EndpointIndependent,
    /// Addresses that were sent to, from any port.
    AddressDependent,
    /// Only what was sent to.
    AddressAndPortDependent,
    /// No server that can answer from elsewhere.
    #[default]
    Unknown,
}

impl std::fmt::Display for Filtering {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::EndpointIndependent => "endpoint-independent",
            Self::AddressDependent => "address-dependent",
            Self::AddressAndPortDependent => "address-and-port-dependent",
            Self::Unknown => "unknown",
        })
    }
}

/// Three questions to one server: answer from here, from another port, from another address.
#[derive(Debug)]
pub struct FilteringTest {
    server: SocketAddr,
    transactions: [[u8; 12]; 3],
    answered: [bool; 3],
    has_other_address: bool,
}

impl FilteringTest {
    /// About to ask `server`.
    pub fn new(server: SocketAddr, rng: &mut impl RngCore) -> Self {
        let transactions = [rng.random(), rng.random(), rng.random()];
        Self { server, transactions, answered: [false; 3], has_other_address: false }
    }

    /// The questions that are still open, all for the server. To be repeated against loss.
    pub fn questions(&self) -> Vec<(SocketAddr, Vec<u8>)> {
        let changes =
            [ChangeRequest::new(false, false), ChangeRequest::new(false, true), ChangeRequest::new(true, true)];
        let open = changes.into_iter().zip(self.transactions).zip(self.answered).filter(|(_, answered)| !answered);
        open.map(|((change, transaction), _)| (self.server, question(change, transaction))).collect()
    }

    /// Takes an answer, wherever it came from; the transaction id tells what it answers.
    pub fn handle_response(&mut self, datagram: &[u8]) {
        let Ok(Ok(message)) = MessageDecoder::<Attribute>::new().decode_from_bytes(datagram) else { return };
        if message.class() != MessageClass::SuccessResponse {
            return;
        }
        let transaction = message.transaction_id();
        if let Some(at) = self.transactions.iter().position(|ours| ours == transaction.as_bytes()) {
            self.answered[at] = true;
            self.has_other_address |= message.get_attribute::<OtherAddress>().is_some();
        }
    }

    /// Whether nothing more can be learned.
    pub fn is_done(&self) -> bool {
        self.answered == [true; 3]
    }

    /// What the answers so far mean. Silence counts only where the server can answer from elsewhere.
    pub fn verdict(&self) -> Filtering {
        match self.answered {
            [_, _, true] => Filtering::EndpointIndependent,
            [true, true, _] if self.has_other_address => Filtering::AddressDependent,
            [true, false, _] if self.has_other_address => Filtering::AddressAndPortDependent,
            _ => Filtering::Unknown,
        }
    }
}

fn question(change: ChangeRequest, transaction: [u8; 12]) -> Vec<u8> {
    let mut message = Message::<Attribute>::new(MessageClass::Request, BINDING, TransactionId::new(transaction));
    if change.ip() || change.port() {
        message.add_attribute(change);
    }
    MessageEncoder::new().encode_into_bytes(message).expect("one attribute of fixed length always encodes")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha20Rng;

    use super::*;

    fn test() -> FilteringTest {
        FilteringTest::new("192.0.2.1:3478".parse().expect("an address"), &mut ChaCha20Rng::seed_from_u64(1))
    }

    fn answer(test: &mut FilteringTest, at: usize, other: bool) {
        let id = TransactionId::new(test.transactions[at]);
        let mut message = Message::<Attribute>::new(MessageClass::SuccessResponse, BINDING, id);
        if other {
            message.add_attribute(OtherAddress::new("192.0.2.2:3479".parse().expect("an address")));
        }
        test.handle_response(&MessageEncoder::new().encode_into_bytes(message).expect("it encodes"));
    }

    #[test]
    fn an_answer_from_another_address_means_that_everyone_is_let_in() {
        let mut test = test();
        (0..3).for_each(|at| answer(&mut test, at, true));
        assert!(test.is_done());
        assert_eq!(test.verdict(), Filtering::EndpointIndependent);
    }

    #[test]
    fn an_answer_from_another_port_alone_means_address_dependent() {
        let mut test = test();
        (0..2).for_each(|at| answer(&mut test, at, true));
        assert_eq!(test.verdict(), Filtering::AddressDependent);
        assert_eq!(test.questions().len(), 1);
    }

    #[test]
    fn silence_from_elsewhere_counts_only_when_the_server_could_have_answered() {
        let (mut able, mut unable) = (test(), test());
        answer(&mut able, 0, true);
        answer(&mut unable, 0, false);
        assert_eq!(able.verdict(), Filtering::AddressAndPortDependent);
        assert_eq!(unable.verdict(), Filtering::Unknown);
    }

    proptest! {
        #[test]
        fn garbage_never_panics_and_says_nothing(bytes: Vec<u8>) {
            let mut test = test();
            test.handle_response(&bytes);
            prop_assert_eq!(test.verdict(), Filtering::Unknown);
        }
    }
}
