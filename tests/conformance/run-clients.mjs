// Runs the client scenarios of the conformance suites that a bridge can meet, with the proxy's client mode as the client.
//   node run-clients.mjs --proxy BIN [--runtime smol|blocking] [--only NAME]
// Ends with status 0 only if no check failed or warned in any scenario.
import path from 'node:path';
import { parseArgs } from 'node:util';
import { runSuite, unhappy } from './suite.mjs';

const TRANSPORT = ['initialize', 'tools_call', 'elicitation-sep1034-client-defaults', 'sse-retry'];
// Why the others are left out is in README.md.
const RUNS = [
  ['0.1.16', 'conformance-0.1', [], TRANSPORT],
  ['0.2.0-alpha.12 at 2025-06-18', 'conformance-0.2', ['--spec-version', '2025-06-18'], ['initialize', 'tools_call']],
  [
    '0.2.0-alpha.12 at 2025-11-25',
    'conformance-0.2',
    ['--spec-version', '2025-11-25'],
    [...TRANSPORT, 'json-schema-2020-12-preservation']
  ],
  ['0.2.0-alpha.12, extension', 'conformance-0.2', [], ['auth/client-credentials-basic']]
];

const { values } = parseArgs({
  options: {
    proxy: { type: 'string' },
    runtime: { type: 'string', default: 'smol' },
    only: { type: 'string', default: '' }
  }
});
if (!values.proxy) {
  console.error('usage: node run-clients.mjs --proxy BIN [--runtime smol|blocking] [--only NAME]');
  process.exit(2);
}

// The suite hands this to a shell.
const quote = word => `'${word.replaceAll("'", "'\\''")}'`;
const driver = path.join(import.meta.dirname, 'client.mjs');
const proxy = path.resolve(values.proxy);
const command = ['node', driver, '--proxy', proxy, '--runtime', values.runtime].map(quote).join(' ');

let [passed, failed, broken, scenarios] = [0, 0, 0, 0];
for (const [title, suite, flags, names] of RUNS) {
  for (const name of names.filter(name => name.includes(values.only))) {
    const args = ['client', '--command', command, '--scenario', name, ...flags];
    const { status, stdout, stderr, checks } = runSuite(suite, args);
    const good = checks.filter(check => check.status === 'SUCCESS').length;
    const bad = checks.filter(check => check.status === 'FAILURE').length;
    const ok = status === 0 && good > 0 && bad === 0;
    console.log(`${ok ? 'ok' : 'FAIL'} ${title} / ${name}: ${good} passed, ${bad} failed`);
    for (const line of unhappy(checks)) console.log(`  ${line}`);
    // What the client said; the checks that follow it are above.
    if (!ok) console.log((stdout + stderr).split('\nChecks:')[0].trimEnd().replace(/^/gm, '  | '));
    passed += good;
    failed += bad;
    scenarios += 1;
    if (!ok) broken += 1;
  }
}
if (scenarios === 0) {
  console.log(`FAIL no scenario has a name containing '${values.only}'`);
  broken += 1;
}
console.log(`Total: ${passed} passed, ${failed} failed; ${scenarios} scenarios, ${broken} of them not clean`);
process.exit(broken === 0 ? 0 : 1);
