// Checks with the official TypeScript SDK client. client.py holds the same checks; run.py starts both.
//
// Usage: client.mjs NAME LIST FRONT TARGET WORKDIR ONLY
//
// LIST picks the checks; NAME goes before theirs. FRONT is the client's transport: `http` and `sse` go to the URL TARGET,
// `stdio` starts the command TARGET, a JSON array.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { SSEClientTransport } from "@modelcontextprotocol/sdk/client/sse.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import {
  CreateMessageRequestSchema,
  ElicitRequestSchema,
  ListRootsRequestSchema,
} from "@modelcontextprotocol/sdk/types.js";

const [prefix, list, front, target, workdir, only] = process.argv.slice(2);
const CHECK_SECONDS = 30;
const DOCS = join(import.meta.dirname, "node_modules/@modelcontextprotocol/server-everything/dist/docs");
const doc = (name) => readFileSync(join(DOCS, name), "utf8");
const equal = assert.deepEqual;

/** A connected session, with what it posted and what it was told. */
class Link {
  posted = []; // JSON-RPC messages on their way to the proxy
  answered = []; // [HTTP method, status] of every answer
  endpoint; // where messages were posted
  seen = []; // every JSON-RPC message from the proxy
  #waiting = [];

  constructor(answers) {
    const capabilities = {};
    if (answers.sample) capabilities.sampling = {};
    if (answers.elicit) capabilities.elicitation = { form: {}, url: {} };
    if (answers.roots) capabilities.roots = { listChanged: true };
    this.client = new Client({ name: "matrix", version: "1" }, { capabilities });
    if (answers.sample) this.client.setRequestHandler(CreateMessageRequestSchema, ({ params }) => answers.sample(params));
    if (answers.elicit) this.client.setRequestHandler(ElicitRequestSchema, ({ params }) => answers.elicit(params));
    if (answers.roots) this.client.setRequestHandler(ListRootsRequestSchema, () => ({ roots: answers.roots }));
    this.transport = this.#transport();
    const send = this.transport.send.bind(this.transport);
    this.transport.send = (message, options) => {
      this.posted.push(message);
      this.#tell();
      return send(message, options);
    };
    // The client keeps a handler that is already there, and calls it before its own.
    this.transport.onmessage = (message) => {
      this.seen.push(message);
      this.#tell();
    };
  }

  #transport() {
    const options = { fetch: (...args) => this.#fetch(...args) };
    if (front === "http") return new StreamableHTTPClientTransport(new URL(target), options);
    if (front === "sse") return new SSEClientTransport(new URL(target), options);
    // The SDK keeps the exit status to itself, and kills what does not end by itself: then there is none.
    this.status = join(workdir, randomUUID());
    const args = ["-c", '"$@"; echo $? >"$0"', this.status, ...JSON.parse(target)];
    return new StdioClientTransport({ command: "sh", args, env: process.env });
  }

  /** Ends the session the way its transport has it. */
  async close() {
    await this.transport.terminateSession?.();
    await this.client.close();
    if (this.status) equal(existsSync(this.status) ? readFileSync(this.status, "utf8") : "none in time", "0\n");
  }

  async #fetch(target, init = {}) {
    const method = init.method ?? "GET";
    if (method === "POST") this.endpoint = target;
    const response = await fetch(target, init);
    this.answered.push([method, response.status]);
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

  /** Wait for the stream that carries what belongs to no request: before it is open, that may be lost. */
  async listening() {
    if (front !== "http") return;
    await this.until(() => this.answered.some(([method, status]) => method === "GET" && status === 200));
  }

  calls() {
    return this.posted.filter((m) => m.method === "tools/call").map((m) => m.id);
  }

  requestIds() {
    return this.posted.filter((m) => m.method && m.id !== undefined).map((m) => m.id);
  }

  progress() {
    return this.seen
      .filter((m) => m.method === "notifications/progress")
      .map(({ params }) => [params.progressToken, params.progress, params.total]);
  }

  logs(prefix) {
    return this.seen
      .filter((m) => m.method === "notifications/message" && m.params.data.startsWith(prefix))
      .map(({ params }) => [params.level, params.data]);
  }

  call(name, args = {}, { _meta, ...options } = {}) {
    return this.client.callTool({ name, arguments: args, _meta }, undefined, options);
  }

  /** Call a tool that answers without error, and return its first text. */
  async text(name, args, options) {
    const result = await this.call(name, args, options);
    equal(result.isError ?? false, false);
    return result.content[0].text;
  }
}

// Sessions of the running check, ended by the main loop whatever happens.
const links = [];

async function hangUp() {
  for (const link of links.splice(0)) await link.close();
}

async function connect(answers = {}) {
  const link = new Link(answers);
  links.push(link);
  await link.client.connect(link.transport);
  return link;
}

/** The JSON-RPC error that the request is answered with. */
async function rpcError(promise) {
  const result = await promise.catch((error) => error);
  assert(result instanceof Error, `expected an error, got ${JSON.stringify(result)}`);
  return result;
}

const sampled = (text) => ({
  role: "assistant",
  model: "test-model",
  stopReason: "endTurn",
  content: { type: "text", text },
});

/** What server-everything makes of the answer to its sampling request. */
function sampledText(text) {
  const heading = "LLM sampling result: \n";
  equal(text.slice(0, heading.length), heading);
  return JSON.parse(text.slice(heading.length));
}

const longDone = (duration, steps) =>
  `Long running operation completed. Duration: ${duration} seconds, Steps: ${steps}.`;
const ticks = (steps) => Array.from({ length: steps }, (_, i) => [i + 1, steps]);
/**
 * What the SDK told the caller of the progress. It defers notifications but not answers, so the last step is lost on it if
 * both come in one piece; that they came is for the checks of Link.progress() to say.
 */
const reported = (seen, steps) => equal(seen, ticks(steps).slice(0, Math.max(seen.length, steps - 1)));
const range = (n) => Array.from({ length: n }, (_, i) => i);

/** Start a call, and cancel it as a user would once it has made some progress. Returns its number. */
async function cancelAfterFirstProgress(link, operation) {
  const abort = new AbortController();
  const call = link.call("trigger-long-running-operation", operation, {
    signal: abort.signal,
    onprogress: () => abort.abort("changed my mind"),
  });
  await assert.rejects(call, /changed my mind/);
  const { requestId } = link.posted.find((m) => m.method === "notifications/cancelled").params;
  equal(link.calls().at(-1), requestId);
  return requestId;
}

const everything = {
  async initialize() {
    const { client, seen } = await connect();
    equal(seen[0].result.protocolVersion, "2025-11-25");
    const { name, version } = client.getServerVersion();
    equal([name, version], ["mcp-servers/everything", "2.0.0"]);
    equal(client.getInstructions(), doc("instructions.md"));
    equal(client.getServerCapabilities(), {
      tools: { listChanged: true },
      prompts: { listChanged: true },
      resources: { subscribe: true, listChanged: true },
      logging: {},
      completions: {},
      tasks: { list: {}, cancel: {}, requests: { tools: { call: {} } } },
    });
  },

  async tools() {
    // The server offers the last five only to a client that can sample, be asked and list roots.
    const { client } = await connect({ sample: () => sampled(""), elicit: () => ({ action: "cancel" }), roots: [] });
    equal(
      (await client.listTools()).tools.map((tool) => tool.name),
      [
        "echo",
        "get-annotated-message",
        "get-env",
        "get-resource-links",
        "get-resource-reference",
        "get-structured-content",
        "get-sum",
        "get-tiny-image",
        "gzip-file-as-resource",
        "toggle-simulated-logging",
        "toggle-subscriber-updates",
        "trigger-long-running-operation",
        "get-roots-list",
        "trigger-elicitation-request",
        "trigger-url-elicitation",
        "trigger-sampling-request",
        "simulate-research-query",
      ],
    );
  },

  async prompts() {
    const { client } = await connect();
    equal(
      (await client.listPrompts()).prompts.map((prompt) => prompt.name),
      ["simple-prompt", "args-prompt", "completable-prompt", "resource-prompt"],
    );
    const prompt = await client.getPrompt({ name: "args-prompt", arguments: { city: "Zürich", state: "ZH" } });
    const text = "What's weather in Zürich, ZH?";
    equal(prompt.messages, [{ role: "user", content: { type: "text", text } }]);
  },

  async resources() {
    const { client } = await connect();
    const uris = (await client.listResources()).resources.map((resource) => resource.uri).sort();
    equal(uris, readdirSync(DOCS).sort().map((name) => `demo://resource/static/document/${name}`));
    const uri = "demo://resource/static/document/structure.md";
    const { contents } = await client.readResource({ uri });
    equal(contents, [{ uri, mimeType: "text/markdown", text: doc("structure.md") }]);
  },

  async templates() {
    const { client } = await connect();
    const base = "demo://resource/dynamic";
    equal(
      (await client.listResourceTemplates()).resourceTemplates.map((template) => template.uriTemplate),
      [`${base}/text/{resourceId}`, `${base}/blob/{resourceId}`],
    );
    const text = (await client.readResource({ uri: `${base}/text/7` })).contents[0].text;
    equal(text.split(" created at ")[0], "Resource 7: This is a plaintext resource");
    const blob = (await client.readResource({ uri: `${base}/blob/8` })).contents[0].blob;
    equal(atob(blob).split(" created at ")[0], "Resource 8: This is a base64 blob");
  },

  async "call-tool"() {
    const link = await connect();
    equal(await link.text("get-sum", { a: 2, b: 40 }), "The sum of 2 and 40 is 42.");
    const odd = 'quote " backslash \\ newline \n tab \t nul \0 emoji 🦀 line separator \u2028';
    equal(await link.text("echo", { message: odd }), `Echo: ${odd}`);
    const weather = (await link.call("get-structured-content", { location: "New York" })).structuredContent;
    equal(weather, { temperature: 33, conditions: "Cloudy", humidity: 82 });
    const image = (await link.call("get-tiny-image")).content[1];
    equal([image.mimeType, atob(image.data).slice(0, 8)], ["image/png", "\x89PNG\r\n\x1a\n"]);
  },

  async progress() {
    const link = await connect();
    const steps = [];
    const operation = { duration: 0.5, steps: 5 };
    const onprogress = ({ progress, total }) => steps.push([progress, total]);
    equal(await link.text("trigger-long-running-operation", operation, { onprogress }), longDone(0.5, 5));
    reported(steps, 5);
    // The SDK's own token is the number of the request; a token may also be a string.
    equal(link.progress(), ticks(5).map((tick) => [link.calls()[0], ...tick]));
    link.seen.length = 0;
    const _meta = { progressToken: "7" };
    equal(await link.text("trigger-long-running-operation", operation, { _meta }), longDone(0.5, 5));
    equal(link.progress(), ticks(5).map((tick) => ["7", ...tick]));
  },

  async sampling() {
    const asked = [];
    const link = await connect({ sample: (params) => (asked.push(params), sampled("forty-two")) });
    const text = await link.text("trigger-sampling-request", { prompt: "hello", maxTokens: 77 });
    const question = "Resource trigger-sampling-request context: hello";
    equal(asked, [
      {
        messages: [{ role: "user", content: { type: "text", text: question } }],
        systemPrompt: "You are a helpful test server.",
        maxTokens: 77,
        temperature: 0.7,
      },
    ]);
    equal(sampledText(text), sampled("forty-two"));
  },

  async elicitation() {
    const asked = [];
    const content = { name: "Ada", check: true, integer: 17 };
    const accepting = await connect({ elicit: (params) => (asked.push(params), { action: "accept", content }) });
    const result = await accepting.call("trigger-elicitation-request");
    equal(asked.length, 1);
    equal(asked[0].message, "Please provide inputs for the following fields:");
    equal(asked[0].requestedSchema.required, ["name"]);
    equal(Object.keys(asked[0].requestedSchema.properties).length, 13);
    const inputs = "User inputs:\n- Name: Ada\n- Agreed to terms: true\n- Favorite Integer: 17";
    equal(result.content[1].text, inputs);
    const declining = await connect({ elicit: () => ({ action: "decline" }) });
    const declined = "❌ User declined to provide the requested information.";
    equal(await declining.text("trigger-elicitation-request"), declined);
  },

  async roots() {
    const listing = (text) => text.split("\n\nNote:")[0];
    const roots = [{ name: "home", uri: "file:///home/ada" }];
    const link = await connect({ roots });
    await link.listening();
    const first = "Current MCP Roots (1 total):\n\n1. home\n   URI: file:///home/ada";
    equal(listing(await link.text("get-roots-list")), first);
    roots.push({ name: "work", uri: "file:///work" });
    await link.client.sendRootsListChanged();
    await link.until(() => link.logs("Roots updated: 2 root(s) received from client").length > 0);
    const second = first.replace("(1 total)", "(2 total)") + "\n\n2. work\n   URI: file:///work";
    equal(listing(await link.text("get-roots-list")), second);
  },

  async logging() {
    const uri = "demo://resource/dynamic/text/1";
    // The server logs each (un)subscribe request at level info, with this text and perhaps the session.
    const line = ["info", `Received Subscribe Resource request for URI: ${uri} `];
    const link = await connect();
    const lines = () => link.logs("Received").map(([level, text]) => [level, text.split("from session")[0]]);
    await link.listening();
    await link.client.setLoggingLevel("debug");
    await link.client.subscribeResource({ uri });
    await link.until(() => lines().length > 0);
    await link.client.setLoggingLevel("error");
    await link.client.unsubscribeResource({ uri });
    await link.client.setLoggingLevel("info");
    await link.client.subscribeResource({ uri });
    await link.until(() => lines().length > 1);
    equal(lines(), [line, line]);
  },

  async subscribe() {
    const uri = "demo://resource/dynamic/text/3";
    const link = await connect();
    const updates = () => link.seen.filter((m) => m.method === "notifications/resources/updated");
    await link.listening();
    await link.client.subscribeResource({ uri });
    await link.text("toggle-subscriber-updates");
    await link.until(() => updates().length > 0);
    equal(updates().map((m) => m.params), [{ uri }]);
  },

  async completion() {
    const { client } = await connect();
    const prompt = { type: "ref/prompt", name: "completable-prompt" };
    const template = { type: "ref/resource", uri: "demo://resource/dynamic/text/{resourceId}" };
    const complete = async (ref, name, value, context) =>
      (await client.complete({ ref, argument: { name, value }, context })).completion.values;
    equal(await complete(prompt, "department", "S"), ["Sales", "Support"]);
    equal(await complete(prompt, "name", "", { arguments: { department: "Sales" } }), ["David", "Eve", "Frank"]);
    equal(await complete(template, "resourceId", "7"), ["7"]);
  },

  async cancellation() {
    const link = await connect();
    const operation = { duration: 1.5, steps: 3 };
    const id = await cancelAfterFirstProgress(link, operation);
    // Begun later and as long: when this is answered, the cancelled call would have been too.
    equal(await link.text("trigger-long-running-operation", operation), longDone(1.5, 3));
    equal(link.seen.filter((m) => m.id === id && m.result), []);
    equal(await link.text("echo", { message: "alive" }), "Echo: alive");
  },

  async ping() {
    const { client } = await connect();
    equal(await client.ping(), {});
  },

  async "fifty-calls-at-once"() {
    const link = await connect();
    const begin = performance.now();
    // The later it starts the sooner it ends, so answers come in another order than calls.
    const seconds = range(50).map((i) => (150 - i) / 100);
    const call = (duration) => link.text("trigger-long-running-operation", { duration, steps: 1 });
    equal(await Promise.all(seconds.map(call)), seconds.map((duration) => longDone(duration, 1)));
    // One after the other they take over a minute.
    assert(performance.now() - begin < 10_000, "the calls did not run at once");
  },

  async errors() {
    const link = await connect();
    // This server reports a bad call in the result ...
    const unknown = await link.call("no-such-tool");
    equal([unknown.isError, unknown.content[0].text], [true, "MCP error -32602: Tool no-such-tool not found"]);
    const invalid = await link.call("get-sum", { a: "two", b: 1 });
    equal(invalid.isError, true);
    const head = "MCP error -32602: Input validation error: Invalid arguments for tool get-sum: ";
    equal(invalid.content[0].text.slice(0, head.length), head);
    // ... and a bad prompt or resource as a JSON-RPC error. The SDK puts the code before the message once more.
    const twice = "MCP error -32602: MCP error -32602:";
    const prompt = await rpcError(link.client.getPrompt({ name: "no-such-prompt" }));
    equal([prompt.code, prompt.message], [-32602, `${twice} Prompt no-such-prompt not found`]);
    const resource = await rpcError(link.client.readResource({ uri: "demo://nowhere" }));
    equal([resource.code, resource.message], [-32602, `${twice} Resource demo://nowhere not found`]);
  },

  async "error-data"() {
    const link = await connect({ elicit: () => ({ action: "cancel" }) });
    const args = { url: "https://example.com/login", errorPath: true };
    const error = await rpcError(link.call("trigger-url-elicitation", args));
    equal(error.code, -32042);
    equal(error.data.elicitations.length, 1);
    const { elicitationId, ...item } = error.data.elicitations[0];
    equal(elicitationId.length, 36);
    equal(item, {
      mode: "url",
      url: "https://modelcontextprotocol.io",
      message: "Open this link to satisfy the prerequisite, then retry the request.",
    });
  },

  async "two-sessions"() {
    const use = async (link, name, steps) => {
      const seen = [];
      const onprogress = ({ progress, total }) => seen.push([progress, total]);
      const slow = (options) => link.text("trigger-long-running-operation", { duration: 1, steps }, options);
      const answers = await Promise.all([
        slow({ onprogress }),
        slow({ _meta: { progressToken: "same" } }),
        ...range(20).map((i) => link.text("echo", { message: `${name} ${i}` })),
      ]);
      equal(answers, [longDone(1, steps), longDone(1, steps), ...range(20).map((i) => `Echo: ${name} ${i}`)]);
      reported(seen, steps);
      const tagged = link.progress().filter(([token]) => token === "same");
      equal(tagged, ticks(steps).map((tick) => ["same", ...tick]));
      equal(link.progress().length, 2 * steps);
      const answered = link.seen.filter((m) => m.result).map((m) => m.id);
      equal(answered.sort((x, y) => x - y), link.requestIds());
    };
    const [a, b] = [await connect(), await connect()];
    await Promise.all([use(a, "a", 5), use(b, "b", 4)]);
    // Same numbers and same progress tokens on both sides, or the check would prove nothing.
    equal(a.requestIds(), b.requestIds());
  },

  async "cancel-is-private"() {
    const [a, b] = [await connect(), await connect()];
    const undisturbed = async () => {
      // Begun second: a mixed-up cancellation hits the newer of two calls with one number.
      await a.until(() => a.calls().length > 0);
      return b.text("trigger-long-running-operation", { duration: 2, steps: 2 });
    };
    const [cancelled, answer] = await Promise.all([
      cancelAfterFirstProgress(a, { duration: 1.5, steps: 3 }),
      undisturbed(),
    ]);
    equal(answer, longDone(2, 2));
    // The cancelled call and the other had the same number, or the check would prove nothing.
    equal(b.calls(), [cancelled]);
  },

  async "questions-are-private"() {
    const asked = {};
    let bothAsked;
    const both = new Promise((resolve) => (bothAsked = resolve));
    const answerer = (name) => ({
      async sample(params) {
        asked[name] = params.messages[0].content.text;
        if (Object.keys(asked).length === 2) bothAsked();
        await both;
        return sampled(`${name} answers`);
      },
    });
    const use = async (link, name) => {
      const text = await link.text("trigger-sampling-request", { prompt: `${name} asks`, maxTokens: 5 });
      equal(sampledText(text), sampled(`${name} answers`));
    };
    const [a, b] = [await connect(answerer("a")), await connect(answerer("b"))];
    await Promise.all([use(a, "a"), use(b, "b")]);
    const question = (name) => `Resource trigger-sampling-request context: ${name} asks`;
    equal(asked, { a: question("a"), b: question("b") });
  },

  async environment() {
    const link = await connect();
    const env = JSON.parse(await link.text("get-env"));
    equal(env.CLIENT_MATRIX_MARK, process.env.CLIENT_MATRIX_MARK);
  },

  async terminate() {
    const [other, link] = [await connect(), await connect()];
    const { sessionId } = link.transport;
    links.splice(links.indexOf(link), 1);
    // On stdio it checks that the proxy ends with status 0, too.
    await link.close();
    if (front === "http") {
      const [, status] = link.answered.find(([method]) => method === "DELETE");
      assert([200, 202, 204].includes(status), `DELETE was answered with ${status}`);
    }
    if (front !== "stdio") {
      const headers = { "Content-Type": "application/json", Accept: "application/json, text/event-stream" };
      if (sessionId) headers["Mcp-Session-Id"] = sessionId;
      const body = JSON.stringify({ jsonrpc: "2.0", id: 1, method: "ping" });
      const ping = async () => (await fetch(link.endpoint, { method: "POST", headers, body })).status;
      let status = await ping();
      // Nothing tells when the proxy has seen the end of the event stream.
      while (front === "sse" && status === 202) {
        await new Promise((resolve) => setTimeout(resolve, 10));
        status = await ping();
      }
      equal(status, 404);
    }
    equal(await other.text("echo", { message: "still here" }), "Echo: still here");
  },
};

// What needs the server to know its client, or to ask it, is left to the private server.
const shared = [
  "initialize",
  "call-tool",
  "progress",
  "cancellation",
  "ping",
  "fifty-calls-at-once",
  "errors",
  "two-sessions",
  "cancel-is-private",
  "terminate",
];

// Each kind of message once, in both directions: for the pairs of transports that share their halves with a full run.
const short = [
  "initialize",
  "call-tool",
  "progress",
  "sampling",
  "roots",
  "logging",
  "cancellation",
  "error-data",
  "terminate",
];

const pick = (names) => Object.fromEntries(names.map((name) => [name, everything[name]]));

const filesystem = {
  async "big-result"() {
    const path = join(workdir, front === "stdio" ? "big-for-node-on-stdio.txt" : "big.txt");
    const want = readFileSync(path, "utf8");
    const link = await connect();
    const got = await link.text("read_text_file", { path });
    // Not equal(): nobody wants to read megabytes of difference.
    equal([got.length, got === want], [want.length, true]);
  },

  async "one-megabyte-argument"() {
    const path = join(workdir, "from-node.txt");
    const content = range(100_000).map((n) => `${String(n).padStart(6, "0")} ä\n`).join("");
    const link = await connect();
    equal(await link.text("write_file", { path, content }), `Successfully wrote to ${path}`);
    equal(readFileSync(path, "utf8") === content, true);
  },

  async "access-denied"() {
    const link = await connect();
    const result = await link.call("read_text_file", { path: "/etc/passwd" });
    const head = "Access denied - path outside allowed directories: /etc/passwd";
    equal([result.isError, result.content[0].text.slice(0, head.length)], [true, head]);
  },
};

const time = {
  async "time-tools"() {
    const { client } = await connect();
    const { name, version } = client.getServerVersion();
    equal([name, version], ["mcp-time", "2026.10.10"]);
    equal((await client.listTools()).tools.map((tool) => tool.name), ["get_current_time", "convert_time"]);
  },

  async "convert-time"() {
    const link = await connect();
    const args = { source_timezone: "Asia/Tokyo", time: "12:30", target_timezone: "Asia/Kathmandu" };
    const result = JSON.parse(await link.text("convert_time", args));
    equal([result.time_difference, result.target.datetime.slice(10)], ["-3.25h", "T09:15:00+05:45"]);
  },

  async "bad-timezone"() {
    const link = await connect();
    const result = await link.call("get_current_time", { timezone: "Mars/Olympus" });
    const reason = "Invalid timezone: 'No time zone found with key Mars/Olympus'";
    const text = `Error processing mcp-server-time query: ${reason}`;
    equal([result.isError, result.content[0].text], [true, text]);
  },
};

const CHECKS = {
  everything,
  "everything-shared": pick(shared),
  "everything-short": pick(short),
  filesystem,
  time,
  "time-per-request": time,
}[list];

function deadline(promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no result after ${CHECK_SECONDS} s`)), CHECK_SECONDS * 1000);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

let failed = false;
for (const [name, run] of Object.entries(CHECKS)) {
  const full = `node/${prefix}/${name}`;
  if (!full.includes(only)) continue;
  const wrong = await deadline(run()).catch((error) => error);
  const stuck = await deadline(hangUp()).catch((error) => error);
  const error = wrong ?? stuck;
  failed ||= error !== undefined;
  console.log(error ? `FAIL ${full} ${String(error).replace(/\s+/g, " ").slice(0, 600)}` : `ok ${full}`);
}
// Not left to run out: an unfinished check may keep node alive.
process.exit(failed ? 1 : 0);
