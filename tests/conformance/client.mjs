// The client under test: the proxy in client mode, driven over stdio. The suite starts it once a scenario.
//   node client.mjs --proxy BIN [--runtime R] [--era legacy|modern] URL
// It takes the scenario from the environment, as the suite hands it over; `--era` is that of the driver (drivers.mjs),
// legacy unless said otherwise. Without `--proxy` the modern driver goes to the URL itself. Status 0 only if the client
// side went well: every request was answered as expected, and the proxy kept its manners.
import assert from 'node:assert/strict';
import { parseArgs } from 'node:util';
import { Legacy, Modern } from './drivers.mjs';

const MODERN = '2026-07-28';
const NEWEST_LEGACY = '2025-11-25';

const { values, positionals } = parseArgs({
  options: {
    proxy: { type: 'string' },
    runtime: { type: 'string', default: 'smol' },
    era: { type: 'string', default: 'legacy' }
  },
  allowPositionals: true
});
const scenario = process.env.MCP_CONFORMANCE_SCENARIO;
const suiteRevision = process.env.MCP_CONFORMANCE_PROTOCOL_VERSION ?? NEWEST_LEGACY;
const context = JSON.parse(process.env.MCP_CONFORMANCE_CONTEXT ?? '{}');
const url = positionals[0];

function start(flags = [], answers = {}) {
  const command = values.proxy && [values.proxy, '--runtime', values.runtime, ...flags, url];
  if (values.era === 'modern') return new Modern(command ?? url, MODERN, answers);
  // A suite for a modern server has no revision that a legacy driver could speak.
  return new Legacy(command, suiteRevision === MODERN ? NEWEST_LEGACY : suiteRevision, answers);
}

const accept = content => () => ({ action: 'accept', content });

const SCENARIOS = {
  async initialize() {
    const client = start();
    assert.deepEqual(await client.connect(), ['test-server', suiteRevision]);
    assert.deepEqual(await client.tools(), { tools: [] });
    return client;
  },

  async tools_call() {
    const client = start();
    await client.connect();
    assert.equal((await client.tools()).tools[0].name, 'add_numbers');
    const { content } = await client.call('add_numbers', { a: 5, b: 3 });
    assert.equal(content[0].text, 'The sum of 5 and 3 is 8');
    return client;
  },

  async 'elicitation-sep1034-client-defaults'() {
    const defaults = ({ requestedSchema }) => ({
      action: 'accept',
      content: Object.fromEntries(Object.entries(requestedSchema.properties).map(([name, { default: d }]) => [name, d]))
    });
    const client = start([], { 'elicitation/create': defaults });
    await client.connect({ elicitation: { form: {} } });
    const { content } = await client.call('test_client_elicitation_defaults');
    const [, accepted] = content[0].text.match(/^Elicitation completed: (.*)$/);
    const want = { name: 'John Doe', age: 30, score: 95.5, status: 'active', verified: true };
    assert.deepEqual(JSON.parse(accepted), want);
    return client;
  },

  async 'sse-retry'() {
    const client = start();
    await client.connect();
    await client.tools();
    const { content } = await client.call('test_reconnection');
    assert.equal(content[0].text, 'Reconnection test completed successfully');
    return client;
  },

  async 'json-schema-2020-12-preservation'() {
    const client = start();
    await client.connect();
    const { tools } = await client.tools();
    const { inputSchema } = tools.find(tool => tool.name === 'json_schema_2020_12_tool');
    await client.call('json_schema_echo', { schema: inputSchema });
    return client;
  },

  async 'json-schema-ref-no-deref'() {
    const client = start();
    await client.connect();
    assert.equal((await client.tools()).tools[0].name, 'lookup_user');
    return client;
  },

  async 'request-metadata'() {
    const answers = {
      'sampling/createMessage': () => assert.fail('nobody asks for a completion here'),
      'elicitation/create': () => assert.fail('nobody asks the user here'),
      'roots/list': () => ({ roots: [] })
    };
    const client = start([], answers);
    await client.connect({ roots: {}, sampling: {}, elicitation: { form: {} } });
    assert.deepEqual((await client.tools()).tools, []);
    return client;
  },

  async 'http-standard-headers'() {
    const client = start();
    await client.connect();
    for (const { name } of (await client.tools()).tools) {
      assert.equal((await client.call(name)).content[0].text, 'Headers test completed');
    }
    for (const { uri } of (await client.resources()).resources) assert.deepEqual((await client.read(uri)).contents, []);
    for (const { name } of (await client.prompts()).prompts) assert.deepEqual((await client.prompt(name)).messages, []);
    return client;
  },

  async 'http-custom-headers'() {
    const client = start();
    await client.connect();
    await client.tools();
    for (const call of context.toolCalls) {
      const { content } = await client.call(call.name, call.arguments);
      assert.equal(content[0].text, 'Custom headers test completed');
    }
    return client;
  },

  async 'http-invalid-tool-headers'() {
    const client = start();
    await client.connect();
    const { tools } = await client.tools();
    assert.deepEqual(tools.map(tool => tool.name), ['valid_tool']);
    for (const { name } of tools) await client.call(name, { region: 'us-west1' });
    return client;
  },

  async 'sep-2322-client-request-state'() {
    const client = start([], { 'elicitation/create': accept({ confirmed: true }) });
    await client.connect({ elicitation: { form: {} } });
    await client.tools();
    const text = async name => (await client.call(name)).content[0].text;
    const answers = ['test_mrtr_echo_state', 'test_mrtr_no_state', 'test_mrtr_unrelated'].map(text);
    assert.deepEqual(await Promise.all(answers), ['echo-state-ok', 'no-state-ok', 'unrelated-ok']);
    // This SDK refuses a result without `resultType` from a modern server; the proxy may pass on what the server said.
    const last = await text('test_mrtr_no_result_type').catch(error => error.data?.violation ?? error);
    assert.equal(last, values.era === 'modern' && last === 'missing-resultType' ? last : 'no-result-type-test-ok');
    return client;
  },

  async 'auth/client-credentials-basic'() {
    // The proxy is told where tokens are; the other clients of the suite find out themselves.
    const resource = await json(new URL('/.well-known/oauth-protected-resource/mcp', url));
    const issuer = resource.authorization_servers[0];
    const { token_endpoint } = await json(new URL('/.well-known/oauth-authorization-server', issuer));
    const { client_id, client_secret } = context;
    const flags = ['--client-id', client_id, '--client-secret', client_secret, '--token-url', token_endpoint];
    const client = start(flags);
    await client.connect();
    await client.tools();
    return client;
  }
};

async function json(address) {
  return (await fetch(address)).json();
}

process.on('unhandledRejection', error => {
  console.error(error);
  process.exit(1);
});
const client = await SCENARIOS[scenario]();
await client.close();
