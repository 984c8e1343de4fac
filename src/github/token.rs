//! Secrets that never print, and the backend ids inside a runtime token. Signatures of tokens are not verified here: GitHub does.

use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// A secret that goes into an `Authorization` header and nowhere else: it prints as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Takes a token as the environment gives it. What cannot stand in a header is refused.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic())).then(|| Self(text.to_owned()))
    }

    /// The secret itself, for a header.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Which run and which job the artifact service knows us as: UUIDs of its own, not the numbers of the public API.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BackendIds {
    /// `workflow_run_backend_id`.
    pub run: String,
    /// `workflow_job_run_backend_id`.
    pub job: String,
}

/// Why a runtime token tells no backend ids. Never holds the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoBackendIds {
    #[error("it is not a JWT of three parts")]
    NotJwt,
    #[error("its middle part is not base64url of a JSON object")]
    NotJson,
    #[error("it has no `scp` claim that is a text")]
    NoScopes,
    #[error("its `scp` claim has no `Actions.Results` scope")]
    NoResultsScope,
    #[error("its `Actions.Results` scope does not have the form Actions.Results:RUN:JOB")]
    OddResultsScope,
}

const SCOPE: &str = "Actions.Results";

const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl BackendIds {
    /// Reads the ids out of the `scp` claim of a runtime token, as the official client does (`Actions.Results:RUN:JOB`).
    pub fn from_token(token: &Token) -> Result<Self, NoBackendIds> {
        let scopes = scopes(token.expose())?;
        let mut candidates = scopes.split_whitespace().map(|scope| scope.split(':').collect::<Vec<_>>());
        let parts = candidates.find(|parts| parts.first() == Some(&SCOPE)).ok_or(NoBackendIds::NoResultsScope)?;
        match parts.as_slice() {
            [_, run, job] if is_id(run) && is_id(job) => Ok(Self { run: (*run).to_owned(), job: (*job).to_owned() }),
            _ => Err(NoBackendIds::OddResultsScope),
        }
    }
}

fn scopes(jwt: &str) -> Result<String, NoBackendIds> {
    let mut parts = jwt.split('.');
    let (Some(_), Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(NoBackendIds::NotJwt);
    };
    let claims = BASE64URL.decode(claims).map_err(|_| NoBackendIds::NotJson)?;
    let claims: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&claims).map_err(|_| NoBackendIds::NotJson)?;
    claims.get("scp").and_then(|scp| scp.as_str()).map(str::to_owned).ok_or(NoBackendIds::NoScopes)
}

/// Ids travel inside a locator, whose parts are separated by spaces.
fn is_id(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn backend_ids_come_out_of_the_results_scope() {
        let token = token_with(
            r#"{"scp":"Actions.GenericRead:00 Actions.Results:ce7f54c7-61c7:ca395085-040a Actions.UploadArtifacts:1:2"}"#,
        );
        let ids = BackendIds::from_token(&token).expect("a scope of three parts");
        assert_eq!(ids, BackendIds { run: "ce7f54c7-61c7".into(), job: "ca395085-040a".into() });
    }

    #[test]
    fn every_malformed_token_says_what_is_wrong_with_it() {
        let cases = [
            ("abc", NoBackendIds::NotJwt),
            ("a.b.c.d", NoBackendIds::NotJwt),
            ("a.!!.c", NoBackendIds::NotJson),
            ("a.YWJj.c", NoBackendIds::NotJson),
        ];
        for (text, want) in cases {
            let token = Token::parse(text).expect("visible ASCII");
            assert_eq!(BackendIds::from_token(&token), Err(want), "{text}");
        }
        let claims = [
            ("{}", NoBackendIds::NoScopes),
            (r#"{"scp":7}"#, NoBackendIds::NoScopes),
            (r#"{"scp":"Actions.ResultsX:a:b"}"#, NoBackendIds::NoResultsScope),
            (r#"{"scp":"Actions.Results:a"}"#, NoBackendIds::OddResultsScope),
            (r#"{"scp":"Actions.Results:a:b:c"}"#, NoBackendIds::OddResultsScope),
            (r#"{"scp":"Actions.Results::b"}"#, NoBackendIds::OddResultsScope),
        ];
        for (json, want) in claims {
            assert_eq!(BackendIds::from_token(&token_with(json)), Err(want), "{json}");
        }
    }

    #[test]
    fn a_padded_middle_part_is_read_too() {
        let claims = base64::engine::general_purpose::URL_SAFE.encode(r#"{"scp":"Actions.Results:r:j"}"#);
        let token = Token::parse(&format!("h.{claims}.s")).expect("visible ASCII");
        assert!(claims.ends_with('='), "the case needs padding");
        assert_eq!(BackendIds::from_token(&token).expect("valid").job, "j");
    }

    #[test]
    fn a_token_never_prints_and_never_breaks_a_header() {
        let token = Token::parse(" secret\n").expect("trimmed");
        assert_eq!(token.expose(), "secret");
        assert_eq!(format!("{token:?}"), "***");
        assert_eq!(Token::parse("a\nb"), None);
        assert_eq!(Token::parse("  "), None);
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "\\PC{0,80}", claims in "\\PC{0,80}") {
            if let Some(token) = Token::parse(&text) {
                let _ = BackendIds::from_token(&token);
            }
            let _ = BackendIds::from_token(&token_with(&claims));
        }
    }

    fn token_with(claims: &str) -> Token {
        let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(claims);
        Token::parse(&format!("aGVhZA.{claims}.c2ln")).expect("visible ASCII")
    }
}
