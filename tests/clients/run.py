#!/usr/bin/env python3
"""Drive real MCP servers through mcp-proxy with the official SDK clients. See README.md."""

import argparse
import contextlib
import hashlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
PYTHON = str(HERE / ".venv/bin/python")
NODE_MODULES = HERE / "node_modules"
SERVERS = NODE_MODULES / "@modelcontextprotocol"

CLIENT_SECONDS = 120
START_SECONDS = 20
STOP_SECONDS = 10

EVERYTHING = ["node", str(SERVERS / "server-everything/dist/index.js"), "stdio"]
TIME = [PYTHON, "-m", "mcp_server_time", "--local-timezone", "UTC"]
CLIENTS = {"python": [PYTHON, str(HERE / "client.py")], "node": ["node", str(HERE / "client.mjs")]}


def matrix(work):
    """(label, session mode, server command); the label picks the checks in the clients."""
    filesystem = ["node", str(SERVERS / "server-filesystem/dist/index.js"), str(work)]
    return [
        ("everything", "per-session", EVERYTHING),
        ("everything-shared", "shared", EVERYTHING),
        ("filesystem", "per-session", filesystem),
        ("time", "per-session", TIME),
        ("time-per-request", "per-request", TIME),
    ]


class Report:
    def __init__(self, only):
        self.only, self.passed, self.failed = only, 0, 0

    def line(self, line):
        print(line, flush=True)
        self.passed += line.startswith("ok ")
        self.failed += line.startswith("FAIL ")

    def check(self, name, reason):
        """Report a check of the runner itself; an empty reason is a pass."""
        if self.only in name:
            self.line(f"FAIL {name} {reason}" if reason else f"ok {name}")


def setup():
    """Install the clients and servers, unless this very set is installed already."""
    install("requirements.txt", HERE / ".venv", lambda: (
        subprocess.run([sys.executable, "-m", "venv", "--clear", HERE / ".venv"], check=True),
        subprocess.run([PYTHON, "-m", "pip", "install", "-q", "--disable-pip-version-check",
                        "-r", HERE / "requirements.txt"], check=True),
    ))
    install("package-lock.json", NODE_MODULES, lambda: (
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund", "--silent"], cwd=HERE, check=True),
    ))


def install(lock, folder, action):
    stamp = folder / ".installed-from"
    wanted = hashlib.sha256((HERE / lock).read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"installing {lock} into {folder.name}", file=sys.stderr)
        action()
        stamp.write_text(wanted)


def write_big_file(path):
    """10 MB of lines that all differ, so that a lost or repeated piece shows."""
    path.write_text("".join(f"{n:07d} the quick brown fox é\n" for n in range(335_000)), "utf-8")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for_port(process, port, log):
    deadline = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        if process.poll() is not None:
            raise RuntimeError(f"proxy ended with {process.returncode}: {tail(log)}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"proxy does not listen after {START_SECONDS} s: {tail(log)}")
        time.sleep(0.02)


def tail(path):
    return " | ".join(path.read_text(errors="replace").strip().splitlines()[-5:])[-600:]


def running_processes():
    """Process id -> parent's id, without zombies."""
    table = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True)
    rows = [line.split() for line in table.stdout.splitlines()]
    return {int(pid): int(parent) for pid, parent, state in rows if not state.startswith("Z")}


def tree(root):
    parents, found = running_processes(), [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return set(found)


def stop(process):
    """End the proxy the polite way, then whatever is left by force. Returns what had to be forced."""
    started = tree(process.pid)
    process.terminate()
    deadline = time.monotonic() + STOP_SECONDS
    # wait() also reaps the proxy; its servers are not our children and can only be watched.
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    while (left := started & running_processes().keys()) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
    return left


@contextlib.contextmanager
def proxy(args, label, mode, command, work, report):
    port, log = free_port(), work / f"proxy-{label}.log"
    argv = [args.proxy, "--runtime", args.runtime, "--port", str(port),
            "--session-mode", mode, "--pass-environment", "--", *command]
    with log.open("w") as out:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        wait_for_port(process, port, log)
        yield f"http://127.0.0.1:{port}/mcp", log
    finally:
        left = stop(process)
    report.check(f"proxy/{label}/leaves-no-process", f"still running {STOP_SECONDS} s after SIGTERM: {sorted(left)}" if left else "")


def run_client(name, argv, label, url, work, proxy_log, report):
    log = work / f"{name}-{label}.log"
    failed_before, timed_out = report.failed, threading.Event()
    with log.open("w") as err:
        process = subprocess.Popen([*argv, label, url, str(work), report.only],
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=err, text=True)
    timer = threading.Timer(CLIENT_SECONDS, lambda: (timed_out.set(), process.kill()))
    timer.start()
    try:
        for line in process.stdout:
            report.line(line.rstrip("\n"))
        code = process.wait()
    finally:
        timer.cancel()
        process.kill()
        process.wait()
    if timed_out.is_set():
        report.line(f"FAIL {name}/{label} killed after {CLIENT_SECONDS} s")
    elif code != 0 and report.failed == failed_before:
        report.line(f"FAIL {name}/{label} client ended with {code}: {tail(log)}")
    if report.failed > failed_before and (said := tail(proxy_log)):
        print(f"  proxy said: {said}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--proxy", required=True, type=os.path.abspath, help="the mcp-proxy binary")
    parser.add_argument("--runtime", default="smol", choices=["smol", "blocking"])
    parser.add_argument("--only", default="", metavar="NAME", help="run checks whose name contains NAME")
    args = parser.parse_args()
    if not shutil.which(args.proxy):
        parser.error(f"{args.proxy} is not an executable")

    # Turn SIGTERM into an exception, so that the `finally` blocks end what was started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    setup()
    os.environ["CLIENT_MATRIX_MARK"] = f"mark-{os.getpid()}"
    report = Report(args.only)
    with tempfile.TemporaryDirectory(prefix="mcp-clients-") as folder:
        work = pathlib.Path(folder).resolve()
        write_big_file(work / "big.txt")
        for label, mode, command in matrix(work):
            try:
                with proxy(args, label, mode, command, work, report) as (url, log):
                    for name, argv in CLIENTS.items():
                        run_client(name, argv, label, url, work, log, report)
            except RuntimeError as error:
                report.line(f"FAIL proxy/{label} {error}")
    if report.passed + report.failed == 0:
        report.line(f"FAIL no check has a name containing {args.only!r}")
    print(f"{report.passed} passed, {report.failed} failed")
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
