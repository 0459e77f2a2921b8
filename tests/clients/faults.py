"""Checks of client mode (`mcp-proxy URL`) against remote servers that misbehave; run.py starts it.

Usage: faults.py PROXY RUNTIME WORKDIR ONLY

Every check also holds the proxy to this: each line on stdout is a JSON-RPC message, each request is answered within
seconds, and once stdin is closed it ends with status 0.
"""

import contextlib
import datetime
import gzip
import ipaddress
import itertools
import json
import os
import pathlib
import queue
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time

from remote import Remote, Sse, Streamable, result_of

PROXY, RUNTIME, WORKDIR, ONLY = sys.argv[1:]
ANSWER_SECONDS = 5
EXIT_SECONDS = 5
SECRET = "hunter2"
HELLO = {
    "protocolVersion": "2025-11-25",
    "capabilities": {"roots": {}},
    "clientInfo": {"name": "faults", "version": "1"},
}

CHECKS = []


def check(function):
    CHECKS.append((function.__name__.replace("_", "-"), function))
    return function


def equal(got, want):
    if got != want:
        raise AssertionError(f"got {got!r}, want {want!r}")


def says(text, *patterns):
    """The text has to contain each pattern, in any case."""
    for pattern in patterns:
        if not re.search(pattern, text, re.IGNORECASE):
            raise AssertionError(f"{text!r} does not say {pattern!r}")


class Client:
    """The proxy in client mode, and its client."""

    numbers = itertools.count()

    def __init__(self, url, *flags, read=True):
        self.log = pathlib.Path(WORKDIR, f"faults-{next(self.numbers)}.log")
        environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [PROXY, "--runtime", RUNTIME, "--log-level", "debug", *flags, url],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment,
            )
        self.ids = itertools.count(1)
        self.lines = queue.Queue()
        self.others = []  # what was no answer
        if read:
            threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def send(self, method, params=None, **more):
        message = {"jsonrpc": "2.0", **more, "method": method} | ({} if params is None else {"params": params})
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()

    def start(self, method, params=None):
        number = next(self.ids)
        self.send(method, params, id=number)
        return number

    def take(self, seconds):
        """The next message, or None at the end of stdout."""
        try:
            line = self.lines.get(timeout=seconds)
        except queue.Empty:
            raise AssertionError(f"nothing within {seconds} s") from None
        if line is None:
            return None
        message = json.loads(line)
        equal((line[-1:], message.get("jsonrpc")), (b"\n", "2.0"))
        return message

    def wait(self, number, seconds=ANSWER_SECONDS):
        """The answer to the request of this number."""
        deadline = time.monotonic() + seconds
        while message := self.take(max(deadline - time.monotonic(), 0.001)):
            if message.get("id") == number and "method" not in message:
                return message
            self.others.append(message)
        raise AssertionError(f"the proxy ended before the answer to {number}: {self.tail()}")

    def ask(self, method, params=None, seconds=ANSWER_SECONDS):
        return self.wait(self.start(method, params), seconds)

    def hello(self):
        return self.ask("initialize", HELLO)

    def connect(self):
        answer = self.hello()
        if "result" not in answer:
            raise AssertionError(f"initialize was answered {answer}")
        self.send("notifications/initialized")
        return self

    def call_params(self, text="hi", token=None):
        return {"name": "echo", "arguments": {"text": text}} | ({"_meta": {"progressToken": token}} if token else {})

    def call(self, text="hi", seconds=ANSWER_SECONDS):
        return self.ask("tools/call", self.call_params(text), seconds)

    def fails(self, *patterns, seconds=ANSWER_SECONDS):
        """A call is answered with an error that says all this."""
        return said(self.call(seconds=seconds), *patterns)

    def works(self, text="still here"):
        equal(self.call(text).get("result"), {"content": [{"type": "text", "text": text}]})

    def until(self, method, seconds=ANSWER_SECONDS):
        """The next notification or request of this method."""
        deadline = time.monotonic() + seconds
        while True:
            for n, message in enumerate(self.others):
                if message.get("method") == method:
                    return self.others.pop(n)
            message = self.take(max(deadline - time.monotonic(), 0.001))
            if message is None:
                raise AssertionError(f"the proxy ended before {method}: {self.tail()}")
            self.others.append(message)

    def close(self):
        """Stdin ends; the proxy has to follow, by itself and well."""
        self.process.stdin.close()
        self.ends()

    def ends(self):
        try:
            status = self.process.wait(EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the proxy still runs after {EXIT_SECONDS} s: {self.tail()}") from None
        if status != 0:
            raise AssertionError(f"the proxy ended with {status}: {self.tail()}")
        while message := self.take(1):
            self.others.append(message)

    def tail(self):
        return " | ".join(self.log.read_text(errors="replace").strip().splitlines()[-3:])[-300:]

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        try:
            if kind is None and self.process.poll() is None:
                self.close()
        finally:
            self.process.kill()
            self.process.wait()


def said(answer, *patterns):
    """The answer is an error that says all this."""
    if "error" not in answer:
        raise AssertionError(f"no error but {str(answer)[:300]}")
    says(answer["error"]["message"], *patterns)
    return answer["error"]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def silent(exchange):
    """No answer, for as long as the test may last."""
    time.sleep(60)


# Statuses, with what the error has to say beside the number.
STATUSES = {
    401: ["unauthorized", "API_ACCESS_TOKEN"],
    403: ["forbidden", "credentials"],
    404: ["not found", "URL", "/mcp", "/sse"],
    405: ["method not allowed", "--transport"],
    429: ["too many requests", r"\b17\b"],
    500: ["internal server error"],
    502: ["bad gateway"],
}


def refuse(status):
    headers = [("retry-after", "17")] if status == 429 else [("www-authenticate", "Bearer")] if status == 401 else []
    return lambda exchange: exchange.reply(status, "<html>no</html>", "text/html", headers)


for status in STATUSES:

    def at_initialize(status=status):
        # Whatever it is asked.
        with Remote(refuse(status)) as remote, Client(remote.url()) as client:
            said(client.hello(), rf"\b{status}\b", *STATUSES[status])

    def at_a_call(status=status):
        times = iter([refuse(status)])
        # Without a session: with one, 404 is about the session.
        remote = Streamable(sessions=False)
        remote.faults["tools/call"] = lambda exchange: next(times, remote.good)(exchange)
        with remote, Client(remote.url()).connect() as client:
            client.fails(rf"\b{status}\b", *STATUSES[status])
            client.works()

    CHECKS.append((f"{status}-at-initialize", at_initialize))
    CHECKS.append((f"{status}-at-a-call", at_a_call))


@check
def neither_transport_says_both():
    def serve(exchange):
        exchange.reply(405 if exchange.verb == "POST" else 404, "no", "text/plain")

    with Remote(serve) as remote, Client(remote.url()) as client:
        said(client.hello(), r"\b405\b", r"\b404\b", "streamable", "sse")


@check
def html_page_at_initialize():
    with Remote(lambda exchange: exchange.reply(200, "<html>hi</html>", "text/html")) as remote:
        with Client(remote.url()) as client:
            said(client.hello(), "text/html", "URL")


@check
def html_page_at_a_call():
    page = lambda exchange: exchange.reply(200, "<html>hi</html>", "text/html; charset=utf-8")
    with Streamable({"tools/call": page}) as remote, Client(remote.url()).connect() as client:
        client.fails("text/html", "URL")


@check
def own_words():
    # What the server itself says goes through as it is, whatever the status.
    error = {"code": -32050, "message": "out of tea", "data": {"since": 5}}
    fault = lambda exchange: exchange.json({"jsonrpc": "2.0", "id": exchange.id, "error": error}, status=400)
    with Streamable({"tools/call": fault}) as remote, Client(remote.url()).connect() as client:
        equal(client.call()["error"], error)


@check
def own_words_without_a_number():
    error = {"code": -32700, "message": "cannot read that"}
    fault = lambda exchange: exchange.json({"jsonrpc": "2.0", "id": None, "error": error}, status=400)
    with Streamable({"tools/call": fault}) as remote, Client(remote.url()).connect() as client:
        client.fails("cannot read that")


@check
def own_refusal_of_initialize():
    error = {"code": -32602, "message": "Unsupported protocol version", "data": {"supported": ["2024-11-05"]}}
    fault = lambda exchange: exchange.json({"jsonrpc": "2.0", "id": exchange.id, "error": error})
    with Streamable({"initialize": fault}) as remote, Client(remote.url()) as client:
        equal(client.hello()["error"], error)


@check
def connection_refused():
    with Client(f"http://127.0.0.1:{free_port()}/mcp") as client:
        said(client.hello(), "refused", "is it running", "port")


@check
def connection_refused_then_up():
    remote = Streamable()
    remote.down()
    with Client(remote.url()) as client:
        said(client.hello(), "refused")
        remote.up()
        with remote:
            client.connect().works()


@check
def down_for_a_while():
    # To ask costs nothing: however often it failed, neither the next error nor the return of the server waits.
    remote = Streamable()
    remote.down()
    with Client(remote.url()) as client:
        for _ in range(10):
            said(client.hello(), "refused")
        remote.up()
        with remote:
            client.connect().works()


@check
def unknown_host():
    with Client("http://no-such-host.invalid/mcp") as client:
        said(client.hello(), "no-such-host.invalid", "host name")


@check
def silent_server():
    with Remote(silent) as remote, Client(remote.url(), "--head-timeout", "1") as client:
        said(client.hello(), "did not answer|no answer|timeout|timed out|within")


@check
def silent_body():
    def fault(exchange):
        exchange.head(200, [("content-type", "application/json"), ("content-length", "100")])
        exchange.write(b'{"jsonrpc"')
        silent(exchange)

    with Streamable({"tools/call": fault}) as remote, Client(remote.url(), "--body-timeout", "1").connect() as client:
        client.fails("broke off|timeout|timed out|within|nothing")


def bodies():
    """Names and bodies that are no answer to the call."""
    ok = {"jsonrpc": "2.0", "id": 12345678, "result": {}}
    json_type = "application/json"
    yield "empty", b"", json_type
    yield "garbage", b"{nonsense", json_type
    yield "not-utf8", b'{"jsonrpc":"2.0","id":1,"result":{"x":"\xff"}}', json_type
    yield "answer-to-another", json.dumps(ok).encode(), json_type
    yield "a-notification", b'{"jsonrpc":"2.0","method":"notifications/x"}', json_type
    yield "empty-array", b"[]", json_type
    yield "null", b"null", json_type


for name, body, kind in bodies():

    def no_answer(body=body, kind=kind):
        fault = lambda exchange: exchange.reply(200, body, kind)
        with Streamable({"tools/call": fault}) as remote, Client(remote.url()).connect() as client:
            client.fails("server")
            remote.faults.clear()
            client.works()

    CHECKS.append((f"body-is-{name}", no_answer))


@check
def body_is_too_short():
    def fault(exchange):
        exchange.head(200, [("content-type", "application/json"), ("content-length", "1000")])
        exchange.write(b'{"jsonrpc":"2.0","id":1,"result":{}}')
        exchange.cut()

    with Streamable({"tools/call": fault}) as remote, Client(remote.url()).connect() as client:
        client.fails("broke off|closed")


@check
def body_is_too_long():
    fault = lambda exchange: exchange.result({"text": "x" * 200_000})
    with Streamable({"tools/call": fault}) as remote:
        with Client(remote.url(), "--max-message-size", "100000").connect() as client:
            client.fails("100000", "--max-message-size")
            remote.faults.clear()
            client.works()


@check
def event_without_end():
    def fault(exchange):
        exchange.stream()
        exchange.chunk("data: ")
        with contextlib.suppress(OSError):
            while True:
                exchange.chunk("x" * 10_000)

    with Streamable({"tools/call": fault}) as remote:
        with Client(remote.url(), "--max-message-size", "100000").connect() as client:
            client.fails("100000|too long|larger")
            remote.faults.clear()
            client.works()


@check
def accepted_and_never_answered():
    fault = lambda exchange: exchange.reply(202, kind="text/plain")
    with Streamable({"tools/call": fault}) as remote, Client(remote.url()).connect() as client:
        client.fails("remote server")


@check
def stream_without_an_answer():
    def fault(exchange):
        exchange.stream()
        exchange.event({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "x"}})
        exchange.end()

    with Streamable({"tools/call": fault}) as remote, Client(remote.url()).connect() as client:
        client.fails("ended the stream before the answer")
        client.until("notifications/message")


@check
def refused_notification():
    # It has no answer that could carry the error; what follows must go on.
    with Streamable({"notifications/roots/list_changed": refuse(500)}) as remote:
        with Client(remote.url()).connect() as client:
            client.send("notifications/roots/list_changed")
            client.works()


@check
def compressed():
    def packed(exchange):
        equal("gzip" in exchange.headers.get("accept-encoding", ""), True)
        answer = {"jsonrpc": "2.0", "id": exchange.id, "result": result_of(exchange)}
        exchange.reply(200, gzip.compress(json.dumps(answer).encode()), headers=[("content-encoding", "gzip")])

    with Streamable({"tools/call": packed}) as remote, Client(remote.url()).connect() as client:
        client.works()


@check
def compression_bomb():
    def packed(exchange):
        body = gzip.compress(b" " * 50_000_000)
        exchange.reply(200, body, headers=[("content-encoding", "gzip")])

    with Streamable({"tools/call": packed}) as remote:
        with Client(remote.url(), "--max-message-size", "100000").connect() as client:
            client.fails("100000")


@check
def answers_in_a_batch():
    def fault(exchange):
        news = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "x"}}
        exchange.json([news, {"jsonrpc": "2.0", "id": exchange.id, "result": result_of(exchange)}])

    with Streamable({"tools/call": fault}) as remote, Client(remote.url()).connect() as client:
        client.works()
        client.until("notifications/message")


# The remote dies in the middle of a call and returns, and knows nothing of what was.


def hangs_in_json(exchange, *_):
    silent(exchange)


def hangs_in_a_stream(exchange, *_):
    exchange.stream()
    exchange.chunk(": here\n\n")
    silent(exchange)


def hangs_after_202(exchange, _stream):
    exchange.reply(202, "Accepted", "text/plain")


for name, kind, fault in [
    ("json", Streamable, hangs_in_json),
    ("stream", Streamable, hangs_in_a_stream),
    ("sse", Sse, hangs_after_202),
]:

    def dies_and_returns(kind=kind, fault=fault):
        path = "/sse" if kind is Sse else "/mcp"
        with kind({"tools/call": fault}) as remote, Client(remote.url(path)).connect() as client:
            equal(client.ask("logging/setLevel", {"level": "warning"}).get("result"), {})
            equal(client.ask("resources/subscribe", {"uri": "test://a"}).get("result"), {})
            number = client.start("tools/call", client.call_params())
            equal(remote.wait_for(lambda e: e.method == "tools/call") is not None, True)
            remote.down()
            said(client.wait(number), "remote server|event stream|connection|closed")
            # While it is away, errors say so.
            client.fails("refused")
            remote.faults.clear()
            before = len(remote.seen)
            remote.up()
            client.works()
            again = lambda: [e.method or e.verb for e in remote.seen[before:]]
            # They go out at once, each on a connection of its own: the call may be the first to arrive.
            for method in ["initialize", "notifications/initialized", "logging/setLevel", "resources/subscribe"]:
                if not remote.wait_for(lambda _: method in again()):
                    raise AssertionError(f"{method} was not sent again, only {again()}")
            level = next(e.params["level"] for e in remote.seen[before:] if e.method == "logging/setLevel")
            equal(level, "warning")

    CHECKS.append((f"dies-and-returns-{name}", dies_and_returns))


@check
def forgotten_session():
    with Streamable() as remote, Client(remote.url()).connect() as client:
        client.works("before")
        remote.sessions.clear()
        # It was not processed, so it is sent again, and nobody notices.
        client.works("after")
        equal(remote.methods().count("initialize"), 2)


@check
def forgotten_session_answered_400():
    # The official TypeScript examples and server-everything say it this way.
    error = {"code": -32000, "message": "Bad Request: No valid session ID provided"}
    remote = Streamable({"unchecked": ["tools/call"]})

    def fault(exchange):
        if exchange.session in remote.sessions:
            return remote.good(exchange)
        exchange.json({"jsonrpc": "2.0", "id": exchange.id, "error": error}, status=400)

    remote.faults["tools/call"] = fault
    with remote, Client(remote.url()).connect() as client:
        client.works("before")
        remote.sessions.clear()
        answer = client.call()
        if "error" in answer:
            says(answer["error"]["message"], "session")
        client.works("after")


# Streams that break.


@check
def resumed_stream():
    progress = lambda e, n: {
        "jsonrpc": "2.0", "method": "notifications/progress",
        "params": {"progressToken": e.params["_meta"]["progressToken"], "progress": n},
    }
    calls = []

    def cut(exchange):
        calls.append(exchange)
        exchange.stream()
        exchange.event(id="s_0", retry=300, data="")
        exchange.event(progress(exchange, 1), id="s_1")
        exchange.cut()
        exchange.time = time.monotonic()

    def resume(exchange):
        last = exchange.headers.get("last-event-id")
        if last is None:
            return remote.good(exchange)
        exchange.time = time.monotonic()
        exchange.stream()
        call = calls[0]
        if last == "s_1":
            # A second cut, after one more event.
            exchange.event(progress(call, 2), id="s_2")
            return exchange.cut()
        exchange.event({"jsonrpc": "2.0", "id": call.id, "result": result_of(call)}, id="s_3")
        exchange.end()

    remote = Streamable({"tools/call": cut, "GET": resume})
    with remote, Client(remote.url()).connect() as client:
        answer = client.ask("tools/call", client.call_params("resumed", token="t"))
        equal(answer.get("result"), {"content": [{"type": "text", "text": "resumed"}]})
        equal([m["params"]["progress"] for m in client.others if m.get("method") == "notifications/progress"], [1, 2])
        resumed = [e for e in remote.seen if e.headers.get("last-event-id")]
        equal([e.headers["last-event-id"] for e in resumed], ["s_1", "s_2"])
        equal({e.session for e in resumed} <= remote.sessions, True)
        equal(remote.methods().count("tools/call"), 1)
        # `retry` is to be waited, and not much longer.
        equal(0.25 < resumed[0].time - calls[0].time < 2, True)


for status in 400, 405:

    def resumption_refused(status=status):
        def cut(exchange):
            exchange.stream()
            exchange.event(id="s_0", retry=100, data="")
            exchange.cut()

        def resume(exchange):
            if exchange.headers.get("last-event-id") is None:
                return remote.good(exchange)
            exchange.reply(status, "no", "text/plain")

        remote = Streamable({"tools/call": cut, "GET": resume})
        with remote, Client(remote.url()).connect() as client:
            # It will not be another time, so trying on is no use.
            client.fails("stream")
            remote.faults.clear()
            client.works()

    CHECKS.append((f"resumption-answered-{status}", resumption_refused))


@check
def standalone_stream_resumes():
    news = lambda n: {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": n}}

    def stream(exchange):
        last = exchange.headers.get("last-event-id")
        exchange.stream()
        if last is None:
            exchange.event(news(1), id="g_1", retry=100)
            return exchange.cut()
        exchange.event(news(f"after {last}"), id="g_2")
        remote.hold(exchange)

    remote = Streamable({"GET": stream})
    with remote, Client(remote.url()).connect() as client:
        equal(client.until("notifications/message")["params"]["data"], 1)
        equal(client.until("notifications/message")["params"]["data"], "after g_1")


@check
def question_on_the_standalone_stream():
    def stream(exchange):
        exchange.stream()
        exchange.event({"jsonrpc": "2.0", "id": "q", "method": "roots/list"}, event="message")
        remote.hold(exchange)

    remote = Streamable({"GET": stream})
    with remote, Client(remote.url()).connect() as client:
        question = client.until("roots/list")
        answer = {"jsonrpc": "2.0", "id": question["id"], "result": {"roots": []}}
        client.process.stdin.write(json.dumps(answer).encode() + b"\n")
        client.process.stdin.flush()
        got = remote.wait_for(lambda e: "result" in e.message)
        equal(got and got.message, {"jsonrpc": "2.0", "id": "q", "result": {"roots": []}})


@check
def no_standalone_stream():
    with Streamable({"GET": refuse(405)}) as remote, Client(remote.url()).connect() as client:
        client.works()


@check
def standalone_stream_without_a_head():
    # Some servers send the head with the first event. It must not hold up the calls for long.
    with Streamable({"GET": silent}) as remote, Client(remote.url()).connect() as client:
        client.works()


@check
def event_stream_is_cut():
    # HTTP+SSE cannot resume: the call is lost, and the next one begins a new session.
    def cut(exchange, stream):
        exchange.reply(202, "Accepted", "text/plain")
        stream.cut()

    with Sse({"tools/call": cut}) as remote, Client(remote.url("/sse")).connect() as client:
        client.fails("event stream ended|broke")
        remote.faults.clear()
        client.works()
        sessions = [e.path for e in remote.seen if e.method == "initialize" and e.path.startswith("/messages")]
        equal((len(sessions), len(set(sessions))), (2, 2))


@check
def post_is_refused_beside_the_event_stream():
    times = iter([lambda exchange, _: exchange.reply(500, "no", "text/plain")])

    def fault(exchange, stream):
        if refusal := next(times, None):
            return refusal(exchange, stream)
        exchange.reply(202)
        stream.event({"jsonrpc": "2.0", "id": exchange.id, "result": result_of(exchange)}, event="message")

    with Sse({"tools/call": fault}) as remote, Client(remote.url("/sse")).connect() as client:
        client.fails(r"\b500\b")
        client.works()


@check
def no_endpoint():
    def serve(exchange):
        if exchange.verb == "GET":
            exchange.stream()
        silent(exchange)

    with Remote(serve) as remote, Client(remote.url("/sse"), "--transport", "sse", "--start-timeout", "1") as client:
        said(client.hello(), "endpoint|initialize within")


# Where credentials may go.


@check
def foreign_endpoint():
    with Sse() as other, Sse({"endpoint": other.url("/messages?sessionId=1")}) as remote:
        with Client(remote.url("/sse"), "--transport", "sse") as client:
            said(client.hello(), "endpoint", "origin")
        equal(other.seen, [])


CREDENTIALS = ["-H", "Authorization", f"Bearer {SECRET}", "-H", "X-Key", SECRET]


@check
def foreign_redirect():
    with Streamable() as other, Remote(lambda e: e.reply(307, headers=[("location", other.url())])) as remote:
        with Client(remote.url(f"/mcp?key={SECRET}"), *CREDENTIALS).connect() as client:
            client.works()
        for exchange in other.seen:
            equal(SECRET in str(exchange.headers) + exchange.path, False)
        equal(remote.seen[0].headers["authorization"], f"Bearer {SECRET}")
        equal("DELETE" in other.methods(), True)


@check
def redirect_within_the_origin():
    def answer(exchange):
        if exchange.path == "/mcp":
            return exchange.reply(308, headers=[("location", "/elsewhere/mcp")])
        good(exchange)

    with Streamable() as remote:
        good, remote.serve = remote.serve, answer
        with Client(remote.url(), *CREDENTIALS).connect() as client:
            client.works()
        moved = [e for e in remote.seen if e.path == "/elsewhere/mcp"]
        equal({e.headers["authorization"] for e in moved}, {f"Bearer {SECRET}"})


@check
def redirect_loop():
    with Remote(lambda e: e.reply(307, headers=[("location", "/mcp")])) as remote, Client(remote.url()) as client:
        said(client.hello(), "307|redirect")


@check
def secrets_stay_out_of_the_log():
    with Remote(refuse(401)) as remote:
        client = Client(remote.url(f"/mcp?key={SECRET}"), *CREDENTIALS)
        with client:
            error = said(client.hello(), "401")
        equal(SECRET in json.dumps(error) + client.log.read_text(), False)
    with Client(f"http://127.0.0.1:{free_port()}/mcp?key={SECRET}", "--api-access-token", SECRET) as client:
        error = said(client.hello(), "refused")
    equal(SECRET in json.dumps(error) + client.log.read_text(), False)


# TLS.


def certificate(folder):
    """A certificate that nobody has signed, for localhost; PEM files of it and of its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now, names = datetime.datetime.now(datetime.UTC), [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    signed = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - datetime.timedelta(days=1)).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), False).sign(key, hashes.SHA256())
    )
    pem, secret = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    cert_file, key_file = pathlib.Path(folder, "cert.pem"), pathlib.Path(folder, "key.pem")
    cert_file.write_bytes(signed.public_bytes(pem))
    key_file.write_bytes(key.private_bytes(pem, secret, serialization.NoEncryption()))
    return cert_file, key_file


@check
def tls():
    cert, key = certificate(WORKDIR)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    with Streamable(tls=context) as remote:
        with Client(remote.url()) as client:
            said(client.hello(), "certificate", "--verify-ssl")
        with Client(remote.url(), "--verify-ssl", str(cert)).connect() as client:
            client.works()
        with Client(remote.url(), "--no-verify-ssl").connect() as client:
            client.works()
        with Client(remote.url(host="localhost"), "--verify-ssl", str(cert)) as client:
            said(client.hello(), "certificate", "localhost|name")


@check
def tls_to_plain_http():
    with Streamable() as remote, Client(remote.url().replace("http:", "https:")) as client:
        said(client.hello(), "TLS")


# The end.


@check
def end_of_stdin_ends_the_session():
    for url, remote in [("/mcp", Streamable()), ("/sse", Sse())]:
        with remote:
            with Client(remote.url(url)).connect() as client:
                client.works()
            if url == "/mcp":
                equal(remote.sessions, set())
                equal(remote.seen[-1].headers["mcp-protocol-version"], "2025-11-25")


@check
def end_of_stdin_in_the_middle_of_a_call():
    fault = lambda exchange: (time.sleep(1), remote.good(exchange))
    remote = Streamable({"tools/call": fault})
    with remote:
        with Client(remote.url()).connect() as client:
            # `echo ... | mcp-proxy URL` is to have its answer.
            number = client.start("tools/call", client.call_params())
            client.process.stdin.close()
            equal("result" in client.wait(number), True)
            client.ends()
        equal(remote.sessions, set())


@check
def end_of_stdin_with_a_server_that_hangs():
    with Streamable({"tools/call": silent, "DELETE": silent}) as remote:
        with Client(remote.url()).connect() as client:
            client.start("tools/call", client.call_params())
            remote.wait_for(lambda e: e.method == "tools/call")
            client.process.stdin.close()
            # A moment for the call, a moment for the DELETE.
            equal(client.process.wait(10), 0)
        equal("DELETE" in remote.methods(), True)


@check
def end_of_stdin_before_anything():
    with Client(f"http://127.0.0.1:{free_port()}/mcp"):
        pass


@check
def a_signal_ends_the_session():
    with Streamable() as remote:
        with Client(remote.url()).connect() as client:
            client.works()
            client.process.send_signal(signal.SIGTERM)
            client.ends()
        equal(remote.sessions, set())


@check
def nobody_reads_stdout():
    with Streamable() as remote, Client(remote.url(), read=False) as client:
        client.process.stdout.close()
        client.send("initialize", HELLO, id=1)
        client.process.wait(EXIT_SECONDS)
        equal(remote.wait_for(lambda e: e.verb == "DELETE") is not None, True)


def reason(error):
    return " ".join(f"{type(error).__name__}: {error}".split())[:600]


def main():
    failed = False
    for name, function in CHECKS:
        full = f"faults/{name}"
        if ONLY not in full:
            continue
        try:
            function()
            print(f"ok {full}", flush=True)
        except Exception as error:
            failed = True
            print(f"FAIL {full} {reason(error)}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
