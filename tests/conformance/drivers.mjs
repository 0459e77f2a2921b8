// Two clients that drive the client under test, with the same methods: `Legacy` speaks the revisions with `initialize`
// by hand, `Modern` is the official SDK at 2026-07-28. Both start the proxy over stdio and hold it to its manners: nothing
// but JSON-RPC on its stdout, and exit status 0 once its stdin is closed. `Modern` can also go to a URL by itself, which
// shows what a check says of the SDK alone.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';

const EXIT_SECONDS = 5;
const clientInfo = { name: 'conformance-over-stdio', version: '1.0.0' };

export class Legacy {
  #answers = {};
  #waiting = new Map();
  #lastId = 0;

  // `command` starts the proxy. `answers` has what the server may ask: method -> function from params to result.
  constructor(command, revision, answers = {}) {
    this.revision = revision;
    this.#answers = answers;
    this.proxy = spawn(command[0], command.slice(1), { stdio: ['pipe', 'pipe', 'inherit'] });
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

  #request(method, params) {
    const id = ++this.#lastId;
    const answer = new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
    this.#write({ id, method, params });
    return answer;
  }

  // Ends with the server's name and the revision it agreed to.
  async connect(capabilities = {}) {
    const hello = await this.#request('initialize', { protocolVersion: this.revision, capabilities, clientInfo });
    this.#write({ method: 'notifications/initialized' });
    return [hello.serverInfo?.name, hello.protocolVersion];
  }

  tools = () => this.#request('tools/list', {});
  call = (name, args = {}) => this.#request('tools/call', { name, arguments: args });
  resources = () => this.#request('resources/list', {});
  read = uri => this.#request('resources/read', { uri });
  prompts = () => this.#request('prompts/list', {});
  prompt = name => this.#request('prompts/get', { name });

  async close() {
    this.proxy.stdin.end();
    const late = new Promise(resolve => setTimeout(resolve, EXIT_SECONDS * 1000, `nothing within ${EXIT_SECONDS} s`));
    const end = await Promise.race([this.ended, late]);
    assert.equal(end, 0, `the proxy ended with ${end}`);
  }
}

export class Modern {
  #answers;

  // `target` is the command of the proxy, or a URL.
  constructor(target, revision, answers = {}) {
    this.#answers = answers;
    this.revision = revision;
    if (typeof target === 'string') {
      this.transport = new StreamableHTTPClientTransport(new URL(target));
      return;
    }
    // The SDK keeps the exit status to itself, and kills what does not end by itself: then there is none.
    this.status = path.join(tmpdir(), `conformance-${randomUUID()}`);
    const args = ['-c', '"$@"; echo $? >"$0"', this.status, ...target];
    this.transport = new StdioClientTransport({ command: 'sh', args, env: process.env });
  }

  async connect(capabilities = {}) {
    this.client = new Client(clientInfo, { capabilities, versionNegotiation: { mode: { pin: this.revision } } });
    for (const [method, answer] of Object.entries(this.#answers)) {
      this.client.setRequestHandler(method, ({ params }) => answer(params));
    }
    // What is no message on stdout is reported here and nowhere else.
    this.client.onerror = error => (this.wrong ??= error);
    await this.client.connect(this.transport);
    return [this.client.getServerVersion()?.name, this.client.getNegotiatedProtocolVersion()];
  }

  tools = () => this.client.listTools();
  call = (name, args = {}) => this.client.callTool({ name, arguments: args });
  resources = () => this.client.listResources();
  read = uri => this.client.readResource({ uri });
  prompts = () => this.client.listPrompts();
  prompt = name => this.client.getPrompt({ name });

  async close() {
    await this.client.close();
    if (this.wrong) throw this.wrong;
    if (!this.status) return;
    const end = existsSync(this.status) ? readFileSync(this.status, 'utf8').trim() : 'nothing in time';
    rmSync(this.status, { force: true });
    assert.equal(end, '0', `the proxy ended with ${end}`);
  }
}
