// Finds the `mesh` binary, or downloads the one of this action's release. Nothing is run but `mesh --version` and `tar`.
'use strict';

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { createHash } = require('node:crypto');
const { spawnSync } = require('node:child_process');
const { Failure, Usage, bare, input, say } = require('./lib.js');

const ATTEMPTS = 3;
// An archive has a few megabytes; a server that needs longer is down.
const DOWNLOAD_MS = 60_000;

/** The path of a `mesh` binary that runs here. */
async function resolve() {
  const given = input('mesh');
  if (given) {
    if (!runs(given)) throw new Usage(`input \`mesh\`: \`${given}\` is not a mesh binary that runs here`);
    return path.resolve(given);
  }
  return inPath() ?? (await released());
}

// Other programs are called mesh too, so its own words decide.
function runs(file) {
  const { status, stdout } = spawnSync(file, ['--version'], { env: bare(), encoding: 'utf8', timeout: 10_000 });
  return status === 0 && /^mesh \d/.test(stdout);
}

function inPath() {
  const folders = (process.env.PATH ?? '').split(path.delimiter).filter(Boolean);
  return folders.map((folder) => path.join(folder, 'mesh')).find((file) => fs.existsSync(file) && runs(file));
}

async function released() {
  const { version, arch } = wanted();
  const folder = path.join(process.env.RUNNER_TOOL_CACHE || path.join(os.tmpdir(), 'tools'), 'mesh', version, arch);
  const file = path.join(folder, 'mesh');
  if (!fs.existsSync(file)) install(await download(version, arch), folder);
  if (!runs(file)) throw new Failure(`\`${file}\` does not run here`, 'give the path of a binary as input `mesh`');
  return file;
}

function wanted() {
  const arch = { x64: 'x86_64', arm64: 'aarch64' }[process.arch];
  if (process.platform !== 'linux' || !arch) {
    throw new Failure(`no mesh for ${process.platform} on ${process.arch}`, 'use a Linux runner');
  }
  // The release workflow lets no tag pass that differs from this version, so it also serves a pin by commit or by branch.
  const manifest = fs.readFileSync(path.join(__dirname, '..', 'Cargo.toml'), 'utf8');
  const version = manifest.match(/^version = "([^"]+)"/m)?.[1];
  if (!version) throw new Failure('no version in Cargo.toml beside the action', 'give the path of a binary as input `mesh`');
  return { version, arch };
}

async function download(version, arch) {
  const { GITHUB_SERVER_URL: server = 'https://github.com', GITHUB_ACTION_REPOSITORY: repository } = process.env;
  if (!repository) {
    throw new Failure('no `mesh` in PATH, and a local action has no release', 'build mesh and give its path as input `mesh`');
  }
  const url = `${server}/${repository}/releases/download/${version}/mesh-${arch}-linux.tar.gz`;
  say(`downloading ${url}`);
  const [archive, sum] = [await body(url), (await body(`${url}.sha256`)).toString('utf8')];
  const digest = createHash('sha256').update(archive).digest('hex');
  if (sum.trim().split(/\s/)[0].toLowerCase() !== digest) {
    throw new Failure(`\`${url}\` has SHA-256 ${digest}, which its .sha256 file does not confirm`, 'try again, then tell its owner');
  }
  return archive;
}

async function body(url, attempt = 1) {
  try {
    const answer = await fetch(url, { signal: AbortSignal.timeout(DOWNLOAD_MS) });
    if (answer.ok) return Buffer.from(await answer.arrayBuffer());
    const hint = answer.status === 404 ? 'pin the action to a release' : 'try again later';
    throw new Failure(`\`${url}\` answered ${answer.status}`, `${hint}, or give the path of a binary as input \`mesh\``);
  } catch (error) {
    if (error instanceof Failure && !/ 5\d\d$/.test(error.message)) throw error;
    if (attempt === ATTEMPTS) throw error instanceof Failure ? error : new Failure(`cannot fetch \`${url}\`: ${error.cause?.message ?? error.message}`);
    return body(url, attempt + 1);
  }
}

// Unpacked beside its place and renamed, so that no other step ever sees half a binary.
function install(archive, folder) {
  fs.mkdirSync(path.dirname(folder), { recursive: true });
  const fresh = fs.mkdtempSync(`${folder}.`);
  const { status, stderr } = spawnSync('tar', ['-xzf', '-', '-C', fresh, '--no-same-owner', 'mesh'], {
    env: bare(),
    input: archive,
    encoding: 'utf8',
  });
  if (status !== 0) throw new Failure(`cannot unpack the mesh archive: ${stderr?.trim()}`);
  try {
    fs.renameSync(fresh, folder);
  } catch (error) {
    if (!fs.existsSync(path.join(folder, 'mesh'))) throw error;
    fs.rmSync(fresh, { recursive: true });
  }
}

module.exports = { resolve };
