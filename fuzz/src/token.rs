//! Authorization headers: what is not ours, and what somebody has altered. Only a token that we have issued may open anything, and only what it was issued for.
//!
//! Input: what to do in one byte; then a header, or how to alter a token.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use mesh::cache::token::{Grant, Tokens};

use super::input::{Input, alter};

const NAMESPACES: [&str; 3] = ["main", "a", "Other_name-0"];

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 4 {
        0 => strange(&input.rest().escape_ascii().to_string()),
        1 => strange(&String::from_utf8_lossy(input.rest())),
        2 => altered(&mut input),
        _ => named(input.rest()),
    }
}

/// A header of somebody who knows no secret, as it is and behind each scheme.
fn strange(header: &str) {
    // libFuzzer sees what a MAC is compared with: a secret that stays the same would be learned.
    let tokens = Tokens::new([secret(header.as_bytes())]);
    let basic = format!("Basic {}", BASE64_STANDARD.encode(header));
    for header in [header, &format!("Bearer {header}"), &format!("Basic {header}"), &basic] {
        assert_eq!(tokens.authorize(header), None, "{header}");
    }
    assert_eq!(tokens.check(header), None, "{header}");
}

/// A token of ours opens what it was issued for, as bearer and as password, until somebody touches it.
fn altered(input: &mut Input<'_>) {
    let choice = usize::from(input.byte());
    let grant = Grant::new(NAMESPACES[choice % NAMESPACES.len()], choice & 0x80 != 0).expect("a good name");
    let tokens = Tokens::new([secret(&[choice as u8])]);
    let original = tokens.issue(&grant);
    let mut bytes = original.clone().into_bytes();
    alter(&mut bytes, input);
    let Ok(token) = String::from_utf8(bytes) else { return };
    let expected = (token == original).then_some(grant);
    let user = input.piece().escape_ascii().to_string().replace(':', "");
    let basic = BASE64_STANDARD.encode(format!("{user}:{token}"));
    assert_eq!(tokens.check(&token), expected, "{token}");
    assert_eq!(tokens.authorize(&format!("basic {basic}")), expected, "{token}");
    // Spaces around it are not part of it (RFC 9110, section 5.5).
    let seen = tokens.authorize(&format!("BEARER {token}"));
    assert_eq!(seen, tokens.check(token.trim()), "{token}");
}

/// What is a namespace comes back as it was, and its token says so to nobody else.
fn named(name: &[u8]) {
    let Ok(name) = str::from_utf8(name) else { return };
    for writes in [false, true] {
        let Some(grant) = Grant::new(name, writes) else { continue };
        assert!(name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'.' && byte != b'/'), "{name}");
        let token = Tokens::new([[1; 32]]).issue(&grant);
        assert_eq!(Tokens::new([[1; 32]]).check(&token), Some(grant));
        assert_eq!(Tokens::new([[2; 32]]).check(&token), None);
    }
}

fn secret(of: &[u8]) -> [u8; 32] {
    let mut secret = [8; 32];
    secret[..8].copy_from_slice(&super::input::fingerprint(of).to_be_bytes());
    secret
}

pub fn seeds() -> Vec<Vec<u8>> {
    let with = |kind: u8, bytes: &[u8]| [&[kind], bytes].concat();
    let token = Tokens::new([[1; 32]]).issue(&Grant::new("main", true).expect("a good name"));
    vec![
        with(0, token.as_bytes()),
        with(1, format!("Bearer {token}").as_bytes()),
        with(1, format!("mesh:{token}").as_bytes()),
        with(1, b"rw.main."),
        with(1, b"Basic bWVzaDpy"),
        with(2, &[0, 0, 0, 0, 0]),
        with(2, &[0x80, 0, 0, 1, 1, 4, b'm', b'e', b's', b'h']),
        with(2, &[0x81, 0x80, 0, 0, 0, 0, 9]),
        with(2, &[1, 3, 0, 3, 0x20, 0, 4, 0x20, 0, 5, 1]),
        with(3, b"main"),
        with(3, &[b'x'; 65]),
        with(3, "ä".as_bytes()),
    ]
}
