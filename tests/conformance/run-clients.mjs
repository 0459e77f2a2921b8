// Runs the client scenarios of the conformance suites that a bridge can meet, with the proxy's client mode as the client.
//   node run-clients.mjs --proxy BIN [--runtime smol|blocking] [--only NAME]
//   node run-clients.mjs --direct [--only NAME]      the modern ones with the SDK alone, to tell its faults from ours
// Ends with status 0 only if no check failed or warned in any scenario, but for those of expected.mjs.
import path from 'node:path';
import { parseArgs } from 'node:util';
import { CLIENT } from './expected.mjs';
import { runSuite, unhappy } from './suite.mjs';

const TRANSPORT = ['initialize', 'tools_call', 'elicitation-sep1034-client-defaults', 'sse-retry'];
const MODERN = [
  'tools_call',
  'request-metadata',
  'sep-2322-client-request-state',
  'http-standard-headers',
  'http-custom-headers',
  'http-invalid-tool-headers',
  'json-schema-ref-no-deref',
  'json-schema-2020-12-preservation'
];
const at = revision => ['--spec-version', revision];
// [title, suite, its flags, scenarios, era of the driver]. Why the other scenarios are left out is in README.md.
const RUNS = [
  ['0.1.16', 'conformance-0.1', [], TRANSPORT, 'legacy'],
  ['0.2.0-alpha.12 at 2025-06-18', 'conformance-0.2', at('2025-06-18'), ['initialize', 'tools_call'], 'legacy'],
  [
    '0.2.0-alpha.12 at 2025-11-25',
    'conformance-0.2',
    at('2025-11-25'),
    [...TRANSPORT, 'json-schema-2020-12-preservation'],
    'legacy'
  ],
  ['0.2.0-alpha.12 at 2026-07-28', 'conformance-0.2', at('2026-07-28'), MODERN, 'modern'],
  ['0.2.0-alpha.12 at 2026-07-28, legacy client', 'conformance-0.2', at('2026-07-28'), MODERN, 'legacy'],
  ['0.2.0-alpha.12, extension', 'conformance-0.2', [], ['auth/client-credentials-basic'], 'legacy']
];

const { values } = parseArgs({
  options: {
    proxy: { type: 'string' },
    direct: { type: 'boolean' },
    runtime: { type: 'string', default: 'smol' },
    only: { type: 'string', default: '' }
  }
});
if (Boolean(values.proxy) === Boolean(values.direct)) {
  console.error('usage: node run-clients.mjs --proxy BIN [--runtime smol|blocking] [--only NAME]');
  console.error('       node run-clients.mjs --direct [--only NAME]');
  process.exit(2);
}

// The suite hands this to a shell.
const quote = word => `'${word.replaceAll("'", "'\\''")}'`;
const driver = ['node', path.join(import.meta.dirname, 'client.mjs')];
if (values.proxy) driver.push('--proxy', path.resolve(values.proxy), '--runtime', values.runtime);

let [passed, failed, broken, scenarios] = [0, 0, 0, 0];
for (const [title, suite, flags, names, era] of RUNS) {
  if (values.direct && era !== 'modern') continue;
  for (const name of names.filter(name => `${title} / ${name}`.includes(values.only))) {
    const command = [...driver, '--era', era].map(quote).join(' ');
    const args = ['client', '--command', command, '--scenario', name, ...flags];
    const { status, stdout, stderr, checks } = runSuite(suite, args);
    const good = checks.filter(check => check.status === 'SUCCESS').length;
    const bad = checks.filter(check => check.status === 'FAILURE').length;
    const reason = values.direct ? undefined : CLIENT[title]?.[name];
    const clean = status === 0 && good > 0 && bad === 0;
    const ok = clean === (reason === undefined);
    const verdict = ok ? (clean ? 'ok' : 'expected') : clean ? 'FAIL, though expected.mjs says otherwise:' : 'FAIL';
    console.log(`${verdict} ${title} / ${name}: ${good} passed, ${bad} failed${clean || !reason ? '' : ` (${reason})`}`);
    if (!clean && !reason) {
      for (const line of unhappy(checks)) console.log(`  ${line}`);
      // What the client said; the checks that follow it are above.
      console.log((stdout + stderr).split('\nChecks:')[0].trimEnd().replace(/^/gm, '  | '));
    }
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
console.log(`Total: ${passed} passed, ${failed} failed; ${scenarios} scenarios, ${broken} of them not as they should be`);
process.exit(broken === 0 ? 0 : 1);
