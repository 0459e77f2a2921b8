// The client under test: the proxy in client mode, driven over stdio. The suite starts it once a scenario.
//   node client.mjs --proxy BIN [--runtime R] URL
// It takes the scenario from the environment, as the suite hands it over. Status 0 only if the client side went well:
// every request was answered as expected, nothing but JSON-RPC came out, and the proxy ended by itself with status 0
// once its stdin was closed.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';

const EXIT_SECONDS = 5;

const { values, positionals } = parseArgs({
  options: { proxy: { type: 'string' }, runtime: { type: 'string', default: 'smol' } },
  allowPositionals: true
});
const scenario = process.env.MCP_CONFORMANCE_SCENARIO;
const revision = process.env.MCP_CONFORMANCE_PROTOCOL_VERSION ?? '2025-11-25';
const context = JSON.parse(process.env.MCP_CONFORMANCE_CONTEXT ?? '{}');
const url = positionals[0];

class Client {
  #answers = {};
  #waiting = new Map();
  #lastId = 0;

  // `answers` has what the server may ask: method -> function from params to result.
  constructor(flags, answers = {}) {
    this.#answers = answers;
    this.proxy = spawn(values.proxy, ['--runtime', values.runtime, ...flags, url], {
      stdio: ['pipe', 'pipe', 'inherit']
    });
    this.ended = new Promise(resolve => this.proxy.once('exit', (code, signal) => resolve(signal ?? code)));
    createInterface({ input: this.proxy.stdout }).on('line', line => this.#take(JSON.parse(line)));
  }

  #take(message) {
    assert.equal(message.jsonrpc, '2.0');
    if (message.method !== undefined) {
      if (message.id === undefined) return;
      const answer = this.#answers[message.method];
      const error = { code: -32601, message: `not offered: ${message.method}` };
      this.#write({ id: message.id, ...(answer ? { result: answer(message.params) } : { error }) });
      return;
    }
    const waiting = this.#waiting.get(message.id);
    assert(waiting, `an answer to nothing: ${JSON.stringify(message)}`);
    this.#waiting.delete(message.id);
    if (message.error) waiting.reject(new Error(JSON.stringify(message.error)));
    else waiting.resolve(message.result);
  }

  #write(message) {
    this.proxy.stdin.write(`${JSON.stringify({ jsonrpc: '2.0', ...message })}\n`);
  }

  request(method, params) {
    const id = ++this.#lastId;
    const answer = new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
    this.#write({ id, method, params });
    return answer;
  }

  async connect(capabilities = {}) {
    const clientInfo = { name: 'conformance-over-stdio', version: '1.0.0' };
    const hello = await this.request('initialize', { protocolVersion: revision, capabilities, clientInfo });
    this.#write({ method: 'notifications/initialized' });
    return hello;
  }

  tools() {
    return this.request('tools/list', {});
  }

  call(name, args) {
    return this.request('tools/call', { name, arguments: args });
  }

  async close() {
    this.proxy.stdin.end();
    const late = new Promise(resolve => setTimeout(resolve, EXIT_SECONDS * 1000, `nothing within ${EXIT_SECONDS} s`));
    const end = await Promise.race([this.ended, late]);
    assert.equal(end, 0, `the proxy ended with ${end}`);
  }
}

const SCENARIOS = {
  async initialize() {
    const client = new Client([]);
    const hello = await client.connect();
    assert.equal(hello.protocolVersion, revision);
    assert.equal(hello.serverInfo.name, 'test-server');
    assert.deepEqual(await client.tools(), { tools: [] });
    return client;
  },

  async tools_call() {
    const client = new Client([]);
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
    const client = new Client([], { 'elicitation/create': defaults });
    await client.connect({ elicitation: { form: {} } });
    const { content } = await client.call('test_client_elicitation_defaults', {});
    const [, accepted] = content[0].text.match(/^Elicitation completed: (.*)$/);
    const want = { name: 'John Doe', age: 30, score: 95.5, status: 'active', verified: true };
    assert.deepEqual(JSON.parse(accepted), want);
    return client;
  },

  async 'sse-retry'() {
    const client = new Client([]);
    await client.connect();
    await client.tools();
    const { content } = await client.call('test_reconnection', {});
    assert.equal(content[0].text, 'Reconnection test completed successfully');
    return client;
  },

  async 'json-schema-2020-12-preservation'() {
    const client = new Client([]);
    await client.connect();
    const { tools } = await client.tools();
    const { inputSchema } = tools.find(tool => tool.name === 'json_schema_2020_12_tool');
    await client.call('json_schema_echo', { schema: inputSchema });
    return client;
  },

  async 'auth/client-credentials-basic'() {
    // The proxy is told where tokens are; the other clients of the suite find out themselves.
    const resource = await json(new URL('/.well-known/oauth-protected-resource/mcp', url));
    const issuer = resource.authorization_servers[0];
    const { token_endpoint } = await json(new URL('/.well-known/oauth-authorization-server', issuer));
    const { client_id, client_secret } = context;
    const flags = ['--client-id', client_id, '--client-secret', client_secret, '--token-url', token_endpoint];
    const client = new Client(flags);
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
