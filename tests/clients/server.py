"""A server on the Python SDK 2.x, with the surface of ../conformance/matrix.mjs, for either era.

Usage: server.py --stdio | --http PORT | --sse PORT | --fork SOCKET  [--era legacy|dual]

HTTP+SSE is always legacy; there is no switch in this SDK for a server that refuses legacy clients. Over stdio, its
first request decides on the era of a dual server for good. Port 0 takes a free one; the first line on stdout is the URL.
`--fork` is for spawn.py.
"""

import argparse
import json
import logging
import pathlib
import warnings

import anyio
import mcp_types as types
import spawn
import uvicorn
from mcp.server import Server
from mcp.server.lowlevel.server import NotificationOptions
from mcp.server.runner import serve_loop
from mcp.server.sse import SseServerTransport
from mcp.server.stdio import stdio_server
from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    ListenHandler,
    PromptsListChanged,
    ResourcesListChanged,
    ResourceUpdated,
    ToolsListChanged,
)
from mcp.shared.exceptions import MCPError
from mcp.shared.message import ServerMessageMetadata
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Mount, Route

# Logging, roots and sampling are deprecated, and what is tested here.
warnings.simplefilter("ignore")

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR42mP4z8AAAAMBAQD3A0FDAAAAAElFTkSuQmCC"
WAV = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQAAAAA="
WAIT_SECONDS = 20

LEVELS = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"]

bus = InMemorySubscriptionBus()


def strings(*names):
    return {"type": "object", "properties": {n: {"type": "string"} for n in names}, "required": list(names)}


NUMBER = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "degrees": {"type": "number"}},
    "required": ["city", "degrees"],
}
MIRRORED = {
    "type": "object",
    "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "count": {"type": "integer", "x-mcp-header": "Count"},
        "place": {"type": "object", "properties": {"dry": {"type": "boolean", "x-mcp-header": "Dry"}}},
    },
    "required": ["region"],
}


def text(value):
    return types.TextContent(type="text", text=value)


def image():
    return types.ImageContent(type="image", data=PNG, mime_type="image/png")


def answer(*content, **more):
    return types.CallToolResult(content=list(content), **more)


def modern(ctx):
    return ctx.protocol_version in MODERN_PROTOCOL_VERSIONS


def remembered(ctx):
    """What a legacy session has set. The SDK has it, but no public way to it from here."""
    return ctx.session._connection.state


# Asking the client.


def ask_model(prompt):
    message = types.SamplingMessage(role="user", content=text(prompt))
    params = types.CreateMessageRequestParams(messages=[message], max_tokens=100)
    return types.CreateMessageRequest(params=params), types.CreateMessageResult, "sampling"


def ask_user(message, member="name"):
    params = types.ElicitRequestFormParams(message=message, requested_schema=strings(member))
    return types.ElicitRequest(params=params), types.ElicitResult, "elicitation"


def ask_roots():
    return types.ListRootsRequest(), types.ListRootsResult, "roots"


def told(reply):
    """What the server makes of an answer."""
    if isinstance(reply, types.CreateMessageResult):
        return f"model said: {reply.content.text}"
    if isinstance(reply, types.ElicitResult):
        return f"user: {reply.action} {compact(reply.content or {})}"
    return "roots: " + " ".join(str(root.uri) for root in reply.roots)


def compact(value):
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


class Unanswered(Exception):
    """The client has to be asked first, and was told so by this result."""

    def __init__(self, result):
        self.result = result


async def ask(ctx, params, **questions):
    """The answers, by name. To a modern client, an `input_required` result asks for what is missing."""
    declared = ctx.session.client_capabilities
    missing = {kind: {} for _, _, kind in questions.values() if getattr(declared, kind, None) is None}
    if missing:
        code = -32021 if modern(ctx) else -32600
        raise MCPError(code, f"the client lacks {', '.join(missing)}", data={"requiredCapabilities": missing})
    if modern(ctx):
        given = params.input_responses or {}
        if not all(isinstance(given.get(name), kind) for name, (_, kind, _) in questions.items()):
            requests = {name: request for name, (request, _, _) in questions.items()}
            raise Unanswered(types.InputRequiredResult(input_requests=requests))
        return {name: given[name] for name in questions}
    replies = {}
    # What it belongs to decides on which stream a question goes.
    related = ServerMessageMetadata(related_request_id=ctx.request_id)

    async def one(name, request, kind):
        replies[name] = await ctx.session.send_request(request, kind, metadata=related)

    async with anyio.create_task_group() as group:
        for name, (request, kind, _) in questions.items():
            group.start_soon(one, name, request, kind)
    return replies


# Tools: name -> (handler, input schema, output schema).


async def echo(_ctx, _params, message):
    return answer(text(message))


async def weather(_ctx, _params, city):
    it = {"city": city, "degrees": 21.5}
    return answer(text(compact(it)), structured_content=it)


async def mixed(_ctx, _params):
    within = types.TextResourceContents(uri="test://embedded", mime_type="text/plain", text="within")
    return answer(
        text("all kinds"),
        image(),
        types.AudioContent(type="audio", data=WAV, mime_type="audio/wav"),
        types.EmbeddedResource(type="resource", resource=within),
        types.ResourceLink(type="resource_link", uri="test://static-text", name="static-text"),
    )


async def big(_ctx, _params, n):
    return answer(text("0123456789abcdef" * (n // 16)))


async def broken(_ctx, _params):
    return answer(text("the tool broke"), is_error=True)


async def mirrored(_ctx, _params, region, count="-", place=None):
    dry = (place or {}).get("dry")
    return answer(text(f"{region} {count} {'-' if dry is None else compact(dry)}"))


async def later(_ctx, _params, n):
    await anyio.sleep(n / 1000)
    return answer(text(f"after {n} ms"))


async def report(ctx, _params, n):
    for step in range(1, n + 1):
        await ctx.session.report_progress(step, n, f"{step} of {n}")
        await anyio.sleep(0.02)
    return answer(text(f"{n} steps"))


async def log_all(ctx, _params):
    for level in "debug", "info", "warning", "error":
        # To a modern client, the SDK sends what it asked for.
        if modern(ctx) or LEVELS.index(level) >= LEVELS.index(remembered(ctx).get("level", "debug")):
            await ctx.session.send_log_message(level, f"a line of {level}", related_request_id=ctx.request_id)
    await anyio.sleep(0.02)
    return answer(text("logged"))


async def wait(ctx, _params, mark):
    try:
        await ctx.session.report_progress(1, 2, "1 of 2")
        await anyio.sleep(WAIT_SECONDS)
    except anyio.get_cancelled_exc_class():
        pathlib.Path(mark).write_text("cancelled")
        raise
    return answer(text("nobody cancelled this"))


async def sees(ctx, _params):
    known = ctx.session
    meta = {k: v for k, v in dict(ctx.meta or {}).items() if not k.startswith("io.modelcontextprotocol/")}
    meta = {k: v for k, v in meta.items() if k not in ("progressToken", "progress_token")}
    client = known.client_params.client_info.name if known.client_params else None
    capabilities = known.client_capabilities.model_dump(by_alias=True, mode="json", exclude_none=True)
    return answer(text(compact({"client": client, "capabilities": capabilities, "meta": meta})))


async def announce(ctx, _params, what):
    event, legacy = {
        "tools": (ToolsListChanged(), ctx.session.send_tool_list_changed),
        "prompts": (PromptsListChanged(), ctx.session.send_prompt_list_changed),
        "resources": (ResourcesListChanged(), ctx.session.send_resource_list_changed),
    }[what]
    await (bus.publish(event) if modern(ctx) else legacy())
    return answer(text("announced"))


async def touch(ctx, _params, uri):
    if modern(ctx):
        await bus.publish(ResourceUpdated(uri=uri))
    elif uri in remembered(ctx).get("watched", ()):
        await ctx.session.send_resource_updated(uri)
    return answer(text("touched"))


def asking(**questions):
    async def handler(ctx, params, **arguments):
        made = {name: question(**arguments) for name, question in questions.items()}
        replies = await ask(ctx, params, **made)
        return answer(text("; ".join(told(replies[name]) for name in questions)))

    return handler


async def ask_twice(ctx, params):
    """One question after the other. What was answered travels in the state, which nobody has reason to forge."""
    first, second = ask_user("Step 1: who are you?"), ask_user("Step 2: which colour?", "color")
    if modern(ctx):
        answers = json.loads(params.request_state or "[]")
        reply = (params.input_responses or {}).get(f"step{len(answers) + 1}")
        if params.request_state is not None and isinstance(reply, types.ElicitResult):
            answers.append(describe(reply))
        if len(answers) < 2:
            question, _, _ = (first, second)[len(answers)]
            return types.InputRequiredResult(
                input_requests={f"step{len(answers) + 1}": question}, request_state=json.dumps(answers)
            )
    else:
        answers = [describe((await ask(ctx, params, step=step))["step"]) for step in (first, second)]
    return answer(text("; ".join(answers)))


async def ask_then_wait(ctx, params, mark):
    await ask(ctx, params, user=ask_user("Who are you?"))
    return await wait(ctx, params, mark)


def describe(reply):
    return f"action={reply.action}, content={compact(reply.content or {})}"


NOTHING = strings()
TOOLS = {
    "echo": (echo, strings("message")),
    "weather": (weather, strings("city"), WEATHER),
    "mixed": (mixed, NOTHING),
    "big": (big, NUMBER),
    "broken": (broken, NOTHING),
    "mirrored": (mirrored, MIRRORED),
    "later": (later, NUMBER),
    "report": (report, NUMBER),
    "log_all": (log_all, NOTHING),
    "wait": (wait, strings("mark")),
    "sees": (sees, NOTHING),
    "announce": (announce, strings("what")),
    "touch": (touch, strings("uri")),
    "ask_model": (asking(model=ask_model), strings("prompt")),
    "ask_user": (asking(user=lambda: ask_user("Who are you?")), NOTHING),
    "ask_roots": (asking(roots=ask_roots), NOTHING),
    "ask_all": (
        asking(model=lambda: ask_model("Say hello"), user=lambda: ask_user("Who are you?"), roots=ask_roots),
        NOTHING,
    ),
    "ask_twice": (ask_twice, NOTHING),
    "ask_then_wait": (ask_then_wait, strings("mark")),
}


async def list_tools(_ctx, _params):
    return types.ListToolsResult(
        tools=[
            types.Tool(name=name, description=f"The tool {name}", input_schema=schema, output_schema=next(iter(out), None))
            for name, (_, schema, *out) in TOOLS.items()
        ],
        ttl_ms=0,
        cache_scope="private",
    )


async def call_tool(ctx, params):
    if params.name not in TOOLS:
        raise MCPError(-32602, f"Tool {params.name} not found")
    try:
        return await TOOLS[params.name][0](ctx, params, **(params.arguments or {}))
    except Unanswered as unanswered:
        return unanswered.result


# Prompts, resources, completion.


async def list_prompts(_ctx, _params):
    members = {"greeting": ["name"], "failing": [], "ask_first": []}
    return types.ListPromptsResult(
        prompts=[
            types.Prompt(
                name=prompt,
                description=f"The prompt {prompt}",
                arguments=[types.PromptArgument(name=name, required=True) for name in names],
            )
            for prompt, names in members.items()
        ],
        ttl_ms=0,
        cache_scope="private",
    )


async def get_prompt(ctx, params):
    if params.name == "greeting":
        content = [text(f"Greet {params.arguments['name']}."), image()]
    elif params.name == "failing":
        raise MCPError(4711, "No such luck", data={"reason": "testing", "list": [1, 2.5, None]})
    elif params.name == "ask_first":
        try:
            content = [text(told((await ask(ctx, params, user=ask_user("Who are you?")))["user"]))]
        except Unanswered as unanswered:
            return unanswered.result
    else:
        raise MCPError(-32602, f"Prompt {params.name} not found")
    return types.GetPromptResult(messages=[types.PromptMessage(role="user", content=item) for item in content])


RESOURCES = {
    "test://static-text": ("static-text", "text/plain"),
    "test://static-binary": ("static-binary", "image/png"),
    "test://ask-first": ("ask-first", "text/plain"),
}


async def list_resources(_ctx, _params):
    return types.ListResourcesResult(
        resources=[types.Resource(uri=uri, name=name, mime_type=mime) for uri, (name, mime) in RESOURCES.items()],
        ttl_ms=0,
        cache_scope="private",
    )


async def list_templates(_ctx, _params):
    template = types.ResourceTemplate(
        uri_template="test://template/{id}/data", name="template", mime_type="application/json"
    )
    return types.ListResourceTemplatesResult(resource_templates=[template], ttl_ms=0, cache_scope="private")


async def read_resource(ctx, params):
    uri = str(params.uri)
    mime, more = "text/plain", {}
    if uri == "test://static-text":
        more["text"] = "This is the content of the static text resource."
    elif uri == "test://static-binary":
        contents = types.BlobResourceContents(uri=uri, mime_type="image/png", blob=PNG)
        return types.ReadResourceResult(contents=[contents], ttl_ms=0, cache_scope="private")
    elif uri.startswith("test://template/"):
        mime, number = "application/json", uri.split("/")[3]
        more["text"] = compact({"id": number, "templateTest": True, "data": f"Data for ID: {number}"})
    elif uri == "test://ask-first":
        try:
            more["text"] = told((await ask(ctx, params, user=ask_user("May I?")))["user"])
        except Unanswered as unanswered:
            return unanswered.result
    else:
        raise MCPError(-32602 if modern(ctx) else -32002, "Resource not found", data={"uri": uri})
    contents = types.TextResourceContents(uri=uri, mime_type=mime, **more)
    return types.ReadResourceResult(contents=[contents], ttl_ms=0, cache_scope="private")


async def subscribe(ctx, params):
    remembered(ctx).setdefault("watched", set()).add(str(params.uri))
    return types.EmptyResult()


async def unsubscribe(ctx, params):
    remembered(ctx).get("watched", set()).discard(str(params.uri))
    return types.EmptyResult()


async def set_level(ctx, params):
    remembered(ctx)["level"] = params.level
    return types.EmptyResult()


async def complete(_ctx, params):
    values = [word for word in ("paris", "park", "party") if word.startswith(params.argument.value)]
    return types.CompleteResult(completion=types.Completion(values=values, total=len(values), has_more=False))


class MatrixServer(Server):
    """Says to legacy clients, too, that its lists may change."""

    def create_initialization_options(self, notification_options=None, *more, **named):
        changes = NotificationOptions(prompts_changed=True, resources_changed=True, tools_changed=True)
        return super().create_initialization_options(notification_options or changes, *more, **named)


def make():
    return MatrixServer(
        "conformance-server",
        version="1.0.0",
        instructions="For tests only.",
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_list_prompts=list_prompts,
        on_get_prompt=get_prompt,
        on_list_resources=list_resources,
        on_list_resource_templates=list_templates,
        on_read_resource=read_resource,
        on_subscribe_resource=subscribe,
        on_unsubscribe_resource=unsubscribe,
        on_subscriptions_listen=ListenHandler(bus),
        on_set_logging_level=set_level,
        on_completion=complete,
    )


async def on_streams(server, read, write, era):
    options = server.create_initialization_options()
    if era == "dual":
        await server.run(read, write, options)
        return
    async with server.lifespan(server) as state:
        await serve_loop(server, read, write, lifespan_state=state, init_options=options)


async def on_stdio(era):
    async with stdio_server() as (read, write):
        await on_streams(make(), read, write, era)


def sse_app():
    server, transport = make(), SseServerTransport("/messages/")

    async def handle(request):
        async with transport.connect_sse(request.scope, request.receive, request._send) as (read, write):
            await on_streams(server, read, write, "legacy")
        return Response()

    return Starlette(routes=[Route("/sse", handle), Mount("/messages/", app=transport.handle_post_message)])


class LegacyOnly:
    """Refuses what a server of before 2026-07-28 does not know."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        version = dict(scope.get("headers", [])).get(b"mcp-protocol-version", b"").decode()
        if scope["type"] == "http" and version in MODERN_PROTOCOL_VERSIONS:
            error = {"code": -32600, "message": f"Bad Request: Unsupported protocol version: {version}"}
            body = json.dumps({"jsonrpc": "2.0", "id": "server-error", "error": error})
            await Response(body, 400, media_type="application/json")(scope, receive, send)
        else:
            await self.app(scope, receive, send)


async def on_http(app, port, path):
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error", timeout_graceful_shutdown=1))
    async with anyio.create_task_group() as group:
        group.start_soon(server.serve)
        while not server.started:
            await anyio.sleep(0.01)
        [listener] = [socket for each in server.servers for socket in each.sockets]
        print(f"http://127.0.0.1:{listener.getsockname()[1]}{path}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--stdio", action="store_true")
    where.add_argument("--http", type=int, metavar="PORT")
    where.add_argument("--sse", type=int, metavar="PORT")
    where.add_argument("--fork", metavar="SOCKET")
    parser.add_argument("--era", default="dual", choices=["legacy", "dual"])
    args = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    if args.stdio:
        anyio.run(on_stdio, args.era)
    elif args.fork:
        spawn.serve(args.fork, lambda era: anyio.run(on_stdio, era))
    elif args.sse is not None:
        anyio.run(on_http, sse_app(), args.sse, "/sse")
    else:
        app = make().streamable_http_app()
        anyio.run(on_http, LegacyOnly(app) if args.era == "legacy" else app, args.http, "/mcp")


if __name__ == "__main__":
    main()
