// Runs the server scenarios of the conformance suites against a server that is already up.
//   node run.mjs --url http://127.0.0.1:PORT/mcp [--modern] [--server legacy|dual|modern]
// `--modern` adds the suite for 2026-07-28. `--server` is the era of the server behind a proxy: then failures that
// expected.mjs lists for it are expected. Ends with status 0 only if no other scored check failed in any of the runs.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { SERVER } from './expected.mjs';
import { runSuite, unhappy } from './suite.mjs';

const RUNS = [
  ['0.1.16', 'conformance-0.1', '--suite all'],
  ['0.2.0-alpha.12', 'conformance-0.2', '--requirements 2025-11-25']
];
const MODERN = ['0.2.0-alpha.12', 'conformance-0.2', '--suite all --spec-version 2026-07-28'];

const { values } = parseArgs({
  options: { url: { type: 'string' }, modern: { type: 'boolean' }, server: { type: 'string' } }
});
if (!values.url || ![undefined, 'legacy', 'dual', 'modern'].includes(values.server)) {
  console.error('usage: node run.mjs --url http://127.0.0.1:PORT/mcp [--modern] [--server legacy|dual|modern]');
  process.exit(2);
}

// The suite itself judges what is expected: it knows which scenarios count.
function judged(expected, run) {
  const folder = mkdtempSync(path.join(tmpdir(), 'conformance-expected-'));
  const file = path.join(folder, 'expected.yml');
  writeFileSync(file, JSON.stringify({ server: Object.keys(expected) }));
  try {
    return run(['--expected-failures', file]);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

let failed = false;
for (const [version, suite, args] of values.modern ? [...RUNS, MODERN] : RUNS) {
  console.log(`== ${version} ${args}`);
  const expected = SERVER[args]?.[values.server] ?? {};
  const words = ['server', '--url', values.url, ...args.split(' ')];
  const { status, stdout, stderr, checks } = Object.keys(expected).length
    ? judged(expected, more => runSuite(suite, [...words, ...more]))
    : runSuite(suite, words);
  for (const line of unhappy(checks, expected)) console.log(line);
  // The closing part: the total and, where there are any, the scenarios that were run but do not count, and what the
  // suite makes of the expected failures.
  const closing = stdout.match(/^Total: (\d+) passed[^]*/m);
  console.log(closing ? closing[0].trimEnd() : `No total was printed.\n${stdout}${stderr}`);
  if (status !== 0 || !closing || Number(closing[1]) === 0) failed = true;
}
process.exit(failed ? 1 : 0);
