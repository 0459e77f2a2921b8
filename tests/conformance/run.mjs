// Runs the conformance suites against a server that is already up.
//   node run.mjs --url http://127.0.0.1:PORT/mcp [--modern]
// Ends with status 0 only if no scored check failed in any of the runs.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';

const modules = path.join(import.meta.dirname, 'node_modules');
// The suites need Node 22 or newer, whatever runs this file.
const node = path.join(modules, 'node', 'bin', 'node');

const RUNS = [
  ['0.1.16 --suite all', 'conformance-0.1', ['--suite', 'all']],
  ['0.2.0-alpha.12 --requirements 2025-11-25', 'conformance-0.2', ['--requirements', '2025-11-25']]
];
const MODERN = [
  '0.2.0-alpha.12 --suite all --spec-version 2026-07-28',
  'conformance-0.2',
  ['--suite', 'all', '--spec-version', '2026-07-28']
];

const { values } = parseArgs({
  options: { url: { type: 'string' }, modern: { type: 'boolean' } }
});
if (!values.url) {
  console.error('usage: node run.mjs --url http://127.0.0.1:PORT/mcp [--modern]');
  process.exit(2);
}

let failed = false;
for (const [title, suite, args] of values.modern ? [...RUNS, MODERN] : RUNS) {
  console.log(`== ${title}`);
  if (!runSuite(suite, args)) failed = true;
}
process.exit(failed ? 1 : 0);

function runSuite(suite, args) {
  const results = mkdtempSync(path.join(tmpdir(), 'conformance-'));
  const cli = path.join(modules, suite, 'dist', 'index.js');
  const { status, stdout, stderr, error } = spawnSync(
    node,
    [cli, 'server', '--url', values.url, ...args, '-o', results],
    { encoding: 'utf8', maxBuffer: 1 << 28 }
  );
  if (error) throw error;
  for (const line of unhappyChecks(results)) console.log(line);
  rmSync(results, { recursive: true });

  // The closing part: the total and, where there are any, the scenarios that
  // were run but do not count.
  const closing = stdout.match(/^Total: (\d+) passed[^]*/m);
  console.log(closing ? closing[0].trimEnd() : `No total was printed.\n${stdout}${stderr}`);
  return status === 0 && closing !== null && Number(closing[1]) > 0;
}

function unhappyChecks(results) {
  const lines = [];
  for (const directory of readdirSync(results).sort()) {
    const [, scenario] = directory.match(/^server-(.+)-\d{4}-\d\d-\d\dT/);
    const checks = JSON.parse(readFileSync(path.join(results, directory, 'checks.json'), 'utf8'));
    for (const { id, status, errorMessage } of checks) {
      if (status === 'FAILURE' || status === 'WARNING') {
        lines.push(`${status} ${scenario} / ${id}: ${errorMessage ?? 'no message'}`);
      }
    }
  }
  return lines;
}
