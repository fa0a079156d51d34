"""`wherry cp`: files into a container and out of it, by its own tar, as `docker cp` and `kubectl cp`.

Called with SOURCE and DESTINATION, one of which is NAME:PATH. What comes out of a container is not believed: nothing is
written outside the destination (tarfile's data filter).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tarfile
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

import click

from cli.cluster import Cluster, on_cluster
from cli.problems import Problem

if TYPE_CHECKING:
    from cli.terminal import Streams

_CHUNK = 64 * 1024


@dataclass(frozen=True)
class Place:
    """One end of a copy; `pod` is "" on this machine."""

    pod: str
    path: str


@click.command("cp")
@click.option("-c", "--container", default="", help="Which container; default the first.")
@click.argument("source")
@click.argument("destination")
def cp_command(source: str, destination: str, container: str) -> None:
    """Copy files: `wherry cp web:/etc/hosts .`, `wherry cp site web:/www`. The container's image needs tar."""
    start, end = parse_place(source), parse_place(destination)
    if bool(start.pod) == bool(end.pod):
        raise Problem("one side of a copy is in a container, the other here", "Write NAME:/PATH for the container's.")
    if start.pod:
        landing = landing_of(start.path, Path(end.path))
        on_cluster(lambda cluster: _fetch(cluster, container, start, landing))
    else:
        if not os.path.lexists(start.path):
            raise Problem(f"{start.path}: no such file or directory")
        file = Path(start.path)
        on_cluster(lambda cluster: _send(cluster, container, (file, file.resolve().name), end))


def parse_place(text: str) -> Place:
    """NAME:PATH is in a container; what holds a slash before its colon is a file here."""
    name, colon, path = text.partition(":")
    if not colon or "/" in name or name.startswith("."):
        return Place("", text)
    if not name or not path:
        raise Problem(f"{text!r}: no place to copy from or to", "Write NAME:/PATH or a path of this machine.")
    return Place(name, path)


async def _fetch(cluster: Cluster, container: str, source: Place, landing: tuple[Path, str]) -> None:
    """tar in the container, unpacked here as it comes, as this name in this directory."""
    directory, renamed = landing
    path = PurePosixPath(source.path)
    name = path.name or "."
    command = ("tar", "cf", "-", "-C", str(path.parent), "--", name)
    reading, writing = os.pipe()
    unpacking = _Unpacking(os.fdopen(reading, "rb"), directory, (name, renamed))
    unpacking.start()
    with os.fdopen(writing, "wb", buffering=0) as pipe:
        code, said = await _run(cluster, _streams(cluster, source, container, command), pipe.write)
    await asyncio.to_thread(unpacking.join)
    _judge(code, said, source)
    if unpacking.fault is not None:
        raise Problem(f"what {source.pod} sent cannot be unpacked: {unpacking.fault}") from unpacking.fault


def landing_of(source: str, destination: Path) -> tuple[Path, str]:
    """(directory, name) that a fetched file gets, by cp's rules. Raises Problem."""
    if destination.is_dir():
        return destination, PurePosixPath(source).name or "."
    if not destination.parent.is_dir():
        raise Problem(f"{destination.parent}: no such directory")
    return destination.parent, destination.name


class _Unpacking(threading.Thread):
    """Reads a tar stream and writes its members below a directory, under another first name."""

    def __init__(self, stream: IO[bytes], directory: Path, names: tuple[str, str]) -> None:
        super().__init__(daemon=True)
        self._stream, self._directory, self._names = stream, directory, names
        self.fault: Exception | None = None

    def run(self) -> None:
        old, new = self._names
        try:
            with tarfile.open(fileobj=self._stream, mode="r|") as archive:
                for member in archive:
                    rest = PurePosixPath(member.name).parts[1 if old != "." else 0 :]
                    member.name = str(PurePosixPath(new if old != "." else "", *rest))
                    archive.extract(member, self._directory, filter="data")
        except tarfile.ReadError as error:
            self.fault = error if "empty" not in str(error) else None  # tar's own words say why nothing came
        except (OSError, tarfile.TarError) as error:
            self.fault = error
        finally:
            with contextlib.suppress(OSError):
                while self._stream.read(_CHUNK):  # so that the sender is not left waiting
                    pass
            self._stream.close()


async def _send(cluster: Cluster, container: str, source: tuple[Path, str], destination: Place) -> None:
    """Packed here, unpacked by the container's tar: into a directory that exists, else under the destination's name."""
    file, name = source
    path = PurePosixPath(destination.path)
    is_directory = _streams(cluster, destination, container, ("test", "-d", str(path)))
    code, _said = await _run(cluster, is_directory)
    if destination.path.endswith("/") and code != 0:
        raise Problem(f"{destination.pod}:{destination.path}: no such directory in the container")
    into, named = (path, name) if code == 0 else (path.parent, path.name)
    unpack = _streams(cluster, destination, container, ("tar", "xmf", "-", "-C", str(into)), stdin=True)
    code, said = await _run(cluster, unpack, given=_packed(file, named))
    _judge(code, said, destination)


async def _packed(source: Path, name: str) -> AsyncIterator[bytes]:
    """A tar stream of a file or directory, made in a thread as it is read."""
    reading, writing = os.pipe()

    def pack() -> None:
        pipe = os.fdopen(writing, "wb")
        with contextlib.suppress(BrokenPipeError), pipe, tarfile.open(fileobj=pipe, mode="w|") as archive:
            archive.add(source, name)

    packing = asyncio.create_task(asyncio.to_thread(pack))
    with os.fdopen(reading, "rb") as pipe:
        while data := await asyncio.to_thread(pipe.read1, _CHUNK):
            yield data
    await packing


def _streams(
    cluster: Cluster, place: Place, container: str, command: tuple[str, ...], *, stdin: bool = False
) -> Streams:
    from api.client import path_of
    from api.kinds import by_resource
    from cli.terminal import Streams

    path = path_of(by_resource("", "pods"), cluster.namespace, place.pod, "exec")
    return Streams(path, container, command, stdin=stdin)


async def _run(
    cluster: Cluster,
    streams: Streams,
    take: Callable[[bytes], object] = lambda data: None,
    given: AsyncIterator[bytes] | None = None,
) -> tuple[int, bytes]:
    from cli.terminal import run_piped

    return await run_piped(cluster.client, streams, take, given)


def _judge(code: int, said: bytes, place: Place) -> None:
    if code:
        words = said.decode(errors="replace").strip() or f"tar ended with code {code}"
        raise Problem(f"{place.pod}:{place.path}: {words}")
