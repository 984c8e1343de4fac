// The post step: it shows what happened and always ends, whatever the daemon does.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { test } from 'node:test';
import { Job, KEY, STAND_IN, kill, runs } from './runner.mjs';

const PRIMARY = { role: 'primary', aux: 3, key: KEY, mesh: STAND_IN };

test('the post step', { concurrency: true, timeout: 90_000 }, async (t) => {
  const it = (name, body) => t.test(name, body);
  await Promise.all([
    it('ends the mesh, shows its log and puts the report into the summary', async (t) => {
      const job = new Job(t, PRIMARY);
      await job.main().ended;

      const { code, out } = await job.post().ended;

      assert.equal(code, 0, out);
      assert.ok(!runs(job.pid()));
      assert.match(out, /^::group::mesh primary: log\n[\s\S]*stand-in released by leave[\s\S]*^::endgroup::$/m);
      assert.doesNotMatch(out, /::warning/);
      const summary = job.text('post', 'GITHUB_STEP_SUMMARY');
      assert.match(summary, /\| 0 \| up \| direct \| 20\.3 ms \| 120 ms \| 4 \| 30 \| 5\.0 MB \| 1\.0 MB \|/);
      assert.match(summary, /Jobs: 30 on aux, 2 here/);
      assert.doesNotMatch(summary, /<b>/, 'words of other machines are no Markup');
    }),

    it('says that the mesh died in the middle of the job', async (t) => {
      const job = new Job(t, PRIMARY);
      await job.main().ended;
      kill(job.pid(), 'SIGKILL');

      const { code, out } = await job.post().ended;

      assert.equal(code, 0);
      assert.match(out, /^::warning title=mesh::mesh primary had ended before the job did/m);
    }),

    it('is content with a mesh that a step has left', async (t) => {
      const job = new Job(t, PRIMARY);
      await job.main().ended;
      kill(job.pid(), 'SIGTERM');
      await vanished(job.pid());

      const { code, out } = await job.post().ended;

      assert.equal(code, 0);
      assert.doesNotMatch(out, /::warning/);
      assert.match(job.text('post', 'GITHUB_STEP_SUMMARY'), /### mesh/);
    }),

    it('ends a daemon that neither leaves nor obeys, in bounded time', async (t) => {
      const job = new Job(t, { ...PRIMARY, args: '--behave stubborn' });
      await job.main().ended;
      const pid = job.pid();
      const begun = Date.now();

      const { code, out } = await job.post().ended;

      assert.equal(code, 0);
      assert.ok(!runs(pid));
      assert.match(out, /^::warning title=mesh::.*ending it took SIGKILL/m);
      assert.ok(Date.now() - begun < 40_000, 'far from the five minutes of a cancelled job');
    }),

    it('never touches a foreign process that got the daemon\'s pid', async (t) => {
      const job = new Job(t, PRIMARY);
      await job.main().ended;
      const { dir } = job.read('main', 'GITHUB_STATE');
      const pid = job.pid();
      kill(pid, 'SIGTERM');
      await vanished(pid);
      fs.writeFileSync(`${dir}/pid`, `${process.pid}\n`);

      const { code } = await job.post().ended;

      assert.equal(code, 0);
    }),

    it('does nothing when nothing was started', async (t) => {
      const job = new Job(t, { ...PRIMARY, role: 'nonsense' });
      await job.main().ended;

      assert.deepEqual(await job.post().ended, { code: 0, out: '' });
    }),

    it('survives a report that is no JSON', async (t) => {
      const job = new Job(t, PRIMARY);
      await job.main().ended;
      kill(job.pid(), 'SIGTERM');
      await vanished(job.pid());
      fs.writeFileSync(job.read('main', 'GITHUB_OUTPUT').report, '{"peers": [');

      const { code, out } = await job.post().ended;

      assert.equal(code, 0);
      assert.match(out, /^::warning title=mesh::the end of the mesh/m);
    }),
  ]);
});

async function vanished(pid, deadline = Date.now() + 20_000) {
  while (runs(pid)) {
    assert.ok(Date.now() < deadline, `process ${pid} ends`);
    await new Promise((done) => setTimeout(done, 20));
  }
}
