"""One face for both lines of the official Python SDK, for eras_client.py.

1.x speaks the revisions that begin with `initialize`; 2.x asks the server (`server/discover`) and then speaks 2026-07-28.
Results and messages are JSON values here, so that a check need not know which SDK it runs on.
"""

import json
import os
import pathlib
import tempfile
from contextlib import asynccontextmanager
from importlib.metadata import version

import anyio
from mcp import StdioServerParameters
from mcp.client.sse import sse_client
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client

ERA = "legacy" if version("mcp").startswith("1.") else "modern"
LEVEL_KEY = "io.modelcontextprotocol/logLevel"
CALL_SECONDS = 25

if ERA == "legacy":
    import httpx
    from mcp import ClientSession, McpError
    from mcp import types
else:
    import mcp_types as types
    from mcp import Client
    from mcp.shared.exceptions import MCPError as McpError


class RpcError(Exception):
    """The JSON-RPC error that a request was answered with."""

    def __init__(self, error):
        super().__init__(f"{error.code} {error.message} {error.data}")
        self.code, self.message, self.data = error.code, error.message, error.data


def plain(model):
    return model.model_dump(by_alias=True, mode="json", exclude_unset=True)


class Tap:
    """A stream of messages from or to the transport, with somebody looking on."""

    def __init__(self, stream, seen):
        self.stream, self.seen = stream, seen

    def look(self, item):
        if not isinstance(item, Exception):
            self.seen(plain(item.message))
        return item

    async def send(self, item):
        await self.stream.send(self.look(item))

    async def receive(self):
        return self.look(await self.stream.receive())

    def __aiter__(self):
        return self

    async def __anext__(self):
        return self.look(await self.stream.__anext__())

    async def aclose(self):
        await self.stream.aclose()

    async def __aenter__(self):
        await self.stream.__aenter__()
        return self

    async def __aexit__(self, *error):
        return await self.stream.__aexit__(*error)


class Link:
    """A connection to the server, with the messages on the wire."""

    def __init__(self, answers, info):
        self.answers, self.info = answers, info
        self.seen, self.posted = [], []
        self.news = anyio.Event()
        # Set once the stream is open that carries what belongs to no request: before, that may be lost.
        self.listening = anyio.Event()

    def tell(self, into, message):
        into.append(message)
        self.news.set()
        self.news = anyio.Event()

    async def until(self, condition):
        """Wait until something that came in or went out makes the condition true; the check has a deadline."""
        while not condition():
            await self.news.wait()

    def tapped(self, streams):
        read, write = streams
        return Tap(read, lambda m: self.tell(self.seen, m)), Tap(write, lambda m: self.tell(self.posted, m))

    def callbacks(self):
        """What the client declares is what it has an answer for."""
        made = {}
        if (reply := self.answers.get("model")) is not None:

            async def sample(_context, params):
                text = await reply(plain(params))
                content = types.TextContent(type="text", text=text)
                return types.CreateMessageResult(role="assistant", model="test-model", content=content)

            made["sampling_callback"] = sample
        if (choose := self.answers.get("user")) is not None:

            async def elicit(_context, params):
                return types.ElicitResult(**await choose(plain(params)))

            made["elicitation_callback"] = elicit
        if (roots := self.answers.get("roots")) is not None:

            async def list_roots(_context):
                return types.ListRootsResult(roots=[types.Root(uri=uri) for uri in roots])

            made["list_roots_callback"] = list_roots
        return made

    async def answer(self, awaitable):
        try:
            return plain(await awaitable)
        except McpError as error:
            raise RpcError(error.error) from None

    # What a check asks for, the same way in both.

    async def tools(self):
        return await self.answer(self.client.list_tools())

    async def prompts(self):
        return await self.answer(self.client.list_prompts())

    async def prompt(self, name, arguments=None):
        return await self.answer(self.client.get_prompt(name, arguments or {}))

    async def resources(self):
        return await self.answer(self.client.list_resources())

    async def templates(self):
        return await self.answer(self.client.list_resource_templates())

    async def read(self, uri):
        return await self.answer(self.client.read_resource(uri))

    async def complete(self, prompt, argument, value):
        ref = types.PromptReference(type="ref/prompt", name=prompt)
        return await self.answer(self.client.complete(ref, {"name": argument, "value": value}))

    async def call(self, name, arguments=None, *, progress=None, meta=None, level=None):
        async def report(done, total, message):
            progress((done, total, message))

        if level is not None and ERA == "legacy":
            await self.client.set_logging_level(level)
        elif level is not None:
            meta = {**(meta or {}), LEVEL_KEY: level}
        return await self.answer(
            self.client.call_tool(name, arguments or {}, progress_callback=report if progress else None, meta=meta)
        )

    async def text(self, name, arguments=None, **options):
        """Call a tool that answers without error, and return its first text."""
        result = await self.call(name, arguments, **options)
        if result.get("isError"):
            raise AssertionError(f"{name}: {result}")
        return result["content"][0]["text"]

    async def unknown(self, method):
        if ERA == "legacy":
            request = types.ClientRequest(types.PingRequest())
            request.root.method = method
            return await self.answer(self.client.send_request(request, types.EmptyResult))
        request = types.Request(method=method, params=types.RequestParams())
        return await self.answer(self.client.session.send_request(request, types.EmptyResult))

    async def cancelled(self, name, arguments, when):
        """Start a call, and cancel it as a user would, once `when` is true of this link."""
        begun = len(self.posted)

        def mine():
            return next((m for m in self.posted[begun:] if m.get("method") == "tools/call"), None)

        async with anyio.create_task_group() as group:

            async def call():
                await self.call(name, arguments, progress=lambda _: None)
                raise AssertionError("a cancelled call was answered")

            group.start_soon(call)
            await self.until(lambda: mine() and when(mine()))
            group.cancel_scope.cancel()
        if ERA == "legacy":
            # 1.x stops waiting, but leaves it to the caller to tell the server.
            params = types.CancelledNotificationParams(requestId=mine()["id"], reason="changed my mind")
            note = types.ClientNotification(types.CancelledNotification(params=params))
            await self.client.send_notification(note)

    @asynccontextmanager
    async def watching(self, tools=False, prompts=False, resources=False, uris=()):
        """Changes arrive while this lasts."""
        if ERA == "legacy":
            await self.listening.wait()
            for uri in uris:
                await self.client.subscribe_resource(uri)
            yield
            for uri in uris:
                await self.client.unsubscribe_resource(uri)
            return
        wanted = {
            "tools_list_changed": tools,
            "prompts_list_changed": prompts,
            "resources_list_changed": resources,
            "resource_subscriptions": list(uris),
        }
        async with self.client.listen(**wanted) as subscription:
            honored = plain(subscription.honored)
            asked = {"toolsListChanged": tools, "promptsListChanged": prompts, "resourcesListChanged": resources}
            want = {name: True for name, value in asked.items() if value}
            want |= {"resourceSubscriptions": list(uris)} if uris else {}
            if honored != want:
                raise AssertionError(f"asked for {want}, honoured were {honored}")
            yield

    def changes(self):
        """What was announced, in order: the kind of list, or a URI."""
        return [
            m["params"]["uri"] if m["method"].endswith("/updated") else m["method"].split("/")[1]
            for m in self.seen
            if m.get("method", "").endswith(("/list_changed", "/updated"))
        ]


@asynccontextmanager
async def transport(front, target, workdir, link):
    if front == "http" and ERA == "legacy":

        async def on_response(response):
            if response.request.method == "GET" and response.status_code == 200:
                link.listening.set()

        hooks = {"response": [on_response]}
        async with (
            httpx.AsyncClient(timeout=CALL_SECONDS, event_hooks=hooks) as http,
            streamable_http_client(target, http_client=http) as (read, write, _),
        ):
            yield read, write
    elif front == "http":
        async with streamable_http_client(target) as streams:
            yield streams
    elif front == "sse":
        async with sse_client(target) as streams:
            yield streams
    else:
        # The SDK keeps the exit status to itself, and kills what does not end by itself: then there is none.
        status = pathlib.Path(tempfile.mktemp(dir=workdir))
        wrapper = ["-c", '"$@"; echo $? >"$0"', str(status), *json.loads(target)]
        server = StdioServerParameters(command="sh", args=wrapper, env=dict(os.environ))
        try:
            async with stdio_client(server) as streams:
                yield streams
        except* anyio.BrokenResourceError:
            # 1.x trips over messages that arrive while it closes, and then does not wait for the end.
            with anyio.move_on_after(2):
                while not status.exists() or not status.read_text():
                    await anyio.sleep(0.01)
        end = status.read_text() if status.exists() else "none in time"
        if end != "0\n" and os.environ.get("CLIENT_MATRIX_EXIT"):
            raise AssertionError(f"exit status {end!r}")


@asynccontextmanager
async def connect(front, target, workdir, name="matrix", **answers):
    """`answers` has what this client can be asked: `model`, `user`, `roots`."""
    info = types.Implementation(name=name, version="1")
    link = Link(answers, info)
    if front != "http" or ERA == "modern":
        link.listening.set()

    @asynccontextmanager
    async def tapped():
        async with transport(front, target, workdir, link) as streams:
            yield link.tapped(streams)

    if ERA == "legacy":
        async with tapped() as (read, write), ClientSession(read, write, client_info=info, **link.callbacks()) as client:
            link.client = client
            hello = await client.initialize()
            link.hello = plain(hello)
            link.revision = hello.protocolVersion
            link.server = plain(hello.serverInfo)
            yield link
    else:
        async with Client(tapped(), client_info=info, read_timeout_seconds=CALL_SECONDS, **link.callbacks()) as client:
            link.client = client
            link.revision = client.protocol_version
            link.server = plain(client.server_info)
            link.hello = {"instructions": client.instructions, "capabilities": plain(client.server_capabilities)}
            yield link
