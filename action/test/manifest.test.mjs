// action.yml against the code behind it: what is declared is what is read and written.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { test } from 'node:test';

const ROOT = new URL('../../', import.meta.url);
const manifest = fs.readFileSync(new URL('action.yml', ROOT), 'utf8');
const code = fs.readdirSync(new URL('action/', ROOT)).filter((file) => file.endsWith('.js')).map((file) => fs.readFileSync(new URL(`action/${file}`, ROOT), 'utf8'));

test('every declared input is read, and none but those', () => {
  const declared = section('inputs');
  const calls = code.flatMap((text) => [...text.matchAll(/\b(?:input|choice|milliseconds|words)\('([\w-]+)'/g)].map(([, name]) => name));
  const lists = code.flatMap((text) => [...text.matchAll(/(?:primary: |aux: |flags\()\[([^\]]*)\]/g)].flatMap(([, list]) => [...list.matchAll(/'([\w-]+)'/g)].map(([, name]) => name)));

  assert.deepEqual([...new Set([...calls, ...lists])].sort(), declared.sort());
});

test('every declared output is written, and none but those', () => {
  const written = code.flatMap((text) => [...text.matchAll(/\boutput\('([\w-]+)'/g)].map(([, name]) => name));

  assert.deepEqual([...new Set(written)].sort(), section('outputs').sort());
});

test('the scripts that action.yml names exist', () => {
  const scripts = [...manifest.matchAll(/^ {2}(?:main|post): (.+)$/gm)].map(([, file]) => file);

  assert.equal(scripts.length, 2);
  for (const file of scripts) assert.ok(fs.existsSync(new URL(file, ROOT)), file);
});

function section(name) {
  const body = manifest.split(new RegExp(`^${name}:\\n`, 'm'))[1].split(/^\w/m)[0];
  return [...body.matchAll(/^ {2}([\w-]+):/gm)].map(([, key]) => key);
}
