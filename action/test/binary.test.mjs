// Where the binary comes from: PATH, the tool cache, or a release on a server that this file plays.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { createHash } from 'node:crypto';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { Job, KEY, STAND_IN } from './runner.mjs';

const PRIMARY = { role: 'primary', aux: 1, key: KEY };
const ARCH = { x64: 'x86_64', arm64: 'aarch64' }[process.arch];
const VERSION = fs.readFileSync(new URL('../../Cargo.toml', import.meta.url), 'utf8').match(/^version = "(.*)"/m)[1];

test('the binary', { concurrency: true, timeout: 60_000 }, async (t) => {
  const it = (name, body) => t.test(name, body);
  await Promise.all([
    it('is taken from PATH', async (t) => {
      const job = new Job(t, PRIMARY);
      const bin = path.join(job.dir, 'bin');
      fs.mkdirSync(bin);
      fs.symlinkSync(STAND_IN, path.join(bin, 'mesh'));
      job.env.PATH = `${bin}:${process.env.PATH}`;

      assert.equal((await up(job)).up, 'true');
    }),

    it('is not some other program called mesh', async (t) => {
      const job = new Job(t, PRIMARY);
      const bin = path.join(job.dir, 'bin');
      fs.mkdirSync(bin);
      fs.symlinkSync('/bin/true', path.join(bin, 'mesh'));
      job.env.PATH = `${bin}:${process.env.PATH}`;

      const { out, up: isUp } = await up(job);

      assert.equal(isUp, 'false');
      assert.match(out, /::warning title=mesh::no `mesh` in PATH, and a local action has no release/);
    }),

    it('is downloaded once, checked and kept in the tool cache', async (t) => {
      const server = await release(t, (files) => files);
      const job = new Job(t, PRIMARY, server.env);

      const first = await up(job);
      assert.equal(first.up, 'true', first.out);
      const second = await up(job);

      assert.equal(second.up, 'true', second.out);
      const archive = `/octo/mesh/releases/download/${VERSION}/mesh-${ARCH}-linux.tar.gz`;
      assert.deepEqual(server.asked, [archive, `${archive}.sha256`]);
    }),

    it('is refused when its checksum differs', async (t) => {
      const server = await release(t, ([archive]) => [archive, `${'0'.repeat(64)}  mesh.tar.gz\n`]);
      const job = new Job(t, PRIMARY, server.env);

      const { out, up: isUp } = await up(job);

      assert.equal(isUp, 'false');
      assert.match(out, /::warning title=mesh::.*SHA-256 [0-9a-f]{64}, which its \.sha256 file does not confirm/);
      assert.ok(!fs.existsSync(path.join(job.dir, 'tools', 'mesh')), 'nothing of it is kept');
    }),

    it('is asked for again when the server fails, and not for ever', async (t) => {
      const server = await release(t, () => [503, 503]);
      const job = new Job(t, PRIMARY, server.env);

      const { out, up: isUp } = await up(job);

      assert.equal(isUp, 'false');
      assert.equal(server.asked.length, 3);
      assert.match(out, /answered 503; hint: try again later/);
    }),

    it('is missed with the hint to pin a release', async (t) => {
      const server = await release(t, () => [404, 404]);
      const job = new Job(t, PRIMARY, server.env);

      const { out } = await up(job);

      assert.equal(server.asked.length, 1);
      assert.match(out, /answered 404; hint: pin the action to a release/);
    }),
  ]);
});

async function up(job) {
  const { code, out } = await job.main().ended;
  await job.post().ended;
  assert.equal(code, 0, out);
  return { out, up: job.read('main', 'GITHUB_OUTPUT').up };
}

/** A server with a release; `alter` turns archive and checksum into what is served, a number being a status. */
async function release(t, alter) {
  const archive = execFileSync('tar', ['-czf', '-', '-C', path.dirname(STAND_IN), '--transform=s/stand-in.mjs/mesh/', path.basename(STAND_IN)]);
  const files = alter([archive, `${createHash('sha256').update(archive).digest('hex')}  mesh.tar.gz\n`]);
  const asked = [];
  const server = http.createServer((request, answer) => {
    asked.push(request.url);
    const file = files[request.url.endsWith('.sha256') ? 1 : 0];
    answer.writeHead(typeof file === 'number' ? file : 200).end(typeof file === 'number' ? '' : file);
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  t.after(() => server.close());
  const env = { GITHUB_SERVER_URL: `http://127.0.0.1:${server.address().port}`, GITHUB_ACTION_REPOSITORY: 'octo/mesh', GITHUB_ACTION_REF: 'v1' };
  return { env, asked };
}
