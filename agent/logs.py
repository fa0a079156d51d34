"""Container logs in CRI format: parsing, choosing lines, and following a file while it grows and rotates.

    2026-01-02T03:04:05.000000006Z stdout F a whole line
    2026-01-02T03:04:05.000000007Z stderr P the beginning of a line that is continued in the next entry

Called by the agent's server (`read_log`) and for termination messages (`last_lines`). Rules: CRI's log format, the
kubelet's ReadLogs (k8s.io/cri-client/pkg/logs). Files are read in the event loop's threads, in pieces.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import os
import shutil
import zlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from agent.inotify import FileWatch
from api.objects import parse_time

Stream = Literal["stdout", "stderr"]
PIECE = 256 * 1024
PACKED = ".gz"
"""How the name of a rotated file ends that was packed."""
BLOCK = 64 * 1024
END_CHECK_SECONDS = 1.0


@dataclass(frozen=True)
class Entry:
    """One entry of a log file. `text` ends in a newline unless the entry is `partial`."""

    time: str
    stream: Stream
    partial: bool
    text: bytes


@dataclass(frozen=True)
class LogOptions:
    """What `kubectl logs` can ask for. `since` is a moment; None means no limit everywhere."""

    follow: bool = False
    tail: int | None = None
    since: datetime | None = None
    timestamps: bool = False
    limit_bytes: int | None = None
    stream: Stream | None = None


def log_options(query: dict[str, str], now: datetime) -> LogOptions:
    """PodLogOptions out of a URL's query. Raises ValueError, naming the parameter."""
    since = None
    if "sinceSeconds" in query:
        since = now - timedelta(seconds=_whole(query, "sinceSeconds", 1) or 0)
    elif query.get("sinceTime"):
        try:
            since = parse_time(query["sinceTime"])
        except ValueError as error:
            raise ValueError(f"sinceTime: {error}") from error
    stream = query.get("stream", "All")
    if stream not in ("All", "Stdout", "Stderr"):
        raise ValueError(f'stream: unsupported value "{stream}"')
    names: dict[str, Stream] = {"Stdout": "stdout", "Stderr": "stderr"}
    return LogOptions(
        follow=_flag(query, "follow"),
        tail=_whole(query, "tailLines", 0),
        since=since,
        timestamps=_flag(query, "timestamps"),
        limit_bytes=_whole(query, "limitBytes", 1),
        stream=names.get(stream),
    )


def _flag(query: dict[str, str], name: str) -> bool:
    return query.get(name, "").lower() in ("true", "1", "t")


def _whole(query: dict[str, str], name: str, least: int) -> int | None:
    text = query.get(name)
    if text is None or text == "":
        return None
    value = int(text) if text.lstrip("-").isdigit() else None
    if value is None or value < least:
        raise ValueError(f"{name}: must be a whole number, {least} or greater")
    return value


def parse_entry(line: bytes) -> Entry | None:
    """One line of a log file, without its newline; None for what is not in CRI format."""
    parts = line.split(b" ", 3)
    if len(parts) != 4 or parts[1] not in (b"stdout", b"stderr"):
        return None
    partial = parts[2].split(b":")[0] == b"P"
    stream: Stream = "stdout" if parts[1] == b"stdout" else "stderr"
    return Entry(parts[0].decode("ascii", "replace"), stream, partial, parts[3] if partial else parts[3] + b"\n")


def render(entry: Entry, options: LogOptions) -> bytes:
    """What the reader sees of an entry; b"" if it is not asked for."""
    if options.stream is not None and entry.stream != options.stream:
        return b""
    if options.since is not None and _moment(entry.time) < options.since:
        return b""
    return entry.time.encode() + b" " + entry.text if options.timestamps else entry.text


def _moment(text: str) -> datetime:
    """A timestamp with nanoseconds, as far as Python can tell it."""
    head, dot, rest = text.partition(".")
    digits = "".join(c for c in rest if c.isdigit())[:6] if dot else ""
    zone = rest.lstrip("0123456789") if dot else ""
    try:
        return parse_time(f"{head}{'.' + digits if digits else ''}{zone or ('' if not dot else 'Z')}")
    except ValueError:
        return datetime.fromtimestamp(0, UTC)


def log_files(current: Path) -> list[Path]:
    """The container's log files, oldest first: the rotated ones, then the present one."""
    rotated = rotated_files(current)
    return [*rotated, current] if current.exists() else rotated


def rotated_files(current: Path) -> list[Path]:
    """Oldest first, each once: while one is being packed there are both."""
    found = {file.name: file for file in current.parent.glob(f"{current.name}.*")} if current.parent.is_dir() else {}
    return [file for name, file in sorted(found.items()) if _plain(name) == name or _plain(name) not in found]


def _plain(name: str) -> str:
    return name.removesuffix(PACKED)


def _opened(file: Path) -> int:
    """A descriptor of a log file's text; a packed one is unpacked into memory that belongs to the descriptor."""
    plain = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    if file.suffix != PACKED:
        return plain
    text = os.memfd_create(file.name, os.MFD_CLOEXEC)
    with open(plain, "rb") as packed, gzip.open(packed) as unpacked, open(text, "wb", closefd=False) as written:
        shutil.copyfileobj(unpacked, written, PIECE)
    os.lseek(text, 0, os.SEEK_SET)
    return text


def last_lines(current: Path, lines: int, limit_bytes: int) -> bytes:
    """The end of a log as plain text, at most so many lines and bytes."""
    texts: deque[bytes] = deque(maxlen=lines)
    files = log_files(current)
    for entry in _tail_entries(files, lines, _size(files)):
        texts.append(entry.text)
    return b"".join(texts)[-limit_bytes:]


def _entries(data: Iterable[bytes]) -> Iterator[Entry]:
    for line in data:
        entry = parse_entry(line)
        if entry is not None:
            yield entry


def _size(files: list[Path]) -> int:
    return files[-1].stat().st_size if files else 0


def _tail_entries(files: list[Path], lines: int, end: int) -> list[Entry]:
    """The entries of the last `lines` whole lines before offset `end` of the last file, read backwards."""
    found: list[Entry] = []
    complete = 0
    for file in reversed(files):
        for line in _backwards(file, end if file is files[-1] else None):
            entry = parse_entry(line)
            if entry is None:
                continue
            if not entry.partial:
                if complete == lines:
                    return found[::-1]
                complete += 1
            found.append(entry)
    return found[::-1]


def _backwards(file: Path, end: int | None) -> Iterator[bytes]:
    """The lines of a file up to offset `end`, last one first; an unfinished last line is left out."""
    try:
        opened = os.fdopen(_opened(file), "rb")
    except (OSError, EOFError, zlib.error):
        return
    with opened:
        position = opened.seek(0, os.SEEK_END) if end is None else end
        rest = b""
        finished = False
        while position > 0:
            size = min(BLOCK, position)
            position -= size
            opened.seek(position)
            lines = (opened.read(size) + rest).split(b"\n")
            if not finished:
                lines.pop()
                finished = True
                lines = lines or [b""]
            rest = lines[0]
            yield from (line for line in reversed(lines[1:]) if line)
        if rest:
            yield rest


async def read_log(current: Path, options: LogOptions, ended: Callable[[], Awaitable[bool]]) -> AsyncIterator[bytes]:
    """The log as asked for, in pieces. Following ends when `ended` says that the container has, and all was read."""
    left = options.limit_bytes
    async for piece in _pieces(current, options, ended):
        if left is not None:
            piece = piece[:left]
            left -= len(piece)
        if piece:
            yield piece
        if left == 0:
            return


async def _pieces(current: Path, options: LogOptions, ended: Callable[[], Awaitable[bool]]) -> AsyncIterator[bytes]:
    with FileWatch(current.parent) as watch:
        files = await asyncio.to_thread(log_files, current)
        reader = _Reader(files)
        if options.tail is not None:
            entries = await asyncio.to_thread(reader.skip_to_tail, options.tail)
            yield b"".join(render(entry, options) for entry in entries)
        while True:
            over = options.follow and await ended()
            while lines := await asyncio.to_thread(reader.read_lines):
                yield b"".join(render(entry, options) for entry in _entries(lines))
            if not options.follow or over:
                return
            await watch.changed(END_CHECK_SECONDS)
            await asyncio.to_thread(reader.look_for_rotation, current)


class _Reader:
    """Reads files one after the other, each from where it stopped; the last one may grow, and be rotated away."""

    def __init__(self, files: list[Path]) -> None:
        self._waiting = deque(files)
        self._opened: int | None = None
        self._rest = b""

    def __del__(self) -> None:
        if self._opened is not None:
            os.close(self._opened)

    def read_lines(self) -> list[bytes]:
        """The next whole lines; [] when there are none yet."""
        while True:
            if self._opened is None and not self._open_next():
                return []
            assert self._opened is not None
            data = os.read(self._opened, PIECE)
            if data:
                *lines, self._rest = (self._rest + data).split(b"\n")
                if lines:
                    return lines
            elif self._waiting:
                self._close()
            else:
                return []

    def skip_to_tail(self, lines: int) -> list[Entry]:
        """The entries of the last lines; reading goes on behind them."""
        files = list(self._waiting)
        if not files:
            return []
        self._waiting = deque(files[-1:])
        self._open_next()
        size = os.lseek(self._opened, 0, os.SEEK_END) if self._opened is not None else 0
        entries = _tail_entries(files, lines, size) if lines else []
        self._rest = b""
        if self._opened is not None:
            os.lseek(self._opened, _last_newline(self._opened, size), os.SEEK_SET)
        return entries

    def look_for_rotation(self, current: Path) -> None:
        """A new file under the old name is read next."""
        try:
            fresh = os.stat(current)
        except OSError:
            return
        if self._opened is None:
            if not self._waiting:
                self._waiting.append(current)
            return
        own = os.fstat(self._opened)
        if not self._waiting and not os.path.samestat(fresh, own):
            self._waiting.extend([*_later(rotated_files(current), own), current])

    def _open_next(self) -> bool:
        while self._waiting:
            try:
                self._opened = _opened(self._waiting.popleft())
                return True
            except (OSError, EOFError, zlib.error):
                continue
        return False

    def _close(self) -> None:
        if self._opened is not None:
            os.close(self._opened)
        self._opened, self._rest = None, b""


def _later(rotated: list[Path], own: os.stat_result) -> list[Path]:
    """What was rotated after the file that is being read: more than one when the container writes quickly."""
    for place, file in enumerate(rotated):
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(file), own):
                return rotated[place + 1 :]
    return [file for file in rotated if file.stat().st_mtime > own.st_mtime]


def _last_newline(descriptor: int, size: int) -> int:
    """The offset behind the last newline before `size`."""
    position = size
    while position > 0:
        start = max(0, position - BLOCK)
        block = os.pread(descriptor, position - start, start)
        found = block.rfind(b"\n")
        if found >= 0:
            return start + found + 1
        position = start
    return 0
