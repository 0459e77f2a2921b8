// Checks of every pair of eras with the official TypeScript SDKs. eras_client.py holds the same checks; eras.py starts both.
//
// Usage: eras_client.mjs ERA NAME LIST FRONT TARGET WORKDIR ONLY
//
// ERA is that of the client: `legacy` is the SDK 1.x, `modern` 2.x (see sdk.mjs). FRONT is its transport: `http` and `sse`
// go to the URL TARGET, `stdio` starts the command TARGET, a JSON array. The server is one of ../conformance/server.mjs and
// server.py, of any era: what it says must not depend on it, but where a check says so.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { REVISION, links } from "./sdk.mjs";

const [era, prefix, list, front, target, workdir, only] = process.argv.slice(2);
const CHECK_SECONDS = 30;
const legacy = era === "legacy";
const client = legacy ? "node1" : "node2";
const ODD = 'quote " backslash \\ newline \n tab \t nul \0 emoji 🦀 line separator \u2028';
const equal = assert.deepEqual;
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const range = (from, to, step = 1) => Array.from({ length: Math.ceil((to - from) / step) }, (_, i) => from + i * step);

// Links of the running check, ended by the main loop whatever happens.
const open = [];
const make = await links({ era, front, target, workdir });

async function connect(answers) {
  const link = make(answers);
  open.push(link);
  return link.open();
}

async function hangUp() {
  for (const link of open.splice(0)) await link.close();
}

/** The JSON-RPC error that the request is answered with. */
async function rpcError(promise) {
  const result = await promise.catch((error) => error);
  assert(result instanceof Error, `expected an error, got ${JSON.stringify(result)}`);
  return result;
}

const accepts = (content) => () => ({ action: "accept", content });
const declines = () => ({ action: "decline" });

/** A promise that somebody else settles. */
function gate() {
  let open;
  const passed = new Promise((resolve) => (open = resolve));
  return { open, passed };
}

/** Progress on the wire: the SDK loses a step that comes together with the answer. */
const steps = (link, from = 0) =>
  link.seen.slice(from).filter((m) => m.method === "notifications/progress").map(({ params }) => params);
const logs = (link) =>
  link.seen.filter((m) => m.method === "notifications/message").map(({ params }) => params.level);
const callIds = (link) => link.posted.filter((m) => m.method === "tools/call").map((m) => m.id).sort();

const full = {
  async connects() {
    const a = await connect();
    equal(a.revision, REVISION[era]);
    equal([a.server.name, a.server.version], ["conformance-server", "1.0.0"]);
    equal(a.instructions, "For tests only.");
    const changes = { listChanged: true };
    equal(a.capabilities, {
      tools: changes,
      prompts: changes,
      resources: { subscribe: true, ...changes },
      logging: {},
      completions: {},
    });
  },

  async tools() {
    const a = await connect();
    const found = Object.fromEntries((await a.tools()).tools.map((tool) => [tool.name, tool]));
    assert("echo" in found && "ask_twice" in found);
    equal(found.weather.outputSchema.required, ["city", "degrees"]);
    const dry = { type: "boolean", "x-mcp-header": "Dry" };
    equal(found.mirrored.inputSchema.properties.place.properties.dry, dry);
  },

  async call() {
    const a = await connect();
    equal(await a.text("echo", { message: ODD }), ODD);
    const result = await a.call("weather", { city: "Zürich" });
    equal(result.structuredContent, { city: "Zürich", degrees: 21.5 });
    equal(JSON.parse(result.content[0].text), result.structuredContent);
    const kinds = (await a.call("mixed")).content.map((item) => item.type);
    equal(kinds, ["text", "image", "audio", "resource", "resource_link"]);
  },

  async "mirrored-arguments"() {
    const a = await connect();
    // Known before the call only to who has seen the list of tools.
    await a.tools();
    equal(await a.text("mirrored", { region: "eu", count: 42, place: { dry: true } }), "eu 42 true");
    equal(await a.text("mirrored", { region: " Zürich ", place: { dry: false } }), " Zürich  - false");
    equal(await a.text("mirrored", { region: "" }), " - -");
    equal(await a.text("mirrored", { region: "=?base64?bm8=?=" }), "=?base64?bm8=?= - -");
  },

  async "mirrored-arguments-without-a-list"() {
    const a = await connect();
    equal(await a.text("mirrored", { region: "eu", count: -7 }), "eu -7 -");
  },

  async "meta-and-identity"() {
    const a = await connect({ model: () => "x", name: "who I am" });
    const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const meta = { traceparent, "example.com/key": { a: [1] } };
    const seen = JSON.parse(await a.text("sees", {}, { meta }));
    equal(seen.meta, meta);
    equal(seen.client, "who I am");
    // Behind a bridge, a legacy server may be told of more than one client's capabilities.
    assert("sampling" in seen.capabilities);
  },

  async resources() {
    const a = await connect();
    const uris = (await a.resources()).resources.map((resource) => resource.uri);
    assert(uris.includes("test://static-text") && uris.includes("test://static-binary"));
    const templates = (await a.templates()).resourceTemplates.map((template) => template.uriTemplate);
    equal(templates, ["test://template/{id}/data"]);
    const [{ text }] = (await a.read("test://static-text")).contents;
    equal(text, "This is the content of the static text resource.");
    equal((await a.read("test://static-binary")).contents[0].blob.slice(0, 8), "iVBORw0K");
    equal(JSON.parse((await a.read("test://template/a%20b/data")).contents[0].text).templateTest, true);
    const error = await rpcError(a.read("test://nowhere"));
    // Legacy revisions have a code of their own, and servers that use either.
    assert((legacy ? [-32602, -32002] : [-32602]).includes(error.code), `${error.code}`);
    equal(error.data.uri, "test://nowhere");
  },

  async prompts() {
    const a = await connect();
    const names = (await a.prompts()).prompts.map((prompt) => prompt.name);
    assert(names.includes("greeting") && names.includes("failing"));
    const { messages } = await a.prompt("greeting", { name: "Zoë" });
    equal(messages.map((message) => message.content.type), ["text", "image"]);
    equal(messages[0].content.text, "Greet Zoë.");
  },

  async completion() {
    const a = await connect();
    const { completion } = await a.complete("greeting", "name", "par");
    equal([completion.values, completion.total], [["paris", "park", "party"], 3]);
  },

  async progress() {
    const a = await connect();
    const told = [];
    equal(await a.text("report", { n: 5 }, { progress: (step) => told.push(step) }), "5 steps");
    const want = range(1, 6).map((n) => [n, 5, `${n} of 5`]);
    equal(steps(a).map(({ progress, total, message }) => [progress, total, message]), want);
    equal(told, want.slice(0, Math.max(told.length, 4)));
    // Without a token there is none.
    const begun = a.seen.length;
    await a.text("report", { n: 2 });
    equal(steps(a, begun), []);
  },

  async logging() {
    const a = await connect();
    await a.until(() => a.listening);
    equal(await a.text("log_all", {}, { level: "warning" }), "logged");
    await a.until(() => logs(a).includes("error"));
    equal(logs(a), ["warning", "error"]);
    if (legacy) return;
    // Each request has its own level, and none means none.
    equal(await a.text("log_all"), "logged");
    equal(await a.text("log_all", {}, { level: "error" }), "logged");
    equal(logs(a), ["warning", "error", "error"]);
  },

  async sampling() {
    const asked = [];
    const a = await connect({ model: (params) => (asked.push(params), "forty-two") });
    equal(await a.text("ask_model", { prompt: "what is it?" }), "model said: forty-two");
    const question = { role: "user", content: { type: "text", text: "what is it?" } };
    equal(asked.map(({ messages, maxTokens }) => [messages, maxTokens]), [[[question], 100]]);
  },

  async elicitation() {
    const asked = [];
    const user = (params) => (asked.push(params), asked.length === 1 ? accepts({ name: "Ada" })() : declines());
    const a = await connect({ user });
    equal(await a.text("ask_user"), 'user: accept {"name":"Ada"}');
    equal(await a.text("ask_user"), "user: decline {}");
    equal(asked.map((question) => question.message), ["Who are you?", "Who are you?"]);
    equal(asked[0].requestedSchema.required, ["name"]);
  },

  async "two-rounds"() {
    const asked = [];
    const user = ({ message }) => accepts(asked.push(message) === 1 ? { name: "Ada" } : { color: "red" })();
    const a = await connect({ user });
    const want = 'action=accept, content={"name":"Ada"}; action=accept, content={"color":"red"}';
    equal(await a.text("ask_twice"), want);
    equal(asked, ["Step 1: who are you?", "Step 2: which colour?"]);
  },

  async roots() {
    const a = await connect({ roots: ["file:///home/ada", "file:///work"] });
    equal(await a.text("ask_roots"), "roots: file:///home/ada file:///work");
  },

  async "several-questions-at-once"() {
    const a = await connect({ model: () => "hello", user: accepts({ name: "Ada" }), roots: ["file:///a"] });
    equal(await a.text("ask_all"), 'model said: hello; user: accept {"name":"Ada"}; roots: file:///a');
  },

  async "prompt-and-resource-that-ask"() {
    const a = await connect({ user: accepts({ name: "Ada" }) });
    const want = 'user: accept {"name":"Ada"}';
    equal((await a.prompt("ask_first")).messages[0].content.text, want);
    equal((await a.read("test://ask-first")).contents[0].text, want);
  },

  async "progress-around-a-question"() {
    // The question must not end the life of the progress token, or of the call.
    const a = await connect({ user: accepts({ name: "Ada" }) });
    await Promise.all([a.text("ask_user"), a.text("report", { n: 3 }, { progress: () => {} })]);
    equal(steps(a).map(({ progress }) => progress), [1, 2, 3]);
  },

  async "lacking-capability"() {
    const a = await connect({ user: accepts({ name: "Ada" }) });
    const outcome = await a.call("ask_model", { prompt: "x" }).catch((error) => error);
    // A legacy server refuses in its own way, when it is told the truth about its client.
    if (!legacy && !prefix.includes("-legacy")) {
      equal([outcome.code, Object.keys(outcome.data?.requiredCapabilities ?? {})], [-32021, ["sampling"]]);
    } else if (!(outcome instanceof Error)) {
      equal(outcome.isError, true);
    }
    // And that is that: nothing is stuck.
    equal(await a.text("ask_user"), 'user: accept {"name":"Ada"}');
  },

  async "an-open-question-is-in-nobodys-way"() {
    const [asked, answered] = [gate(), gate()];
    const user = async () => {
      asked.open();
      await answered.passed;
      return accepts({ name: "Ada" })();
    };
    const [a, b] = [await connect({ user }), await connect({ user: declines })];
    const asking = a.text("ask_user");
    await Promise.race([asked.passed, asking]);
    equal(await a.text("echo", { message: "meanwhile" }), "meanwhile");
    equal(await b.text("ask_user"), "user: decline {}");
    answered.open();
    equal(await asking, 'user: accept {"name":"Ada"}');
  },

  async "questions-are-private"() {
    const both = gate();
    const asked = [];
    const model = (name) => async ({ messages }) => {
      if (asked.push([name, messages[0].content.text]) === 2) both.open();
      await both.passed;
      return `${name} answers`;
    };
    const [a, b] = [await connect({ model: model("a") }), await connect({ model: model("b") })];
    const use = (link, name) => link.text("ask_model", { prompt: `${name} asks` });
    equal(await Promise.all([use(a, "a"), use(b, "b")]), ["model said: a answers", "model said: b answers"]);
    equal(asked.sort(), [["a", "a asks"], ["b", "b asks"]]);
  },

  async changes() {
    const mine = `test://template/${client}/data`;
    const a = await connect();
    const end = await a.watch({ tools: true, prompts: true, uris: [mine] });
    await a.call("announce", { what: "tools" });
    await a.until(() => a.changes().includes("tools"));
    // What nobody asked for ...
    await a.call("touch", { uri: "test://template/other/data" });
    await a.call("touch", { uri: mine });
    await a.until(() => a.changes().includes(mine));
    await a.call("announce", { what: "prompts" });
    await a.until(() => a.changes().includes("prompts"));
    // ... does not come.
    equal(a.changes(), ["tools", mine, "prompts"]);
    await end();
    if (legacy) return;
    const listens = a.posted.filter((m) => m.method === "subscriptions/listen").map((m) => m.id);
    const notes = a.seen.filter((m) => m.method);
    const ids = notes.map(({ params }) => params._meta["io.modelcontextprotocol/subscriptionId"]);
    equal([...new Set(ids)], listens);
  },

  async "two-subscriptions"() {
    const uris = [0, 1].map((n) => `test://template/${client}-${n}/data`);
    const [a, b] = [await connect(), await connect()];
    const ends = [await a.watch({ uris: uris.slice(0, 1) }), await b.watch({ uris: uris.slice(1) })];
    for (const uri of uris) {
      await a.call("touch", { uri });
      await b.call("touch", { uri });
    }
    await a.until(() => a.changes().includes(uris[0]));
    await b.until(() => b.changes().includes(uris[1]));
    for (const end of ends) await end();
    // After the end of a subscription, nothing of it: the call's own answer comes later than a change would.
    const before = a.changes().length;
    await a.call("touch", { uri: uris[0] });
    equal(await a.text("echo", { message: "end" }), "end");
    equal(a.changes().length, before);
    equal([new Set(a.changes()), new Set(b.changes())], [new Set([uris[0]]), new Set([uris[1]])]);
  },

  async cancellation() {
    const mark = join(workdir, randomUUID());
    const a = await connect();
    const reported = ({ params }) => a.seen.some((m) => m.params?.progressToken === params._meta.progressToken);
    await a.cancelled("wait", { mark }, reported);
    // The server knows of it while it works, and says so in a file.
    while (!existsSync(mark)) await pause(10);
    equal(await a.text("echo", { message: "alive" }), "alive");
  },

  async "twenty-calls-at-once"() {
    const a = await connect();
    const begin = Date.now();
    // The later it starts the sooner it ends, so answers come in another order than calls.
    const times = range(0, 20).map((i) => 700 - 20 * i);
    equal(await Promise.all(times.map((n) => a.text("later", { n }))), times.map((n) => `after ${n} ms`));
    // One after the other they take ten seconds.
    assert(Date.now() - begin < 5000);
  },

  async "two-clients-with-equal-ids"() {
    const [a, b] = [await connect(), await connect()];
    const use = async (link, name) => {
      const [slow, ...echoes] = await Promise.all([
        link.text("report", { n: name.length + 4 }, { progress: () => {} }),
        ...range(0, 10).map((n) => link.text("echo", { message: `${name} ${n}` })),
      ]);
      equal([slow, echoes], [`${name.length + 4} steps`, range(0, 10).map((n) => `${name} ${n}`)]);
      equal(new Set(steps(link).map(({ progressToken }) => progressToken)).size, 1);
      equal(steps(link).map(({ total }) => total), range(0, name.length + 4).map(() => name.length + 4));
    };
    // Else the SDK may do it some time in between.
    for (const each of [a, b]) await each.tools();
    await Promise.all([use(a, "a"), use(b, "bb")]);
    // Or the check would prove nothing.
    equal(callIds(a), callIds(b));
  },

  async errors() {
    const a = await connect();
    const error = await rpcError(a.prompt("failing"));
    equal([error.code, error.data], [4711, { reason: "testing", list: [1, 2.5, null] }]);
    assert(error.message.includes("No such luck"), error.message);
    const broken = await a.call("broken");
    equal([broken.isError, broken.content[0].text], [true, "the tool broke"]);
    // A server may say this in either way.
    const unknown = await a.call("no-such-tool").catch((error) => error);
    if (unknown instanceof Error) equal([unknown.code, /no-such-tool/.test(unknown.message)], [-32602, true]);
    else equal([unknown.isError, /no-such-tool/.test(unknown.content[0].text)], [true, true]);
    equal((await rpcError(a.unknown("example/none"))).code, -32601);
  },

  async "big-result"() {
    const a = await connect();
    const text = await a.text("big", { n: 1 << 20 });
    // Not equal() of the texts: nobody wants to read megabytes of difference.
    equal([text.length, text === "0123456789abcdef".repeat(1 << 16)], [1 << 20, true]);
  },

  async "what-is-on-the-wire"() {
    const a = await connect({ user: accepts({ name: "Ada" }) });
    for (const get of [a.tools, a.prompts, a.resources, a.templates]) await get();
    await a.read("test://static-text");
    await a.prompt("greeting", { name: "x" });
    await a.call("weather", { city: "Rome" });
    await a.call("ask_user");
    await a.text("echo", { message: "x" });
    const results = a.seen.filter((m) => m.result).map((m) => m.result);
    if (legacy) {
      const added = ["resultType", "ttlMs", "cacheScope", "inputRequests", "requestState"];
      equal(results.map((result) => added.filter((name) => name in result)).filter((names) => names.length), []);
      equal(a.seen.filter((m) => m.method?.includes("acknowledged")), []);
      return;
    }
    equal(new Set(results.map((result) => result.resultType)), new Set(["complete", "input_required"]));
    const complete = results.filter((result) => result.resultType === "complete");
    const names = complete.map((result) => result._meta?.["io.modelcontextprotocol/serverInfo"]?.name);
    equal([...new Set(names)], ["conformance-server"]);
    const kinds = ["tools", "prompts", "resources", "resourceTemplates", "contents"];
    const lists = complete.filter((result) => kinds.some((kind) => kind in result));
    equal(lists.length, 5);
    assert(lists.every(({ ttlMs, cacheScope }) => ttlMs >= 0 && ["public", "private"].includes(cacheScope)));
    // No requests from the server, no answers from the client.
    equal(a.seen.filter((m) => m.method && m.id !== undefined), []);
    equal(a.posted.filter((m) => !m.method), []);
  },
};

// Each kind of message once, in both directions: for the pairs whose halves have the whole list elsewhere.
const short = [
  "connects",
  "call",
  "mirrored-arguments",
  "resources",
  "prompts",
  "progress",
  "logging",
  "sampling",
  "elicitation",
  "two-rounds",
  "several-questions-at-once",
  "lacking-capability",
  "questions-are-private",
  "changes",
  "cancellation",
  "twenty-calls-at-once",
  "two-clients-with-equal-ids",
  "errors",
  "what-is-on-the-wire",
];

function deadline(promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no result after ${CHECK_SECONDS} s`)), CHECK_SECONDS * 1000);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

let failed = false;
for (const [name, run] of Object.entries(full)) {
  const whole = `${client}/${prefix}/${name}`;
  if (!whole.includes(only) || (list === "short" && !short.includes(name))) continue;
  const wrong = await deadline(run()).catch((error) => error);
  const stuck = await deadline(hangUp()).catch((error) => error);
  const error = wrong ?? stuck;
  failed ||= error !== undefined;
  console.log(error ? `FAIL ${whole} ${String(error).replace(/\s+/g, " ").slice(0, 600)}` : `ok ${whole}`);
}
// Not left to run out: an unfinished check may keep node alive.
process.exit(failed ? 1 : 0);
