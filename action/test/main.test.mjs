// The main step with a stand-in for the binary: what it starts, what later steps see, and what becomes of failures.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { Job, KEY, RUNTIME_TOKEN, STAND_IN, runs } from './runner.mjs';

const PRIMARY = { role: 'primary', aux: 3, key: KEY, mesh: STAND_IN };
const AUX = { role: 'aux', index: 1, key: KEY, mesh: STAND_IN };
const options = { concurrency: true, timeout: 60_000 };

test('the main step', options, async (t) => {
  const it = (name, body) => t.test(name, body);
  await Promise.all([
    it('a primary comes up and later steps get its environment', async (t) => {
      const job = new Job(t, { ...PRIMARY, 'min-aux': 1, offload: 'distcc', stun: 'a:1, b:2', overlay: '10.9.0.0/16' });

      const { code, out } = await job.main().ended;

      assert.equal(code, 0, out);
      const { argv } = job.calls('primary')[0];
      const line = argv.join(' ');
      for (const part of ['--aux 3', '--min-aux 1', '--offload distcc', '--stun a:1 --stun b:2', '--overlay 10.9.0.0/16']) {
        assert.ok(line.includes(part), `${part} in ${line}`);
      }
      const { control, report, slots, up } = job.read('main', 'GITHUB_OUTPUT');
      assert.deepEqual([up, slots], ['true', '12']);
      assert.ok(line.includes(`--control ${control} --report ${report}`));
      assert.equal(job.read('main', 'GITHUB_ENV').MESH_SLOTS_TOTAL, '12');
      assert.match(job.text('main', 'GITHUB_PATH'), /\/bin\n\/links\n$/);
      assert.ok(runs(job.pid()), 'the daemon outlives the step');
      await job.post().ended;
    }),

    it('an optional input that is empty is no flag', async (t) => {
      const job = new Job(t, { ...PRIMARY, 'min-aux': '', stun: '', overlay: '', args: '' });

      await job.main().ended;

      const flags = job.calls('primary')[0].argv.filter((word) => word.startsWith('--'));
      assert.deepEqual(flags, ['--aux', '--key-file', '--control', '--report']);
      await job.post().ended;
    }),

    it('secrets are masked first, and never reach an argument, a file of the runner or the log', async (t) => {
      const previous = KEY.replace('MDEy', 'MTIz');
      const job = new Job(t, { ...PRIMARY, key: `${KEY}\r\n${previous}\r\n`, token: 'ghs_tokentoken' });

      const { out } = await job.main().ended;
      const after = await job.post().ended;

      const secrets = [KEY, previous, 'ghs_tokentoken', RUNTIME_TOKEN];
      assert.deepEqual(out.split('\n').slice(0, 4), secrets.map((secret) => `::add-mask::${secret}`));
      const unmasked = out.split('\n').slice(4).join('\n') + after.out;
      const written = ['STATE', 'OUTPUT', 'ENV', 'PATH', 'STEP_SUMMARY'].flatMap((file) =>
        ['main', 'post'].map((step) => job.text(step, `GITHUB_${file}`)),
      );
      const argv = ['primary', 'wait', 'env', 'leave'].flatMap((verb) => job.calls(verb)).map((call) => call.argv.join(' '));
      for (const text of [unmasked, ...written, ...argv]) for (const secret of secrets) assert.ok(!text.includes(secret), text);
    }),

    it('the runtime token reaches the daemon and nothing else', async (t) => {
      const job = new Job(t, { ...PRIMARY, token: 'ghs_tokentoken' }, { GITHUB_TOKEN: 'ghs_of_the_job', ENCRYPTION_KEY: KEY });

      await job.main().ended;
      await job.post().ended;

      const { env, key } = job.calls('primary')[0];
      assert.equal(key, KEY);
      assert.deepEqual([env.ACTIONS_RUNTIME_TOKEN, env.ACTIONS_RESULTS_URL, env.GITHUB_TOKEN], [RUNTIME_TOKEN, 'http://127.0.0.1:9/', 'ghs_tokentoken']);
      assert.equal(env.RUNNER_TRACKING_ID, 'github_test');
      for (const name of ['ACTIONS_ID_TOKEN_REQUEST_TOKEN', 'INPUT_KEY', 'ENCRYPTION_KEY', 'GITHUB_ENV']) assert.equal(env[name], undefined, name);
      const others = ['--version', 'wait', 'env', 'leave'].flatMap((verb) => job.calls(verb));
      assert.ok(others.length >= 4, 'every verb was called');
      for (const { verb, env } of others) for (const value of Object.values(env)) assert.ok(![RUNTIME_TOKEN, KEY, 'ghs_of_the_job'].includes(value), verb);
    }),

    it('the key file is private and gone once the mesh is up', async (t) => {
      const job = new Job(t, PRIMARY);

      await job.main().ended;

      const { argv } = job.calls('primary')[0];
      const file = argv[argv.indexOf('--key-file') + 1];
      assert.ok(!fs.existsSync(file));
      assert.equal(fs.statSync(path.dirname(file)).mode & 0o077, 0, 'its folder is closed to others');
      await job.post().ended;
    }),

    it('the key may come from the environment of the job', async (t) => {
      const job = new Job(t, { ...PRIMARY, key: '' }, { ENCRYPTION_KEY: KEY });

      const { out } = await job.main().ended;

      assert.ok(out.startsWith(`::add-mask::${KEY}\n`));
      assert.equal(job.calls('primary')[0].key, KEY);
      await job.post().ended;
    }),

    it('a mesh that takes its time to listen is waited for', async (t) => {
      const job = new Job(t, { ...PRIMARY, args: '--behave late' });

      const { code, out } = await job.main().ended;

      assert.equal(code, 0, out);
      assert.equal(job.read('main', 'GITHUB_OUTPUT').up, 'true');
      await job.post().ended;
    }),

    it('without a key the job goes on alone, with a number for make -j', async (t) => {
      const job = new Job(t, { ...PRIMARY, key: '' });

      const { code, out } = await job.main().ended;

      assert.equal(code, 0);
      assert.match(out, /^::warning title=mesh::M101 .*fork/m);
      const { slots, up } = job.read('main', 'GITHUB_OUTPUT');
      assert.deepEqual([up, slots], ['false', String(os.availableParallelism())]);
      assert.equal(job.read('main', 'GITHUB_ENV').MESH_SLOTS_TOTAL, slots);
      assert.equal(job.calls('primary').length, 0);
      assert.deepEqual(await job.post().ended, { code: 0, out: '' });
    }),

    it('a daemon that dies is a warning with its code and its last words', async (t) => {
      const job = new Job(t, { ...PRIMARY, args: '--behave die' });

      const { code, out } = await job.main().ended;

      assert.equal(code, 0);
      assert.match(out, /^::warning title=mesh::mesh primary ended with code 83: .*M201 no STUN .*hint: open UDP/m);
      assert.equal(job.read('main', 'GITHUB_OUTPUT').up, 'false');
    }),

    it('a daemon that dies fails a step that requires the mesh', async (t) => {
      const job = new Job(t, { ...PRIMARY, args: '--behave die', required: true });

      const { code, out } = await job.main().ended;

      assert.equal(code, 1);
      assert.match(out, /^::error title=mesh::mesh primary ended with code 83: .*M201/m);
      assert.equal(job.read('main', 'GITHUB_OUTPUT').slots, undefined);
    }),

    it('a mesh that is not up in time is ended, and the job goes on alone', async (t) => {
      const job = new Job(t, { ...PRIMARY, 'join-timeout': '1s', args: '--behave never' });

      const { code, out } = await job.main().ended;

      assert.equal(code, 0);
      assert.match(out, /^::warning title=mesh::the mesh was not up after 16 s/m);
      assert.ok(!runs(job.pid()));
      assert.equal((await job.post().ended).code, 0);
    }),

    it('lines of the log have no power over the runner, except to mask', async (t) => {
      const job = new Job(t, PRIMARY);

      const { out } = await job.main().ended;
      const after = await job.post().ended;

      for (const text of [out, after.out]) {
        assert.match(text, /^::add-mask::203\.0\.113\.7$/m);
        assert.match(text, /^set-output: 1$/m);
        assert.doesNotMatch(text, /^\s*::set-output/m);
      }
    }),

    it('an aux stays until it is released and ends green', async (t) => {
      const job = new Job(t, { ...AUX, slots: 2, 'idle-timeout': '60s' });
      const step = job.main();
      await step.says('stand-in aux started');
      const { argv } = await called(job, 'aux');
      assert.match(argv.join(' '), /aux --index 1 --slots 2 --idle-timeout 60s/);

      await tell(argv[argv.indexOf('--control') + 1], 'leave');
      const { code, out } = await step.ended;

      assert.equal(code, 0, out);
      assert.match(out, /stand-in released by leave/);
      assert.equal(job.read('main', 'GITHUB_OUTPUT').up, 'true');
      assert.equal((await job.post().ended).out, '', 'its log was shown already');
    }),

    it('an aux whose primary vanished warns and ends green', async (t) => {
      const job = new Job(t, AUX);
      const step = job.main();
      const { argv } = await called(job, 'aux');

      await tell(argv[argv.indexOf('--control') + 1], 'die');
      const { code, out } = await step.ended;

      assert.equal(code, 0);
      assert.match(out, /^::warning title=mesh::mesh aux ended with code 87: .*M503/m);
    }),

    it('an aux that does not stay leaves the mesh up behind it', async (t) => {
      const job = new Job(t, { ...AUX, wait: false });

      const { code } = await job.main().ended;

      assert.equal(code, 0);
      assert.ok(runs(job.pid()));
      assert.equal(job.read('main', 'GITHUB_ENV').MESH_CONTROL, job.read('main', 'GITHUB_OUTPUT').control);
      await job.post().ended;
      assert.ok(!runs(job.pid()));
    }),

    it('a cancelled step tells the daemon, which ends with it', async (t) => {
      const job = new Job(t, AUX);
      const step = job.main();
      const { argv } = await called(job, 'aux');
      await tell(argv[argv.indexOf('--control') + 1], 'hello');

      step.child.kill('SIGINT');
      await step.ended;

      assert.ok(!runs(job.pid()));
      assert.ok(fs.existsSync(argv[argv.indexOf('--report') + 1]), 'it left in good order');
    }),

    ...[
      [{ ...PRIMARY, role: '' }, /input `role` is missing/],
      [{ ...PRIMARY, role: 'secondary' }, /input `role` is `secondary`, not one of/],
      [{ ...PRIMARY, aux: '' }, /input `aux` is missing/],
      [{ ...PRIMARY, index: 1 }, /input `index` is for role `aux`/],
      [{ ...PRIMARY, 'join-timeout': 'soon' }, /not a time such as 90s/],
      [{ ...PRIMARY, required: 'yes' }, /input `required` is `yes`, not one of false, true/],
      [{ ...PRIMARY, mesh: '/no/such/mesh' }, /`\/no\/such\/mesh` is not a mesh binary/],
      [{ ...PRIMARY, mesh: '/bin/true' }, /`\/bin\/true` is not a mesh binary/],
    ].map(([inputs, message]) =>
      it(`a workflow that can never work fails: ${message.source}`, async (t) => {
        const job = new Job(t, inputs);

        const { code, out } = await job.main().ended;

        assert.equal(code, 1);
        assert.match(out, new RegExp(`^::error title=mesh::.*${message.source}`, 'm'));
        assert.equal(job.calls('primary').length, 0);
      }),
    ),
  ]);
});

async function called(job, verb, deadline = Date.now() + 20_000) {
  for (;;) {
    const [call] = job.calls(verb);
    if (call && fs.existsSync(call.argv[call.argv.indexOf('--control') + 1])) return call;
    assert.ok(Date.now() < deadline, `mesh ${verb} was called and listens`);
    await new Promise((done) => setTimeout(done, 20));
  }
}

// A socket is a file before it listens, so a refusal only means that it is too early.
async function tell(control, word, deadline = Date.now() + 20_000) {
  for (;;) {
    const error = await said(control, word).then(() => null, (error) => error);
    if (!error) return;
    if (error.code !== 'ECONNREFUSED' || Date.now() > deadline) throw error;
    await new Promise((done) => setTimeout(done, 20));
  }
}

function said(control, word) {
  return new Promise((done, fail) => {
    const socket = net.connect(control, () => socket.write(word, () => (word === 'hello' ? done(socket.destroy()) : undefined)));
    socket.resume();
    socket.once('close', done);
    socket.once('error', fail);
  });
}
