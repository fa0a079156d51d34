"""A remote process on this terminal: Kubernetes' exec and attach on one side, stdin and stdout on the other.

Called by `exec`, `run` and `attach`-like commands. Five streams over SPDY: stdin, stdout, stderr, resize, and error,
which brings the result (a Status). The process sees the end of our input, as `exec -i ... < file` needs.
https://kubernetes.io/docs/reference/kubernetes-api (pods/exec, pods/attach).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import stat
import sys
import termios
import tty
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import orjson

from api.client import Client
from api.errors import error_from_status
from api.spdy import ERROR, PROTOCOL, RESIZE, STDERR, STDIN, STDOUT, UPGRADE, Spdy
from cli.problems import Problem
from cli.stdout import write_raw

_CHUNK = 32 * 1024
Earlier = Callable[[], Awaitable[bytes]]


@dataclass(frozen=True)
class Streams:
    """What to connect: `command` for exec, none for attach."""

    path: str
    container: str = ""
    command: tuple[str, ...] = ()
    stdin: bool = False
    tty: bool = False
    output: bool = True

    def query(self) -> list[tuple[str, str]]:
        stderr = self.output and not self.tty
        wanted = {"stdin": self.stdin, "stdout": self.output, "stderr": stderr, "tty": self.tty}
        query = [(name, "true") for name, on in wanted.items() if on]
        query += [("command", word) for word in self.command]
        return [*query, ("container", self.container)] if self.container else query

    def opened(self) -> list[str]:
        """The streams to open; the server begins when all that the query announces are there."""
        stderr = self.output and not self.tty
        wanted = {STDIN: self.stdin, STDOUT: self.output, STDERR: stderr, RESIZE: self.tty}
        return [ERROR, *(name for name, on in wanted.items() if on)]


async def run_streams(client: Client, streams: Streams, earlier: Earlier | None = None) -> int:
    """Connects and copies until the process ends. Returns its exit code; raises ApiError, Problem, OutputClosed.

    What was attached to (no command) has its result elsewhere: 0 when the stream just ends. `earlier` fetches what the
    process said before we were connected; it is shown first, and once.
    """
    async with _connected(client, streams) as connection:
        with _raw_terminal(streams.tty and streams.stdin):
            result = await _copy(connection, streams, _Output(earlier))
    if result is None and streams.command:
        raise Problem("the connection ended before the command's result came", "It may run on, or have been cut off.")
    return _exit_code(orjson.loads(result)) if result is not None else 0


class _Output:
    """stdout, held back until what was said earlier is known."""

    def __init__(self, earlier: Earlier | None) -> None:
        self._earlier = earlier
        self._held = b""

    async def begin(self) -> None:
        if self._earlier is not None:
            said = await self._earlier()
            self._earlier = None
            write_raw(sys.stdout.fileno(), joined(said, self._held))

    def write(self, data: bytes) -> None:
        if self._earlier is not None:
            self._held += data
        else:
            write_raw(sys.stdout.fileno(), data)


def joined(said: bytes, heard: bytes) -> bytes:
    """What was said and then what was heard, whose beginning may be the end of the former."""
    shared = next((n for n in range(min(len(said), len(heard)), 0, -1) if said.endswith(heard[:n])), 0)
    return said + heard[shared:]


async def feed_stdin(client: Client, path: str, container: str) -> None:
    """Attaches to a container's input alone, passes ours on, and leaves when ours ends."""
    async with _connected(client, Streams(path, container, stdin=True, output=False)) as connection:
        await _send_stdin(connection)
        async for _ in connection.received():
            return


async def run_piped(
    client: Client, streams: Streams, take: Callable[[bytes], object], given: AsyncIterator[bytes] | None = None
) -> tuple[int, bytes]:
    """Runs a command whose output goes to `take` and whose input is `given`. Its exit code, and what it said as errors.

    Raises ApiError, Problem when it could not be run or the connection broke.
    """
    errors = bytearray()
    async with _connected(client, streams) as connection, asyncio.TaskGroup() as tasks:
        sender = tasks.create_task(_send_all(connection, given)) if given is not None else None
        async for name, data in connection.received():
            if name == STDOUT:
                take(data)
            elif name == STDERR:
                errors += data
            elif name == ERROR:
                if sender is not None:
                    sender.cancel()
                return _exit_code(orjson.loads(data)), bytes(errors)
        if sender is not None:
            sender.cancel()
    raise Problem("the connection ended before the command's result came")


@contextlib.asynccontextmanager
async def _connected(client: Client, streams: Streams) -> AsyncIterator[Spdy]:
    path = f"{streams.path}?{urlencode(streams.query())}"
    tunnel = await client.upgrade("POST", path, {**UPGRADE, **PROTOCOL})
    connection = Spdy(tunnel.reader, tunnel.writer)
    try:
        for name in streams.opened():
            connection.open(name)
        yield connection
    finally:
        tunnel.writer.transport.abort()  # input that nobody reads any more is not worth waiting for


async def _copy(connection: Spdy, streams: Streams, output: _Output) -> bytes | None:
    senders: list[asyncio.Task[None]] = []
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(output.begin())
        if streams.tty:
            senders.append(tasks.create_task(_send_sizes(connection)))
        if streams.stdin:
            senders.append(tasks.create_task(_send_stdin(connection)))
        try:
            return await _receive(connection, output)
        finally:
            for sender in senders:
                sender.cancel()


async def _receive(connection: Spdy, output: _Output) -> bytes | None:
    """Copies output until the result comes, which is last; the connection may outlive it. Returns it unread."""
    async for name, data in connection.received():
        if name == STDOUT:
            output.write(data)
        elif name == STDERR:
            write_raw(sys.stderr.fileno(), data)
        elif name == ERROR:
            return data
    return None


def _exit_code(result: Any) -> int:
    """The exit code that a Status tells. Raises ApiError when the process could not even be started."""
    if result.get("status") == "Success":
        return 0
    for cause in (result.get("details") or {}).get("causes") or ():
        if cause.get("reason") == "ExitCode":
            return int(cause.get("message") or 1)
    raise error_from_status(result)


async def _send_stdin(connection: Spdy) -> None:
    await _send_all(connection, _own_input())


async def _send_all(connection: Spdy, given: AsyncIterator[bytes]) -> None:
    with contextlib.suppress(ConnectionError):  # the process has ended; its result says the rest
        async for data in given:
            await connection.send(STDIN, data)
        connection.finish(STDIN)


async def _own_input() -> AsyncIterator[bytes]:
    """What comes in, as it comes. Files never let one wait, and cannot be waited for."""
    mode = os.fstat(sys.stdin.fileno()).st_mode
    if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or sys.stdin.isatty():
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while data := await reader.read(_CHUNK):
            yield data
    else:
        while data := os.read(sys.stdin.fileno(), _CHUNK):
            yield data
            await asyncio.sleep(0)  # what the process answers is read in between


def _terminal_size() -> os.terminal_size:
    """The terminal's own size; COLUMNS and LINES of the environment may be anybody's."""
    for stream in (sys.stdout, sys.stdin):
        with contextlib.suppress(OSError, ValueError):
            return os.get_terminal_size(stream.fileno())
    return os.terminal_size((80, 24))


async def _send_sizes(connection: Spdy) -> None:
    changed = asyncio.Event()
    changed.set()
    asyncio.get_running_loop().add_signal_handler(signal.SIGWINCH, changed.set)
    try:
        while True:
            await changed.wait()
            changed.clear()
            size = _terminal_size()
            await connection.send(RESIZE, orjson.dumps({"Width": size.columns, "Height": size.lines}) + b"\n")
    finally:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGWINCH)


@contextlib.contextmanager
def _raw_terminal(wanted: bool) -> Iterator[None]:
    """Keys go to the remote process unread, and the terminal is as before afterwards."""
    if not wanted or not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    tty.setraw(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)
