// The daemon of an unprivileged step: root by a passwordless sudo, else as it is. The sudo here is a stand-in.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { Job, KEY, RUNTIME_TOKEN } from './runner.mjs';

const NOBODY = 65534;
// As the real one: a fresh environment but for what is preserved, and a PATH of its own.
const SUDO = `#!/usr/bin/env node
const { spawnSync } = require('node:child_process');
const args = process.argv.slice(2);
require('node:fs').appendFileSync(process.env.MESH_RECORD, JSON.stringify({ verb: 'sudo', argv: args, env: {} }) + '\\n');
if (args[0] !== '-n' || !args[1].startsWith('--preserve-env=')) process.exit(1);
const kept = args[1].slice(15).split(',').map((name) => [name, process.env[name]]);
const { status } = spawnSync(args[2], args.slice(3), { env: { ...Object.fromEntries(kept), PATH: '/usr/sbin:/usr/bin:/sbin:/bin' }, stdio: 'inherit' });
process.exit(status ?? 1);
`;

test('sudo', { concurrency: true, timeout: 60_000 }, async (t) => {
  await Promise.all([
    t.test('carries the token, the run and PATH to the daemon, and no secret in its arguments', async (t) => {
      const job = unprivileged(t, SUDO);

      const { code, out } = await job.main(asNobody()).ended;
      await job.post().ended;

      assert.equal(code, 0, out);
      const { env, key } = job.calls('primary')[0];
      assert.equal(key, KEY);
      assert.deepEqual([env.ACTIONS_RUNTIME_TOKEN, env.GITHUB_RUN_ID, env.RUNNER_TRACKING_ID], [RUNTIME_TOKEN, '42', 'github_test']);
      assert.equal(env.PATH, job.env.PATH);
      assert.equal(env.HOME, undefined, 'the rest of the environment stays behind');
      const argv = job.calls('sudo').flatMap((call) => call.argv).join(' ');
      for (const secret of [KEY, RUNTIME_TOKEN]) assert.ok(!argv.includes(secret));
    }),

    t.test('that asks for a password is done without', async (t) => {
      const job = unprivileged(t, '#!/bin/sh\nexit 1\n');

      const { code, out } = await job.main(asNobody()).ended;
      await job.post().ended;

      assert.equal(code, 0, out);
      assert.equal(job.read('main', 'GITHUB_OUTPUT').up, 'true');
      assert.equal(job.calls('primary')[0].env.HOME, process.env.HOME);
    }),
  ]);
});

function unprivileged(t, sudo) {
  const job = new Job(t, { role: 'primary', aux: 1, key: KEY });
  const bin = job.forEverybody();
  fs.writeFileSync(path.join(bin, 'sudo'), sudo, { mode: 0o755 });
  fs.writeFileSync(job.record, '', { mode: 0o666 });
  for (const [file, mode] of [[job.record, 0o666], [job.temp, 0o777]]) fs.chmodSync(file, mode);
  return job;
}

const asNobody = () => (process.getuid() === 0 ? { uid: NOBODY, gid: NOBODY } : {});
