// One face for both lines of the official TypeScript SDK, for eras_client.mjs: 1.x speaks the revisions that begin with
// `initialize`, 2.x asks the server (`server/discover`) and then speaks 2026-07-28. sdk.py is the same for Python.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

const MODERN = "2026-07-28";
const LEVEL_KEY = "io.modelcontextprotocol/logLevel";

async function sdk(era) {
  if (era === "modern") {
    const { Client, StreamableHTTPClientTransport } = await import("@modelcontextprotocol/client");
    const { StdioClientTransport } = await import("@modelcontextprotocol/client/stdio");
    return { Client, StreamableHTTPClientTransport, StdioClientTransport };
  }
  const { Client } = await import("@modelcontextprotocol/sdk/client/index.js");
  const { SSEClientTransport } = await import("@modelcontextprotocol/sdk/client/sse.js");
  const { StdioClientTransport } = await import("@modelcontextprotocol/sdk/client/stdio.js");
  const { StreamableHTTPClientTransport } = await import("@modelcontextprotocol/sdk/client/streamableHttp.js");
  const types = await import("@modelcontextprotocol/sdk/types.js");
  return { Client, SSEClientTransport, StdioClientTransport, StreamableHTTPClientTransport, types };
}

/** A connection to the server, with the messages on the wire. */
class Link {
  posted = []; // what went out
  seen = []; // what came in
  listening = false; // the stream is open that carries what belongs to no request: before, that may be lost
  #waiting = [];

  constructor(at, { Client, types, ...transports }, { name = "matrix", model, user, roots }) {
    Object.assign(this, at);
    const capabilities = {};
    if (model) capabilities.sampling = {};
    if (user) capabilities.elicitation = { form: {} };
    if (roots) capabilities.roots = {};
    const legacy = this.era === "legacy";
    const options = legacy ? { capabilities } : { capabilities, versionNegotiation: { mode: "auto" } };
    this.client = new Client({ name, version: "1" }, options);
    const handle = (method, schema, answer) =>
      this.client.setRequestHandler(legacy ? types[schema] : method, ({ params }) => answer(params));
    if (model) {
      handle("sampling/createMessage", "CreateMessageRequestSchema", async (params) => ({
        role: "assistant",
        model: "test-model",
        content: { type: "text", text: await model(params) },
      }));
    }
    if (user) handle("elicitation/create", "ElicitRequestSchema", user);
    if (roots) handle("roots/list", "ListRootsRequestSchema", () => ({ roots: roots.map((uri) => ({ uri })) }));
    this.types = types;
    this.transport = this.#transport(transports);
    this.listening = this.front !== "http" || !legacy;
    this.#tap();
  }

  #transport({ SSEClientTransport, StdioClientTransport, StreamableHTTPClientTransport }) {
    const options = { fetch: (...args) => this.#fetch(...args) };
    if (this.front === "http") return new StreamableHTTPClientTransport(new URL(this.target), options);
    if (this.front === "sse") return new SSEClientTransport(new URL(this.target));
    // The SDK keeps the exit status to itself, and kills what does not end by itself: then there is none.
    this.status = join(this.workdir, randomUUID());
    const args = ["-c", '"$@"; echo $? >"$0"', this.status, ...JSON.parse(this.target)];
    return new StdioClientTransport({ command: "sh", args, env: process.env });
  }

  #tap() {
    const send = this.transport.send.bind(this.transport);
    this.transport.send = (message, options) => {
      this.posted.push(message);
      this.#tell();
      return send(message, options);
    };
    // The client sets this when it connects. 2.x does so more than once, and calls what was there before.
    let take;
    Object.defineProperty(this.transport, "onmessage", {
      get: () => take,
      set: (handler) => {
        take = (message, extra) => {
          if (this.seen.at(-1) !== message) this.seen.push(message);
          this.#tell();
          return handler?.(message, extra);
        };
      },
    });
  }

  async #fetch(target, init = {}) {
    const response = await fetch(target, init);
    if (init.method === "GET" || init.method === undefined) this.listening ||= response.status === 200;
    this.#tell();
    return response;
  }

  #tell() {
    this.#waiting.splice(0).forEach((wake) => wake());
  }

  /** Wait until something that came in or went out makes the condition true; the check has a deadline. */
  async until(condition) {
    while (!condition()) await new Promise((wake) => this.#waiting.push(wake));
  }

  async open() {
    await this.client.connect(this.transport);
    // 1.x keeps this to itself. 2.x may ask another process of the same command first.
    const hello = this.seen.find((message) => message.result?.protocolVersion);
    this.revision = hello?.result.protocolVersion ?? this.client.getNegotiatedProtocolVersion();
    this.server = this.client.getServerVersion();
    this.instructions = this.client.getInstructions();
    this.capabilities = this.client.getServerCapabilities();
    return this;
  }

  async close() {
    await this.transport.terminateSession?.();
    await this.client.close();
    if (!this.status || !process.env.CLIENT_MATRIX_EXIT) return;
    assert.equal(existsSync(this.status) ? readFileSync(this.status, "utf8") : "none in time", "0\n");
  }

  // What a check asks for, the same way in both.

  tools = () => this.client.listTools();
  prompts = () => this.client.listPrompts();
  prompt = (name, args = {}) => this.client.getPrompt({ name, arguments: args });
  resources = () => this.client.listResources();
  templates = () => this.client.listResourceTemplates();
  read = (uri) => this.client.readResource({ uri });

  complete(prompt, name, value) {
    return this.client.complete({ ref: { type: "ref/prompt", name: prompt }, argument: { name, value } });
  }

  async call(name, args = {}, { progress, meta, level, signal } = {}) {
    let _meta = meta;
    if (level && this.era === "legacy") await this.client.setLoggingLevel(level);
    else if (level) _meta = { ...meta, [LEVEL_KEY]: level };
    const options = { onprogress: progress && (({ progress: p, total, message }) => progress([p, total, message])), signal };
    const params = { name, arguments: args, _meta };
    return this.era === "legacy" ? this.client.callTool(params, undefined, options) : this.client.callTool(params, options);
  }

  /** Call a tool that answers without error, and return its first text. */
  async text(name, args, options) {
    const result = await this.call(name, args, options);
    assert.equal(result.isError ?? false, false, JSON.stringify(result));
    return result.content[0].text;
  }

  async unknown(method) {
    const anything = { "~standard": { version: 1, vendor: "none", validate: (value) => ({ value }) } };
    try {
      return await this.client.request({ method, params: {} }, this.types?.EmptyResultSchema ?? anything);
    } catch (error) {
      // Over HTTP the answer has status 404, and 2.x then leaves the error in it alone.
      if (error.data?.status === 404) throw Object.assign(error, JSON.parse(error.data.text).error);
      throw error;
    }
  }

  /** Start a call, and cancel it as a user would, once `when` is true of its request. */
  async cancelled(name, args, when) {
    const begun = this.posted.length;
    const mine = () => this.posted.slice(begun).find((message) => message.method === "tools/call");
    const abort = new AbortController();
    const call = this.call(name, args, { progress: () => {}, signal: abort.signal });
    const refused = assert.rejects(call, /changed my mind/);
    await this.until(() => mine() && when(mine()));
    abort.abort("changed my mind");
    await refused;
  }

  /** Changes arrive while this lasts; call the result to end it. */
  async watch({ tools, prompts, uris = [] }) {
    if (this.era === "legacy") {
      await this.until(() => this.listening);
      for (const uri of uris) await this.client.subscribeResource({ uri });
      return async () => {
        for (const uri of uris) await this.client.unsubscribeResource({ uri });
      };
    }
    const filter = {};
    if (tools) filter.toolsListChanged = true;
    if (prompts) filter.promptsListChanged = true;
    if (uris.length) filter.resourceSubscriptions = uris;
    const subscription = await this.client.listen(filter);
    assert.deepEqual(subscription.honoredFilter, filter);
    return () => subscription.close();
  }

  /** What was announced, in order: the kind of list, or a URI. */
  changes() {
    return this.seen
      .filter(({ method }) => /\/(list_changed|updated)$/.test(method ?? ""))
      .map(({ method, params }) => params?.uri ?? method.split("/")[1]);
  }
}

/** Makes links to one place. `answers` has what a client can be asked: `model`, `user`, `roots`. */
export async function links(at) {
  const parts = await sdk(at.era);
  return (answers = {}) => new Link(at, parts, answers);
}

export const REVISION = { legacy: "2025-11-25", modern: MODERN };
