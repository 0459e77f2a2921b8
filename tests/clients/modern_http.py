"""Checks of the modern HTTP front by hand: what revision 2026-07-28 asks of a server on Streamable HTTP, step by step
(basic/transports/streamable-http, basic/index, basic/versioning, basic/patterns/*). eras.py starts it.

Usage: modern_http.py NAME SERVER URL WORKDIR ONLY

SERVER says what is behind URL: `ts-legacy` and so on through a proxy, `direct-ts` or `direct-py` for a server by itself.
`impatient-` before it is a proxy that lets a client think for a second. A server by itself that does not do as a check says
deviates (DEVIATIONS), and passes as such.
"""

import base64
import http.client
import json
import pathlib
import sys
import tempfile

import by_hand
from by_hand import (
    MISMATCH,
    SECONDS,
    UNSUPPORTED,
    WORKDIR,
    at_once,
    check,
    echo,
    equal,
    fails,
    peer,
    result,
    text,
    until,
)
from http_peer import BOTH, META, VERSION, call, request


def sentinel(value):
    return f"=?base64?{base64.b64encode(value.encode()).decode()}?="


# The version.


@check
def version_header_missing():
    fails(echo(), 400, MISMATCH, MCP_Protocol_Version=None)


@check
def version_header_differs():
    fails(echo(), 400, MISMATCH, MCP_Protocol_Version="2025-11-25")
    fails(request("tools/list", protocolVersion="2025-11-25"), 400, MISMATCH)


@check
def version_header_twice():
    fails(echo(), 400, MISMATCH, MCP_Protocol_Version=[VERSION, VERSION])
    fails(echo(), 400, MISMATCH, MCP_Protocol_Version=[VERSION, "2025-11-25"])


@check
def version_not_supported():
    for version in "2099-01-01", "1900-01-01":
        error = fails(request("tools/list", protocolVersion=version), 400, UNSUPPORTED, MCP_Protocol_Version=version)
        equal(error["data"]["requested"], version)
        equal(VERSION in error["data"]["supported"], True)
        error = fails(request("server/discover", protocolVersion=version), 400, UNSUPPORTED, MCP_Protocol_Version=version)


@check
def version_with_whitespace_around():
    equal(text(echo(), MCP_Protocol_Version=f" \t{VERSION} "), "x")


# The envelope.


@check
def meta_missing():
    body = echo()
    del body["params"]["_meta"]
    fails(body, 400, -32602)
    fails({"jsonrpc": "2.0", "id": 7, "method": "tools/list"}, 400, -32602)


@check
def meta_malformed():
    for wrong in 5, "x", [], None:
        body = echo()
        body["params"]["_meta"] = wrong
        fails(body, 400, -32602)


@check
def meta_keys():
    fails(request("tools/list", protocolVersion=None), 400, -32602)
    fails(request("tools/list", clientCapabilities=None), 400, -32602)
    for wrong in 5, "x", []:
        fails(request("tools/list", clientCapabilities=wrong), 400, -32602)
    fails(request("tools/list", protocolVersion=20260728), 400, -32602)


@check
def client_info_may_be_missing():
    equal("tools" in result(request("tools/list", clientInfo=None)), True)


@check
def log_level_unknown():
    status, answer = peer.ask(call("log_all", _meta={META + "logLevel": "loud"}))
    equal(answer["error"]["code"], -32602)


# Mcp-Method.


@check
def method_header():
    fails(echo(), 400, MISMATCH, Mcp_Method=None)
    for wrong in "tools/list", "Tools/Call", "tools/call ?", "":
        fails(echo(), 400, MISMATCH, Mcp_Method=wrong)
    fails(echo(), 400, MISMATCH, Mcp_Method=["tools/call", "tools/call"])


@check
def header_names_in_any_case():
    changes = {"mcp-protocol-VERSION": VERSION, "mCp-mEtHoD": "tools/call", "MCP-NAME": "echo", "ACCEPT": BOTH}
    equal(text(echo(), **changes), "x")


@check
def whitespace_around_header_values():
    equal(text(echo(), Mcp_Method="  tools/call\t", Mcp_Name="\techo  "), "x")


# Mcp-Name.


@check
def name_header_missing():
    fails(echo(), 400, MISMATCH, Mcp_Name=None)
    fails(request("prompts/get", {"name": "greeting", "arguments": {"name": "x"}}), 400, MISMATCH, Mcp_Name=None)
    fails(request("resources/read", {"uri": "test://static-text"}), 400, MISMATCH, Mcp_Name=None)


@check
def name_header_differs():
    for wrong in "Echo", "echo2", "", "big":
        fails(echo(), 400, MISMATCH, Mcp_Name=wrong)
    fails(request("resources/read", {"uri": "test://static-text"}), 400, MISMATCH, Mcp_Name="test://static-texT")
    fails(echo(), 400, MISMATCH, Mcp_Name=["echo", "echo"])


@check
def name_header_encoded():
    equal(text(echo(), Mcp_Name=sentinel("echo")), "x")
    uri = "test://template/ü/data"
    status, answer = peer.ask(request("resources/read", {"uri": uri}), Mcp_Name=sentinel(uri))
    # The servers may find no such resource; the field is right.
    equal((status, answer.get("error", {}).get("code") in (None, -32602)), (200, True))


@check
def name_header_badly_encoded():
    for wrong in "=?base64?!!!?=", "=?BASE64?ZWNobw==?=", "=?base64?ZWNobw==", sentinel("big"), "=?base64??=":
        fails(echo(), 400, MISMATCH, Mcp_Name=wrong)
    # UTF-8 that is not encoded.
    uri = "test://template/ü/data"
    fails(request("resources/read", {"uri": uri}), 400, MISMATCH, Mcp_Name=uri.encode())


@check
def name_header_that_looks_encoded():
    name = sentinel("echo")
    # As it is, it stands for another name.
    fails(call(name), 400, MISMATCH)
    status, answer = peer.ask(call(name), Mcp_Name=sentinel(name))
    equal(status, 200)


# Mcp-Param-*.


def mirrored(**arguments):
    return call("mirrored", arguments)


@check
def mirrored_fields():
    body = mirrored(region="eu", count=42, place={"dry": True})
    equal(text(body, Mcp_Param_Region="eu", Mcp_Param_Count="42", Mcp_Param_Dry="true"), "eu 42 true")
    equal(text(mirrored(region="eu"), **{"mcp-param-REGION": "eu"}), "eu - -")
    equal(text(mirrored(region=" Zürich "), Mcp_Param_Region=sentinel(" Zürich ")), " Zürich  - -")
    equal(text(mirrored(region="eu"), Mcp_Param_Region="eu", Mcp_Param_Unheard_Of="x"), "eu - -")


@check
def mirrored_numbers_are_compared_as_numbers():
    equal(text(mirrored(region="eu", count=42), Mcp_Param_Region="eu", Mcp_Param_Count="42.0"), "eu 42 -")


@check
def mirrored_null_has_no_field():
    status, _ = peer.ask(mirrored(region="eu", count=None), Mcp_Param_Region="eu")
    # The server's schema may not have it; the fields are right.
    equal(status, 200)


@check
def mirrored_field_missing():
    fails(mirrored(region="eu"), 400, MISMATCH)
    fails(mirrored(region="eu", count=42), 400, MISMATCH, Mcp_Param_Region="eu")
    fails(mirrored(region="eu", place={"dry": False}), 400, MISMATCH, Mcp_Param_Region="eu")


@check
def mirrored_field_differs():
    fails(mirrored(region="eu"), 400, MISMATCH, Mcp_Param_Region="us")
    fails(mirrored(region="eu"), 400, MISMATCH, Mcp_Param_Region="EU")
    fails(mirrored(region="eu", count=42), 400, MISMATCH, Mcp_Param_Region="eu", Mcp_Param_Count="43")
    body = mirrored(region="eu", place={"dry": True})
    fails(body, 400, MISMATCH, Mcp_Param_Region="eu", Mcp_Param_Dry="True")


@check
def mirrored_field_malformed():
    fails(mirrored(region="eu"), 400, MISMATCH, Mcp_Param_Region="=?base64?!?=")
    fails(mirrored(region="ü"), 400, MISMATCH, Mcp_Param_Region="ü".encode())


# Methods.


@check
def unknown_method():
    fails(request("example/none"), 404, -32601)


@check
def removed_methods():
    for method, params in [
        ("ping", {}),
        ("initialize", {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}),
        ("logging/setLevel", {"level": "info"}),
        ("resources/subscribe", {"uri": "test://static-text"}),
        ("resources/unsubscribe", {"uri": "test://static-text"}),
        ("tasks/list", {}),
    ]:
        fails(request(method, params), 404, -32601)


@check
def unknown_tool():
    status, answer = peer.ask(call("no-such-tool"))
    equal(status, 200)
    equal("no-such-tool" in json.dumps(answer), True)


# Bodies.


@check
def notifications_are_accepted():
    for method in "notifications/cancelled", "notifications/example":
        params = {"requestId": 12345, "_meta": request("x")["params"]["_meta"]}
        with peer.post({"jsonrpc": "2.0", "method": method, "params": params}) as reply:
            equal((reply.status, reply.body()), (202, b""))


@check
def responses_are_refused():
    for body in {"jsonrpc": "2.0", "id": 1, "result": {}}, {"jsonrpc": "2.0", "id": 1, "error": {"code": 1, "message": "x"}}:
        with peer.post(body, MCP_Protocol_Version=VERSION) as reply:
            equal(reply.status, 400)


@check
def batches_are_refused():
    with peer.post([echo(), echo()], MCP_Protocol_Version=VERSION) as reply:
        equal(reply.status, 400)


@check
def malformed_bodies():
    for body in b"", b"{", b"null", b"5", b'"x"', b"[]", b'{"jsonrpc":"2.0"}', b"\xff\xfe":
        with peer.post(body, MCP_Protocol_Version=VERSION, Mcp_Method="tools/list") as reply:
            equal((body, reply.status), (body, 400))
    body = echo()
    for wrong in None, [], {}, True:
        with peer.post({**body, "id": wrong}) as reply:
            equal((wrong, reply.status), (wrong, 400))


@check
def too_large():
    # What has been read is enough for the answer.
    with peer.post(echo("x" * (5 << 20))) as reply:
        equal(reply.status, 413)


@check
def content_type():
    for wrong in "text/plain", "application/jsonx":
        with peer.post(echo(), Content_Type=wrong) as reply:
            equal(reply.status, 415)
    equal(text(echo(), Content_Type="application/json; charset=utf-8"), "x")


@check
def accept():
    for wrong in "application/json", "text/event-stream", "text/html":
        with peer.post(echo(), Accept=wrong) as reply:
            equal((wrong, reply.status), (wrong, 406))
    equal(text(echo(), Accept="text/event-stream;q=0.5, application/json"), "x")


@check
def ids_keep_their_type():
    for id in 0, -1, 2**53 - 1, "", "7", "ü\u2028 \"":
        equal(text(echo(id=id)), "x")


# Other verbs, and what is left of sessions.


@check
def other_verbs():
    for verb in "GET", "DELETE", "PUT", "PATCH":
        with peer.open(verb, MCP_Protocol_Version=VERSION) as reply:
            equal((verb, reply.status), (verb, 405))


@check
def sessions_are_ignored():
    for stray in {"Mcp_Session_Id": "stray"}, {"Last_Event_ID": "stray_1"}:
        with peer.post(echo(), **stray) as reply:
            equal((reply.status, reply.header("Mcp-Session-Id")), (200, None))
            equal(reply.last()["result"]["content"][0]["text"], "x")


@check
def events_have_no_ids():
    with peer.post(call("report", {"n": 2}, _meta={"progressToken": "t"})) as reply:
        equal((reply.type, reply.header("Mcp-Session-Id")), ("text/event-stream", None))
        names = {name for event in reply.events() for name, _ in event}
        equal(names - {"data", "event"}, set())


@check
def a_legacy_session_beside_it():
    hello = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}},
    }
    legacy = {"MCP-Protocol-Version": None, "Mcp-Method": None, "Mcp-Name": None}
    with peer.post(hello, **legacy) as reply:
        session = reply.header("Mcp-Session-Id")
        equal((reply.status, reply.last()["result"]["protocolVersion"], bool(session)), (200, "2025-11-25", True))
    own = {"MCP-Protocol-Version": "2025-11-25", "Mcp-Session-Id": session}
    ready = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    with peer.post(ready, **legacy | own) as reply:
        equal(reply.status, 202)
    with peer.open("GET", Accept="text/event-stream", **own) as reply:
        equal((reply.status, reply.type), (200, "text/event-stream"))
        # A modern request takes no notice of it.
        equal(text(echo(), Mcp_Session_Id=session), "x")
        ping = {"jsonrpc": "2.0", "id": 2, "method": "ping"}
        equal(peer.ask(ping, **legacy | own), (200, {"jsonrpc": "2.0", "id": 2, "result": {}}))
    with peer.open("DELETE", **own) as reply:
        equal(reply.status in (200, 202, 204), True)


@check
def foreign_pages_are_refused():
    with peer.post(echo(), Origin="http://evil.example") as reply:
        equal(reply.status, 403)
    with peer.post(echo(), Host="evil.example") as reply:
        equal(400 <= reply.status < 500, True)


# Results.


@check
def discover():
    got = result(request("server/discover"))
    equal(VERSION in got["supportedVersions"], True)
    equal((got["resultType"], got["instructions"]), ("complete", "For tests only."))
    equal(got["_meta"][META + "serverInfo"]["name"], "conformance-server")
    equal({"tools", "prompts", "resources", "completions"} - got["capabilities"].keys(), set())
    equal("tasks" in got["capabilities"], False)


@check
def cacheable_results():
    for body in [
        request("server/discover"),
        request("tools/list"),
        request("prompts/list"),
        request("resources/list"),
        request("resources/templates/list"),
        request("resources/read", {"uri": "test://static-text"}),
    ]:
        got = result(body)
        method = body["method"]
        equal((method, type(got["ttlMs"]), got["ttlMs"] >= 0), (method, int, True))
        equal((method, got["cacheScope"] in ("public", "private")), (method, True))
        equal((method, got["resultType"]), (method, "complete"))


@check
def other_results():
    completion = {"ref": {"type": "ref/prompt", "name": "greeting"}, "argument": {"name": "name", "value": "p"}}
    for body in [
        echo(),
        request("prompts/get", {"name": "greeting", "arguments": {"name": "x"}}),
        request("completion/complete", completion),
    ]:
        got = result(body)
        equal((body["method"], got["resultType"]), (body["method"], "complete"))
        equal(got["_meta"][META + "serverInfo"]["name"], "conformance-server")


@check
def a_stream_ends_with_the_answer():
    with peer.post(call("report", {"n": 3}, id="s", _meta={"progressToken": 7})) as reply:
        equal((reply.status, reply.type), (200, "text/event-stream"))
        *notes, last = reply.messages()
    equal([note["params"]["progress"] for note in notes], [1, 2, 3])
    equal({(note["method"], note["params"]["progressToken"]) for note in notes}, {("notifications/progress", 7)})
    equal((last["id"], last["result"]["resultType"]), ("s", "complete"))


@check
def a_stream_is_not_to_be_buffered():
    with peer.post(call("report", {"n": 1}, _meta={"progressToken": 7})) as reply:
        equal(reply.header("X-Accel-Buffering"), "no")
        equal("no-cache" in (reply.header("Cache-Control") or "") or "no-store" in (reply.header("Cache-Control") or ""), True)


@check
def one_connection_for_many_requests():
    connection = http.client.HTTPConnection(peer.url.hostname, peer.url.port, timeout=SECONDS)
    for n in range(5):
        peer.send("POST", echo(f"{n}"), connection=connection)
        with_status = connection.getresponse()
        equal((with_status.status, json.loads(with_status.read())["result"]["content"][0]["text"]), (200, f"{n}"))
    connection.close()


@check
def equal_ids_at_once():
    names = [f"client {n}" for n in range(5)]
    got = at_once(lambda name: (text(call("later", {"n": 300}, id=1)), text(echo(name, id=1))), names)
    equal(got, [("after 300 ms", name) for name in names])


# Hanging up.


@check
def hanging_up_cancels():
    mark = pathlib.Path(tempfile.mktemp(dir=WORKDIR))
    with peer.post(call("wait", {"mark": str(mark)}, _meta={"progressToken": "t"})) as reply:
        equal(next(reply.messages())["method"], "notifications/progress")
    until(mark.exists)


@check
def hanging_up_before_the_head_cancels():
    mark = pathlib.Path(tempfile.mktemp(dir=WORKDIR))
    connection = peer.send("POST", call("wait", {"mark": str(mark)}))
    # Another call that is begun later and is over: the first has reached the server.
    equal(text(call("later", {"n": 300})), "after 300 ms")
    connection.close()
    until(mark.exists)


if __name__ == "__main__":
    import modern_rounds  # noqa: F401 (its checks come after these)

    sys.exit(by_hand.run())
