// The conformance server: the surface of surface.mjs over stdio or HTTP.
//   node server.mjs --stdio      [--era legacy|dual|modern]
//   node server.mjs --http PORT  [--era legacy|dual|modern]
import { randomUUID } from 'node:crypto';
import http from 'node:http';
import { parseArgs } from 'node:util';
import { toNodeHandler } from '@modelcontextprotocol/node';
import {
  WebStandardStreamableHTTPServerTransport,
  createMcpHandler,
  hostHeaderValidationResponse,
  isLegacyRequest,
  localhostAllowedHostnames,
  localhostAllowedOrigins,
  originValidationResponse
} from '@modelcontextprotocol/server';
import { StdioServerTransport, serveStdio } from '@modelcontextprotocol/server/stdio';
import { createServer } from './surface.mjs';

const USAGE = 'usage: node server.mjs --stdio | --http PORT [--era legacy|dual|modern]';

function main() {
  const { values } = parseArgs({
    options: {
      stdio: { type: 'boolean' },
      http: { type: 'string' },
      era: { type: 'string', default: 'dual' }
    }
  });
  const oneTransport = Boolean(values.stdio) !== (values.http !== undefined);
  if (!oneTransport || !['legacy', 'dual', 'modern'].includes(values.era)) {
    console.error(USAGE);
    process.exit(2);
  }
  if (values.stdio) onStdio(values.era);
  else onHttp(Number(values.http), values.era);
}

function onStdio(era) {
  // serveStdio always knows 2026-07-28; a server connected by hand does not.
  if (era === 'legacy') createServer().connect(new StdioServerTransport());
  else serveStdio(() => createServer(), { legacy: era === 'modern' ? 'reject' : 'serve' });
}

function onHttp(port, era) {
  const modern = createMcpHandler(() => createServer(modern.notify), { legacy: 'reject' });
  const legacy = legacySessions();

  async function fetch(request) {
    const refused =
      hostHeaderValidationResponse(request, localhostAllowedHostnames()) ??
      originValidationResponse(request, localhostAllowedOrigins());
    if (refused) return refused;
    if (new URL(request.url).pathname !== '/mcp') return new Response(null, { status: 404 });
    const old = era === 'legacy' || (era === 'dual' && (await isLegacyRequest(request)));
    return old ? legacy(request) : modern.fetch(request);
  }

  const handle = toNodeHandler({ fetch });
  const listener = http.createServer((request, response) => {
    // Left alone, the head of a stream waits for its first event, and with it everybody who waits for the stream.
    const { writeHead } = response;
    response.writeHead = (...head) => {
      writeHead.apply(response, head).flushHeaders();
      return response;
    };
    handle(request, response);
  });
  listener.listen(port, '127.0.0.1', () => {
    console.log(`http://127.0.0.1:${listener.address().port}/mcp`);
  });
}

// Streamable HTTP with sessions. createMcpHandler serves old clients too, but
// without sessions, and then the server cannot ask the client anything.
function legacySessions() {
  const sessions = new Map();

  return async request => {
    const id = request.headers.get('mcp-session-id');
    if (id !== null) {
      const known = sessions.get(id);
      if (known) return known.handleRequest(request);
      const error = { code: -32001, message: 'Session not found' };
      return Response.json({ jsonrpc: '2.0', id: null, error }, { status: 404 });
    }
    // The transport itself refuses everything but `initialize` at this point.
    const transport = new WebStandardStreamableHTTPServerTransport({
      sessionIdGenerator: randomUUID,
      onsessioninitialized: created => sessions.set(created, transport),
      onsessionclosed: closed => sessions.delete(closed),
      eventStore: new EventLog(),
      retryInterval: 500
    });
    await createServer().connect(transport);
    return transport.handleRequest(request);
  };
}

// The events of one session, kept so that a dropped stream can be resumed.
class EventLog {
  #events = [];

  async storeEvent(stream, message) {
    const id = `${stream}_${this.#events.length}`;
    this.#events.push({ id, stream, message });
    return id;
  }

  async replayEventsAfter(lastEventId, { send }) {
    const last = this.#events.findIndex(event => event.id === lastEventId);
    if (last < 0) throw new Error(`Unknown event id ${lastEventId}`);
    const { stream } = this.#events[last];
    for (const event of this.#events.slice(last + 1)) {
      // A stream opens with an event that has an id and no message.
      const empty = Object.keys(event.message).length === 0;
      if (event.stream === stream && !empty) await send(event.id, event.message);
    }
    return stream;
  }
}

main();
