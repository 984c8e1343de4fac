// The report of a mesh as a table for the job's summary. The report's fields are the binary's; nothing is computed here.
'use strict';

const COLUMNS = ['aux', 'state', 'path', 'RTT', 'connected in', 'slots', 'jobs', 'sent', 'received'];

/** The table of a report in Markdown. */
function table(report) {
  const rows = (report.peers ?? []).map(row);
  const lines = [COLUMNS, COLUMNS.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`);
  return ['### mesh', '', ...lines, '', ...offload(report.offload)].join('\n');
}

function row(peer) {
  const { kind, via, rtt_ms: rtt } = peer.path ?? {};
  const up = peer.state !== 'never';
  return [
    cell(peer.index),
    cell(peer.state),
    up ? cell(via ? `${kind} via ${via}` : kind) : '',
    up && rtt != null ? `${Number(rtt).toFixed(1)} ms` : '',
    up && peer.connect_ms != null ? `${cell(peer.connect_ms)} ms` : '',
    cell(peer.slots),
    cell(peer.jobs),
    bytes(peer.tx_bytes),
    bytes(peer.rx_bytes),
  ];
}

const offload = (o) => (o ? [`Jobs: ${cell(o.remote)} on aux, ${cell(o.local)} here, ${cell(o.cached)} from a cache (${cell(o.engine)}).`, ''] : []);

// A report can carry words of other machines, and Markdown would obey them.
const cell = (value) => String(value ?? '').replace(/[^\w .:+-]/g, ' ').slice(0, 60);
const bytes = (n) => (Number.isFinite(n) ? `${(n / 1e6).toFixed(1)} MB` : '');

module.exports = { table };
