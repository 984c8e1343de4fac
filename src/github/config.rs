//! What the runner's variables say about GitHub, checked once. The process environment is not read here: a lookup is passed in.

use std::fmt;

use reqwest::Url;

use super::token::{BackendIds, Token};

/// Where GitHub is and what we may ask it, out of the variables of a runner.
#[derive(Debug, Clone)]
pub struct Config {
    /// The artifact service of the run, or why it cannot be used.
    pub service: Result<Service, Unusable>,
    /// The public API, or why it cannot be used.
    pub rest: Result<Rest, Unusable>,
}

/// The artifact service as one job of one run sees it.
#[derive(Debug, Clone)]
pub struct Service {
    /// Scheme, host and port; what path the variable had is dropped, as the official client does.
    pub origin: Url,
    /// `ACTIONS_RUNTIME_TOKEN`.
    pub token: Token,
    /// Who we are to the service.
    pub ids: BackendIds,
}

/// The artifacts of a run in the public API.
#[derive(Debug, Clone)]
pub struct Rest {
    /// `GITHUB_API_URL`.
    pub base: Url,
    /// `GITHUB_TOKEN`.
    pub token: Token,
    /// First half of `GITHUB_REPOSITORY`.
    pub owner: String,
    /// Second half of `GITHUB_REPOSITORY`.
    pub repo: String,
    /// `GITHUB_RUN_ID`.
    pub run: u64,
}

/// A variable that is absent or malformed, and what to do about it. Never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    /// A phrase that names the variable and, unless it is secret, its value.
    pub what: String,
    /// What to do about it.
    pub hint: String,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Unusable {}

const NO_RUNTIME: &str = "`run:` steps do not see the runtime variables: start mesh by its action (`uses:`), which hands them over, \
                          or use --rendezvous dir:PATH";
const AS_GIVEN: &str = "pass it on as the runner set it";
const NO_TOKEN: &str = "set `GITHUB_TOKEN: ${{ github.token }}` under `env:`, with `permissions: actions: read`";
const DEFAULT_API: &str = "https://api.github.com";

impl Config {
    /// Reads the variables of a runner by `lookup`, which gives `None` for one that is not set. An empty one counts as not set.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Self {
        let lookup = |name: &str| lookup(name).filter(|value| !value.trim().is_empty());
        Self { service: service(&lookup), rest: rest(&lookup) }
    }
}

fn service(lookup: &impl Fn(&str) -> Option<String>) -> Result<Service, Unusable> {
    let token = token(lookup, "ACTIONS_RUNTIME_TOKEN", NO_RUNTIME)?;
    let ids = BackendIds::from_token(&token)
        .map_err(|why| unusable(format!("ACTIONS_RUNTIME_TOKEN cannot be used: {why}"), AS_GIVEN))?;
    let url = lookup("ACTIONS_RESULTS_URL").ok_or_else(|| unset("ACTIONS_RESULTS_URL", NO_RUNTIME))?;
    let origin = self::url("ACTIONS_RESULTS_URL", &url)?.origin().ascii_serialization();
    Ok(Service { origin: self::url("ACTIONS_RESULTS_URL", &origin)?, token, ids })
}

fn rest(lookup: &impl Fn(&str) -> Option<String>) -> Result<Rest, Unusable> {
    let token = token(lookup, "GITHUB_TOKEN", NO_TOKEN)?;
    let base = lookup("GITHUB_API_URL").unwrap_or_else(|| DEFAULT_API.to_owned());
    let base = url("GITHUB_API_URL", &base)?;
    let repository = lookup("GITHUB_REPOSITORY").ok_or_else(|| unset("GITHUB_REPOSITORY", AS_GIVEN))?;
    let (owner, repo) = repository
        .split_once('/')
        .filter(|(owner, repo)| is_name(owner) && is_name(repo))
        .ok_or_else(|| unusable(format!("GITHUB_REPOSITORY is {repository:?}, not OWNER/NAME"), AS_GIVEN))?;
    let run = lookup("GITHUB_RUN_ID").ok_or_else(|| unset("GITHUB_RUN_ID", AS_GIVEN))?;
    let run = run.trim().parse().map_err(|_| unusable(format!("GITHUB_RUN_ID is {run:?}, not a number"), AS_GIVEN))?;
    Ok(Rest { base, token, owner: owner.to_owned(), repo: repo.to_owned(), run })
}

fn token(lookup: &impl Fn(&str) -> Option<String>, name: &str, hint: &str) -> Result<Token, Unusable> {
    let text = lookup(name).ok_or_else(|| unset(name, hint))?;
    Token::parse(&text)
        .ok_or_else(|| unusable(format!("{name} holds characters that cannot stand in a header"), AS_GIVEN))
}

fn url(name: &str, value: &str) -> Result<Url, Unusable> {
    let url = Url::parse(value.trim()).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    url.ok_or_else(|| unusable(format!("{name} is {value:?}, not an http or https URL"), AS_GIVEN))
}

fn is_name(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    !matches!(text, "" | "." | "..") && text.bytes().all(legal)
}

fn unset(name: &str, hint: &str) -> Unusable {
    unusable(format!("{name} is not set"), hint)
}

fn unusable(what: String, hint: &str) -> Unusable {
    Unusable { what, hint: hint.to_owned() }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::*;

    #[test]
    fn a_runner_with_all_variables_has_both_sides() {
        let config = Config::from_lookup(with(&[]));
        let service = config.service.expect("runtime variables are set");
        assert_eq!(service.origin.as_str(), "https://results.example/");
        assert_eq!(service.ids, BackendIds { run: "run-1".into(), job: "job-1".into() });
        let rest = config.rest.expect("GITHUB_TOKEN is set");
        assert_eq!((rest.owner.as_str(), rest.repo.as_str(), rest.run), ("octo", "cat.rs", 42));
    }

    #[test]
    fn a_run_step_is_told_about_the_action() {
        let config = Config::from_lookup(with(&[("ACTIONS_RUNTIME_TOKEN", ""), ("ACTIONS_RESULTS_URL", "")]));
        let why = config.service.expect_err("run: steps have no runtime token");
        assert_eq!(why.what, "ACTIONS_RUNTIME_TOKEN is not set");
        assert!(why.hint.contains("`run:` steps") && why.hint.contains("action"), "{}", why.hint);
        assert!(config.rest.is_ok());
    }

    #[test]
    fn malformed_values_are_named() {
        let cases = [
            ("ACTIONS_RESULTS_URL", "ftp://x/", "ACTIONS_RESULTS_URL is \"ftp://x/\", not an http or https URL"),
            ("ACTIONS_RESULTS_URL", "nonsense", "ACTIONS_RESULTS_URL is \"nonsense\", not an http or https URL"),
            ("GITHUB_REPOSITORY", "octo", "GITHUB_REPOSITORY is \"octo\", not OWNER/NAME"),
            ("GITHUB_REPOSITORY", "octo/../x", "GITHUB_REPOSITORY is \"octo/../x\", not OWNER/NAME"),
            ("GITHUB_REPOSITORY", "octo/..", "GITHUB_REPOSITORY is \"octo/..\", not OWNER/NAME"),
            ("GITHUB_RUN_ID", "-1", "GITHUB_RUN_ID is \"-1\", not a number"),
            ("GITHUB_API_URL", "api", "GITHUB_API_URL is \"api\", not an http or https URL"),
        ];
        for (name, value, want) in cases {
            let config = Config::from_lookup(with(&[(name, value)]));
            let why = config.service.err().or(config.rest.err()).expect("one side cannot be used");
            assert_eq!(why.what, want);
        }
    }

    #[test]
    fn a_malformed_token_is_not_repeated() {
        let config = Config::from_lookup(with(&[("ACTIONS_RUNTIME_TOKEN", "hunter2"), ("GITHUB_TOKEN", "hun\nter2")]));
        for why in [config.service.expect_err("not a JWT"), config.rest.expect_err("a line feed")] {
            assert!(!format!("{why:?}").contains("ter2"), "{why:?}");
        }
    }

    #[test]
    fn the_public_api_is_the_default() {
        let config = Config::from_lookup(with(&[("GITHUB_API_URL", "")]));
        assert_eq!(config.rest.expect("usable").base.as_str(), "https://api.github.com/");
    }

    fn with<'a>(changes: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        let claims = r#"{"scp":"Actions.Results:run-1:job-1"}"#;
        let jwt = format!("h.{}.s", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(claims));
        move |name| {
            if let Some((_, value)) = changes.iter().find(|(changed, _)| *changed == name) {
                return Some((*value).to_owned());
            }
            match name {
                "ACTIONS_RUNTIME_TOKEN" => Some(jwt.clone()),
                "ACTIONS_RESULTS_URL" => Some("https://results.example/some/path?x=1".into()),
                "GITHUB_API_URL" => Some("https://ghe.example/api/v3".into()),
                "GITHUB_REPOSITORY" => Some("octo/cat.rs".into()),
                "GITHUB_RUN_ID" => Some("42".into()),
                "GITHUB_TOKEN" => Some("ghs_x".into()),
                _ => None,
            }
        }
    }
}
