//! The real distccd on an aux: started, watched, started again, ended. What it answers about itself is read in `stats`.
//!
//! It listens on the overlay address only, on both its ports, and admits the overlay prefix only: distccd runs compilers for
//! whoever reaches it. Where the overlay has no address on this machine, it listens on 127.0.0.1 and on ports of our choice, and admits
//! that alone; what leads there is not here. It runs below a [`guard`], so it never outlives `mesh`. Started by root it becomes the user `distccd` that
//! Debian's package made; root's environment, keys among it, is not passed on.
//!
//! distccd runs a compiler only if `/usr/lib/distcc` has its name (Debian keeps links there for what apt installed, see
//! update-distcc-symlinks(8)); for any other it closes the connection, and distcc compiles on the primary.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::restarts::Restarts;
use super::{guard, links, processes, search, stats};
use crate::exit::{Exit, Failure};

/// distcc's own port, which `DISTCC_HOSTS` need not name.
pub const PORT: u16 = 3632;

/// The statistics page. distccd binds it to the `--listen` address and checks it against `--allow` too.
pub const STATS_PORT: u16 = 3633;

/// From start to a page that answers. It takes about 20 ms on an idle machine.
const READY_TIMEOUT: Duration = Duration::from_secs(5);

/// Between two looks at a distccd that is starting.
const READY_TICK: Duration = Duration::from_millis(20);

/// The guard ends within its grace of 500 ms; past this, it is ended as well.
const STOP_TIMEOUT: Duration = Duration::from_millis(900);

/// How distccd runs.
#[derive(Debug, Clone)]
pub struct Config {
    /// The `mesh` binary, for [`guard`]: `std::env::current_exe()`.
    pub guard: PathBuf,
    /// This aux's overlay address, or 127.0.0.1.
    pub listen: Ipv4Addr,
    /// For jobs: [`PORT`] on the overlay.
    pub port: u16,
    /// For the statistics page: [`STATS_PORT`] on the overlay.
    pub stats_port: u16,
    /// Who may connect: the overlay prefix, `10.77.0.0/16`, or 127.0.0.1.
    pub allow: String,
    /// Jobs at once, at least 1.
    pub slots: u16,
    /// Gets distccd's messages, a few hundred bytes for each job. Opened by us, since distccd would open it as its other user.
    pub log: PathBuf,
    /// Where distccd and then its compilers are searched: [`search_path`].
    pub path: OsString,
}

/// What happened to distccd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It ended without being asked; codes over 128 mean a signal. It will be started again.
    Died { status: ExitStatus },
    /// It answers again, for the `count`-th time.
    Restarted { count: u64 },
    /// It died too often and stays down. This aux compiles nothing more.
    GaveUp { deaths: u64 },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Died { status } => write!(f, "distccd died ({})", describe(*status)),
            Self::Restarted { count } => write!(f, "distccd runs again (restart {count})"),
            Self::GaveUp { deaths } => write!(f, "distccd died {deaths} times and is not started again"),
        }
    }
}

/// A distccd that is watched. Dropped: it ends too, without waiting for it.
#[derive(Debug)]
pub struct Distccd {
    stop: oneshot::Sender<()>,
    watcher: JoinHandle<()>,
    /// Where [`stats::fetch`] finds its page.
    pub stats: SocketAddr,
}

impl Distccd {
    /// Starts distccd and returns once it answers. What happens later goes to `events`.
    ///
    /// Fails with M701 where distccd is not installed, M702 where a port is taken or the address is not this machine's, and M703
    /// where it does not come up.
    pub async fn start(config: Config, events: mpsc::UnboundedSender<Event>) -> Result<Self, Failure> {
        let config = Config { slots: config.slots.max(1), ..config };
        let program = program(&config.path)?;
        check_ports(&config)?;
        let running = Running::start(&config, &program).await?;
        let stats = (config.listen, config.stats_port).into();
        let (stop, stopped) = oneshot::channel();
        let watcher = Watcher { config, program, events, restarts: Restarts::default(), deaths: 0, count: 0 };
        Ok(Self { stop, watcher: tokio::spawn(watcher.watch(running, stopped)), stats })
    }

    /// Ends distccd and its compiles, within a second.
    pub async fn stop(self) {
        let _ = self.stop.send(());
        let _ = self.watcher.await;
    }
}

/// PATH as a distccd should have it: ours (so a name means the same compiler on machines set up alike), without folders of
/// compiler links, relative ones, or ccache's links (ccache does not cache what is preprocessed already), and with the standard
/// folders at the end.
pub fn search_path(ours: Option<&OsStr>) -> OsString {
    let mut folders: Vec<PathBuf> = Vec::new();
    let standard = links::visible(OsStr::new(search::STANDARD));
    for folder in ours.map(links::visible).unwrap_or_default().into_iter().chain(standard) {
        if folder.is_absolute() && !folder.ends_with("ccache") && !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    search::join(folders)
}

fn program(path: &OsStr) -> Result<PathBuf, Failure> {
    search::find(OsStr::new("distccd"), search::folders(path)).ok_or_else(|| {
        let what = format!("no `distccd` in `{}`", path.to_string_lossy());
        Failure::new(Exit::NoTool, "M701", what, "install the Debian package `distcc`: apt-get install distcc")
    })
}

/// Two ports of 127.0.0.1 that nobody has just now.
pub fn free_ports() -> Result<[u16; 2], Failure> {
    let failed = |error: io::Error| cannot_listen(Ipv4Addr::LOCALHOST, 0, &error);
    let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed);
    let both = [listen()?, listen()?];
    let [one, other] = both.each_ref().map(|listener| listener.local_addr().map(|address| address.port()));
    Ok([one.map_err(failed)?, other.map_err(failed)?])
}

fn check_ports(config: &Config) -> Result<(), Failure> {
    for port in [config.port, config.stats_port] {
        TcpListener::bind((config.listen, port)).map_err(|error| cannot_listen(config.listen, port, &error))?;
    }
    Ok(())
}

fn cannot_listen(listen: Ipv4Addr, port: u16, error: &io::Error) -> Failure {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("end what listens there, for example another distccd: ss -tlnp 'sport = {port}'")
        }
        io::ErrorKind::AddrNotAvailable => "the overlay address has to be up before distccd starts".to_owned(),
        _ => "see the error".to_owned(),
    };
    Failure::new(Exit::InUse, "M702", format!("cannot listen on {listen}:{port} for distccd: {error}"), hint)
}

struct Watcher {
    config: Config,
    program: PathBuf,
    events: mpsc::UnboundedSender<Event>,
    restarts: Restarts,
    deaths: u64,
    count: u64,
}

impl Watcher {
    async fn watch(mut self, mut running: Running, mut stopped: oneshot::Receiver<()>) {
        loop {
            let status = tokio::select! {
                status = running.child.wait() => status,
                _ = &mut stopped => return running.end().await,
            };
            if let Ok(status) = status {
                if status.code().is_none() {
                    running.sweep();
                }
                self.tell(Event::Died { status });
            }
            running = tokio::select! {
                next = self.again() => match next { Some(next) => next, None => return },
                _ = &mut stopped => return,
            };
        }
    }

    /// Waits and starts until distccd answers; `None` once it has died too often.
    async fn again(&mut self) -> Option<Running> {
        loop {
            self.deaths += 1;
            let Some(delay) = self.restarts.after_death(Instant::now()) else {
                self.tell(Event::GaveUp { deaths: self.deaths });
                return None;
            };
            tokio::time::sleep(delay).await;
            match Running::start(&self.config, &self.program).await {
                Ok(running) => {
                    self.count += 1;
                    self.tell(Event::Restarted { count: self.count });
                    return Some(running);
                }
                Err(failure) => tracing::warn!(%failure, "distccd did not come up"),
            }
        }
    }

    fn tell(&self, event: Event) {
        let _ = self.events.send(event);
    }
}

/// One life of distccd.
struct Running {
    child: Child,
    /// Held open: its end is the guard's sign that we are gone.
    stdin: Option<ChildStdin>,
    /// distccd itself. Known so that it can be ended if somebody kills the guard.
    program: Vec<Pid>,
}

impl Running {
    async fn start(config: &Config, program: &Path) -> Result<Self, Failure> {
        let log = open_log(&config.log)?;
        let mut child = command(config, program, log).spawn().map_err(|error| {
            not_up(format!("cannot start `{}`: {error}", config.guard.display()), "see the error".to_owned())
        })?;
        let stdin = child.stdin.take();
        let mut running = Self { child, stdin, program: Vec::new() };
        running.ready(config).await?;
        running.program =
            running.child.id().map(|id| processes::children(Pid::from_raw(id as i32))).unwrap_or_default();
        Ok(running)
    }

    async fn ready(&mut self, config: &Config) -> Result<(), Failure> {
        let hint = format!("see `{}`", config.log.display());
        let page = (config.listen, config.stats_port).into();
        let answers = async {
            while stats::fetch(page).await.is_err() {
                tokio::time::sleep(READY_TICK).await;
            }
        };
        tokio::select! {
            () = answers => Ok(()),
            status = self.child.wait() => {
                let status = status.map(describe).unwrap_or_else(|error| error.to_string());
                Err(not_up(format!("distccd ended at once ({status}): {}", last_line(&config.log)), hint))
            }
            () = tokio::time::sleep(READY_TIMEOUT) => {
                Err(not_up(format!("distccd does not answer on {page} after {READY_TIMEOUT:?}"), hint))
            }
        }
    }

    /// By closing the guard's standard input.
    async fn end(mut self) {
        drop(self.stdin.take());
        if tokio::time::timeout(STOP_TIMEOUT, self.child.wait()).await.is_err() {
            let _ = self.child.start_kill();
            self.sweep();
        }
    }

    /// A guard that ended by itself left nothing; one that was killed leaves a distccd, which would hold the port.
    fn sweep(&self) {
        for &pid in &self.program {
            let _ = killpg(pid, Signal::SIGKILL);
        }
    }
}

/// `--nice 0`: an aux has nothing better to do. `--log-stderr` into a file that we opened. The guard's process group is its own, so
/// that Ctrl-C in a terminal reaches `mesh` alone, which then ends things in order.
fn command(config: &Config, program: &Path, log: File) -> Command {
    let mut command = Command::new(&config.guard);
    command.arg(guard::VERB).arg("--").arg(program);
    command.args(["--no-detach", "--daemon", "--log-stderr", "--log-level=notice", "--nice", "0", "--stats"]);
    command.args(["--listen", &config.listen.to_string(), "--allow", &config.allow]);
    command.args(["--port", &config.port.to_string(), "--stats-port", &config.stats_port.to_string()]);
    command.args(["--jobs", &config.slots.to_string()]);
    let as_root = nix::unistd::geteuid().is_root();
    command.env_clear().envs(environment(std::env::vars_os(), &config.path, as_root));
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log).process_group(0);
    command
}

/// The language is ours: it decides the quotes in a remote compiler's messages, and an aux set up like its primary so gives the
/// text that the primary's own compiler would. TMPDIR only where distccd stays our user and can write there. Nothing else.
fn environment(
    ours: impl IntoIterator<Item = (OsString, OsString)>,
    path: &OsStr,
    as_root: bool,
) -> Vec<(OsString, OsString)> {
    let kept =
        |name: &str| name == "LANG" || name == "LANGUAGE" || name.starts_with("LC_") || (name == "TMPDIR" && !as_root);
    let ours = ours.into_iter().filter(|(name, _)| name.to_str().is_some_and(kept));
    let paths = ["PATH", "DISTCCD_PATH"].map(|name| (name.into(), path.to_owned()));
    ours.chain(paths).collect()
}

fn open_log(path: &Path) -> Result<File, Failure> {
    OpenOptions::new().create(true).append(true).open(path).map_err(|error| {
        let what = format!("cannot open `{}` for distccd's messages: {error}", path.display());
        not_up(what, "the folder of this run has to be writable".to_owned())
    })
}

fn not_up(what: String, hint: String) -> Failure {
    Failure::new(Exit::Failure, "M703", what, hint)
}

fn describe(status: ExitStatus) -> String {
    match status.code() {
        Some(code @ 129..) => format!("signal {}", code - 128),
        Some(code) => format!("exit code {code}"),
        None => format!("its guard: {status}"),
    }
}

fn last_line(log: &Path) -> String {
    let text = std::fs::read(log).map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default();
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_tokens_of_this_process_do_not_reach_distccd() {
        let ours = ["MESH_KEY", "ACTIONS_RUNTIME_TOKEN", "LANG", "LC_ALL", "TMPDIR", "PATH"];
        let given = environment(ours.map(|name| (name.into(), "x".into())), OsStr::new("/usr/bin"), true);
        let names: Vec<_> = given.iter().filter_map(|(name, _)| name.to_str()).collect();
        assert_eq!(names, ["LANG", "LC_ALL", "PATH", "DISTCCD_PATH"]);
    }

    #[test]
    fn the_search_path_has_the_standard_folders_once_and_no_wrappers() {
        let path = search_path(Some(OsStr::new("/opt/x/bin:.::/usr/lib/ccache:/usr/lib/distcc:/usr/bin")));
        let folders: Vec<_> = search::folders(&path).collect();
        assert_eq!(folders[..2], [PathBuf::from("/opt/x/bin"), "/usr/bin".into()]);
        assert_eq!(folders.iter().filter(|folder| folder.as_path() == "/usr/bin").count(), 1);
        assert!(!folders.iter().any(|folder| folder.starts_with("/usr/lib")), "{folders:?}");
    }
}
