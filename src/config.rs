//! Flags, environment and defaults, checked and turned into one value. The only reader of the environment.
//!
//! Every option has a variable; the flag wins. The shared key alone has no flag that takes it, since process lists are public.

mod cache;
mod service;

use std::fs::File;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};

pub use self::cache::CacheArgs;
pub use self::service::Forward;
use crate::exit::{Exit, Failure};
use crate::log;
use crate::proto::key::{Context, KeyError, MIN_PASSPHRASE};
use crate::proto::keyring::{KeyRing, KeyRingError};
use crate::proto::overlay::Prefix;
use crate::proto::role::Role;

/// STUN servers on different networks, so that one outage leaves two answers.
pub const PUBLIC_STUN: [&str; 4] =
    ["stun.l.google.com:19302", "stun1.l.google.com:19302", "stun.cloudflare.com:3478", "stun.nextcloud.com:3478"];

/// Where `mesh relay` listens.
pub const RELAY_PORT: u16 = 3479;

/// How long an aux waits for a primary it has never seen: its workflow job may start long before the primary's.
const PATIENCE: Duration = Duration::from_secs(600);

/// A secret of GitHub has at most 48 KB, so more is not a key.
const LONGEST_KEY: u64 = 64 * 1024;

/// How long a key may take to come out of a pipe.
const KEY_PATIENCE: Duration = Duration::from_secs(5);

/// Looks a variable up. Given as an argument, so that reading the configuration is a pure function.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Where runners find each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RendezvousChoice {
    /// Artifacts of this workflow run.
    Github,
    /// A directory that all runners see.
    Directory(PathBuf),
}

impl FromStr for RendezvousChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "github" => Ok(Self::Github),
            Some(("dir", path)) if !path.is_empty() => Ok(Self::Directory(path.into())),
            _ => Err("use `github` or `dir:PATH`".into()),
        }
    }
}

/// Which engine runs the compile jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Offload {
    /// the distcc of the distribution here, its distccd on the aux.
    Distcc,
    /// nothing: the mesh alone.
    None,
}

impl Offload {
    /// As in announcements and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Distcc => "distcc",
            Self::None => "none",
        }
    }
}

/// What the verbs that speak to a running mesh take.
#[derive(Debug, Clone, Args)]
pub struct ControlArgs {
    /// The control socket of the mesh on this machine
    #[arg(long, env = "MESH_CONTROL", value_name = "PATH")]
    pub control: Option<PathBuf>,
}

/// Where the shared key is.
#[derive(Debug, Clone, Args)]
pub struct KeyArgs {
    /// A file with the shared key, and while keys are rotated the previous one on a second line; else MESH_KEY or ENCRYPTION_KEY
    #[arg(long, value_name = "PATH")]
    pub key_file: Option<PathBuf>,
}

/// How much is logged.
#[derive(Debug, Clone, Args)]
pub struct LogArgs {
    /// How much to log: error, warn, info, debug or trace
    #[arg(long, env = "MESH_LOG", value_name = "LEVEL", default_value = "warn", value_parser = log::check_level)]
    pub log: String,
    /// How log lines look
    #[arg(long, env = "MESH_LOG_FORMAT", value_name = "FORMAT", value_enum, default_value_t)]
    pub log_format: log::Format,
}

/// What `primary` and `aux` both take.
#[derive(Debug, Clone, Args)]
pub struct CommonArgs {
    /// Where the runners find each other: github, or dir:PATH
    #[arg(long, env = "MESH_RENDEZVOUS", value_name = "github|dir:PATH")]
    pub rendezvous: Option<RendezvousChoice>,
    #[command(flatten)]
    pub key: KeyArgs,
    /// STUN servers to ask, instead of a list of public ones
    #[arg(long, env = "MESH_STUN", value_name = "HOST:PORT", value_delimiter = ',', value_parser = host_port)]
    pub stun: Vec<String>,
    /// A relay of your own (`mesh relay`), for networks where nothing can be punched
    #[arg(long, env = "MESH_RELAY", value_name = "HOST:PORT", value_delimiter = ',', value_parser = host_port)]
    pub relay: Vec<String>,
    /// UDP port of the one socket; 0 is any
    #[arg(long, env = "MESH_PORT", value_name = "PORT", default_value_t = 0)]
    pub listen: u16,
    /// Prefix inside the mesh: the primary has its first address, aux I the (I+2)-th
    #[arg(long, env = "MESH_OVERLAY", value_name = "PREFIX", default_value = "10.77.0.0/16")]
    pub overlay: Prefix,
    /// Insist on a TUN device, of this name [default: mesh0, and none where the system refuses it]
    #[arg(long, env = "MESH_TUN", value_name = "NAME", conflicts_with = "no_tun")]
    pub tun: Option<String>,
    /// Make no TUN device: a userspace stack carries the mesh's own services and what --forward and --expose name
    #[arg(long, env = "MESH_NO_TUN", value_parser = clap::builder::BoolishValueParser::new())]
    pub no_tun: bool,
    #[command(flatten)]
    pub cache: CacheArgs,
    #[command(flatten)]
    pub control: ControlArgs,
    /// Write the final report to this file, as JSON
    #[arg(long, env = "MESH_REPORT", value_name = "PATH")]
    pub report: Option<PathBuf>,
    /// Which run this is, so that runs with one key do not meet [default: from GITHUB_RUN_ID and GITHUB_RUN_ATTEMPT, else local]
    #[arg(long, env = "MESH_RUN_ID", value_name = "ID")]
    pub run_id: Option<String>,
    #[command(flatten)]
    pub logging: LogArgs,
}

/// What `relay` takes.
#[derive(Debug, Clone, Args)]
pub struct RelayArgs {
    /// UDP port to listen on; it must be open to the internet
    #[arg(long, env = "MESH_PORT", value_name = "PORT", default_value_t = RELAY_PORT)]
    pub listen: u16,
    #[command(flatten)]
    pub key: KeyArgs,
    #[command(flatten)]
    pub logging: LogArgs,
}

/// What `primary` and `aux` lead between this machine and the overlay.
#[derive(Debug, Clone, Default, Args)]
pub struct ServiceArgs {
    /// Lead what comes to 127.0.0.1:LISTEN (0 is any) to PORT of a peer: 8080:aux0:80, 5432:primary:5432
    #[arg(long, env = "MESH_FORWARD", value_name = "LISTEN:PEER:PORT", value_delimiter = ',')]
    pub forward: Vec<Forward>,
    /// Lead what peers send to our overlay PORT to 127.0.0.1:PORT
    #[arg(long, env = "MESH_EXPOSE", value_name = "PORT", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..))]
    pub expose: Vec<u16>,
}

/// What `primary` takes.
#[derive(Debug, Clone, Args)]
pub struct PrimaryArgs {
    /// How many aux will come
    #[arg(long, env = "MESH_AUX", value_name = "N")]
    pub aux: u16,
    /// Go on with so many once the join time-out has passed
    #[arg(long, env = "MESH_MIN_AUX", value_name = "M", default_value_t = 0)]
    pub min_aux: u16,
    /// How long to wait for all aux before COMMAND starts; later ones still join
    #[arg(long, env = "MESH_JOIN_TIMEOUT", value_name = "D", default_value = "120s", value_parser = duration)]
    pub join_timeout: Duration,
    /// Which engine runs the compile jobs
    #[arg(long, env = "MESH_OFFLOAD", value_name = "ENGINE", value_enum, default_value = "distcc")]
    pub offload: Offload,
    #[command(flatten)]
    pub services: ServiceArgs,
    #[command(flatten)]
    pub common: CommonArgs,
    /// What to run over the mesh; without it, the mesh stays up until `mesh leave`
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<std::ffi::OsString>,
}

/// What `aux` takes.
#[derive(Debug, Clone, Args)]
pub struct AuxArgs {
    /// Which aux this is, counted from 0
    #[arg(long, env = "MESH_INDEX", value_name = "I", value_parser = clap::value_parser!(u16).range(..=i64::from(Role::MAX_INDEX)))]
    pub index: u16,
    /// Compile jobs at once [default: the machine's cores]
    #[arg(long, env = "MESH_SLOTS", value_name = "K", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub slots: Option<u16>,
    /// Leave when the primary has been gone for so long [default: 120s]
    #[arg(long, env = "MESH_IDLE_TIMEOUT", value_name = "D", value_parser = duration)]
    pub idle_timeout: Option<Duration>,
    /// Leave when the mesh was not joined so long after the start [default: --idle-timeout where it is given, else 10m]
    #[arg(long, env = "MESH_JOIN_TIMEOUT", value_name = "D", value_parser = duration)]
    pub join_timeout: Option<Duration>,
    #[command(flatten)]
    pub services: ServiceArgs,
    #[command(flatten)]
    pub common: CommonArgs,
}

impl AuxArgs {
    /// How long the primary may be gone.
    pub fn idle_timeout(&self) -> Duration {
        self.idle_timeout.unwrap_or(Duration::from_secs(120))
    }

    /// How long the first join may take.
    pub fn join_timeout(&self) -> Duration {
        self.join_timeout.or(self.idle_timeout).unwrap_or(PATIENCE)
    }
}

impl CommonArgs {
    /// Where the runners meet; without a choice, GitHub inside of Actions.
    pub fn rendezvous(&self, env: Env<'_>) -> Result<RendezvousChoice, Failure> {
        let default = || (env("GITHUB_ACTIONS").as_deref() == Some("true")).then_some(RendezvousChoice::Github);
        self.rendezvous.clone().or_else(default).ok_or_else(|| {
            Failure::new(
                Exit::NoRendezvous,
                "M106",
                "no rendezvous: the runners have no place to find each other",
                "outside of GitHub Actions give all of them the same --rendezvous dir:PATH (MESH_RENDEZVOUS)",
            )
        })
    }

    /// What run this is.
    pub fn context(&self, env: Env<'_>) -> Context {
        context(env, self.run_id.clone())
    }

    /// The run's keys, from the key file or the environment.
    pub fn keys(&self, env: Env<'_>) -> Result<KeyRing, Failure> {
        self.key.keys(env, &self.context(env))
    }

    /// The servers to ask.
    pub fn stun_servers(&self) -> Vec<String> {
        if self.stun.is_empty() { PUBLIC_STUN.map(String::from).to_vec() } else { self.stun.clone() }
    }

    /// The TUN device's name.
    pub fn tun_name(&self) -> &str {
        self.tun.as_deref().unwrap_or("mesh0")
    }
}

impl KeyArgs {
    /// The keys of the run that `context` tells of.
    pub fn keys(&self, env: Env<'_>, context: &Context) -> Result<KeyRing, Failure> {
        let (text, source) = self.key_text(env)?;
        KeyRing::parse(&text, context).map_err(|error| bad_key(&error, &source))
    }

    fn key_text(&self, env: Env<'_>) -> Result<(String, String), Failure> {
        if let Some(path) = &self.key_file {
            let text = read_bounded(path).map_err(|error| {
                let what = format!("cannot read the key file {}: {error}", path.display());
                Failure::new(Exit::NoKey, "M101", what, "check --key-file; `mesh keygen` prints a fresh key")
            })?;
            return Ok((text, format!("the key in {}", path.display())));
        }
        let given = ["MESH_KEY", "ENCRYPTION_KEY"].into_iter().find_map(|name| {
            let text = env(name).filter(|text| !text.trim().is_empty())?;
            Some((text, format!("the key in {name}")))
        });
        let hint = match env("SUDO_UID") {
            Some(_) => "sudo drops it: give --key-file, or `sudo --preserve-env=MESH_KEY`",
            None => {
                "make one with `mesh keygen`, save it as the secret MESH_KEY, and pass it on (pull requests from forks get no \
                 secrets)"
            }
        };
        given.ok_or_else(|| Failure::new(Exit::NoKey, "M101", "no key: MESH_KEY is not set", hint))
    }
}

/// What run this is, as the environment has it but for its id where that is given.
pub fn context(env: Env<'_>, run: Option<String>) -> Context {
    let local = || "local".to_string();
    Context {
        repository: env("GITHUB_REPOSITORY_ID").unwrap_or_else(local),
        run: run.or_else(|| env("GITHUB_RUN_ID")).unwrap_or_else(local),
        attempt: env("GITHUB_RUN_ATTEMPT").and_then(|text| text.parse().ok()).unwrap_or(1),
    }
}

/// A key file may be a pipe whose other end never writes, or have no end.
fn read_bounded(path: &std::path::Path) -> std::io::Result<String> {
    let (sender, read) = std::sync::mpsc::channel();
    let path = path.to_path_buf();
    std::thread::spawn(move || {
        let mut text = String::new();
        let read = File::open(path).and_then(|file| file.take(LONGEST_KEY + 1).read_to_string(&mut text));
        let endless = || std::io::Error::other(format!("it has more than {LONGEST_KEY} bytes"));
        let whole = read.and_then(|len| if len as u64 > LONGEST_KEY { Err(endless()) } else { Ok(text) });
        let _ = sender.send(whole);
    });
    let silent = |_| std::io::Error::new(std::io::ErrorKind::TimedOut, "nothing could be read from it in time");
    read.recv_timeout(KEY_PATIENCE).map_err(silent)?
}

fn bad_key(error: &KeyRingError, source: &str) -> Failure {
    let hint = match error {
        KeyRingError::TooMany(_) => "keep the current key on the first line and the previous one on the second".into(),
        KeyRingError::Line { error: KeyError::Short(_), .. } => {
            format!("`mesh keygen` prints a good one; a passphrase needs {MIN_PASSPHRASE} bytes")
        }
        KeyRingError::Empty => "`mesh keygen` prints a good one; copy the whole line".into(),
        KeyRingError::Line { .. } => {
            "`mesh keygen` prints a good one; copy the whole line and nothing else, and a second key onto a line of its own".into()
        }
    };
    Failure::new(Exit::NoKey, "M101", format!("{source} cannot be used: {error}"), hint)
}

/// `90`, `90s`, `2m`, `1h 30m`.
pub fn duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse::<u32>() {
        return Ok(Duration::from_secs(seconds.into()));
    }
    humantime::parse_duration(text).map_err(|error| format!("{error}; use a time such as 90s or 2m"))
}

/// Checks the form; whether the host exists is found out when it is asked.
fn host_port(text: &str) -> Result<String, String> {
    let (host, port) = text.rsplit_once(':').ok_or("use HOST:PORT, such as stun.example.org:3478")?;
    let port_is_good = port.parse::<u16>().is_ok_and(|port| port != 0);
    if host.is_empty() || host.contains(char::is_whitespace) || !port_is_good {
        return Err("use HOST:PORT with a port from 1 to 65535".into());
    }
    if host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') && host.parse::<Ipv4Addr>().is_err() {
        return Err(format!("`{host}` is not an IPv4 address"));
    }
    Ok(text.to_string())
}

/// The IPv4 addresses of a server, as far as they are written out.
pub fn literal(server: &str) -> Option<SocketAddrV4> {
    server.parse().ok()
}

/// The environment of this process. What is empty counts as absent; what is not UTF-8 is replaced, so that it is refused by what it is for.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
pub fn process_env(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()).filter(|value| !value.is_empty())
}

/// Whether a variable of this process is set and counts as absent: one that is empty, and, of an option that is on or off, one that says
/// off.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
pub fn is_void_variable(name: &std::ffi::OsStr, on_or_off: bool) -> bool {
    let says_off = |text: &str| ["0", "false", "no", "off"].iter().any(|off| text.eq_ignore_ascii_case(off));
    std::env::var_os(name).is_some_and(|value| value.is_empty() || on_or_off && value.to_str().is_some_and(says_off))
}

/// The variable that a flag of this command line overrules although it is another option's: of two that exclude each other the flag wins.
pub fn overruled(args: impl IntoIterator<Item = std::ffi::OsString>) -> Option<&'static str> {
    let own = args.into_iter().take_while(|arg| arg != "--");
    own.filter_map(|arg| match arg.to_str()?.split('=').next()? {
        "--no-tun" => Some("MESH_TUN"),
        "--tun" => Some("MESH_NO_TUN"),
        _ => None,
    })
    .next()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Primary {
        #[command(flatten)]
        args: PrimaryArgs,
    }

    #[derive(Parser)]
    struct Aux {
        #[command(flatten)]
        args: AuxArgs,
    }

    fn primary(flags: &[&str]) -> Result<PrimaryArgs, clap::Error> {
        Primary::try_parse_from([&["mesh"], flags].concat()).map(|parsed| parsed.args)
    }

    fn aux(flags: &[&str]) -> AuxArgs {
        Aux::try_parse_from([&["mesh"], flags].concat()).expect("good flags").args
    }

    fn none(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn without_a_choice_github_is_the_rendezvous_inside_of_actions_only() {
        let common = primary(&["--aux", "1"]).expect("good flags").common;
        let actions = |name: &str| (name == "GITHUB_ACTIONS").then(|| "true".to_string());
        assert_eq!(common.rendezvous(&actions), Ok(RendezvousChoice::Github));
        let failure = common.rendezvous(&none).expect_err("no place to meet");
        assert_eq!((failure.exit, failure.code), (Exit::NoRendezvous, "M106"));
        assert!(failure.hint.contains("dir:PATH"));
    }

    #[test]
    fn bad_values_are_refused_with_what_is_accepted() {
        let cases: [(&[&str], &str); 8] = [
            (&["--aux", "x"], "invalid digit"),
            (&["--aux", "1", "--stun", "example.org"], "HOST:PORT"),
            (&["--aux", "1", "--stun", "1.2.3:80"], "not an IPv4 address"),
            (&["--aux", "1", "--stun", "a:1,b:0"], "port from 1 to 65535"),
            (&["--aux", "1", "--overlay", "10.77.0.1/16"], "the prefix is 10.77.0.0/16"),
            (&["--aux", "1", "--rendezvous", "ftp:x"], "dir:PATH"),
            (&["--aux", "1", "--join-timeout", "soon"], "such as 90s"),
            (&["--aux", "1", "--no-tun", "--tun", "mesh1"], "cannot be used with"),
        ];
        for (flags, expected) in cases {
            let error = primary(flags).expect_err("a bad value").to_string();
            assert!(error.contains(expected), "{flags:?} says: {error}");
        }
    }

    #[test]
    fn a_command_keeps_its_own_flags() {
        let args = primary(&["--aux", "2", "--", "make", "-j8", "--aux", "9"]).expect("good flags");
        assert_eq!((args.aux, args.command.len()), (2, 4));
    }

    #[test]
    fn a_flag_overrules_the_variable_of_the_option_that_it_excludes() {
        let overruled = |line: &str| overruled(line.split(' ').map(Into::into));
        assert_eq!(overruled("mesh aux --no-tun --index 0"), Some("MESH_TUN"));
        assert_eq!(overruled("mesh aux --tun=mesh1 --index 0"), Some("MESH_NO_TUN"));
        assert_eq!(overruled("mesh primary --aux 1 -- other --no-tun"), None);
    }

    #[test]
    fn no_key_and_a_short_key_say_what_to_do() {
        let common = primary(&["--aux", "1"]).expect("good flags").common;
        assert_eq!(common.keys(&none).expect_err("no key").code, "M101");
        let short = |name: &str| (name == "ENCRYPTION_KEY").then(|| "hunter2".to_string());
        let failure = common.keys(&short).expect_err("too short");
        assert!(failure.what.contains("ENCRYPTION_KEY") && !failure.what.contains("hunter2"), "{failure}");
        assert!(failure.hint.contains("keygen"));
        let through_sudo = |name: &str| (name == "SUDO_UID").then(|| "1000".to_string());
        assert!(common.keys(&through_sudo).expect_err("no key").hint.contains("--preserve-env"));
    }

    #[test]
    fn an_unreadable_key_file_is_named() {
        let common = primary(&["--aux", "1", "--key-file", "/nonexistent/key"]).expect("good flags").common;
        let failure = common.keys(&none).expect_err("no file");
        assert_eq!(failure.exit, Exit::NoKey);
        assert!(failure.what.contains("/nonexistent/key"));
    }

    #[test]
    fn the_run_and_its_attempt_come_from_github_unless_named() {
        let github = |name: &str| match name {
            "GITHUB_RUN_ID" => Some("42".to_string()),
            "GITHUB_RUN_ATTEMPT" => Some("3".to_string()),
            _ => None,
        };
        let context = primary(&["--aux", "1"]).expect("good flags").common.context(&github);
        assert_eq!((context.run.as_str(), context.attempt), ("42", 3));
        let named = primary(&["--aux", "1", "--run-id", "mine"]).expect("good flags").common.context(&none);
        assert_eq!((named.run.as_str(), named.attempt), ("mine", 1));
    }

    #[test]
    fn an_idle_timeout_that_is_given_bounds_the_first_join_too() {
        assert_eq!(aux(&["--index", "0"]).join_timeout(), PATIENCE);
        assert_eq!(aux(&["--index", "0", "--idle-timeout", "7"]).join_timeout(), Duration::from_secs(7));
    }
}
