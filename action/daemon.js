// The mesh process behind the steps: its environment, start, log and end. What the workflow gets to see is decided elsewhere.
'use strict';

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { spawn, spawnSync } = require('node:child_process');
const { setTimeout: sleep } = require('node:timers/promises');
const { StringDecoder } = require('node:string_decoder');
const { bare, harmless, say } = require('./lib.js');

const POLL_MS = 100;
// `mesh wait` says so when nothing listens at the control socket; src/exit.rs.
const NOT_RUNNING = 92;
// Together below the five minutes that a cancelled job has for its post steps, and short enough to watch.
const LEAVE_MS = 5_000;
const END_MS = 10_000;
const SIGNAL_MS = 3_000;

// A path of a Unix socket has at most 107 bytes, which a deep RUNNER_TEMP can exceed.
const LONGEST = 80;

/** A new folder for one daemon's files. */
function folder() {
  const temp = process.env.RUNNER_TEMP || os.tmpdir();
  return fs.mkdtempSync(path.join(temp.length > LONGEST ? os.tmpdir() : temp, 'mesh-'));
}

/** Where the files of a daemon lie. */
const files = (dir) => ({
  control: path.join(dir, 'control'),
  report: path.join(dir, 'report.json'),
  log: path.join(dir, 'log'),
  pid: path.join(dir, 'pid'),
  key: path.join(dir, 'key'),
  mesh: path.join(dir, 'bin', 'mesh'),
  // Made by the main step when it has already reported the daemon's end.
  ended: path.join(dir, 'ended'),
});

// RUNNER_TRACKING_ID stays: by it the runner ends a daemon that outlived its job.
const THROUGH_SUDO = /^(ACTIONS_|GITHUB_|RUNNER_|MESH_|RUST_LOG$|CI$|(https?|no|all)_proxy$)/i;

/** The daemon's environment: the runtime token goes here and nowhere else. */
function environment(token) {
  const { ACTIONS_RUNTIME_TOKEN, ACTIONS_RESULTS_URL, GITHUB_TOKEN } = process.env;
  const own = { ACTIONS_RUNTIME_TOKEN, ACTIONS_RESULTS_URL, GITHUB_TOKEN: token || GITHUB_TOKEN };
  return { ...bare(), ...Object.fromEntries(Object.entries(own).filter(([, value]) => value)) };
}

function sudo(env) {
  if (process.getuid() === 0) return [];
  const names = Object.keys(env).filter((name) => THROUGH_SUDO.test(name));
  const command = ['sudo', '-n', `--preserve-env=${names.join(',')}`];
  const works = spawnSync(command[0], [...command.slice(1), 'true'], { env, stdio: 'ignore', timeout: 10_000 }).status === 0;
  return works ? command : [];
}

// sudo sets PATH anew and cannot be signalled by who called it, so the shell between them restores the one
// and leaves the pid that the daemon itself will have.
const LAUNCH = 'echo "$$" >"$1"; PATH=$2; export PATH; shift 2; exec "$@"';

/** Starts `mesh args...` in the background, as root where that is possible; `ended` gives its exit code. */
function start(mesh, args, env, dir) {
  const { log, pid } = files(dir);
  fs.writeFileSync(pid, '');
  const out = fs.openSync(log, 'a');
  const [program, ...rest] = [...sudo(env), '/bin/sh', '-c', LAUNCH, 'sh', pid, env.PATH ?? '', mesh, ...args];
  // An inherited stdout would hold the step open after its end.
  const child = spawn(program, rest, { env, detached: true, stdio: ['ignore', out, out] });
  fs.closeSync(out);
  child.unref();
  const ended = new Promise((done) => {
    child.once('error', () => done(127));
    child.once('exit', (code, signal) => done(code ?? 128 + os.constants.signals[signal]));
  });
  return { ended };
}

/** Runs a verb of `mesh` to its end; code null when it took too long or was aborted. */
function run(mesh, args, { timeout, signal, env = bare() }) {
  return new Promise((done) => {
    const child = spawn(mesh, args, { env, timeout, signal, killSignal: 'SIGKILL', stdio: ['ignore', 'pipe', 'pipe'] });
    let said = '';
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => (said += data));
    child.once('error', (error) => done({ code: null, said: said || error.message }));
    child.once('exit', (code) => done({ code, said }));
  });
}

/** Asks `mesh wait` until the mesh is up, the time is over or `signal` aborts. */
async function untilUp(dir, timeout, signal) {
  const { mesh, control } = files(dir);
  const deadline = Date.now() + timeout;
  for (;;) {
    const left = Math.max(1, Math.ceil((deadline - Date.now()) / 1000));
    const { code } = await run(mesh, ['wait', '--control', control, '--timeout', `${left}s`], { timeout: left * 1000 + 5000, signal });
    if (code !== NOT_RUNNING || signal.aborted || Date.now() >= deadline) return code === 0;
    await sleep(POLL_MS);
  }
}

/** The daemon's pid while it lives, else null: the pid file's process, if its command line names this control socket. */
function alive(dir) {
  const { pid, control } = files(dir);
  try {
    const number = Number(fs.readFileSync(pid, 'utf8'));
    return number > 0 && fs.readFileSync(`/proc/${number}/cmdline`, 'utf8').includes(control) ? number : null;
  } catch {
    return null;
  }
}

async function gone(dir, timeout) {
  const deadline = Date.now() + timeout;
  while (alive(dir) && Date.now() < deadline) await sleep(POLL_MS);
  return !alive(dir);
}

/** Sends the daemon a signal, through sudo if it runs as root. */
function signal(dir, name) {
  const pid = alive(dir);
  if (!pid) return;
  try {
    process.kill(pid, name);
  } catch (error) {
    if (error.code === 'EPERM') spawnSync('sudo', ['-n', 'kill', '-s', name.slice(3), String(pid)], { stdio: 'ignore', timeout: 5_000 });
  }
}

/** Ends the daemon within a bounded time: `leave`, SIGTERM, SIGKILL; says what it took. */
async function end(dir) {
  const { mesh, control } = files(dir);
  if (!alive(dir)) return 'nothing';
  await run(mesh, ['leave', '--control', control], { timeout: LEAVE_MS });
  if (await gone(dir, END_MS)) return 'leave';
  for (const name of ['SIGTERM', 'SIGKILL']) {
    signal(dir, name);
    if (await gone(dir, SIGNAL_MS)) return name;
  }
  return 'everything, in vain';
}

/** Prints the log as it grows; the function it returns prints the rest and stops. */
function follow(dir) {
  const file = fs.openSync(files(dir).log, 'a+');
  let position = 0;
  let partial = '';
  const text = new StringDecoder('utf8');
  const chunk = Buffer.alloc(64 * 1024);
  const more = (last) => {
    for (let n; (n = fs.readSync(file, chunk, 0, chunk.length, position)) > 0; position += n) partial += text.write(chunk.subarray(0, n));
    const whole = partial.split('\n');
    partial = last ? '' : whole.pop();
    print(whole);
  };
  const timer = setInterval(more, POLL_MS);
  return () => {
    clearInterval(timer);
    more(true);
    fs.closeSync(file);
  };
}

function print(lines) {
  for (const line of lines.map(harmless)) if (line) say(line);
}

const lines = (dir) => (fs.existsSync(files(dir).log) ? fs.readFileSync(files(dir).log, 'utf8').split('\n') : []);

/** Prints the whole log. */
const log = (dir) => print(lines(dir));

/**
 * The last failure in the log: `mesh: M... WHAT; hint: HINT` on one line. `fatal` tells whether it is the daemon's last word, but for
 * the annotation that repeats it.
 */
function lastFailure(dir) {
  const plain = lines(dir).map((line) => (harmless(line) ?? '').replace(/\x1b\[[0-9;]*m/g, '').trim());
  const said = plain.filter((line) => line && !line.startsWith('::add-mask::'));
  const own = said.filter((line) => line.startsWith('mesh: '));
  const last = own.findLast((line) => /^mesh: M\d{3} /.test(line));
  if (!last) return { what: said.at(-1) ?? 'it said nothing', hint: '', fatal: false };
  const [what, hint = ''] = last.slice('mesh: '.length).split('; hint: ');
  return { what, hint, fatal: last === own.at(-1) };
}

module.exports = { folder, files, environment, start, run, untilUp, alive, signal, end, follow, log, lastFailure };
