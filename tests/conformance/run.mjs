// Runs the server scenarios of the conformance suites against a server that is already up.
//   node run.mjs --url http://127.0.0.1:PORT/mcp [--modern]
// Ends with status 0 only if no scored check failed in any of the runs.
import { parseArgs } from 'node:util';
import { runSuite, unhappy } from './suite.mjs';

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
  const { status, stdout, stderr, checks } = runSuite(suite, ['server', '--url', values.url, ...args]);
  for (const line of unhappy(checks)) console.log(line);
  // The closing part: the total and, where there are any, the scenarios that
  // were run but do not count.
  const closing = stdout.match(/^Total: (\d+) passed[^]*/m);
  console.log(closing ? closing[0].trimEnd() : `No total was printed.\n${stdout}${stderr}`);
  if (status !== 0 || !closing || Number(closing[1]) === 0) failed = true;
}
process.exit(failed ? 1 : 0);
