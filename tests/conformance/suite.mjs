// Starts the conformance suites and reads what they found.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

const modules = path.join(import.meta.dirname, 'node_modules');
// The suites need Node 22 or newer, whatever runs this file.
const node = path.join(modules, 'node', 'bin', 'node');

// Runs `conformance ARGS` of a suite (a package name). `checks` are its verdicts, each with its scenario.
export function runSuite(suite, args) {
  const results = mkdtempSync(path.join(tmpdir(), 'conformance-'));
  try {
    const cli = path.join(modules, suite, 'dist', 'index.js');
    const { status, stdout, stderr, error } = spawnSync(node, [cli, ...args, '-o', results], {
      encoding: 'utf8',
      maxBuffer: 1 << 28
    });
    if (error) throw error;
    return { status, stdout, stderr, checks: readChecks(results) };
  } finally {
    rmSync(results, { recursive: true });
  }
}

function readChecks(results) {
  const files = readdirSync(results, { recursive: true }).filter(file => path.basename(file) === 'checks.json');
  return files.sort().flatMap(file => {
    const [, scenario] = path.dirname(file).match(/^(?:server-)?(.+)-\d{4}-\d\d-\d\dT/);
    return JSON.parse(readFileSync(path.join(results, file), 'utf8')).map(check => ({ scenario, ...check }));
  });
}

// The checks that failed or warned, a line each. `expected` has reasons, by `scenario:check`.
export function unhappy(checks, expected = {}) {
  return checks
    .filter(({ status }) => status === 'FAILURE' || status === 'WARNING')
    .map(({ scenario, id, status, errorMessage }) => {
      const reason = expected[`${scenario}:${id}`];
      const said = errorMessage ?? 'no message';
      return `${reason ? 'expected ' : ''}${status} ${scenario} / ${id}: ${said}${reason ? ` (${reason})` : ''}`;
    });
}
