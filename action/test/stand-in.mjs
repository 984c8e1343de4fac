#!/usr/bin/env node
// Stands in for the mesh binary: keeps the contract between it and the action, and records how it was called. It has no network.
//
// `--behave WORD` decides how the daemon lives: well, die, late, never (up), stubborn (neither leaves nor obeys).
import fs from 'node:fs';
import net from 'node:net';

const [verb, ...rest] = process.argv.slice(2);
const flag = (name) => rest[rest.indexOf(name) + 1];
const behave = rest.includes('--behave') ? flag('--behave') : 'well';
const control = flag('--control');
const NOT_RUNNING = 92;
const { SUDO_UID, SUDO_GID } = process.env;

if (process.env.MESH_RECORD) {
  const key = rest.includes('--key-file') ? fs.readFileSync(flag('--key-file'), 'utf8') : null;
  fs.appendFileSync(process.env.MESH_RECORD, `${JSON.stringify({ verb, pid: process.pid, argv: process.argv, env: process.env, key })}\n`);
}

const verbs = { '--version': version, primary: serve, aux: serve, wait: () => ask('wait'), leave: () => ask('leave'), env };
verbs[verb]();

function version() {
  console.log('mesh 0.1.0');
}

function serve() {
  console.error('::add-mask::203.0.113.7');
  console.error('::set-output name=evil::1');
  console.error(`stand-in ${verb} started`);
  if (behave === 'die') return die('M201 no STUN server of 2 answered', 'open UDP to the internet', 83);
  if (behave === 'late') return setTimeout(serveNow, 400);
  serveNow();
}

function serveNow() {
  // As mesh itself: who reaches its control socket may also signal it.
  process.on('SIGTERM', () => behave !== 'stubborn' && release('SIGTERM'));
  const server = net.createServer((socket) => socket.on('data', (data) => answer(String(data), socket)));
  server.listen(control, () => own(control));
}

// What a daemon of root's makes belongs to the user who called sudo.
function own(file) {
  if (SUDO_UID) fs.chownSync(file, Number(SUDO_UID), Number(SUDO_GID));
}

function answer(word, socket) {
  if (word === 'wait' && behave !== 'never') socket.end('0');
  if (word === 'die') die('M503 peer gone', 'look at the primary', 87);
  if (word === 'leave' && behave !== 'stubborn') socket.end('0', () => release('leave'));
}

function die(what, hint, code) {
  console.error(`mesh: ${what}; hint: ${hint}`);
  process.exit(code);
}

function release(why) {
  console.error(`stand-in released by ${why}`);
  const path = { kind: 'direct', via: null, rtt_ms: 20.25, why: '' };
  const peer = { index: 0, overlay: '10.77.0.2', state: 'up', connect_ms: 120, path, tx_bytes: 5e6, rx_bytes: 1e6, slots: 4, jobs: 30 };
  const evil = { ...peer, index: 1, state: '|<b>\n' };
  fs.writeFileSync(flag('--report'), JSON.stringify({ peers: [peer, evil], offload: { engine: 'distcc', remote: 30, local: 2, cached: 0 } }));
  own(flag('--report'));
  process.exit(0);
}

function ask(word) {
  const socket = net.connect(control, () => socket.write(word));
  socket.on('error', () => process.exit(NOT_RUNNING));
  socket.on('data', (code) => process.exit(Number(String(code))));
  if (word === 'wait') setTimeout(() => process.exit(84), parseInt(flag('--timeout'), 10) * 1000);
}

function env() {
  fs.appendFileSync(process.env.GITHUB_ENV, `MESH_SLOTS_TOTAL=12\nMESH_CONTROL=${control}\n`);
  fs.appendFileSync(process.env.GITHUB_PATH, '/links\n');
}
