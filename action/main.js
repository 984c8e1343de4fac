// The step itself: starts the mesh, waits until it is up and tells later steps, or says why there is none.
// How the mesh ends is in post.js.
'use strict';

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const lib = require('./lib.js');
const daemon = require('./daemon.js');
const binary = require('./binary.js');

// As `mesh primary --join-timeout`, and then time for STUN, the rendezvous and the tunnel.
const JOIN_MS = 120_000;
const SLACK_MS = 15_000;
// The longest life of a job on a hosted runner: an aux waits as long as its own daemon does.
const JOB_MS = 6 * 3_600_000;
// The runner's SIGINT is followed by SIGTERM after 7.5 seconds and by SIGKILL 2.5 seconds later.
const CANCEL_MS = 7_000;

async function main() {
  const key = lib.input('key') || process.env.MESH_KEY?.trim() || process.env.ENCRYPTION_KEY?.trim() || '';
  const token = lib.input('token');
  for (const secret of [key, token, process.env.ACTIONS_RUNTIME_TOKEN ?? '']) lib.mask(secret);
  const wish = wishes();
  try {
    if (!key) throw new lib.Failure('M101 no key, so this job goes on alone', 'give input `key` a secret made by `mesh keygen`; a pull request from a fork has none');
    await join(wish, key, token);
  } catch (error) {
    if (error instanceof lib.Usage) throw error;
    alone(error, wish);
  }
}

// Everything is read before anything is started, so that a wrong input costs nothing.
function wishes() {
  const role = lib.choice('role', ['', 'primary', 'aux']);
  if (!role) throw new lib.Usage('input `role` is missing: `primary` or `aux`');
  const own = { primary: ['aux', 'min-aux', 'offload'], aux: ['index', 'slots', 'idle-timeout'] };
  const other = role === 'aux' ? 'primary' : 'aux';
  const foreign = own[other].find((name) => lib.input(name));
  if (foreign) throw new lib.Usage(`input \`${foreign}\` is for role \`${other}\`, not for \`${role}\``);
  if (!lib.input(own[role][0])) throw new lib.Usage(`input \`${own[role][0]}\` is missing, which role \`${role}\` needs`);
  const join = lib.milliseconds('join-timeout', JOIN_MS);
  return {
    role,
    required: lib.choice('required', ['false', 'true']) === 'true',
    stays: role === 'aux' && lib.choice('wait', ['true', 'false']) === 'true',
    patience: join + SLACK_MS,
    args: [role, ...flags(own[role]), ...(role === 'primary' ? flags(['join-timeout']) : []), ...common()],
  };
}

const words = (name) => lib.input(name).split(/[\s,]+/).filter(Boolean);
const flags = (names) => names.filter(lib.input).flatMap((name) => [`--${name}`, lib.input(name)]);
const common = () => [...flags(['overlay']), ...words('stun').flatMap((server) => ['--stun', server]), ...lib.input('args').split(/\s+/).filter(Boolean)];

async function join(wish, key, token) {
  const mesh = await binary.resolve();
  const dir = daemon.folder();
  const files = daemon.files(dir);
  lib.state('dir', dir);
  lib.state('role', wish.role);
  fs.mkdirSync(path.dirname(files.mesh));
  fs.symlinkSync(mesh, files.mesh);
  fs.writeFileSync(files.key, key, { mode: 0o600, flag: 'wx' });
  lib.output('control', files.control);
  lib.output('report', files.report);

  const args = [...wish.args, '--key-file', files.key, '--control', files.control, '--report', files.report];
  const { ended } = daemon.start(files.mesh, args, daemon.environment(token), dir);
  passOn(dir, ended);
  const stop = daemon.follow(dir);
  let up = false;
  try {
    up = (await lib.group(`mesh ${wish.role}`, () => live(wish, dir, ended))) === 'up';
  } finally {
    stop();
    fs.rmSync(files.key, { force: true });
    if (!up) fs.writeFileSync(files.ended, '');
  }
  if (!wish.stays) await tell(wish, dir);
  lib.output('up', 'true');
}

/** Until the mesh is up, or for an aux that stays, until it was released. */
async function live(wish, dir, ended) {
  const over = new AbortController();
  const death = ended.then((code) => {
    over.abort();
    if (wish.stays && code === 0) return 'released';
    const { what, hint } = daemon.lastFailure(dir);
    throw new lib.Failure(`mesh ${wish.role} ended with code ${code}: ${what}`, hint);
  });
  const up = daemon.untilUp(dir, wish.stays ? JOB_MS : wish.patience, over.signal);
  const first = await Promise.race([death, up]);
  if (first === true) fs.rmSync(daemon.files(dir).key, { force: true });
  if (wish.stays || over.signal.aborted) return death;
  death.catch(() => {});
  if (first) return 'up';
  await daemon.end(dir);
  const { what, hint } = daemon.lastFailure(dir);
  throw new lib.Failure(`the mesh was not up after ${wish.patience / 1000} s: ${what}`, hint);
}

/** Gives later steps what a build needs. */
async function tell(wish, dir) {
  const { mesh, control } = daemon.files(dir);
  if (process.env.GITHUB_PATH) fs.appendFileSync(process.env.GITHUB_PATH, `${path.dirname(mesh)}${os.EOL}`);
  if (wish.role === 'aux') return lib.set('GITHUB_ENV', 'MESH_CONTROL', control);
  const { GITHUB_ENV, GITHUB_PATH } = process.env;
  const env = { ...lib.bare(), GITHUB_ENV, GITHUB_PATH };
  const { code, said } = await daemon.run(mesh, ['env', '--github', '--control', control], { timeout: 10_000, env });
  if (code !== 0) {
    await daemon.end(dir);
    throw new lib.Failure(`\`mesh env\` ended with code ${code}: ${said.trim()}`);
  }
  lib.output('slots', slots() ?? os.availableParallelism());
}

function slots() {
  const written = fs.existsSync(process.env.GITHUB_ENV ?? '') ? fs.readFileSync(process.env.GITHUB_ENV, 'utf8') : '';
  return [...written.matchAll(/^MESH_SLOTS_TOTAL(?:=|<<.*\n)(\d+)\s*$/gm)].at(-1)?.[1];
}

/** The job goes on without a mesh, and its `make -j` still has a number. */
function alone(error, wish) {
  const failure = error instanceof lib.Failure ? error : new lib.Failure(`the mesh action failed: ${error.stack ?? error}`);
  lib.annotate(wish.required ? 'error' : 'warning', failure);
  lib.output('up', 'false');
  if (wish.required) return void (process.exitCode = 1);
  if (wish.role !== 'primary') return;
  lib.output('slots', os.availableParallelism());
  lib.set('GITHUB_ENV', 'MESH_SLOTS_TOTAL', os.availableParallelism());
}

/** A cancelled job releases the aux before the runner kills this step. */
function passOn(dir, ended) {
  for (const name of ['SIGINT', 'SIGTERM']) {
    process.once(name, () => {
      daemon.signal(dir, 'SIGTERM');
      const leave = () => process.exit(128 + os.constants.signals[name]);
      ended.then(leave);
      setTimeout(leave, CANCEL_MS);
    });
  }
}

main().catch((error) => {
  lib.annotate('error', error instanceof lib.Usage ? error : new Error(error.stack ?? String(error)));
  lib.output('up', 'false');
  process.exitCode = 1;
});
