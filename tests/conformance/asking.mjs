// What every surface is made of: small builders, and handlers that ask the client.
import { randomBytes } from 'node:crypto';
import { createRequestStateCodec, inputRequired, inputResponse } from '@modelcontextprotocol/server';

export const PNG = // one red pixel
  'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR42mP4z8AAAAMBAQD3A0FDAAAAAElFTkSuQmCC';
export const WAV = // a header and no samples
  'UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQAAAAA=';

// One key per process: a sealed state only has to be readable by the process
// that made it, and binding it to the method stops it being used elsewhere.
export const state = createRequestStateCodec({
  key: randomBytes(32),
  bind: ctx => ctx.mcpReq.method
});

// ---- small builders -------------------------------------------------------

export const text = value => ({ type: 'text', text: value });
export const image = { type: 'image', data: PNG, mimeType: 'image/png' };
export const embedded = (uri, mimeType, value) => ({
  type: 'resource',
  resource: { uri, mimeType, text: value }
});
export const answer = (...content) => ({ content });
export const userMessages = (...content) => ({
  messages: content.map(item => ({ role: 'user', content: item }))
});

// The schema of an object whose members are all required strings.
export const strings = members => ({
  type: 'object',
  properties: Object.fromEntries(
    Object.entries(members).map(([name, description]) => [name, { type: 'string', description }])
  ),
  required: Object.keys(members)
});

// ---- asking the client ----------------------------------------------------

export const elicit = (message, requestedSchema) => inputRequired.elicit({ message, requestedSchema });
export const askName = message => elicit(message, strings({ name: 'A name' }));
export const sample = (prompt, maxTokens = 100) =>
  inputRequired.createMessage({
    messages: [{ role: 'user', content: text(prompt) }],
    maxTokens
  });

export const spoken = view => view.result.content.text;
export const describe = view => `action=${view.action}, content=${JSON.stringify(view.content ?? {})}`;

// The kind of reply that each kind of question is answered with.
const REPLY_KIND = {
  'elicitation/create': 'elicit',
  'sampling/createMessage': 'sampling',
  'roots/list': 'roots'
};

// A handler that needs something from the client before it can answer.
// `questions(args, ctx)` names the requests, `finish(views, args, ctx)` makes the
// result once every one of them is answered. To a 2026-07-28 client this is an
// `input_required` result; on an older connection the SDK turns it into real
// server-to-client requests, so one definition serves both eras.
// `sealed` also sends a signed requestState and wants it back.
export const asking = (questions, finish, { sealed = false } = {}) => async (args, ctx) => {
  const inputRequests = questions(args, ctx);
  const views = {};
  let complete = !sealed || ctx.mcpReq.requestState() !== undefined;
  for (const [key, { method }] of Object.entries(inputRequests)) {
    views[key] = inputResponse(ctx.mcpReq.inputResponses, key);
    complete &&= views[key].kind === REPLY_KIND[method];
  }
  if (complete) return finish(views, args, ctx);
  return inputRequired({
    inputRequests,
    ...(sealed && { requestState: await state.mint({ asked: Object.keys(inputRequests) }, ctx) })
  });
};

// One question per round. The answers so far travel in the state.
const steps = [
  askName('Step 1: who are you?'),
  elicit('Step 2: which colour?', strings({ color: 'A colour' }))
];
export async function stepByStep(_args, ctx) {
  const seen = ctx.mcpReq.requestState();
  const answers = seen?.answers ?? [];
  const reply = seen && inputResponse(ctx.mcpReq.inputResponses, `step${answers.length + 1}`);
  if (reply?.kind === 'elicit') answers.push(describe(reply));

  if (answers.length === steps.length) return answer(text(answers.join('; ')));
  return inputRequired({
    inputRequests: { [`step${answers.length + 1}`]: steps[answers.length] },
    requestState: await state.mint({ answers }, ctx)
  });
}
