//! The local socket between a running mesh and `mesh wait`, `env`, `leave` and `status`: one JSON line asks, one answers.

use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::Uid;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

use crate::config::Env;
use crate::exit::{Exit, Failure};
use crate::privilege::Caller;
use crate::report::Report;

const FILE: &str = "mesh.sock";

/// Longer requests are not ours.
const LONGEST_REQUEST: u64 = 4096;

/// How long a mesh that is alive may take to say what it knows; one that leaves has said goodbye by then.
const ANSWER: Duration = Duration::from_secs(10);

/// What is asked of a running mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case")]
pub enum Request {
    /// The report as of now.
    Status,
    /// Answer when the mesh is up.
    Wait {
        /// So many aux instead of all that are expected.
        aux: Option<u16>,
        /// Only direct paths count.
        direct: bool,
        /// Give up after so many milliseconds.
        timeout_ms: u64,
    },
    /// What COMMAND is given.
    Env,
    /// How tools of this machine reach the cache.
    Door {
        /// Whose names; the run's own, unless it is said.
        namespace: Option<String>,
        /// Whether they may only read.
        read_only: bool,
    },
    /// Release the aux and end.
    Leave,
}

/// What a running mesh answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Response {
    /// To `Status`.
    Status(Box<Report>),
    /// To `Env`: lines for a shell, for `$GITHUB_ENV` and for `$GITHUB_PATH`.
    Env { shell: Vec<u8>, github_env: Vec<u8>, github_path: Vec<u8> },
    /// To `Door`: where the cache listens on this machine, and the token that it asks for.
    Door { addr: std::net::SocketAddr, token: String },
    /// Done, or up.
    Done,
    /// Not so, and why.
    Failed { exit: u8, code: String, what: String, hint: String },
}

impl Response {
    /// A failure as an answer.
    pub fn failed(failure: &Failure) -> Self {
        Self::Failed {
            exit: failure.exit.code(),
            code: failure.code.into(),
            what: failure.what.clone(),
            hint: failure.hint.clone(),
        }
    }
}

/// A request and where its answer goes. Dropping the sender answers that the mesh has ended.
pub type Asked = (Request, oneshot::Sender<Response>);

/// Where a mesh listens unless it is told: the user's runtime folder, also when started through sudo; else for root `/run`, and for others
/// a folder of their own in `/tmp`, which [`Server::bind`] makes.
pub fn default_path(env: Env<'_>, caller: Option<&Caller>) -> PathBuf {
    let of_caller = caller.map(|caller| PathBuf::from(format!("/run/user/{}", caller.uid)));
    let own = || env("XDG_RUNTIME_DIR").map(PathBuf::from);
    let folder = of_caller.or_else(own).filter(|folder| folder.is_dir());
    folder.unwrap_or_else(|| fallback(Uid::effective())).join(FILE)
}

fn fallback(user: Uid) -> PathBuf {
    if user.is_root() { "/run".into() } else { format!("/tmp/mesh-{user}").into() }
}

/// Makes a folder of our own, or finds it as nobody else could have made it. The compiler links stand beside the socket, so whoever could
/// write there would decide what `cc` is.
fn make_private(folder: &Path) -> io::Result<()> {
    match std::fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = std::fs::symlink_metadata(folder)?;
    if found.is_dir() && found.uid() == Uid::effective().as_raw() && found.mode() & 0o022 == 0 {
        return Ok(());
    }
    Err(io::Error::other(format!("{} is not a folder of this user alone", folder.display())))
}

/// Where a verb looks for a mesh unless it is told: first its own user's, then root's.
pub fn find(env: Env<'_>) -> PathBuf {
    let own = default_path(env, None);
    if own.exists() { own } else { Path::new("/run").join(FILE) }
}

/// The listening side. The socket file goes with it.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    listener: UnixListener,
}

impl Server {
    /// Listens at `path`, for `caller` where there is one. A socket that nobody listens on any more is replaced.
    pub fn bind(path: &Path, caller: Option<&Caller>) -> Result<Self, Failure> {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            let what = format!("another mesh is running behind the control socket {}", path.display());
            return Err(Failure::new(
                Exit::InUse,
                "M206",
                what,
                "end it with `mesh leave`, or choose another --control (MESH_CONTROL)",
            ));
        }
        let open = || -> io::Result<UnixListener> {
            if !Uid::effective().is_root() && path.parent() == Some(&fallback(Uid::effective())) {
                make_private(&fallback(Uid::effective()))?;
            }
            match std::fs::symlink_metadata(path) {
                Ok(found) if std::os::unix::fs::FileTypeExt::is_socket(&found.file_type()) => {
                    std::fs::remove_file(path)?
                }
                _ => {}
            }
            let listener = UnixListener::bind(path)?;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
            if let Some(caller) = caller {
                caller.own(path)?;
            }
            Ok(listener)
        };
        let listener = open().map_err(|error| {
            let what = format!("cannot listen on the control socket {}: {error}", path.display());
            Failure::new(Exit::InUse, "M206", what, "choose another with --control (MESH_CONTROL)")
        })?;
        Ok(Self { path: path.into(), listener })
    }

    /// Answers for ever; each request goes to `asked`.
    pub async fn serve(self, asked: mpsc::UnboundedSender<Asked>) {
        loop {
            let Ok((stream, _)) = self.listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let asked = asked.clone();
            tokio::spawn(async move {
                if let Err(error) = answer(stream, &asked).await {
                    tracing::debug!(%error, "a control connection ended early");
                }
            });
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn answer(stream: UnixStream, asked: &mpsc::UnboundedSender<Asked>) -> io::Result<()> {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    BufReader::new(read.take(LONGEST_REQUEST)).read_line(&mut line).await?;
    let (reply, response) = oneshot::channel();
    let response = match serde_json::from_str(&line) {
        Ok(request) => {
            let _ = asked.send((request, reply));
            response.await.unwrap_or_else(|_| Response::failed(&not_running("it has just ended")))
        }
        Err(error) => {
            let what = format!("the control socket does not understand this request: {error}");
            let hint = "both sides must be the same version of mesh";
            Response::failed(&Failure::new(Exit::Usage, "M108", what, hint))
        }
    };
    let mut bytes = serde_json::to_vec(&response)?;
    bytes.push(b'\n');
    write.write_all(&bytes).await
}

/// Asks the mesh behind `path`. What it knows at once it must say within [`ANSWER`].
pub async fn ask(path: &Path, request: &Request) -> Result<Response, Failure> {
    match request {
        Request::Wait { .. } => exchange(path, request).await,
        _ => ask_within(ANSWER, path, request).await,
    }
}

async fn ask_within(patience: Duration, path: &Path, request: &Request) -> Result<Response, Failure> {
    let silent = || Err(not_running(&format!("{}: nothing said within {} s", path.display(), patience.as_secs())));
    tokio::time::timeout(patience, exchange(path, request)).await.unwrap_or_else(|_| silent())
}

async fn exchange(path: &Path, request: &Request) -> Result<Response, Failure> {
    let failed = |error: io::Error| not_running(&format!("{}: {error}", path.display()));
    let mut stream = UnixStream::connect(path).await.map_err(failed)?;
    let mut line = serde_json::to_vec(request).expect("plain data with text keys always serialises");
    line.push(b'\n');
    stream.write_all(&line).await.map_err(failed)?;
    let mut response = String::new();
    BufReader::new(stream).read_line(&mut response).await.map_err(failed)?;
    serde_json::from_str(&response).map_err(|_| not_running("it ended before it answered"))
}

fn not_running(why: &str) -> Failure {
    Failure::new(
        Exit::NotRunning,
        "M107",
        format!("no mesh answers behind the control socket ({why})"),
        "start `mesh primary` or `mesh aux` first, or say where it listens with --control (MESH_CONTROL)",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_mesh_that_stands_still_is_not_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("c.sock");
        let _standing_still = std::os::unix::net::UnixListener::bind(&path).expect("it listens");
        let patience = Duration::from_millis(50);
        let failure = ask_within(patience, &path, &Request::Status).await.expect_err("nobody answers");
        assert_eq!(failure.code, "M107");
        assert!(failure.what.contains("nothing said within 0 s"), "{}", failure.what);
    }

    #[tokio::test]
    async fn a_request_is_answered_and_the_socket_goes_with_its_server() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("c.sock");
        let server = Server::bind(&path, None).expect("it listens");
        let (sender, mut asked) = mpsc::unbounded_channel();
        let serving = tokio::spawn(server.serve(sender));
        let asking = tokio::spawn({
            let path = path.clone();
            async move { ask(&path, &Request::Leave).await }
        });
        let (request, reply) = asked.recv().await.expect("a request");
        assert_eq!(request, Request::Leave);
        reply.send(Response::Done).expect("somebody waits");
        assert_eq!(asking.await.expect("no panic"), Ok(Response::Done));
        serving.abort();
        let _ = serving.await;
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_second_mesh_on_one_socket_is_refused_and_a_dead_socket_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("c.sock");
        let first = Server::bind(&path, None).expect("it listens");
        assert_eq!(Server::bind(&path, None).expect_err("taken").exit, Exit::InUse);
        drop(first);
        let listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
        drop(listener);
        assert!(path.exists(), "a dead socket is left");
        Server::bind(&path, None).expect("it replaces it");
    }

    #[test]
    fn an_ordinary_user_without_a_runtime_folder_has_one_of_its_own() {
        assert_eq!(fallback(Uid::from_raw(0)), Path::new("/run"));
        assert_eq!(fallback(Uid::from_raw(1000)), Path::new("/tmp/mesh-1000"));
    }

    #[test]
    fn a_folder_that_others_can_write_to_or_that_leads_elsewhere_is_not_used() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("mesh-1000");
        make_private(&path).expect("it makes one");
        make_private(&path).expect("it takes its own");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).expect("ours");
        assert!(make_private(&path).is_err(), "others can write there");
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(folder.path(), &link).expect("a link");
        assert!(make_private(&link).is_err(), "a link is no folder");
    }

    #[tokio::test]
    async fn a_garbled_request_gets_a_clear_answer() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("c.sock");
        let (sender, _asked) = mpsc::unbounded_channel();
        let serving = tokio::spawn(Server::bind(&path, None).expect("it listens").serve(sender));
        let mut stream = UnixStream::connect(&path).await.expect("connected");
        stream.write_all(b"GET / HTTP/1.1\r\n").await.expect("sent");
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).await.expect("answered");
        assert!(answer.contains("does not understand"), "{answer}");
        serving.abort();
    }

    #[tokio::test]
    async fn without_a_mesh_the_failure_names_the_socket() {
        let failure = ask(Path::new("/nonexistent/mesh.sock"), &Request::Status).await.expect_err("nobody there");
        assert_eq!((failure.exit, failure.code), (Exit::NotRunning, "M107"));
        assert!(failure.what.contains("/nonexistent/mesh.sock"));
    }
}
