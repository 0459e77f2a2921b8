"""Checks of every pair of eras with the official Python SDKs. eras_client.mjs holds the same checks; eras.py starts both.

Usage: eras_client.py NAME LIST FRONT TARGET WORKDIR ONLY

Run by Python with the SDK 1.x it is a legacy client, with 2.x a modern one (see sdk.py). FRONT is its transport: `http`
and `sse` go to the URL TARGET, `stdio` starts the command TARGET, a JSON array. The server is one of
../conformance/server.mjs and server.py, of any era: what it says must not depend on it, but where a check says so.
"""

import json
import pathlib
import sys
import tempfile
import time

import anyio
from sdk import ERA, RpcError, connect

NAME, LIST, FRONT, TARGET, WORKDIR, ONLY = sys.argv[1:]
CHECK_SECONDS = 30
CLIENT = "python1" if ERA == "legacy" else "python2"
REVISION = {"legacy": "2025-11-25", "modern": "2026-07-28"}[ERA]
CACHEABLE = ["tools", "prompts", "resources", "resourceTemplates", "contents", "supportedVersions"]
ODD = 'quote " backslash \\ newline \n tab \t nul \0 emoji 🦀 line separator \u2028'

CHECKS = []


def check(*lists):
    def register(function):
        if LIST in lists:
            CHECKS.append((function.__name__.replace("_", "-"), function))
        return function

    return register


def link(**answers):
    return connect(FRONT, TARGET, WORKDIR, **answers)


def equal(got, want):
    if got != want:
        raise AssertionError(f"got {got!r}, want {want!r}")


async def rpc_error(awaitable):
    try:
        result = await awaitable
    except RpcError as error:
        return error
    raise AssertionError(f"expected an error, got {result!r}")


def says(reply):
    async def answer(_params):
        return reply

    return answer


def chooses(action, **content):
    async def answer(_params):
        return {"action": action, "content": content or None}

    return answer


@check("full", "short")
async def connects():
    async with link() as a:
        equal(a.revision, REVISION)
        equal((a.server["name"], a.server["version"]), ("conformance-server", "1.0.0"))
        equal(a.hello["instructions"], "For tests only.")
        changes = {"listChanged": True}
        want = {"tools": changes, "prompts": changes, "resources": {"subscribe": True, **changes}}
        equal(a.hello["capabilities"], want | {"logging": {}, "completions": {}})


@check("full")
async def tools():
    async with link() as a:
        found = {tool["name"]: tool for tool in (await a.tools())["tools"]}
        equal({"echo", "weather", "ask_twice"} - found.keys(), set())
        equal(found["weather"]["outputSchema"]["required"], ["city", "degrees"])
        mirrored = found["mirrored"]["inputSchema"]["properties"]
        equal(mirrored["place"]["properties"]["dry"], {"type": "boolean", "x-mcp-header": "Dry"})


@check("full", "short")
async def call():
    async with link() as a:
        equal(await a.text("echo", {"message": ODD}), ODD)
        result = await a.call("weather", {"city": "Zürich"})
        equal(result["structuredContent"], {"city": "Zürich", "degrees": 21.5})
        equal(json.loads(result["content"][0]["text"]), result["structuredContent"])
        kinds = [item["type"] for item in (await a.call("mixed"))["content"]]
        equal(kinds, ["text", "image", "audio", "resource", "resource_link"])


@check("full", "short")
async def mirrored_arguments():
    async with link() as a:
        # Known before the call only to who has seen the list of tools.
        await a.tools()
        equal(await a.text("mirrored", {"region": "eu", "count": 42, "place": {"dry": True}}), "eu 42 true")
        equal(await a.text("mirrored", {"region": " Zürich ", "place": {"dry": False}}), " Zürich  - false")
        equal(await a.text("mirrored", {"region": ""}), " - -")
        equal(await a.text("mirrored", {"region": "=?base64?bm8=?="}), "=?base64?bm8=?= - -")


@check("full")
async def mirrored_arguments_without_a_list():
    async with link() as a:
        equal(await a.text("mirrored", {"region": "eu", "count": -7}), "eu -7 -")


@check("full")
async def meta_and_identity():
    async with link(model=says("x"), name="who I am") as a:
        trace = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "example.com/key": {"a": [1]}}
        seen = json.loads(await a.text("sees", meta=trace))
        equal(seen["meta"], trace)
        equal(seen["client"], "who I am")
        # Behind a bridge, a legacy server may be told of more than one client's capabilities.
        equal("sampling" in seen["capabilities"], True)


@check("full", "short")
async def resources():
    async with link() as a:
        uris = {resource["uri"] for resource in (await a.resources())["resources"]}
        equal({"test://static-text", "test://static-binary"} - uris, set())
        [template] = (await a.templates())["resourceTemplates"]
        equal(template["uriTemplate"], "test://template/{id}/data")
        text = (await a.read("test://static-text"))["contents"][0]
        equal(text["text"], "This is the content of the static text resource.")
        equal((await a.read("test://static-binary"))["contents"][0]["blob"][:8], "iVBORw0K")
        equal(json.loads((await a.read("test://template/a%20b/data"))["contents"][0]["text"])["templateTest"], True)
        error = await rpc_error(a.read("test://nowhere"))
        # Legacy revisions have a code of their own, and servers that use either.
        equal(error.code in ((-32602,) if ERA == "modern" else (-32602, -32002)), True)
        equal(error.data["uri"], "test://nowhere")


@check("full", "short")
async def prompts():
    async with link() as a:
        names = {prompt["name"] for prompt in (await a.prompts())["prompts"]}
        equal({"greeting", "failing"} - names, set())
        messages = (await a.prompt("greeting", {"name": "Zoë"}))["messages"]
        equal([m["content"]["type"] for m in messages], ["text", "image"])
        equal(messages[0]["content"]["text"], "Greet Zoë.")


@check("full")
async def completion():
    async with link() as a:
        completion = (await a.complete("greeting", "name", "par"))["completion"]
        equal((completion["values"], completion["total"]), (["paris", "park", "party"], 3))


@check("full", "short")
async def progress():
    async with link() as a:
        steps = []
        equal(await a.text("report", {"n": 5}, progress=steps.append), "5 steps")
        equal(steps, [(n, 5, f"{n} of 5") for n in range(1, 6)])
        # Without a token there is none.
        begun = len(a.seen)
        await a.text("report", {"n": 2})
        equal([m for m in a.seen[begun:] if m.get("method") == "notifications/progress"], [])


def logs(a):
    return [m["params"]["level"] for m in a.seen if m.get("method") == "notifications/message"]


@check("full", "short")
async def logging():
    async with link() as a:
        await a.listening.wait()
        equal(await a.text("log_all", level="warning"), "logged")
        await a.until(lambda: "error" in logs(a))
        equal(logs(a), ["warning", "error"])
        if ERA == "modern":
            # Each request has its own level, and none means none.
            equal(await a.text("log_all"), "logged")
            equal(await a.text("log_all", level="error"), "logged")
            equal(logs(a), ["warning", "error", "error"])


@check("full", "short")
async def sampling():
    asked = []

    async def model(params):
        asked.append(params)
        return "forty-two"

    async with link(model=model) as a:
        equal(await a.text("ask_model", {"prompt": "what is it?"}), "model said: forty-two")
    [question] = asked
    equal((question["messages"][0]["content"]["text"], question["maxTokens"]), ("what is it?", 100))


@check("full", "short")
async def elicitation():
    asked = []

    async def user(params):
        asked.append(params)
        return {"action": "accept", "content": {"name": "Ada"}} if len(asked) == 1 else {"action": "decline"}

    async with link(user=user) as a:
        equal(await a.text("ask_user"), 'user: accept {"name":"Ada"}')
        equal(await a.text("ask_user"), "user: decline {}")
    equal([question["message"] for question in asked], ["Who are you?"] * 2)
    equal(asked[0]["requestedSchema"]["required"], ["name"])


@check("full", "short")
async def two_rounds():
    asked = []

    async def user(params):
        asked.append(params["message"])
        return {"action": "accept", "content": {"name": "Ada"} if len(asked) == 1 else {"color": "red"}}

    async with link(user=user) as a:
        want = 'action=accept, content={"name":"Ada"}; action=accept, content={"color":"red"}'
        equal(await a.text("ask_twice"), want)
    equal(asked, ["Step 1: who are you?", "Step 2: which colour?"])


@check("full")
async def roots():
    async with link(roots=["file:///home/ada", "file:///work"]) as a:
        equal(await a.text("ask_roots"), "roots: file:///home/ada file:///work")


@check("full", "short")
async def several_questions_at_once():
    async with link(model=says("hello"), user=chooses("accept", name="Ada"), roots=["file:///a"]) as a:
        equal(await a.text("ask_all"), 'model said: hello; user: accept {"name":"Ada"}; roots: file:///a')


@check("full")
async def prompt_and_resource_that_ask():
    async with link(user=chooses("accept", name="Ada")) as a:
        want = 'user: accept {"name":"Ada"}'
        equal((await a.prompt("ask_first"))["messages"][0]["content"]["text"], want)
        equal((await a.read("test://ask-first"))["contents"][0]["text"], want)


@check("full")
async def progress_around_a_question():
    # The question must not end the life of the progress token, or of the call.
    async with link(user=chooses("accept", name="Ada")) as a:
        steps = []
        async with anyio.create_task_group() as group:
            group.start_soon(a.text, "ask_user")
            await a.text("report", {"n": 3}, progress=steps.append)
        equal([step[0] for step in steps], [1, 2, 3])


@check("full", "short")
async def lacking_capability():
    async with link(user=chooses("accept", name="Ada")) as a:
        # A legacy server refuses in its own way, when it is told the truth about its client.
        strict = ERA == "modern" and "-legacy" not in NAME
        try:
            result = await a.call("ask_model", {"prompt": "x"})
        except RpcError as error:
            if strict:
                equal(error.code, -32021)
                equal(list(error.data["requiredCapabilities"]), ["sampling"])
        else:
            equal((strict, result.get("isError")), (False, True))
        # And that is that: nothing is stuck.
        equal(await a.text("ask_user"), 'user: accept {"name":"Ada"}')


@check("full")
async def an_open_question_is_in_nobodys_way():
    asked, answered = anyio.Event(), anyio.Event()

    async def user(_params):
        asked.set()
        await answered.wait()
        return {"action": "accept", "content": {"name": "Ada"}}

    got = []
    async with link(user=user) as a, link(user=chooses("decline")) as b, anyio.create_task_group() as group:

        async def ask():
            got.append(await a.text("ask_user"))

        group.start_soon(ask)
        await asked.wait()
        # The SDK 1.x reads nothing while it answers a question.
        equal(await (b if ERA == "legacy" else a).text("echo", {"message": "meanwhile"}), "meanwhile")
        equal(await b.text("ask_user"), "user: decline {}")
        answered.set()
    equal(got, ['user: accept {"name":"Ada"}'])


@check("full", "short")
async def questions_are_private():
    both, asked, got = anyio.Event(), [], {}

    def model(name):
        async def answer(params):
            asked.append((name, params["messages"][0]["content"]["text"]))
            if len(asked) == 2:
                both.set()
            await both.wait()
            return f"{name} answers"

        return answer

    async def use(a, name):
        got[name] = await a.text("ask_model", {"prompt": f"{name} asks"})

    async with link(model=model("a")) as a, link(model=model("b")) as b, anyio.create_task_group() as group:
        group.start_soon(use, a, "a")
        group.start_soon(use, b, "b")
    equal(sorted(asked), [("a", "a asks"), ("b", "b asks")])
    equal(got, {name: f"model said: {name} answers" for name in "ab"})


@check("full", "short")
async def changes():
    mine = f"test://template/{CLIENT}/data"
    async with link() as a, a.watching(tools=True, prompts=True, uris=[mine]):
        await a.call("announce", {"what": "tools"})
        await a.until(lambda: "tools" in a.changes())
        # What nobody asked for ...
        await a.call("touch", {"uri": "test://template/other/data"})
        await a.call("touch", {"uri": mine})
        await a.until(lambda: mine in a.changes())
        await a.call("announce", {"what": "prompts"})
        await a.until(lambda: "prompts" in a.changes())
        # ... does not come.
        equal(a.changes(), ["tools", mine, "prompts"])
    if ERA == "modern":
        [listen] = [m["id"] for m in a.posted if m.get("method") == "subscriptions/listen"]
        notes = [m["params"] for m in a.seen if "method" in m]
        equal([n["_meta"]["io.modelcontextprotocol/subscriptionId"] for n in notes], [listen] * len(notes))


@check("full")
async def two_subscriptions():
    uris = [f"test://template/{CLIENT}-{n}/data" for n in range(2)]
    async with link() as a, link() as b:
        async with a.watching(uris=uris[:1]), b.watching(uris=uris[1:]):
            for uri in uris:
                await a.call("touch", {"uri": uri})
                await b.call("touch", {"uri": uri})
            await a.until(lambda: uris[0] in a.changes())
            await b.until(lambda: uris[1] in b.changes())
        # After the end of a subscription, nothing of it: the call's own answer comes later than a change would. The SDK
        # 2.x says that it ends when it comes to it.
        if ERA == "modern" and FRONT == "stdio":
            await a.until(lambda: any(m.get("method") == "notifications/cancelled" for m in a.posted))
        before = len(a.changes())
        await a.call("touch", {"uri": uris[0]})
        equal(await a.text("echo", {"message": "end"}), "end")
        equal(len(a.changes()), before)
        equal((set(a.changes()), set(b.changes())), ({uris[0]}, {uris[1]}))


@check("full", "short")
async def cancellation():
    mark = pathlib.Path(tempfile.mktemp(dir=WORKDIR))
    async with link() as a:

        def reported(call):
            token = call["params"]["_meta"]["progressToken"]
            return any(m.get("params", {}).get("progressToken") == token for m in a.seen if "method" in m)

        await a.cancelled("wait", {"mark": str(mark)}, when=reported)
        # The server knows of it while it works, and says so in a file.
        while not mark.exists():
            await anyio.sleep(0.01)
        equal(await a.text("echo", {"message": "alive"}), "alive")


@check("full", "short")
async def twenty_calls_at_once():
    async with link() as a:
        answers = {}

        async def one(n):
            # The later it starts the sooner it ends, so answers come in another order than calls.
            answers[n] = await a.text("later", {"n": n})

        begin = time.monotonic()
        async with anyio.create_task_group() as group:
            for n in range(700, 300, -20):
                group.start_soon(one, n)
        equal(answers, {n: f"after {n} ms" for n in range(700, 300, -20)})
        # One after the other they take ten seconds.
        equal(time.monotonic() - begin < 5, True)


def call_ids(a):
    return sorted(m["id"] for m in a.posted if m.get("method") == "tools/call")


@check("full", "short")
async def two_clients_with_equal_ids():
    got = {}

    async def use(a, name):
        steps = []

        async def slow():
            got[name, "slow"] = (await a.text("report", {"n": len(name) + 4}, progress=steps.append), len(steps))

        async def echo(n):
            got[name, n] = await a.text("echo", {"message": f"{name} {n}"})

        async with anyio.create_task_group() as group:
            group.start_soon(slow)
            for n in range(10):
                group.start_soon(echo, n)

    async with link() as a, link() as b:
        for each in a, b:
            # Else the SDK does it some time in between.
            await each.tools()
        async with anyio.create_task_group() as group:
            group.start_soon(use, a, "a")
            group.start_soon(use, b, "bb")
        # Or the check would prove nothing.
        equal(call_ids(a), call_ids(b))
    want = {(name, n): f"{name} {n}" for name in ("a", "bb") for n in range(10)}
    want |= {("a", "slow"): ("5 steps", 5), ("bb", "slow"): ("6 steps", 6)}
    equal(got, want)


@check("full", "short")
async def errors():
    async with link() as a:
        error = await rpc_error(a.prompt("failing"))
        equal((error.code, error.data), (4711, {"reason": "testing", "list": [1, 2.5, None]}))
        equal("No such luck" in error.message, True)
        broken = await a.call("broken")
        equal((broken["isError"], broken["content"][0]["text"]), (True, "the tool broke"))
        # A server may say this in either way.
        try:
            unknown = await a.call("no-such-tool")
        except RpcError as error:
            equal((error.code, "no-such-tool" in error.message), (-32602, True))
        else:
            equal((unknown["isError"], "no-such-tool" in unknown["content"][0]["text"]), (True, True))
        equal((await rpc_error(a.unknown("example/none"))).code, -32601)


@check("full")
async def big_result():
    async with link() as a:
        text = await a.text("big", {"n": 1 << 20})
        # Not equal() of the texts: nobody wants to read megabytes of difference.
        equal((len(text), text == "0123456789abcdef" * (1 << 16)), (1 << 20, True))


@check("full", "short")
async def what_is_on_the_wire():
    async with link(user=chooses("accept", name="Ada")) as a:
        await a.tools()
        await a.prompts()
        await a.resources()
        await a.templates()
        await a.read("test://static-text")
        await a.prompt("greeting", {"name": "x"})
        await a.call("weather", {"city": "Rome"})
        await a.call("ask_user")
        await a.text("echo", {"message": "x"})
        results = [m["result"] for m in a.seen if "result" in m]
        if ERA == "legacy":
            added = {"resultType", "ttlMs", "cacheScope", "inputRequests", "requestState"}
            equal([sorted(added & r.keys()) for r in results if added & r.keys()], [])
            notes = [m for m in a.seen if "method" in m and "id" not in m]
            equal([m["method"] for m in notes if "acknowledged" in m["method"]], [])
            return
        equal({r["resultType"] for r in results}, {"complete", "input_required"})
        complete = [r for r in results if r["resultType"] == "complete"]
        equal({r["_meta"]["io.modelcontextprotocol/serverInfo"]["name"] for r in complete}, {"conformance-server"})
        lists = [r for r in complete if any(name in r for name in CACHEABLE)]
        equal(len(lists) >= 6, True)
        equal({type(r["ttlMs"]) for r in lists}, {int})
        equal({r["cacheScope"] for r in lists} - {"public", "private"}, set())
        # No requests from the server, no answers from the client.
        equal([m for m in a.seen if "method" in m and "id" in m], [])
        equal([m for m in a.posted if "method" not in m], [])


def reason(error):
    """The first real error inside the task groups' wrappers, on one line."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return " ".join(f"{type(error).__name__}: {error}".split())[:600]


async def main():
    failed = False
    for name, function in CHECKS:
        full = f"{CLIENT}/{NAME}/{name}"
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
