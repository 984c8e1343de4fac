// Ends the mesh that main.js started, and shows its log and report. Whatever happens here, the job is neither failed nor held up.
'use strict';

const fs = require('node:fs');
const lib = require('./lib.js');
const daemon = require('./daemon.js');
const { table } = require('./summary.js');

async function post() {
  const { STATE_dir: dir, STATE_role: role } = process.env;
  if (!dir) return;
  const { ended, key, report } = daemon.files(dir);
  if (!fs.existsSync(ended)) await finish(dir, role);
  fs.rmSync(key, { force: true });
  if (role === 'primary') summarize(report);
}

async function finish(dir, role) {
  const died = !daemon.alive(dir);
  const how = await daemon.end(dir);
  await lib.group(`mesh ${role}: log`, () => daemon.log(dir));
  const { what, hint, fatal } = daemon.lastFailure(dir);
  // A step may have called `mesh leave`, which leaves a report and no last words.
  const failed = fatal || !fs.existsSync(daemon.files(dir).report);
  if (died && failed) lib.annotate('warning', new lib.Failure(`mesh ${role} had ended before the job did: ${what}`, hint));
  if (!died && how !== 'leave') lib.annotate('warning', new lib.Failure(`mesh ${role} did not leave by itself; ending it took ${how}`));
}

function summarize(file) {
  const { GITHUB_STEP_SUMMARY } = process.env;
  if (!GITHUB_STEP_SUMMARY || !fs.existsSync(file)) return;
  fs.appendFileSync(GITHUB_STEP_SUMMARY, `${table(JSON.parse(fs.readFileSync(file, 'utf8')))}\n`);
}

post().catch((error) => lib.annotate('warning', new Error(`the end of the mesh: ${error.stack ?? error}`)));
