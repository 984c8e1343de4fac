// What all files of the action share: the runner's inputs, workflow commands and command files.
// No process is started here.
'use strict';

const fs = require('node:fs');
const os = require('node:os');
const { randomUUID } = require('node:crypto');

/** The workflow uses the action in a way that can never work; it fails the step even when the mesh is not required. */
class Usage extends Error {}

/** The mesh did not come up, or ended early. `hint` says what to do. */
class Failure extends Error {
  constructor(what, hint = '') {
    super(what);
    this.hint = hint;
  }
}

/** The value of an input of action.yml; '' when it was not given. */
function input(name) {
  return (process.env[`INPUT_${name.toUpperCase()}`] ?? '').trim();
}

/** An input that must be one of `choices`; the first of them when it was not given. */
function choice(name, choices) {
  const value = input(name) || choices[0];
  if (!choices.includes(value)) throw new Usage(`input \`${name}\` is \`${value}\`, not one of ${choices.join(', ')}`);
  return value;
}

const UNITS = { ms: 1, s: 1000, m: 60_000, min: 60_000, h: 3_600_000 };

/** An input such as `90s` or `1m 30s`, in milliseconds. */
function milliseconds(name, fallback) {
  const value = input(name);
  if (!value) return fallback;
  if (!/^(\d+\s*(ms|s|min|m|h)\s*)+$/.test(value)) throw new Usage(`input \`${name}\` is \`${value}\`, not a time such as 90s`);
  return [...value.matchAll(/(\d+)\s*(ms|s|min|m|h)/g)].reduce((sum, [, n, unit]) => sum + Number(n) * UNITS[unit], 0);
}

const say = (line) => process.stdout.write(`${line}\n`);
const escape = (text) => String(text).replace(/%/g, '%25').replace(/\r/g, '%0D').replace(/\n/g, '%0A');

/** Has the runner replace `secret` in every log of this job. */
function mask(secret) {
  for (const line of secret.split(/\r?\n/)) if (line.trim()) say(`::add-mask::${escape(line.trim())}`);
}

/** One annotation of the job: `level` is `notice`, `warning` or `error`. */
function annotate(level, error) {
  say(`::${level} title=mesh::${escape(error.hint ? `${error.message}; hint: ${error.hint}` : error.message)}`);
}

/** Prints what `body` prints as one folded group of the log. */
async function group(title, body) {
  say(`::group::${escape(title)}`);
  try {
    return await body();
  } finally {
    say('::endgroup::');
  }
}

// A log can carry words of other machines, and the runner obeys any line that looks like a workflow command:
// masks are passed on, everything else loses its power.
/** A line of the daemon's log, as it may go to the step's output; null to leave it out. */
function harmless(line) {
  if (/^::add-mask::\S{4}/.test(line)) return line;
  if (/^\s*::(end)?group::/.test(line)) return null;
  return line.replace(/^\s*::([\w-]+)[^:]*::/, '$1: ').replace(/^\s*::/, ': :').replaceAll('##[', '## [');
}

/** Appends `name=value` to a command file of the runner, such as `GITHUB_OUTPUT`. */
function set(file, name, value) {
  const path = process.env[file];
  if (!path) return;
  const end = `end-${randomUUID()}`;
  fs.appendFileSync(path, `${name}<<${end}${os.EOL}${value}${os.EOL}${end}${os.EOL}`);
}

const output = (name, value) => set('GITHUB_OUTPUT', name, value);
const state = (name, value) => set('GITHUB_STATE', name, value);

// The command files belong to one step and are gone when a daemon would write to them.
const PRIVATE = /^(INPUT_|STATE_|ACTIONS_|MESH_KEY$|ENCRYPTION_KEY$|GITHUB_(TOKEN|ENV|PATH|OUTPUT|STATE|STEP_SUMMARY)$)/;

/** The step's environment without its secrets and command files: what every child process starts from. */
const bare = () => Object.fromEntries(Object.entries(process.env).filter(([name]) => !PRIVATE.test(name)));

module.exports = { Usage, Failure, input, choice, milliseconds, say, mask, annotate, group, harmless, set, output, state, bare };
