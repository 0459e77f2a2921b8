"""Remote MCP servers made of plain HTTP, so that they can misbehave. faults.py uses them.

A server is a function from an `Exchange` to nothing: it answers as it likes, late, twice or not at all. `Streamable` and
`Sse` are well-behaved ones, of which a test replaces what it wants to see go wrong.
"""

import contextlib
import http.server
import json
import socket
import threading
import uuid


class Exchange:
    """One HTTP request and the means to answer it."""

    def __init__(self, handler):
        self.handler = handler
        self.verb, self.path, self.headers = handler.command, handler.path, handler.headers
        self.body = handler.rfile.read(int(self.headers.get("content-length") or 0))
        self.message = json.loads(self.body) if self.body.startswith(b"{") else {}
        self.method, self.id, self.params = (self.message.get(key) for key in ("method", "id", "params"))
        self.session = self.headers.get("mcp-session-id")

    def reply(self, status, body=b"", kind="application/json", headers=()):
        """A whole response."""
        body = body.encode() if isinstance(body, str) else body
        self.head(status, [("content-type", kind), ("content-length", str(len(body))), *headers])
        self.write(body)

    def json(self, message, status=200, headers=()):
        self.reply(status, json.dumps(message), headers=headers)

    def result(self, result, **more):
        self.json({"jsonrpc": "2.0", "id": self.id, "result": result}, **more)

    def head(self, status, headers):
        self.handler.send_response(status)
        for name, value in headers:
            self.handler.send_header(name, value)
        self.handler.end_headers()

    def write(self, data):
        self.handler.wfile.write(data)
        self.handler.wfile.flush()

    def stream(self, headers=()):
        """Begins an event stream."""
        self.head(200, [("content-type", "text/event-stream"), ("transfer-encoding", "chunked"), *headers])

    def event(self, message=None, **fields):
        """Sends an event; the message may be text, such as an endpoint."""
        fields = {name: value for name, value in fields.items() if value is not None}
        if message is not None:
            fields["data"] = message if isinstance(message, str) else json.dumps(message)
        self.chunk("".join(f"{name}: {value}\n" for name, value in fields.items()) + "\n")

    def chunk(self, text):
        data = text.encode()
        self.write(b"%x\r\n%s\r\n" % (len(data), data))

    def end(self):
        """Ends an event stream as it should be."""
        self.write(b"0\r\n\r\n")

    def cut(self):
        """Ends the connection in the middle of whatever it is."""
        self.handler.close_connection = True
        with contextlib.suppress(OSError):
            self.handler.connection.shutdown(socket.SHUT_RDWR)


class Remote:
    """A server on a port of its own. Going down and up again keeps the port and nothing else."""

    def __init__(self, serve=None, tls=None):
        self.serve = serve or self.answer
        self.tls = tls
        self.seen = []  # every Exchange
        self.changed = threading.Condition()
        self.port = 0
        self.up()

    def answer(self, exchange):
        raise NotImplementedError

    def url(self, path="/mcp", host="127.0.0.1"):
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}{path}"

    def up(self):
        remote = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                super().setup()
                remote.connections.append(self.connection)

            def handle_any(self):
                exchange = Exchange(self)
                with remote.changed:
                    remote.seen.append(exchange)
                    remote.changed.notify_all()
                remote.serve(exchange)

            do_GET = do_POST = do_DELETE = handle_any

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            # A stream is held open by its thread.
            block_on_close = False

            def handle_error(self, *_):
                # The client is gone; that is what these tests are about.
                pass

        self.connections = []
        self.server = Server(("127.0.0.1", self.port), Handler)
        if self.tls:
            self.server.socket = self.tls.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        self.running = threading.Event()
        self.running.set()
        threading.Thread(target=lambda: self.server.serve_forever(0.01), daemon=True).start()

    def down(self):
        """The server dies: nothing listens any more, and every connection is cut."""
        self.running.clear()
        self.server.shutdown()
        self.server.server_close()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def wait_for(self, condition, seconds=5):
        """Waits until a request that meets the condition came, and returns it."""
        find = lambda: next((e for e in list(self.seen) if condition(e)), None)
        with self.changed:
            return self.changed.wait_for(find, seconds)

    def methods(self):
        return [exchange.method or exchange.verb for exchange in self.seen]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.running.is_set():
            self.down()


TOOL = {"name": "echo", "inputSchema": {"type": "object"}}


def result_of(exchange):
    """What a good server answers."""
    if exchange.method == "initialize":
        capabilities = {"tools": {"listChanged": True}, "logging": {}, "resources": {"subscribe": True}}
        version = exchange.params["protocolVersion"]
        return {"protocolVersion": version, "capabilities": capabilities, "serverInfo": {"name": "remote", "version": "1"}}
    if exchange.method == "tools/list":
        return {"tools": [TOOL]}
    if exchange.method == "tools/call":
        return {"content": [{"type": "text", "text": exchange.params["arguments"]["text"]}]}
    return {}


class Streamable(Remote):
    """Streamable HTTP. `faults` maps a JSON-RPC method, GET or DELETE to what takes the place of the good answer."""

    def __init__(self, faults=None, sessions=True, **more):
        self.faults, self.with_sessions, self.sessions = faults or {}, sessions, set()
        super().__init__(**more)

    def up(self):
        self.sessions.clear()
        super().up()

    def answer(self, exchange):
        name = exchange.method or exchange.verb
        known = not self.with_sessions or name == "initialize" or exchange.session in self.sessions
        if not known and name not in self.faults.get("unchecked", ()):
            error = {"code": -32001, "message": "Session not found"}
            return exchange.json({"jsonrpc": "2.0", "id": None, "error": error}, status=404)
        self.faults.get(name, self.good)(exchange)

    def good(self, exchange):
        if exchange.verb == "GET":
            exchange.stream()
            return self.hold(exchange)
        if exchange.verb == "DELETE":
            self.sessions.discard(exchange.session)
            return exchange.reply(200)
        if exchange.id is None or exchange.method is None:
            return exchange.reply(202)
        headers = []
        if exchange.method == "initialize" and self.with_sessions:
            session = uuid.uuid4().hex
            self.sessions.add(session)
            headers = [("mcp-session-id", session)]
        exchange.result(result_of(exchange), headers=headers)

    def hold(self, exchange):
        """Keeps a stream open as long as the server lives."""
        running = self.running
        while running.is_set() and not exchange.handler.wfile.closed:
            threading.Event().wait(0.02)


class Sse(Remote):
    """HTTP+SSE. `faults` maps a JSON-RPC method, or `endpoint`, to a function of the exchange and the stream's exchange."""

    def __init__(self, faults=None, **more):
        self.faults, self.streams = faults or {}, {}
        super().__init__(**more)

    def up(self):
        self.streams.clear()
        super().up()

    def answer(self, exchange):
        path, _, query = exchange.path.partition("?")
        if exchange.verb == "GET" and path == "/sse":
            session = uuid.uuid4().hex
            exchange.stream()
            self.streams[session] = exchange
            exchange.event(self.faults.get("endpoint", f"/messages?sessionId={session}"), event="endpoint")
            running = self.running
            while running.is_set() and self.streams.get(session) is exchange:
                threading.Event().wait(0.02)
            return
        stream = self.streams.get(query.partition("=")[2])
        if exchange.verb != "POST" or path != "/messages" or not stream:
            return exchange.reply(404, "not here", "text/plain")
        if exchange.method in self.faults:
            return self.faults[exchange.method](exchange, stream)
        exchange.reply(202, "Accepted", "text/plain")
        if exchange.id is not None and exchange.method:
            stream.event({"jsonrpc": "2.0", "id": exchange.id, "result": result_of(exchange)}, event="message")
