"""What run.py and eras.py share: programs that are started and ended, and a count of what was checked."""

import contextlib
import hashlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
PYTHON = str(HERE / ".venv/bin/python")
# The same for the second line of the SDK.
PYTHON2 = str(HERE / ".venv2/bin/python")
NODE_MODULES = HERE / "node_modules"
CONFORMANCE = HERE.parent / "conformance"

CLIENT_SECONDS = 120
START_SECONDS = 20
STOP_SECONDS = 10


class Report:
    """What is printed and counted, by several threads."""

    def __init__(self, only):
        self.only, self.passed, self.failed = only, 0, 0
        self.lock = threading.Lock()

    def line(self, line):
        with self.lock:
            print(line, flush=True)
            self.passed += line.startswith("ok ")
            self.failed += line.startswith("FAIL ")

    def check(self, name, reason):
        """Report a check of the runner itself; an empty reason is a pass."""
        if self.only in name:
            self.line(f"FAIL {name} {reason}" if reason else f"ok {name}")


def setup():
    """Install the clients and servers, unless this very set is installed already."""
    for requirements, venv in ("requirements.txt", ".venv"), ("requirements2.txt", ".venv2"):
        install(HERE / requirements, HERE / venv, lambda: environment(requirements, venv))
    for folder in HERE, CONFORMANCE:
        install(folder / "package-lock.json", folder / "node_modules", lambda: subprocess.run(
            ["npm", "ci", "--no-audit", "--no-fund", "--silent"], cwd=folder, check=True
        ))


def environment(requirements, venv):
    subprocess.run([sys.executable, "-m", "venv", "--clear", HERE / venv], check=True)
    python = HERE / venv / "bin/python"
    subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r", HERE / requirements], check=True)


def install(lock, folder, action):
    stamp = folder / ".installed-from"
    wanted = hashlib.sha256(lock.read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"installing {lock.name} into {folder}", file=sys.stderr)
        action()
        stamp.write_text(wanted)


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
            raise RuntimeError(f"it ended with {process.returncode}: {tail(log)}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"it does not listen after {START_SECONDS} s: {tail(log)}")
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
def running(name, argv, port, env, work, report):
    """A program that listens on the port. In the end it is stopped, and must leave nothing behind if it is the proxy."""
    log = work / f"{name.replace('/', '-')}.log"
    with log.open("w") as out:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=os.environ | env)
    try:
        wait_for_port(process, port, log)
        yield log
    finally:
        left = stop(process)
    if name.startswith("proxy/"):
        late = f"still running {STOP_SECONDS} s after SIGTERM: {sorted(left)}"
        report.check(f"{name}/leaves-no-process", late if left else "")


def processes_with(word):
    table = subprocess.run(["ps", "-A", "-o", "pid=,args="], capture_output=True, text=True, check=True)
    rows = [line.split() for line in table.stdout.splitlines()]
    return [int(pid) for pid, *argv in rows if word in argv]


def ends_with_its_client(what, name, report):
    """Checks that no program is left with the word `what` in its command line, once its client is gone."""
    deadline = time.monotonic() + STOP_SECONDS
    while (left := processes_with(what)) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    report.check(name, f"still running {STOP_SECONDS} s after its client: {left}" if left else "")


def run_checks(name, argv, log, report):
    """Runs a program that prints a line for each check. False if something failed."""
    good, timed_out = True, threading.Event()
    with log.open("w") as err:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=err, text=True)
    timer = threading.Timer(CLIENT_SECONDS, lambda: (timed_out.set(), process.kill()))
    timer.start()
    try:
        for line in process.stdout:
            good &= not line.startswith("FAIL ")
            report.line(line.rstrip("\n"))
        code = process.wait()
    finally:
        timer.cancel()
        process.kill()
        process.wait()
    if timed_out.is_set():
        report.line(f"FAIL {name} killed after {CLIENT_SECONDS} s")
    elif code != 0 and good:
        report.line(f"FAIL {name} ended with {code}: {tail(log)}")
    return good and code == 0
