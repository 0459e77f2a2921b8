"""What modern_http.py and modern_rounds.py share: the peer, a list of checks, and what a check says most often.

The command line is that of modern_http.py.
"""

import concurrent.futures
import json
import sys
import time

from http_peer import Peer, call

NAME, SERVER, URL, WORKDIR, ONLY = sys.argv[1:]
DIRECT = SERVER.startswith("direct-")
# The proxy asks these servers by itself, and keeps the call that waits for an answer.
BRIDGED = SERVER.endswith("legacy") and not DIRECT
SECONDS = 10
ASKABLE = {"elicitation": {"form": {}}, "sampling": {}, "roots": {}}
MISMATCH, LACKING, UNSUPPORTED = -32020, -32021, -32022

IMPATIENT = SERVER.startswith("impatient-")

# What the official SDKs do otherwise.
DEVIATIONS = {
    "direct-ts": {
        "meta-malformed": "a request whose _meta is no object is no request at all for it: -32600",
        "accept": "it answers JSON whatever is accepted",
        "other-verbs": "the fixture hands GET to the legacy transport, which misses a session: 400",
    },
    "direct-py": {
        "version-header-missing": "the header field alone decides on the era: -32600 of the legacy side",
        "version-header-differs": "the same",
        "meta-keys": "a version that is no string differs from the header field: -32020",
        "name-header-that-looks-encoded": "-32602 of a handler comes with status 400",
        "unknown-tool": "the same",
        "content-type": "400 for a foreign media type",
        "listen-malformed": "it takes any truthy value for true",
    },
}

peer = Peer(URL)
CHECKS = []


def register(function):
    CHECKS.append((function.__name__.replace("_", "-"), function))
    return function


def check(function):
    return function if IMPATIENT else register(function)


def bridged(function):
    """A check of what the proxy itself keeps for a legacy server."""
    return check(function) if BRIDGED else function


def impatient(function):
    return register(function) if IMPATIENT else function


def equal(got, want):
    if got != want:
        raise AssertionError(f"got {got!r}, want {want!r}")


def fails(body, status, code, **changes):
    """The request is refused with this status and code, under its own id."""
    got, answer = peer.ask(body, **changes)
    error = answer.get("error") or {}
    if (got, error.get("code"), answer.get("id")) != (status, code, body.get("id") if isinstance(body, dict) else None):
        raise AssertionError(f"got {got} {answer}, want {status} {code}")
    equal(isinstance(error.get("message"), str) and error["message"] != "", True)
    return error


def result(body, **changes):
    """The result of a request."""
    status, answer = peer.ask(body, **changes)
    if status != 200 or "result" not in answer:
        raise AssertionError(f"got {status} {answer}, want a result")
    equal((answer["jsonrpc"], answer["id"], type(answer["id"])), ("2.0", body["id"], type(body["id"])))
    return answer["result"]


def text(body, **changes):
    return result(body, **changes)["content"][0]["text"]


def echo(message="x", **options):
    return call("echo", {"message": message}, **options)


def at_once(function, arguments):
    """The results of several calls of a function, by thread."""
    with concurrent.futures.ThreadPoolExecutor(len(arguments)) as threads:
        return list(threads.map(function, arguments))


def until(condition):
    """There is nothing to wait for but the fact itself."""
    deadline = time.monotonic() + SECONDS
    while not (got := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {SECONDS} s")
        time.sleep(0.01)
    return got


def run():
    """Runs the checks, prints a line for each, and returns the exit status."""
    failed = False
    for name, function in CHECKS:
        full = f"{NAME}/{name}"
        if ONLY not in full:
            continue
        try:
            function()
            print(f"ok {full}", flush=True)
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:600]
            if why := DEVIATIONS.get(SERVER, {}).get(name):
                print(f"ok {full} (deviates: {why})", flush=True)
                continue
            failed = True
            print(f"FAIL {full} {reason}", flush=True)
    return 1 if failed else 0
