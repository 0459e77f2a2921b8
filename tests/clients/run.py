#!/usr/bin/env python3
"""Drive real MCP servers through mcp-proxy with the official SDK clients. See README.md."""

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import signal
import sys
import tempfile
import threading

import eras
from harness import (
    HERE,
    NODE_MODULES,
    PYTHON,
    Report,
    ends_with_its_client,
    free_port,
    run_checks,
    running,
    setup,
    tail,
)

SERVERS = NODE_MODULES / "@modelcontextprotocol"
CLIENTS = {"python": [PYTHON, str(HERE / "client.py")], "node": ["node", str(HERE / "client.mjs")]}
EVERYTHING = ["node", str(SERVERS / "server-everything/dist/index.js")]
# The modes of server-everything behind its transports, with the path of its endpoint.
REMOTE = {"http": ("streamableHttp", "/mcp"), "sse": ("sse", "/sse")}

# Every pair of transports. `front` is how the client reaches the proxy, `back` how the proxy reaches the server; a `chain`
# is a second proxy in between, reached by the transport named. A stdio client starts `mcp-proxy URL`, one for each session.
# `checks` names a list in the clients. A pair has the whole list of server-everything unless each half has it elsewhere.
MATRIX = [
    # front, back, session mode, server, checks, how the proxy is told
    ("http", "stdio", "per-session", "everything", "everything", []),
    ("http", "stdio", "shared", "everything", "everything-shared", []),
    ("http", "stdio", "per-session", "filesystem", "filesystem", []),
    ("http", "stdio", "per-session", "time", "time", []),
    ("http", "stdio", "per-request", "time", "time", []),
    ("http", "http", "shared", "everything", "everything-shared", ["named"]),
    ("http", "sse", "per-session", "everything", "everything-short", ["--transport", "sse"]),
    ("sse", "stdio", "per-session", "everything", "everything", []),
    ("sse", "stdio", "shared", "filesystem", "filesystem", ["named"]),
    ("sse", "http", "per-session", "everything", "everything-short", ["--transport", "streamablehttp"]),
    ("sse", "sse", "per-session", "everything", "everything-short", ["named"]),
    ("stdio", "http", "per-session", "everything", "everything", []),
    ("stdio", "sse", "per-session", "everything", "everything", []),
    ("stdio", "chain-sse", "per-session", "everything", "everything-short", []),
    ("stdio", "chain-http", "shared", "filesystem", "filesystem", []),
]


def label(row):
    front, back, mode, server, _, _ = row
    return f"{front}-{back}/{server}" + ("" if mode == "per-session" else f"-{mode}")


def command(server, work):
    return {
        "everything": [*EVERYTHING, "stdio"],
        "filesystem": ["node", str(SERVERS / "server-filesystem/dist/index.js"), str(work)],
        "time": [PYTHON, "-m", "mcp_server_time", "--local-timezone", "UTC"],
    }[server]


def write_big_file(path, megabytes):
    """Lines that all differ, so that a lost or repeated piece shows."""
    path.write_text("".join(f"{n:07d} the quick brown fox é\n" for n in range(megabytes * 33_500)), "utf-8")


@contextlib.contextmanager
def remote(row, work, report):
    """A server on its own port."""
    mode, path = REMOTE[row[1]]
    port = free_port()
    with running(f"server/{label(row)}", [*EVERYTHING, mode], port, {"PORT": str(port)}, work, report):
        yield f"http://127.0.0.1:{port}{path}"


@contextlib.contextmanager
def proxy(args, row, front, what, work, report):
    """A proxy in front of `what`, a command or a URL."""
    _, _, mode, _, _, flags = row
    port = free_port()
    argv = [args.proxy, "--runtime", args.runtime, "--port", str(port), "--session-mode", mode, "--pass-environment"]
    path = {"http": "/mcp", "sse": "/sse"}[front]
    if flags == ["named"]:
        # The second one cannot start, which is nobody else's business.
        it = {"url": what} if isinstance(what, str) else {"command": what[0], "args": what[1:]}
        config = work / f"{label(row).replace('/', '-')}.json"
        config.write_text(json.dumps({"mcpServers": {"it": it, "absent": {"command": "/no/such/program"}}}))
        argv += ["--named-server-config", str(config)]
        path = f"/servers/it{path}"
    else:
        argv += [*flags, what] if isinstance(what, str) else [*flags, "--", *what]
    with running(f"proxy/{label(row)}", argv, port, {}, work, report) as log:
        yield f"http://127.0.0.1:{port}{path}", log


@contextlib.contextmanager
def path_to_server(args, row, work, report):
    """Starts what a row needs. Yields the client's target and the log of the proxy, if it is not the client that starts it."""
    front, back, _, server, _, flags = row
    with contextlib.ExitStack() as stack:
        what = command(server, work)
        if back in REMOTE:
            what = stack.enter_context(remote(row, work, report))
        if front != "stdio":
            yield stack.enter_context(proxy(args, row, front, what, work, report))
            return
        if back.startswith("chain-"):
            what, _ = stack.enter_context(proxy(args, row, back.removeprefix("chain-"), what, work, report))
        yield json.dumps([args.proxy, "--runtime", args.runtime, *flags, what]), None
        ends_with_its_client(what, f"proxy/{label(row)}/leaves-no-client-mode", report)


def run_client(name, row, target, proxy_log, work, report):
    log = work / f"{name}-{label(row).replace('/', '-')}.log"
    front, _, _, _, checks, _ = row
    argv = [*CLIENTS[name], label(row), checks, front, target, str(work), report.only]
    # The proxy that a stdio client starts writes to the log of the client.
    if not run_checks(f"{name}/{label(row)}", argv, log, report) and (said := tail(proxy_log or log)):
        report.line(f"  proxy said: {said}")


def run_row(args, row, work, report):
    """Both clients at once: they are busy with waiting, and a server has many clients anyway."""
    try:
        with path_to_server(args, row, work, report) as (target, log):
            clients = [threading.Thread(target=run_client, args=(name, row, target, log, work, report)) for name in CLIENTS]
            for client in clients:
                client.start()
            for client in clients:
                client.join()
    except RuntimeError as error:
        report.line(f"FAIL proxy/{label(row)} {error}")


def run_faults(args, work, report):
    """Client mode against remote servers that misbehave."""
    argv = [PYTHON, str(HERE / "faults.py"), args.proxy, args.runtime, str(work), report.only]
    run_checks("faults", argv, work / "faults.log", report)


def run_matrix(args, work, report):
    write_big_file(work / "big.txt", 10)
    # The server says everything twice, and this SDK takes no line above 10 MiB from a stdio server.
    write_big_file(work / "big-for-node-on-stdio.txt", 4)
    faults = threading.Thread(target=run_faults, args=(args, work, report))
    faults.start()
    for row in selected(args.only):
        run_row(args, row, work, report)
    faults.join()


def selected(only):
    """The rows that may have a check with `only` in its name."""
    near = [row for row in MATRIX if only in label(row) or label(row) in only]
    elsewhere = any(part in only for part in ("faults/", "eras/", "modern-http/"))
    return near or ([] if elsewhere else MATRIX)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--proxy", type=os.path.abspath, help="the mcp-proxy binary")
    parser.add_argument("--direct", action="store_true", help="no proxy: only the pairs of eras that need none")
    parser.add_argument("--runtime", default="smol", choices=["smol", "blocking"])
    parser.add_argument("--only", default="", metavar="NAME", help="run checks whose name contains NAME")
    args = parser.parse_args()
    if bool(args.proxy) == args.direct:
        parser.error("either --proxy or --direct")
    if args.proxy and not shutil.which(args.proxy):
        parser.error(f"{args.proxy} is not an executable")

    # Turn SIGTERM into an exception, so that the `finally` blocks end what was started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    setup()
    os.environ["CLIENT_MATRIX_MARK"] = f"mark-{os.getpid()}"
    report = Report(args.only)
    with tempfile.TemporaryDirectory(prefix="mcp-clients-") as folder:
        work = pathlib.Path(folder).resolve()
        if args.proxy:
            run_matrix(args, work, report)
        eras.run(args, work, report)
    if report.passed + report.failed == 0:
        report.line(f"FAIL no check has a name containing {args.only!r}")
    print(f"{report.passed} passed, {report.failed} failed")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
