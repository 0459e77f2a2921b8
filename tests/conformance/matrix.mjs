// What the checks of tests/clients call, beside the surface of the suite. ../clients/server.py offers the same, with the
// same answers: a client cannot tell the two apart by what is here.
import { writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  CLIENT_CAPABILITIES_META_KEY,
  CLIENT_INFO_META_KEY,
  ProtocolError,
  fromJsonSchema,
  inputRequired
} from '@modelcontextprotocol/server';
import {
  WAV,
  answer,
  askName,
  asking,
  embedded,
  image,
  sample,
  spoken,
  stepByStep,
  strings,
  text,
  userMessages
} from './asking.mjs';

const LEVELS = ['debug', 'info', 'warning', 'error'];
const WAIT_SECONDS = 20;

const nothing = strings({});
const number = { type: 'object', properties: { n: { type: 'integer' } }, required: ['n'] };
const marked = strings({ mark: 'The file to write when cancelled' });
const weather = {
  type: 'object',
  properties: { city: { type: 'string' }, degrees: { type: 'number' } },
  required: ['city', 'degrees']
};
const mirrored = {
  type: 'object',
  properties: {
    region: { type: 'string', 'x-mcp-header': 'Region' },
    count: { type: 'integer', 'x-mcp-header': 'Count' },
    place: { type: 'object', properties: { dry: { type: 'boolean', 'x-mcp-header': 'Dry' } } }
  },
  required: ['region']
};

const said = view => `model said: ${spoken(view)}`;
const chose = view => `user: ${view.action} ${JSON.stringify(view.content ?? {})}`;
const listed = view => `roots: ${view.roots.map(root => root.uri).join(' ')}`;

async function progress(ctx, done, total) {
  const { progressToken } = ctx.mcpReq._meta ?? {};
  if (progressToken === undefined) return;
  await ctx.mcpReq.notify({
    method: 'notifications/progress',
    params: { progressToken, progress: done, total, message: `${done} of ${total}` }
  });
}

// The pause after the last report is there because the SDK's client may lose one that arrives together with the result.
async function report({ n }, ctx) {
  for (let step = 1; step <= n; step += 1) {
    await progress(ctx, step, n);
    await sleep(20);
  }
  return answer(text(`${n} steps`));
}

async function logAll(_args, ctx) {
  for (const level of LEVELS) await ctx.mcpReq.log(level, `a line of ${level}`);
  await sleep(20);
  return answer(text('logged'));
}

// Answers only if nobody cancels it; if somebody does, it leaves a file behind.
async function wait({ mark }, ctx) {
  const { signal } = ctx.mcpReq;
  const cancelled = new Promise(resolve => signal.addEventListener('abort', () => resolve(true)));
  await progress(ctx, 1, 2);
  if (signal.aborted || (await Promise.race([cancelled, sleep(WAIT_SECONDS * 1000, false, { ref: false })]))) {
    writeFileSync(mark, 'cancelled');
  }
  return answer(text('nobody cancelled this'));
}

// What the server knows of the client, and the keys of `_meta` that the protocol leaves alone.
function sees(server) {
  return (_args, ctx) => {
    const envelope = ctx.mcpReq.envelope ?? {};
    const meta = Object.entries(ctx.mcpReq._meta ?? {}).filter(
      ([key]) => !key.startsWith('io.modelcontextprotocol/') && key !== 'progressToken'
    );
    return answer(
      text(
        JSON.stringify({
          client: (envelope[CLIENT_INFO_META_KEY] ?? server.getClientVersion())?.name,
          capabilities: envelope[CLIENT_CAPABILITIES_META_KEY] ?? server.getClientCapabilities(),
          meta: Object.fromEntries(meta)
        })
      )
    );
  };
}

// `changes` is where changes are announced.
function tools(server, changes) {
  const announce = {
    tools: () => changes.toolsChanged(),
    prompts: () => changes.promptsChanged(),
    resources: () => changes.resourcesChanged()
  };
  // name: [handler, input schema, output schema]
  return {
    echo: [({ message }) => answer(text(message)), strings({ message: 'What to say' })],
    weather: [
      ({ city }) => ({ ...answer(text(`{"city":"${city}","degrees":21.5}`)), structuredContent: { city, degrees: 21.5 } }),
      strings({ city: 'Where' }),
      weather
    ],
    mixed: [
      () =>
        answer(
          text('all kinds'),
          image,
          { type: 'audio', data: WAV, mimeType: 'audio/wav' },
          embedded('test://embedded', 'text/plain', 'within'),
          { type: 'resource_link', uri: 'test://static-text', name: 'static-text' }
        ),
      nothing
    ],
    big: [({ n }) => answer(text('0123456789abcdef'.repeat(n / 16))), number],
    broken: [
      () => {
        throw new Error('the tool broke');
      },
      nothing
    ],
    mirrored: [
      ({ region, count, place }) => answer(text(`${region} ${count ?? '-'} ${place?.dry ?? '-'}`)),
      mirrored
    ],
    later: [async ({ n }) => (await sleep(n), answer(text(`after ${n} ms`))), number],
    report: [report, number],
    log_all: [logAll, nothing],
    wait: [wait, marked],
    sees: [sees(server), nothing],
    announce: [
      async ({ what }) => (await announce[what](), answer(text('announced'))),
      strings({ what: 'tools, prompts or resources' })
    ],
    touch: [
      async ({ uri }) => (await changes.resourceUpdated(uri), answer(text('touched'))),
      strings({ uri: 'Which resource' })
    ],
    ask_model: [
      asking(({ prompt }) => ({ model: sample(prompt) }), ({ model }) => answer(text(said(model)))),
      strings({ prompt: 'What to ask' })
    ],
    ask_user: [asking(() => ({ user: askName('Who are you?') }), ({ user }) => answer(text(chose(user)))), nothing],
    ask_roots: [asking(() => ({ roots: inputRequired.listRoots() }), ({ roots }) => answer(text(listed(roots)))), nothing],
    ask_all: [
      asking(
        () => ({ model: sample('Say hello'), user: askName('Who are you?'), roots: inputRequired.listRoots() }),
        ({ model, user, roots }) => answer(text([said(model), chose(user), listed(roots)].join('; ')))
      ),
      nothing
    ],
    ask_twice: [stepByStep, nothing],
    ask_then_wait: [asking(() => ({ user: askName('Who are you?') }), (_views, args, ctx) => wait(args, ctx)), marked]
  };
}

const prompts = {
  greeting: [({ name }) => userMessages(text(`Greet ${name}.`), image), { name: 'Who' }],
  failing: [
    () => {
      throw new ProtocolError(4711, 'No such luck', { reason: 'testing', list: [1, 2.5, null] });
    },
    {}
  ],
  ask_first: [
    asking(() => ({ user: askName('Who are you?') }), ({ user }) => userMessages(text(chose(user)))),
    {}
  ]
};

export function registerMatrix(mcp, changes) {
  for (const [name, [handler, inputSchema, outputSchema]] of Object.entries(tools(mcp.server, changes))) {
    const config = { description: `The tool ${name}`, inputSchema: fromJsonSchema(inputSchema) };
    if (outputSchema) config.outputSchema = fromJsonSchema(outputSchema);
    mcp.registerTool(name, config, handler);
  }
  for (const [name, [handler, members]] of Object.entries(prompts)) {
    mcp.registerPrompt(name, { description: `The prompt ${name}`, argsSchema: fromJsonSchema(strings(members)) }, handler);
  }
  const ask = asking(
    () => ({ user: askName('May I?') }),
    ({ user }) => ({ contents: [{ uri: 'test://ask-first', mimeType: 'text/plain', text: chose(user) }] })
  );
  mcp.registerResource('ask-first', 'test://ask-first', { mimeType: 'text/plain' }, (_uri, ctx) => ask({}, ctx));
}

