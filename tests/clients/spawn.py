"""Starts server.py over stdio at once, although Python takes seconds to load it.

`spawn.py SOCKET ERA` is a process like any other: its stdin and stdout are the server's, it ends when the server ends, and
the server ends with it. The server itself is a fork of a process that has loaded everything, see `serve` and eras.py.
"""

import contextlib
import os
import signal
import socket
import sys
import threading


def main(path, era):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        socket.send_fds(connection, [era.encode()], [0, 1])
        # Only the server has them now, so that their end can be seen.
        for stream in 0, 1:
            os.close(stream)
        # Nothing ever comes but the end.
        connection.recv(1)


def serve(path, run):
    """Listens on a socket, and forks for each connection a process that calls `run(era)` on the streams that came by it."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(64)
        print(path, flush=True)
        while True:
            connection, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                try:
                    child(connection, run)
                finally:
                    os._exit(0)
            connection.close()


def child(connection, run):
    era, streams, _, _ = socket.recv_fds(connection, 64, 2)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)

    def watch():
        with contextlib.suppress(OSError):
            connection.recv(1)
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
    run(era.decode())


if __name__ == "__main__":
    main(*sys.argv[1:])
