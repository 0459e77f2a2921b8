"""HTTP requests of revision 2026-07-28 by hand, for modern_http.py: every field can be left out, doubled or wrong."""

import http.client
import itertools
import json
import socket
import urllib.parse

VERSION = "2026-07-28"
META = "io.modelcontextprotocol/"
NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
BOTH = "application/json, text/event-stream"
SECONDS = 10

numbers = itertools.count(1)


def meta(**changes):
    """The required keys of `_meta`, with changes: a value of None leaves the key out."""
    keys = {"protocolVersion": VERSION, "clientCapabilities": {}, "clientInfo": {"name": "by-hand", "version": "1"}}
    keys |= changes
    return {META + key: value for key, value in keys.items() if value is not None}


def request(method, params=None, id=None, **changes):
    """A request. Its id is fresh unless given; `changes` are those of `meta`."""
    return {
        "jsonrpc": "2.0",
        "id": next(numbers) if id is None else id,
        "method": method,
        "params": {**(params or {}), "_meta": {**meta(**changes), **(params or {}).get("_meta", {})}},
    }


def call(tool, arguments=None, id=None, capabilities=None, **params):
    params = {"name": tool, "arguments": arguments or {}, **params}
    return request("tools/call", params, id, clientCapabilities=capabilities or {})


def fields(body, changes):
    """The header fields that belong to a body, with changes: None leaves a field out, a list sends it several times."""
    own = {"Content-Type": "application/json", "Accept": BOTH}
    if isinstance(body, dict) and "method" in body:
        own |= {"MCP-Protocol-Version": VERSION, "Mcp-Method": body["method"]}
        name = body.get("params", {}).get(NAMED.get(body["method"]))
        if isinstance(name, str):
            own["Mcp-Name"] = name
    for name, value in changes.items():
        for known in [known for known in own if known.lower() == name.lower()]:
            del own[known]
        if value is not None:
            own[name] = value
    for name, value in own.items():
        for each in value if isinstance(value, list) else [value]:
            yield name, each


class Reply:
    """The head of an answer, and its messages as they come."""

    def __init__(self, connection, response):
        self.connection, self.response = connection, response
        self.status = response.status
        self.type = (response.getheader("Content-Type") or "").split(";")[0]

    def header(self, name):
        return self.response.getheader(name)

    def body(self):
        return self.response.read()

    def json(self):
        return json.loads(self.body())

    def events(self):
        """The fields of each event of an SSE stream, as lists of (name, value); comments are left out."""
        event = []
        while line := self.response.readline():
            line = line.rstrip(b"\r\n").decode()
            if not line and event:
                yield event
                event = []
            elif line and not line.startswith(":"):
                name, _, value = line.partition(":")
                event.append((name, value.removeprefix(" ")))

    def messages(self):
        """Every message of the answer, in whichever way it comes."""
        if self.type == "application/json":
            yield self.json()
            return
        for event in self.events():
            data = "\n".join(value for name, value in event if name == "data")
            if data:
                yield json.loads(data)

    def last(self):
        """The answer itself; what came before it is dropped."""
        *_, last = self.messages()
        return last

    def close(self):
        """Hangs up, whatever may still come."""
        # http.client keeps the socket open as long as the response does.
        self.connection.sock and self.connection.sock.shutdown(socket.SHUT_RDWR)
        self.response.close()
        self.connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self.close()
        except OSError:
            pass


class Peer:
    """Where requests go."""

    def __init__(self, url):
        self.url = urllib.parse.urlsplit(url)

    def send(self, verb, body=None, path=None, connection=None, **changes):
        """Sends a request, whose header fields are those of its body (see `fields`), and reads the head of the answer."""
        connection = connection or http.client.HTTPConnection(self.url.hostname, self.url.port, timeout=SECONDS)
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        changes = {name.replace("_", "-"): value for name, value in changes.items()}
        connection.putrequest(verb, path or self.url.path, skip_host="Host" in changes, skip_accept_encoding=True)
        for name, value in fields(body, changes):
            connection.putheader(name, value)
        if verb == "POST":
            connection.putheader("Content-Length", str(len(data)))
        try:
            connection.endheaders(data)
        except (BrokenPipeError, ConnectionResetError):
            # It has heard enough. Its answer may be there all the same.
            pass
        return connection

    def open(self, verb, body=None, **changes):
        connection = self.send(verb, body, **changes)
        return Reply(connection, connection.getresponse())

    def post(self, body, **changes):
        return self.open("POST", body, **changes)

    def ask(self, body, **changes):
        """The status, and the answer."""
        with self.post(body, **changes) as reply:
            return reply.status, reply.last()

    def status(self):
        """What a proxy says of itself."""
        with self.open("GET", path="/status", Accept="application/json") as reply:
            return reply.json()
