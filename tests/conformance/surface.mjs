// What the server offers: every tool, resource, prompt and completion that the
// server scenarios of the MCP conformance suite call. The names, argument names
// and the texts that a check looks for are fixed by the suite. What the checks
// of tests/clients call is in matrix.mjs.
import { setTimeout as sleep } from 'node:timers/promises';
import {
  CLIENT_CAPABILITIES_META_KEY,
  McpServer,
  ResourceTemplate,
  fromJsonSchema,
  inputRequired
} from '@modelcontextprotocol/server';
import {
  PNG,
  WAV,
  answer,
  askName,
  asking,
  describe,
  elicit,
  embedded,
  image,
  sample,
  spoken,
  state,
  stepByStep,
  strings,
  text,
  userMessages
} from './asking.mjs';
import { registerMatrix } from './matrix.mjs';

// ---- schemas that must reach the client untouched -------------------------

const withDefaults = {
  type: 'object',
  properties: {
    name: { type: 'string', description: 'Name', default: 'John Doe' },
    age: { type: 'integer', description: 'Age', default: 30 },
    score: { type: 'number', description: 'Score', default: 95.5 },
    status: {
      type: 'string',
      description: 'Status',
      enum: ['active', 'inactive', 'pending'],
      default: 'active'
    },
    verified: { type: 'boolean', description: 'Verified', default: true }
  },
  required: []
};

const options = ['option1', 'option2', 'option3'];
const titled = noun => [
  { const: 'value1', title: `First ${noun}` },
  { const: 'value2', title: `Second ${noun}` },
  { const: 'value3', title: `Third ${noun}` }
];
const withEnums = {
  type: 'object',
  properties: {
    untitledSingle: { type: 'string', enum: options },
    titledSingle: { type: 'string', oneOf: titled('Option') },
    legacyEnum: {
      type: 'string',
      enum: ['opt1', 'opt2', 'opt3'],
      enumNames: ['Option One', 'Option Two', 'Option Three']
    },
    untitledMulti: { type: 'array', items: { type: 'string', enum: options } },
    titledMulti: { type: 'array', items: { anyOf: titled('Choice') } }
  },
  required: []
};

const draft2020 = {
  $schema: 'https://json-schema.org/draft/2020-12/schema',
  type: 'object',
  $defs: {
    address: {
      $anchor: 'addressDef',
      type: 'object',
      properties: { street: { type: 'string' }, city: { type: 'string' } }
    }
  },
  properties: {
    name: { type: 'string' },
    address: { $ref: '#/$defs/address' },
    contactMethod: { type: 'string', enum: ['phone', 'email'] },
    phone: { type: 'string' },
    email: { type: 'string' }
  },
  allOf: [{ anyOf: [{ required: ['phone'] }, { required: ['email'] }] }],
  if: { properties: { contactMethod: { const: 'phone' } }, required: ['contactMethod'] },
  then: { required: ['phone'] },
  else: { required: ['email'] },
  additionalProperties: false
};

const mirrored = {
  type: 'object',
  properties: {
    region: { type: 'string', description: 'A region', 'x-mcp-header': 'Region' }
  },
  required: ['region']
};

// ---- tools ----------------------------------------------------------------

async function logThrice(_args, ctx) {
  for (const [index, line] of ['started', 'working', 'completed'].entries()) {
    if (index > 0) await sleep(50);
    await ctx.mcpReq.log('info', `Tool execution ${line}`);
  }
  return answer(text('Logged three messages'));
}

// The pause after the last report is there because a client may lose a report
// that arrives together with the result (the SDK's own client does).
async function reportProgress(_args, ctx) {
  const { progressToken } = ctx.mcpReq._meta ?? {};
  for (const progress of [0, 50, 100]) {
    if (progressToken !== undefined) {
      await ctx.mcpReq.notify({
        method: 'notifications/progress',
        params: { progressToken, progress, total: 100, message: `${progress} of 100` }
      });
    }
    await sleep(50);
  }
  return answer(text('Reached 100 of 100'));
}

// Drops the response stream in the middle of the call, so that the client has
// to come back for the result. Over stdio, and to clients too old for this,
// there is no stream to drop and the tool simply answers.
async function dropStream(_args, ctx) {
  ctx.http?.closeSSE?.();
  await sleep(100);
  return answer(text('The stream was dropped before this result, if there was one'));
}

// Asks only for what this client says it can do.
function questionsWithinCapabilities(server) {
  return (_args, ctx) => {
    const declared =
      ctx.mcpReq.envelope?.[CLIENT_CAPABILITIES_META_KEY] ?? server.getClientCapabilities() ?? {};
    return {
      ...(declared.sampling && { sampling: sample('Say hello') }),
      ...(declared.elicitation && { elicitation: askName('What is your name?') }),
      ...(declared.roots && { roots: inputRequired.listRoots() })
    };
  };
}

function tools(server, changes) {
  const confirm = () => ({
    confirm: elicit('Please confirm', {
      type: 'object',
      properties: { ok: { type: 'boolean' } },
      required: ['ok']
    })
  });

  // name: [description, handler, input schema if it takes arguments]
  return {
    test_simple_text: [
      'Returns one text',
      () => answer(text('This is a simple text response for testing.'))
    ],
    test_image_content: ['Returns one image', () => answer(image)],
    test_audio_content: [
      'Returns one sound',
      () => answer({ type: 'audio', data: WAV, mimeType: 'audio/wav' })
    ],
    test_embedded_resource: [
      'Returns one embedded resource',
      () =>
        answer(
          embedded('test://embedded-resource', 'text/plain', 'This is an embedded resource content.')
        )
    ],
    test_multiple_content_types: [
      'Returns text, image and resource together',
      () =>
        answer(
          text('Multiple content types test:'),
          image,
          embedded('test://mixed-content-resource', 'application/json', '{"test":"data","value":123}')
        )
    ],
    test_error_handling: [
      'Always fails',
      () => {
        throw new Error('This tool intentionally returns an error for testing');
      }
    ],
    test_tool_with_logging: ['Sends three log messages', logThrice],
    test_logging_tool: ['Sends three log messages if the request asks for logs', logThrice],
    test_tool_with_progress: ['Reports progress 0, 50 and 100', reportProgress],
    test_reconnection: ['Drops its response stream before answering', dropStream],
    json_schema_2020_12_tool: [
      'Has a JSON Schema 2020-12 input',
      () => answer(text('Valid')),
      draft2020
    ],
    test_x_mcp_header: [
      'Has an argument that is mirrored in an HTTP header',
      ({ region }) => answer(text(`Region: ${region}`)),
      mirrored
    ],
    test_trigger_tool_change: [
      'Announces a change of the tool list',
      async () => {
        await changes.toolsChanged();
        return answer(text('Announced'));
      }
    ],
    test_trigger_prompt_change: [
      'Announces a change of the prompt list',
      async () => {
        await changes.promptsChanged();
        return answer(text('Announced'));
      }
    ],

    test_sampling: [
      'Asks the client for a completion',
      asking(
        ({ prompt }) => ({ sampling: sample(prompt) }),
        ({ sampling }) => answer(text(`LLM response: ${spoken(sampling)}`))
      ),
      strings({ prompt: 'What to ask' })
    ],
    test_missing_capability: [
      'Needs a client that can sample',
      asking(
        () => ({ sampling: sample('Say hello') }),
        ({ sampling }) => answer(text(spoken(sampling)))
      )
    ],
    test_elicitation: [
      'Asks the user to fill in a form',
      asking(
        ({ message }) => ({
          form: elicit(message, strings({ username: 'User name', email: 'Email address' }))
        }),
        ({ form }) => answer(text(`User response: ${describe(form)}`))
      ),
      strings({ message: 'What to show to the user' })
    ],
    test_streaming_elicitation: [
      'Asks the user for a name',
      asking(
        () => ({ form: askName('What is your name?') }),
        ({ form }) => answer(text(describe(form)))
      )
    ],
    test_elicitation_sep1034_defaults: [
      'Asks with default values',
      asking(
        () => ({ form: elicit('Please check these values', withDefaults) }),
        ({ form }) => answer(text(`Elicitation completed: ${describe(form)}`))
      )
    ],
    test_elicitation_sep1330_enums: [
      'Asks with every kind of choice',
      asking(
        () => ({ form: elicit('Please choose', withEnums) }),
        ({ form }) => answer(text(`Elicitation completed: ${describe(form)}`))
      )
    ],

    test_input_required_result_elicitation: [
      'Asks the user for a name, then greets',
      asking(
        () => ({ user_name: askName('What is your name?') }),
        ({ user_name }) => answer(text(`Hello, ${user_name.content?.name ?? user_name.action}!`))
      )
    ],
    test_input_required_result_sampling: [
      'Asks the model for a capital',
      asking(
        () => ({ capital_question: sample('What is the capital of France?') }),
        ({ capital_question }) => answer(text(spoken(capital_question)))
      )
    ],
    test_input_required_result_list_roots: [
      'Asks for the roots',
      asking(
        () => ({ client_roots: inputRequired.listRoots() }),
        ({ client_roots }) => answer(text(client_roots.roots.map(root => root.uri).join('\n')))
      )
    ],
    test_input_required_result_request_state: [
      'Asks for a confirmation and keeps a signed state',
      asking(confirm, () => answer(text('state-ok')), { sealed: true })
    ],
    test_input_required_result_tampered_state: [
      'Asks for a confirmation and refuses a changed state',
      asking(confirm, () => answer(text('state-ok')), { sealed: true })
    ],
    test_input_required_result_multiple_inputs: [
      'Asks for a name, a greeting and the roots at once',
      asking(
        () => ({
          user_name: askName('What is your name?'),
          greeting: sample('Write a greeting', 50),
          client_roots: inputRequired.listRoots()
        }),
        ({ user_name, greeting, client_roots }) =>
          answer(
            text(`${spoken(greeting)} (${describe(user_name)}, ${client_roots.roots.length} roots)`)
          ),
        { sealed: true }
      )
    ],
    test_input_required_result_multi_round: ['Asks twice, one question after the other', stepByStep],
    test_input_required_result_capabilities: [
      'Asks only what the client declared',
      asking(questionsWithinCapabilities(server), views =>
        answer(text(`Answered: ${Object.keys(views).join(', ') || 'nothing was asked'}`))
      )
    ]
  };
}

// ---- prompts and resources ------------------------------------------------

// name: [description, handler, arguments]
const prompts = {
  test_simple_prompt: [
    'A prompt without arguments',
    () => userMessages(text('This is a simple prompt for testing.')),
    {}
  ],
  test_prompt_with_arguments: [
    'A prompt with two arguments',
    ({ arg1, arg2 }) => userMessages(text(`Prompt with arguments: arg1='${arg1}', arg2='${arg2}'`)),
    { arg1: 'First test argument', arg2: 'Second test argument' }
  ],
  test_prompt_with_embedded_resource: [
    'A prompt that embeds a resource',
    ({ resourceUri }) =>
      userMessages(
        embedded(resourceUri, 'text/plain', 'Embedded resource content for testing.'),
        text('Please process the embedded resource above.')
      ),
    { resourceUri: 'URI of the resource to embed' }
  ],
  test_prompt_with_image: [
    'A prompt with an image',
    () => userMessages(image, text('Please analyze the image above.')),
    {}
  ],
  test_input_required_result_prompt: [
    'A prompt that first asks the user for its context',
    asking(
      () => ({ user_context: elicit('Which context?', strings({ context: 'The context' })) }),
      ({ user_context }) => userMessages(text(`Context: ${describe(user_context)}`))
    ),
    {}
  ]
};

// uri: [name, mimeType, contents]
const resources = {
  'test://static-text': [
    'static-text',
    'text/plain',
    { text: 'This is the content of the static text resource.' }
  ],
  'test://static-binary': ['static-binary', 'image/png', { blob: PNG }],
  'test://watched-resource': ['watched-resource', 'text/plain', { text: 'This never changes.' }]
};

function registerResources(mcp) {
  for (const [uri, [name, mimeType, contents]] of Object.entries(resources)) {
    mcp.registerResource(name, uri, { description: `The resource ${name}`, mimeType }, () => ({
      contents: [{ uri, mimeType, ...contents }]
    }));
  }
  mcp.registerResource(
    'template',
    new ResourceTemplate('test://template/{id}/data', { list: undefined }),
    { description: 'A resource for every id', mimeType: 'application/json' },
    (uri, { id }) => ({
      contents: [
        {
          uri: uri.href,
          mimeType: 'application/json',
          text: JSON.stringify({ id, templateTest: true, data: `Data for ID: ${id}` })
        }
      ]
    })
  );
}

// ---- the server -----------------------------------------------------------

// `notifier` is where list changes are announced; without one they go out on
// the connection of the call itself.
export function createServer(notifier) {
  const mcp = new McpServer(
    { name: 'conformance-server', version: '1.0.0' },
    {
      capabilities: {
        tools: { listChanged: true },
        resources: { subscribe: true, listChanged: true },
        prompts: { listChanged: true },
        logging: {},
        completions: {}
      },
      instructions: 'For tests only.',
      requestState: { verify: state.verify }
    }
  );
  const { server } = mcp;
  const watched = new Set();
  const changes = notifier ?? {
    toolsChanged: () => server.sendToolListChanged(),
    promptsChanged: () => server.sendPromptListChanged(),
    resourcesChanged: () => server.sendResourceListChanged(),
    // To a 2026-07-28 client, the SDK only sends what its subscription names.
    resourceUpdated: async uri => {
      const modern = server.getNegotiatedProtocolVersion() === '2026-07-28';
      if (modern || watched.has(uri)) await server.sendResourceUpdated({ uri });
    }
  };

  for (const [name, definition] of Object.entries(tools(server, changes))) {
    const [description, handler, schema = strings({})] = definition;
    mcp.registerTool(name, { description, inputSchema: fromJsonSchema(schema) }, handler);
  }
  for (const [name, [description, handler, members]] of Object.entries(prompts)) {
    mcp.registerPrompt(name, { description, argsSchema: fromJsonSchema(strings(members)) }, handler);
  }
  registerResources(mcp);
  registerMatrix(mcp, changes);

  server.setRequestHandler('resources/subscribe', ({ params }) => (watched.add(params.uri), {}));
  server.setRequestHandler('resources/unsubscribe', ({ params }) => (watched.delete(params.uri), {}));

  server.setRequestHandler('completion/complete', ({ params }) => {
    const words = ['paris', 'park', 'party'];
    const values = words.filter(word => word.startsWith(params.argument.value));
    return { completion: { values, total: values.length, hasMore: false } };
  });

  return mcp;
}
