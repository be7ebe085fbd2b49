"""The reference of the network benchmarks: a pyzmq CURVE echo that does nothing else.

    python -m benchmarks.bare KEYS REPLY_BYTES

One ROUTER socket, blocking calls, whole copies: of the ways to write it (copying or not; blocking, zmq.Poller or epoll)
none was measurably faster. Prints its endpoint.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from types import TracebackType

import zmq

from edgebed.protocol.front import Context, Socket
from edgebed.protocol.security import KeyPair, make_key_pair, read_key_pair, secure_client, write_key_pair

MAX_PARTS = 2


class BareEcho:
    """Starts the reference in a process of its own.

    Args:
        folder: for its key.
        reply_bytes: size of its answers.
    """

    def __init__(self, folder: Path, reply_bytes: int) -> None:
        self._keys = make_key_pair()
        write_key_pair(folder / "bare.key", self._keys)
        command = [sys.executable, "-m", "benchmarks.bare", str(folder / "bare.key"), str(reply_bytes)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self._endpoint = self.process.stdout.readline().strip()

    def connect(self, context: Context) -> Socket:
        """A bare DEALER to it."""
        socket: Socket = context.socket(zmq.DEALER)
        socket.linger = 0
        secure_client(socket, make_key_pair(), self._keys.public)
        socket.connect(self._endpoint)
        return socket

    def __enter__(self) -> BareEcho:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def echo_forever(keys: KeyPair, reply: bytes) -> None:
    """Answer every message with ``reply``."""
    context: Context = zmq.Context()
    socket: Socket = context.socket(zmq.ROUTER)
    socket.curve_server = True
    socket.curve_secretkey = keys.secret.encode()
    socket.curve_publickey = keys.public.encode()
    socket.bind("tcp://127.0.0.1:0")
    print(socket.get_string(zmq.LAST_ENDPOINT), flush=True)
    receive, send = socket.recv, socket.send
    while True:
        identity = receive()
        receive()
        send(identity, zmq.SNDMORE)
        send(reply)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("key", type=Path)
    parser.add_argument("reply_bytes", type=int)
    arguments = parser.parse_args()
    echo_forever(read_key_pair(arguments.key), b"r" * arguments.reply_bytes)
