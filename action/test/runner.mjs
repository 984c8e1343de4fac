// Plays the runner: gives main.js and post.js, as real processes, the variables and files of a job. It checks nothing itself.
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { execFileSync, spawn } from 'node:child_process';

const ACTION = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const SERVING = ['primary', 'aux'];
const COMMAND_FILES = ['GITHUB_STATE', 'GITHUB_OUTPUT', 'GITHUB_ENV', 'GITHUB_PATH', 'GITHUB_STEP_SUMMARY'];

export const STAND_IN = path.join(ACTION, 'test', 'stand-in.mjs');
export const RUNTIME_TOKEN = 'runtime-token-4711';
export const KEY = 'mesh1_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE';

/** One job with one step that uses the action. `inputs` as in a workflow; `env` is added to the runner's own. */
export class Job {
  constructor(test, inputs, env = {}) {
    this.dir = fs.mkdtempSync(path.join(os.tmpdir(), 'job-'));
    fs.chmodSync(this.dir, 0o777);
    this.temp = path.join(this.dir, 'temp');
    fs.mkdirSync(this.temp);
    this.record = path.join(this.dir, 'record');
    this.inputs = inputs;
    this.env = env;
    this.node = process.execPath;
    this.action = ACTION;
    this.steps = [];
    test.after(() => this.#end());
  }

  // A test that failed half way leaves steps and a daemon behind, which would keep the whole test run from ending.
  async #end() {
    for (const { child } of this.steps) child.kill('SIGKILL');
    await Promise.allSettled(this.steps.map((step) => step.ended));
    for (const { pid } of SERVING.flatMap((verb) => this.calls(verb))) if (runs(pid)) kill(pid, 'SIGKILL');
    fs.rmSync(this.dir, { recursive: true, force: true });
  }

  /** Starts main.js; `step.ended` gives its exit code and output. */
  main(options) {
    return this.#step('main.js', {}, options);
  }

  /** Moves node and the action to where every user may read them: a checkout and a node of root's may lie in a closed folder. */
  forEverybody() {
    const bin = path.join(this.dir, 'bin');
    fs.mkdirSync(bin);
    this.node = path.join(bin, 'node');
    fs.copyFileSync(process.execPath, this.node);
    this.action = path.join(this.dir, 'action');
    fs.cpSync(ACTION, this.action, { recursive: true });
    this.inputs.mesh = path.join(this.action, 'test', 'stand-in.mjs');
    this.env.PATH = `${bin}:${process.env.PATH}`;
    return bin;
  }

  /** Runs post.js with the state that main.js saved. */
  post() {
    return this.#step('post.js', Object.fromEntries(Object.entries(this.read('main', 'GITHUB_STATE')).map(([k, v]) => [`STATE_${k}`, v])));
  }

  #step(script, state, options = {}) {
    const name = path.basename(script, '.js');
    const files = Object.fromEntries(COMMAND_FILES.map((file) => [file, path.join(this.dir, `${name}-${file}`)]));
    for (const file of Object.values(files)) {
      fs.writeFileSync(file, '');
      fs.chmodSync(file, 0o666);
    }
    const inputs = Object.fromEntries(Object.entries(this.inputs).map(([k, v]) => [`INPUT_${k.toUpperCase()}`, String(v)]));
    const env = { ...this.#variables(), ...files, ...inputs, ...state, ...this.env };
    const step = new Step(spawn(this.node, [path.join(this.action, script)], { env, ...options }));
    this.steps.push(step);
    return step;
  }

  #variables() {
    return {
      PATH: process.env.PATH,
      HOME: process.env.HOME ?? '/',
      CI: 'true',
      GITHUB_ACTIONS: 'true',
      GITHUB_RUN_ID: '42',
      GITHUB_RUN_ATTEMPT: '1',
      GITHUB_REPOSITORY: 'octo/project',
      RUNNER_TEMP: this.temp,
      RUNNER_TOOL_CACHE: path.join(this.dir, 'tools'),
      RUNNER_TRACKING_ID: 'github_test',
      ACTIONS_RUNTIME_TOKEN: RUNTIME_TOKEN,
      ACTIONS_RESULTS_URL: 'http://127.0.0.1:9/',
      ACTIONS_ID_TOKEN_REQUEST_TOKEN: 'id-token-0815',
      MESH_RECORD: this.record,
    };
  }

  /** What a step wrote to a command file, as the runner reads it. */
  read(step, file) {
    const text = this.text(step, file);
    const blocks = [...text.matchAll(/^(\w[\w-]*)<<(.+)\n([\s\S]*?)\n\2$/gm)].map(([, name, , value]) => [name, value]);
    const lines = [...text.matchAll(/^(\w+)=(.*)$/gm)].map(([, name, value]) => [name, value]);
    return Object.fromEntries([...blocks, ...lines]);
  }

  /** A command file's text. */
  text(step, file) {
    return fs.readFileSync(path.join(this.dir, `${step}-${file}`), 'utf8');
  }

  /** Every call of the stand-in with this verb. */
  calls(verb) {
    if (!fs.existsSync(this.record)) return [];
    // The last line may be half written.
    const all = fs.readFileSync(this.record, 'utf8').split('\n').slice(0, -1).map((line) => JSON.parse(line));
    return all.filter((call) => call.verb === verb);
  }

  /** The pid of the daemon that main.js started. */
  pid() {
    return Number(fs.readFileSync(path.join(this.read('main', 'GITHUB_STATE').dir, 'pid'), 'utf8'));
  }
}

class Step {
  constructor(child) {
    this.child = child;
    this.out = '';
    this.waiting = [];
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => this.#hear(String(data)));
    this.ended = new Promise((done, fail) => {
      child.once('close', (code) => done({ code, out: this.out }));
      child.once('error', fail);
    });
  }

  #hear(data) {
    this.out += data;
    for (const { text, done } of this.waiting) if (this.out.includes(text)) done();
  }

  /** Resolves once the output holds `text`. */
  says(text) {
    return new Promise((done, fail) => {
      this.waiting.push({ text, done });
      this.ended.then(() => fail(new Error(`the step ended without saying \`${text}\`: ${this.out}`)));
      this.#hear('');
    });
  }
}

/** Sends a signal, to a daemon of root's too: a machine with a passwordless sudo starts it so. */
export function kill(pid, signal) {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if (error.code !== 'EPERM') throw error;
    execFileSync('sudo', ['-n', 'kill', '-s', signal.slice(3), String(pid)]);
  }
}

/** True while a process with this pid runs; a zombie does not. */
export function runs(pid) {
  try {
    return !/^State:\s+[ZX]/m.test(fs.readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}
