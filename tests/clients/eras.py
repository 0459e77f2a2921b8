"""Every pair of eras through the proxy: clients and servers of before 2026-07-28, of 2026-07-28, and of both.

Each client has a proxy and a server of its own, so that what one does is never seen by another. The names of the checks
are client/eras/front-back/server/check, where `front` is how the client reaches the proxy, `back` how the proxy reaches the
server, and the server is an implementation with its era.
"""

import contextlib
import json
import os
import subprocess
import sys
import threading

from harness import (
    CONFORMANCE,
    HERE,
    PYTHON,
    PYTHON2,
    START_SECONDS,
    ends_with_its_client,
    free_port,
    run_checks,
    running,
    stop,
    tail,
)

# Client -> its era, and its command; the name of the row follows.
CLIENTS = {
    "python1": ("legacy", [PYTHON, str(HERE / "eras_client.py")]),
    "python2": ("modern", [PYTHON2, "-W", "ignore", str(HERE / "eras_client.py")]),
    "node1": ("legacy", ["node", str(HERE / "eras_client.mjs"), "legacy"]),
    "node2": ("modern", ["node", str(HERE / "eras_client.mjs"), "modern"]),
}
SERVERS = {
    "ts-legacy": ["node", str(CONFORMANCE / "server.mjs"), "--era", "legacy"],
    "ts-dual": ["node", str(CONFORMANCE / "server.mjs"), "--era", "dual"],
    "ts-modern": ["node", str(CONFORMANCE / "server.mjs"), "--era", "modern"],
    "py-legacy": [PYTHON2, str(HERE / "server.py"), "--era", "legacy"],
    "py-dual": [PYTHON2, str(HERE / "server.py"), "--era", "dual"],
}
SPEAKS = {"legacy": ["legacy"], "modern": ["modern"], "dual": ["legacy", "modern"]}

# A `chain` is a stdio server behind a second proxy. A pair has the short list if its halves have the whole one elsewhere.
MATRIX = [
    # front, back, server, checks
    ("http", "stdio", "ts-legacy", "full"),
    ("http", "stdio", "ts-dual", "short"),
    ("http", "stdio", "ts-modern", "full"),
    ("http", "stdio", "py-legacy", "short"),
    ("http", "stdio", "py-dual", "full"),
    ("http", "http", "ts-legacy", "short"),
    ("http", "http", "ts-dual", "short"),
    ("http", "http", "ts-modern", "full"),
    ("http", "http", "py-legacy", "short"),
    ("http", "http", "py-dual", "short"),
    ("http", "sse", "py-legacy", "full"),
    ("stdio", "http", "ts-legacy", "full"),
    ("stdio", "http", "ts-dual", "short"),
    ("stdio", "http", "ts-modern", "full"),
    ("stdio", "http", "py-dual", "short"),
    ("stdio", "sse", "py-legacy", "short"),
    ("stdio", "chain", "ts-legacy", "short"),
    ("stdio", "chain", "ts-modern", "short"),
    ("sse", "stdio", "ts-modern", "short"),
    ("sse", "http", "ts-modern", "short"),
    ("sse", "http", "py-dual", "short"),
]
# What stands behind the modern HTTP front when it is spoken to by hand.
BY_HAND = ["ts-legacy", "ts-dual", "ts-modern", "impatient-ts-legacy"]
# Without a proxy, to tell the faults of the peers from ours.
DIRECT = [("http", "http", server, "full") for server in SERVERS]
# Not the Python servers: they take seconds to start, and there would be hundreds.
DIRECT += [("stdio", "stdio", server, "full") for server in SERVERS if server.startswith("ts")]
DIRECT += [("sse", "sse", "py-legacy", "full")]


def label(row):
    front, back, server, _ = row
    return f"eras/{front}-{back}/{server}"


def clients(row, direct):
    """The clients of a row. HTTP+SSE is a transport of legacy clients, and without a proxy both ends must share an era."""
    front, _, server, _ = row
    eras = SPEAKS[server.split("-")[1]] if direct else ["legacy", "modern"]
    return [name for name, (era, _) in CLIENTS.items() if era in eras and (front != "sse" or era == "legacy")]


@contextlib.contextmanager
def remote(argv, work, name):
    """A server on a port that it chose. Yields its URL, which is the first line it prints."""
    log = work / f"{name.replace('/', '-')}.log"
    with log.open("w") as err:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=err, text=True)
    late = threading.Timer(START_SECONDS, process.kill)
    late.start()
    try:
        if not (url := process.stdout.readline().strip()):
            raise RuntimeError(f"the server did not start: {tail(log)}")
        late.cancel()
        yield url
    finally:
        late.cancel()
        stop(process)
        process.stdout.close()


@contextlib.contextmanager
def proxy(args, name, front, what, work, report, flags=()):
    """A proxy in front of `what`, a command or a URL."""
    port = free_port()
    argv = [args.proxy, "--runtime", args.runtime, "--port", str(port), "--pass-environment", *flags]
    argv += [what] if isinstance(what, str) else ["--", *what]
    with running(f"proxy/{name}", argv, port, {}, work, report) as log:
        yield f"http://127.0.0.1:{port}{ {'http': '/mcp', 'sse': '/sse'}[front] }", log


@contextlib.contextmanager
def path_to_server(args, client, row, work, report):
    """Starts what a client needs. Yields its target, and the log of the proxy if it is not the client that starts it."""
    front, back, server, _ = row
    # How soon a proxy ends with its client, and with which status, is checked; of a server alone it is not.
    os.environ["CLIENT_MATRIX_EXIT"] = "" if args.direct else "checked"
    name = f"{client}/{label(row)}"
    with contextlib.ExitStack() as stack:
        what = SERVERS[server]
        if back in ("http", "sse"):
            what = stack.enter_context(remote([*what, f"--{back}", "0"], work, f"server/{name}"))
        elif server.startswith("py") and not args.direct:
            what = [sys.executable, "-S", "-E", str(HERE / "spawn.py"), str(work / "spawn"), server.removeprefix("py-")]
        else:
            what = [*what, "--stdio"]
        if args.direct:
            yield what if isinstance(what, str) else json.dumps(what), None
            return
        if back == "chain":
            what, _ = stack.enter_context(proxy(args, name, "http", what, work, report))
        if front != "stdio":
            yield stack.enter_context(proxy(args, name, front, what, work, report))
            return
        yield json.dumps([args.proxy, "--runtime", args.runtime, what]), None
        ends_with_its_client(what, f"proxy/{name}/leaves-no-client-mode", report)


def run_client(args, client, row, work, report):
    name = label(row)
    front, _, _, checks = row
    log = work / f"{client}-{name.replace('/', '-')}.log"
    try:
        with path_to_server(args, client, row, work, report) as (target, proxy_log):
            argv = [*CLIENTS[client][1], name, checks, front, target, str(work), report.only]
            # The proxy that a stdio client starts writes to the log of the client.
            if not run_checks(f"{client}/{name}", argv, log, report) and (said := tail(proxy_log or log)):
                report.line(f"  proxy said: {said}")
    except RuntimeError as error:
        report.line(f"FAIL {client}/{name} {error}")


def together(threads):
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def wanted(row, names, only):
    """The clients of the row that may have a check with `only` in its name."""
    if "/" not in only:
        return names
    client, begins, _ = only.partition("eras/")
    named = begins and only.startswith(f"{client}{label(row)}/")
    return [name for name in names if only in f"{name}/{label(row)}/" or named and f"{name}/".endswith(client)]


def run_by_hand(args, server, work, report):
    """The modern HTTP front by hand, in front of a stdio server; or a server without a proxy."""
    kind = server.removeprefix("impatient-")
    name = f"modern-http/{server}"
    log = work / f"{name.replace('/', '-')}.log"
    try:
        if args.direct:
            path = remote([*SERVERS[f"{kind}-dual"], "--http", "0"], work, f"server/{name}")
        else:
            flags = ["--input-timeout", "1"] if server.startswith("impatient-") else []
            path = proxy(args, name, "http", [*SERVERS[kind], "--stdio"], work, report, flags)
        with path as where:
            url, proxy_log = (where, None) if args.direct else where
            what = f"direct-{kind}" if args.direct else server
            argv = [PYTHON, str(HERE / "modern_http.py"), name, what, url, str(work), report.only]
            if not run_checks(name, argv, log, report) and proxy_log and (said := tail(proxy_log)):
                report.line(f"  proxy said: {said}")
    except RuntimeError as error:
        report.line(f"FAIL {name} {error}")


def run(args, work, report):
    by_hand = ["ts", "py"] if args.direct else BY_HAND
    by_hand = [server for server in by_hand if f"modern-http/{server}/" in report.only or report.only in f"modern-http/{server}/"
               or "/" not in report.only]
    together([threading.Thread(target=run_by_hand, args=(args, server, work, report)) for server in by_hand])
    rows = [(row, wanted(row, clients(row, args.direct), report.only)) for row in (DIRECT if args.direct else MATRIX)]
    with contextlib.ExitStack() as stack:
        if not args.direct and any(names and row[1] in ("stdio", "chain") and row[2].startswith("py") for row, names in rows):
            stack.enter_context(remote([PYTHON2, str(HERE / "server.py"), "--fork", str(work / "spawn")], work, "spawn"))
        for row, names in rows:
            together([threading.Thread(target=run_client, args=(args, name, row, work, report)) for name in names])
