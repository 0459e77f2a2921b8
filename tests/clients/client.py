"""Checks with the official Python SDK client. client.mjs holds the same checks; run.py starts both.

Usage: client.py NAME LIST FRONT TARGET WORKDIR ONLY

LIST picks the checks; NAME goes before theirs. FRONT is the client's transport: `http` and `sse` go to the URL TARGET,
`stdio` starts the command TARGET, a JSON array.
"""

import base64
import json
import os
import pathlib
import sys
import tempfile
import time
from contextlib import asynccontextmanager

import anyio
import httpx
from mcp import ClientSession, McpError, StdioServerParameters, types
from mcp.client.sse import sse_client
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

NAME, LIST, FRONT, TARGET, WORKDIR, ONLY = sys.argv[1:]
CHECK_SECONDS = 30
DOCS = pathlib.Path(__file__).parent / "node_modules/@modelcontextprotocol/server-everything/dist/docs"

CHECKS = []


def check(*lists):
    """Register a check to run in these lists."""

    def register(function):
        if LIST in lists:
            CHECKS.append((function.__name__.replace("_", "-"), function))
        return function

    return register


def equal(got, want):
    if got != want:
        raise AssertionError(f"got {got!r}, want {want!r}")


class Link:
    """A connected session, with what it posted and what it was told."""

    def __init__(self):
        self.posted = []  # JSON-RPC messages on their way to the proxy
        self.answered = []  # (HTTP method, status) of every answer
        self.endpoint = None  # where messages were posted
        self.seen = []  # notifications, and answers nobody waits for
        self.news = anyio.Event()

    def tell(self):
        self.news.set()
        self.news = anyio.Event()

    async def until(self, condition):
        """Wait until something that came in or went out makes the condition true; the check has a deadline."""
        while not condition():
            await self.news.wait()

    async def on_request(self, request):
        if request.method == "POST":
            self.endpoint = str(request.url)

    async def on_response(self, response):
        self.answered.append((response.request.method, response.status_code))
        self.tell()

    async def on_message(self, message):
        self.seen.append(getattr(message, "root", message))
        self.tell()

    async def listening(self):
        """Wait for the stream that carries what belongs to no request: before it is open, that may be lost."""
        if FRONT == "http":
            await self.until(lambda: ("GET", 200) in self.answered)

    def calls(self):
        return [m["id"] for m in self.posted if m.get("method") == "tools/call"]

    def request_ids(self):
        return sorted(m["id"] for m in self.posted if "method" in m and "id" in m)

    def progress(self):
        return [
            (m.params.progressToken, m.params.progress, m.params.total)
            for m in self.seen
            if isinstance(m, types.ProgressNotification)
        ]

    def logs(self, prefix):
        return [
            (m.params.level, m.params.data)
            for m in self.seen
            if isinstance(m, types.LoggingMessageNotification) and str(m.params.data).startswith(prefix)
        ]

    async def call(self, name, arguments=None, **options):
        return await self.session.call_tool(name, arguments or {}, **options)

    async def text(self, name, arguments=None, **options):
        """Call a tool that answers without error, and return its first text."""
        result = await self.call(name, arguments, **options)
        equal(result.isError, False)
        return result.content[0].text


class Tap:
    """The stream of messages to the transport, with the link looking on."""

    def __init__(self, stream, link):
        self.stream, self.link = stream, link

    async def send(self, item):
        self.link.posted.append(item.message.model_dump(by_alias=True, mode="json", exclude_none=True))
        self.link.tell()
        await self.stream.send(item)

    async def aclose(self):
        await self.stream.aclose()

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.aclose()


@asynccontextmanager
async def transport(link):
    hooks = {"request": [link.on_request], "response": [link.on_response]}
    if FRONT == "http":
        async with (
            httpx.AsyncClient(timeout=CHECK_SECONDS, event_hooks=hooks) as http,
            streamable_http_client(TARGET, http_client=http) as (read, write, session_id),
        ):
            link.session_id = session_id
            yield read, write
    elif FRONT == "sse":

        def factory(headers=None, timeout=None, auth=None):
            return httpx.AsyncClient(headers=headers, timeout=timeout, auth=auth, event_hooks=hooks)

        async with sse_client(TARGET, timeout=CHECK_SECONDS, httpx_client_factory=factory) as (read, write):
            yield read, write
    else:
        # The SDK keeps the exit status to itself, and kills what does not end by itself: then there is none.
        status = pathlib.Path(tempfile.mktemp(dir=WORKDIR))
        wrapper = ["-c", '"$@"; echo $? >"$0"', str(status), *json.loads(TARGET)]
        server = StdioServerParameters(command="sh", args=wrapper, env=dict(os.environ))
        try:
            async with stdio_client(server) as (read, write):
                yield read, write
        except* anyio.BrokenResourceError:
            # The SDK trips over messages that arrive while it closes, and then does not wait for the end.
            with anyio.move_on_after(2):
                while not status.exists() or not status.read_text():
                    await anyio.sleep(0.01)
        equal(status.read_text() if status.exists() else "none in time", "0\n")


@asynccontextmanager
async def connect(**callbacks):
    link = Link()
    async with (
        transport(link) as (read, write),
        ClientSession(read, Tap(write, link), message_handler=link.on_message, **callbacks) as session,
    ):
        link.session = session
        link.hello = await session.initialize()
        yield link


async def rpc_error(awaitable):
    """The JSON-RPC error that the request is answered with."""
    try:
        result = await awaitable
    except McpError as error:
        return error.error
    raise AssertionError(f"expected an error, got {result!r}")


def sampler(reply):
    """A sampling callback that records what it is asked and answers with `reply`."""

    async def callback(_context, params):
        callback.asked.append(params.model_dump(exclude_none=True, mode="json"))
        return types.CreateMessageResult(
            role="assistant", model="test-model", stopReason="endTurn", content=types.TextContent(type="text", text=reply)
        )

    callback.asked = []
    return callback


def elicitor(action, content=None):
    async def callback(_context, params):
        callback.asked.append(params.model_dump(exclude_none=True, mode="json"))
        return types.ElicitResult(action=action, content=content)

    callback.asked = []
    return callback


def rooted(roots):
    async def callback(_context):
        return types.ListRootsResult(roots=[types.Root(uri=uri, name=name) for name, uri in roots])

    return callback


def sampled_text(text):
    """What server-everything makes of the answer to its sampling request."""
    heading, answer = text.split("\n", 1)
    equal(heading, "LLM sampling result: ")
    return json.loads(answer)


@check("everything", "everything-shared", "everything-short")
async def initialize():
    async with connect() as link:
        equal(link.hello.protocolVersion, "2025-11-25")
        equal((link.hello.serverInfo.name, link.hello.serverInfo.version), ("mcp-servers/everything", "2.0.0"))
        equal(link.hello.instructions, (DOCS / "instructions.md").read_text())
        equal(
            link.hello.capabilities.model_dump(exclude_none=True),
            {
                "tools": {"listChanged": True},
                "prompts": {"listChanged": True},
                "resources": {"subscribe": True, "listChanged": True},
                "logging": {},
                "completions": {},
                "tasks": {"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}},
            },
        )


@check("everything")
async def tools():
    # The server offers the last five only to a client that can sample, be asked and list roots.
    async with connect(
        sampling_callback=sampler(""), elicitation_callback=elicitor("cancel"), list_roots_callback=rooted([])
    ) as link:
        names = [tool.name for tool in (await link.session.list_tools()).tools]
        equal(
            names,
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
        )


@check("everything")
async def prompts():
    async with connect() as link:
        names = [prompt.name for prompt in (await link.session.list_prompts()).prompts]
        equal(names, ["simple-prompt", "args-prompt", "completable-prompt", "resource-prompt"])
        prompt = await link.session.get_prompt("args-prompt", {"city": "Zürich", "state": "ZH"})
        equal([(m.role, m.content.text) for m in prompt.messages], [("user", "What's weather in Zürich, ZH?")])


@check("everything")
async def resources():
    async with connect() as link:
        uris = sorted(str(r.uri) for r in (await link.session.list_resources()).resources)
        equal(uris, [f"demo://resource/static/document/{path.name}" for path in sorted(DOCS.iterdir())])
        result = await link.session.read_resource("demo://resource/static/document/structure.md")
        equal([(r.mimeType, r.text) for r in result.contents], [("text/markdown", (DOCS / "structure.md").read_text())])


@check("everything")
async def templates():
    async with connect() as link:
        listed = (await link.session.list_resource_templates()).resourceTemplates
        text, blob = "demo://resource/dynamic/text/{resourceId}", "demo://resource/dynamic/blob/{resourceId}"
        equal([t.uriTemplate for t in listed], [text, blob])
        [content] = (await link.session.read_resource(text.format(resourceId=7))).contents
        equal(content.text.split(" created at ")[0], "Resource 7: This is a plaintext resource")
        [content] = (await link.session.read_resource(blob.format(resourceId=8))).contents
        equal(base64.b64decode(content.blob).split(b" created at ")[0], b"Resource 8: This is a base64 blob")


@check("everything", "everything-shared", "everything-short")
async def call_tool():
    async with connect() as link:
        equal(await link.text("get-sum", {"a": 2, "b": 40}), "The sum of 2 and 40 is 42.")
        odd = 'quote " backslash \\ newline \n tab \t nul \0 emoji 🦀 line separator \u2028'
        equal(await link.text("echo", {"message": odd}), f"Echo: {odd}")
        weather = (await link.call("get-structured-content", {"location": "New York"})).structuredContent
        equal(weather, {"temperature": 33, "conditions": "Cloudy", "humidity": 82})
        image = (await link.call("get-tiny-image")).content[1]
        equal((image.mimeType, base64.b64decode(image.data)[:8]), ("image/png", b"\x89PNG\r\n\x1a\n"))


@check("everything", "everything-shared", "everything-short")
async def progress():
    async with connect() as link:
        steps = []

        async def on_progress(done, total, _message):
            steps.append((done, total))

        want = [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]
        operation = {"duration": 0.5, "steps": 5}
        done = "Long running operation completed. Duration: 0.5 seconds, Steps: 5."
        equal(await link.text("trigger-long-running-operation", operation, progress_callback=on_progress), done)
        equal(steps, want)
        # The SDK's own token is the number of the request; a token may also be a string.
        [call] = link.calls()
        equal(link.progress(), [(call, *step) for step in want])
        link.seen.clear()
        equal(await link.text("trigger-long-running-operation", operation, meta={"progressToken": "7"}), done)
        equal(link.progress(), [("7", *step) for step in want])


@check("everything", "everything-short")
async def sampling():
    sample = sampler("forty-two")
    async with connect(sampling_callback=sample) as link:
        text = await link.text("trigger-sampling-request", {"prompt": "hello", "maxTokens": 77})
        question = "Resource trigger-sampling-request context: hello"
        equal(
            sample.asked,
            [
                {
                    "messages": [{"role": "user", "content": {"type": "text", "text": question}}],
                    "systemPrompt": "You are a helpful test server.",
                    "maxTokens": 77,
                    "temperature": 0.7,
                }
            ],
        )
        equal(
            sampled_text(text),
            {
                "role": "assistant",
                "model": "test-model",
                "stopReason": "endTurn",
                "content": {"type": "text", "text": "forty-two"},
            },
        )


@check("everything")
async def elicitation():
    accept = elicitor("accept", {"name": "Ada", "check": True, "integer": 17})
    async with connect(elicitation_callback=accept) as link:
        result = await link.call("trigger-elicitation-request")
        [asked] = accept.asked
        equal(asked["message"], "Please provide inputs for the following fields:")
        equal(asked["requestedSchema"]["required"], ["name"])
        equal(len(asked["requestedSchema"]["properties"]), 13)
        equal(result.content[1].text, "User inputs:\n- Name: Ada\n- Agreed to terms: true\n- Favorite Integer: 17")
    async with connect(elicitation_callback=elicitor("decline")) as link:
        equal(await link.text("trigger-elicitation-request"), "❌ User declined to provide the requested information.")


@check("everything", "everything-short")
async def roots():
    def listing(text):
        return text.split("\n\nNote:")[0]

    mine = [("home", "file:///home/ada")]
    async with connect(list_roots_callback=rooted(mine)) as link:
        await link.listening()
        first = "Current MCP Roots (1 total):\n\n1. home\n   URI: file:///home/ada"
        equal(listing(await link.text("get-roots-list")), first)
        mine.append(("work", "file:///work"))
        await link.session.send_roots_list_changed()
        news = ("info", "Roots updated: 2 root(s) received from client")
        await link.until(lambda: news in link.logs("Roots updated"))
        second = first.replace("(1 total)", "(2 total)") + "\n\n2. work\n   URI: file:///work"
        equal(listing(await link.text("get-roots-list")), second)


@check("everything", "everything-short")
async def logging():
    uri = "demo://resource/dynamic/text/1"
    # The server logs each (un)subscribe request at level info, with this text and perhaps the session.
    line = ("info", f"Received Subscribe Resource request for URI: {uri} ")

    def lines():
        return [(level, text.split("from session")[0]) for level, text in link.logs("Received")]

    async with connect() as link:
        await link.listening()
        await link.session.set_logging_level("debug")
        await link.session.subscribe_resource(uri)
        await link.until(lines)
        await link.session.set_logging_level("error")
        await link.session.unsubscribe_resource(uri)
        await link.session.set_logging_level("info")
        await link.session.subscribe_resource(uri)
        await link.until(lambda: len(lines()) > 1)
        equal(lines(), [line, line])


@check("everything")
async def subscribe():
    uri = "demo://resource/dynamic/text/3"

    def updates():
        return [str(m.params.uri) for m in link.seen if isinstance(m, types.ResourceUpdatedNotification)]

    async with connect() as link:
        await link.listening()
        await link.session.subscribe_resource(uri)
        await link.text("toggle-subscriber-updates")
        await link.until(updates)
        equal(updates(), [uri])


@check("everything")
async def completion():
    async with connect() as link:
        prompt = types.PromptReference(type="ref/prompt", name="completable-prompt")
        template = types.ResourceTemplateReference(
            type="ref/resource", uri="demo://resource/dynamic/text/{resourceId}"
        )

        async def complete(ref, name, value, context=None):
            return (await link.session.complete(ref, {"name": name, "value": value}, context)).completion.values

        equal(await complete(prompt, "department", "S"), ["Sales", "Support"])
        equal(await complete(prompt, "name", "", {"department": "Sales"}), ["David", "Eve", "Frank"])
        equal(await complete(template, "resourceId", "7"), ["7"])


async def cancel_after_first_progress(link, operation):
    """Start a call, and cancel it as a user would once it has made some progress. Returns its number."""
    async with anyio.create_task_group() as group:

        async def on_progress(*_):
            group.cancel_scope.cancel()

        request_id = max(link.request_ids()) + 1
        await link.call("trigger-long-running-operation", operation, progress_callback=on_progress)
        raise AssertionError("the call was answered before its first progress")
    # This SDK stops waiting, but leaves it to the caller to tell the server.
    params = types.CancelledNotificationParams(requestId=request_id, reason="changed my mind")
    await link.session.send_notification(types.ClientNotification(types.CancelledNotification(params=params)))
    return request_id


@check("everything", "everything-shared", "everything-short")
async def cancellation():
    async with connect() as link:
        operation = {"duration": 1.5, "steps": 3}
        await cancel_after_first_progress(link, operation)
        # Begun later and as long: when this is answered, the cancelled call would have been too.
        text = await link.text("trigger-long-running-operation", operation)
        equal(text, "Long running operation completed. Duration: 1.5 seconds, Steps: 3.")
        equal([m for m in link.seen if "operation completed" in str(m)], [])
        equal(await link.text("echo", {"message": "alive"}), "Echo: alive")


@check("everything", "everything-shared")
async def ping():
    async with connect() as link:
        equal((await link.session.send_ping()).model_dump(exclude_none=True), {})


@check("everything", "everything-shared")
async def fifty_calls_at_once():
    async with connect() as link:
        await link.session.list_tools()  # else the SDK asks for it after every call
        answers = {}

        async def one(i):
            # The later it starts the sooner it ends, so answers come in another order than calls.
            seconds = (150 - i) / 100
            arguments = {"duration": seconds, "steps": 1}
            answers[f"{seconds:g}"] = await link.text("trigger-long-running-operation", arguments)

        begin = time.monotonic()
        async with anyio.create_task_group() as group:
            for i in range(50):
                group.start_soon(one, i)
        equal(len(answers), 50)
        for seconds, answer in answers.items():
            equal(answer, f"Long running operation completed. Duration: {seconds} seconds, Steps: 1.")
        # One after the other they take over a minute.
        equal(time.monotonic() - begin < 10, True)


@check("everything", "everything-shared")
async def errors():
    async with connect() as link:
        # This server reports a bad call in the result ...
        unknown = await link.call("no-such-tool")
        equal((unknown.isError, unknown.content[0].text), (True, "MCP error -32602: Tool no-such-tool not found"))
        invalid = await link.call("get-sum", {"a": "two", "b": 1})
        equal(invalid.isError, True)
        head = "MCP error -32602: Input validation error: Invalid arguments for tool get-sum: "
        equal(invalid.content[0].text[: len(head)], head)
        # ... and a bad prompt or resource as a JSON-RPC error.
        error = await rpc_error(link.session.get_prompt("no-such-prompt"))
        equal((error.code, error.message), (-32602, "MCP error -32602: Prompt no-such-prompt not found"))
        error = await rpc_error(link.session.read_resource("demo://nowhere"))
        equal((error.code, error.message), (-32602, "MCP error -32602: Resource demo://nowhere not found"))


@check("everything", "everything-short")
async def error_data():
    async with connect(elicitation_callback=elicitor("cancel")) as link:
        arguments = {"url": "https://example.com/login", "errorPath": True}
        error = await rpc_error(link.call("trigger-url-elicitation", arguments))
        equal((error.code, error.message), (-32042, "MCP error -32042: This request requires browser-based authorization."))
        [item] = error.data["elicitations"]
        equal(len(item.pop("elicitationId")), 36)
        equal(
            item,
            {
                "mode": "url",
                "url": "https://modelcontextprotocol.io",
                "message": "Open this link to satisfy the prerequisite, then retry the request.",
            },
        )


@check("everything", "everything-shared")
async def two_sessions():
    async def use(link, name, steps, results):
        await link.session.list_tools()
        answers, seen = results[name] = ({}, [])

        async def on_progress(done, total, _message):
            seen.append((done, total))

        async def slow(key, **options):
            operation = {"duration": 1, "steps": steps}
            answers[key] = await link.text("trigger-long-running-operation", operation, **options)

        async def echo(i):
            answers[i] = await link.text("echo", {"message": f"{name} {i}"})

        async with anyio.create_task_group() as group:
            group.start_soon(lambda: slow("number token", progress_callback=on_progress))
            group.start_soon(lambda: slow("string token", meta={"progressToken": "same"}))
            for i in range(20):
                group.start_soon(echo, i)

    results = {}
    async with connect() as a, connect() as b, anyio.create_task_group() as group:
        group.start_soon(use, a, "a", 5, results)
        group.start_soon(use, b, "b", 4, results)
    # Same numbers and same progress tokens on both sides, or the check would prove nothing.
    equal(a.request_ids(), b.request_ids())
    for link, name, steps in (a, "a", 5), (b, "b", 4):
        answers, seen = results[name]
        done = f"Long running operation completed. Duration: 1 seconds, Steps: {steps}."
        want = {"number token": done, "string token": done} | {i: f"Echo: {name} {i}" for i in range(20)}
        equal(answers, want)
        ticks = [(n, steps) for n in range(1, steps + 1)]
        equal(seen, ticks)
        equal([p[1:] for p in link.progress() if p[0] == "same"], ticks)
        equal(len(link.progress()), 2 * steps)
        equal([m for m in link.seen if isinstance(m, Exception)], [])


@check("everything", "everything-shared")
async def cancel_is_private():
    async with connect() as a, connect() as b, anyio.create_task_group() as group:
        answers = []

        async def undisturbed():
            # Begun second: a mixed-up cancellation hits the newer of two calls with one number.
            await a.until(a.calls)
            answers.append(await b.text("trigger-long-running-operation", {"duration": 2, "steps": 2}))

        group.start_soon(undisturbed)
        cancelled = await cancel_after_first_progress(a, {"duration": 1.5, "steps": 3})
    equal(answers, ["Long running operation completed. Duration: 2 seconds, Steps: 2."])
    # The cancelled call and the other had the same number, or the check would prove nothing.
    equal(b.calls(), [cancelled])


@check("everything")
async def questions_are_private():
    both_asked = anyio.Event()
    asked, got = {}, {}

    def answerer(name):
        sample = sampler(f"{name} answers")

        async def callback(context, params):
            asked[name] = params.messages[0].content.text
            if len(asked) == 2:
                both_asked.set()
            await both_asked.wait()
            return await sample(context, params)

        return callback

    async def use(link, name):
        text = await link.text("trigger-sampling-request", {"prompt": f"{name} asks", "maxTokens": 5})
        got[name] = sampled_text(text)["content"]["text"]

    async with connect(sampling_callback=answerer("a")) as a, connect(sampling_callback=answerer("b")) as b:
        async with anyio.create_task_group() as group:
            group.start_soon(use, a, "a")
            group.start_soon(use, b, "b")
    equal(asked, {n: f"Resource trigger-sampling-request context: {n} asks" for n in "ab"})
    equal(got, {n: f"{n} answers" for n in "ab"})


@check("everything")
async def environment():
    async with connect() as link:
        env = json.loads(await link.text("get-env"))
        equal(env.get("CLIENT_MATRIX_MARK"), os.environ["CLIENT_MATRIX_MARK"])


@check("everything", "everything-shared", "everything-short")
async def terminate():
    async with connect() as other:
        async with connect() as link:
            session_id = link.session_id() if FRONT == "http" else None
        # Leaving the block ends the session. On stdio it checks that the proxy ended with status 0, too.
        if FRONT == "http":
            [status] = [status for method, status in link.answered if method == "DELETE"]
            equal(status in (200, 202, 204), True)
        if FRONT != "stdio":
            headers = {"Accept": "application/json, text/event-stream"}
            if session_id:
                headers["Mcp-Session-Id"] = session_id
            async with httpx.AsyncClient() as http:
                while True:
                    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
                    again = await http.post(link.endpoint, json=ping, headers=headers)
                    if FRONT == "http" or again.status_code != 202:
                        break
                    # Nothing tells when the proxy has seen the end of the event stream.
                    await anyio.sleep(0.01)
            equal(again.status_code, 404)
        equal(await other.text("echo", {"message": "still here"}), "Echo: still here")


@check("filesystem")
async def big_result():
    path = pathlib.Path(WORKDIR, "big.txt")
    want = path.read_text("utf-8")
    async with connect() as link:
        got = await link.text("read_text_file", {"path": str(path)})
        # Not equal(): nobody wants to read megabytes of difference.
        equal((len(got), got == want), (len(want), True))


@check("filesystem")
async def one_megabyte_argument():
    path = pathlib.Path(WORKDIR, "from-python.txt")
    content = "".join(f"{n:06d} ä\n" for n in range(100_000))
    async with connect() as link:
        equal(await link.text("write_file", {"path": str(path), "content": content}), f"Successfully wrote to {path}")
    equal(path.read_text("utf-8") == content, True)


@check("filesystem")
async def access_denied():
    async with connect() as link:
        result = await link.call("read_text_file", {"path": "/etc/passwd"})
        head = "Access denied - path outside allowed directories: /etc/passwd"
        equal((result.isError, result.content[0].text[: len(head)]), (True, head))


@check("time", "time-per-request")
async def time_tools():
    async with connect() as link:
        equal((link.hello.serverInfo.name, link.hello.serverInfo.version), ("mcp-time", "2026.10.10"))
        equal([t.name for t in (await link.session.list_tools()).tools], ["get_current_time", "convert_time"])


@check("time", "time-per-request")
async def convert_time():
    async with connect() as link:
        arguments = {"source_timezone": "Asia/Tokyo", "time": "12:30", "target_timezone": "Asia/Kathmandu"}
        result = json.loads(await link.text("convert_time", arguments))
        equal((result["time_difference"], result["target"]["datetime"][10:]), ("-3.25h", "T09:15:00+05:45"))


@check("time", "time-per-request")
async def bad_timezone():
    async with connect() as link:
        result = await link.call("get_current_time", {"timezone": "Mars/Olympus"})
        reason = "Invalid timezone: 'No time zone found with key Mars/Olympus'"
        text = f"Error processing mcp-server-time query: {reason}"
        equal((result.isError, result.content[0].text), (True, text))


def reason(error):
    """The first real error inside the task groups' wrappers, on one line."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return " ".join(f"{type(error).__name__}: {error}".split())[:600]


async def main():
    failed = False
    for name, function in CHECKS:
        full = f"python/{NAME}/{name}"
        if ONLY not in full:
            continue
        try:
            with anyio.fail_after(CHECK_SECONDS):
                await function()
            print(f"ok {full}", flush=True)
        except Exception as error:
            failed = True
            print(f"FAIL {full} {reason(error)}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(anyio.run(main))
