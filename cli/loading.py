"""Image archives into nodes: streamed, to several at once, with progress.

Called by `wherry image load` and `build`. Each node gets a connection of its own through the API server's node proxy;
a piece is in memory at a time, whatever the archive's size. Invariant: a node that fails does not stop the others, and
each failure is told with its node.
"""

from __future__ import annotations

import asyncio
import gzip
import sys
import tarfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import click

from api.errors import ApiError
from cli.cluster import Cluster
from cli.problems import Problem

ARCHIVE_TYPE = "application/x-tar"
GZIP_MAGIC = b"\x1f\x8b"
PIECE_BYTES = 1 << 20
UNPACK_SECONDS = 600.0
"""How long a node may take to unpack what it has received."""
SHOW_SECONDS = 0.2


def images_path(node: str) -> str:
    return f"/api/v1/nodes/{node}/proxy/wherry/v1/images"


@dataclass(frozen=True)
class Archive:
    """A file to load. `packed`: gzipped; it is unpacked on its way, so its size as sent is not known before."""

    path: Path
    size: int
    packed: bool


def read_archive(path: Path) -> Archive:
    """Raises Problem for what is no tar file, and OSError."""
    if not tarfile.is_tarfile(path):
        raise Problem(f"{path}: not an image archive", "`docker save` and `buildah push` write such files.")
    with path.open("rb") as file:
        return Archive(path, path.stat().st_size, file.read(len(GZIP_MAGIC)) == GZIP_MAGIC)


async def load_archive(cluster: Cluster, archive: Archive, node: str | None) -> None:
    """Loads an archive into `node`, or into every Ready node. Raises Problem naming the nodes that failed."""
    from cli.volumes import ready_nodes

    nodes = [node] if node else await ready_nodes(cluster)
    if not nodes:
        raise Problem("no node is Ready to load the image into", "`wherry get nodes` shows them.")
    progress = _Progress(archive.size, nodes)
    outcomes = await asyncio.gather(*(_into_node(cluster, archive, each, progress) for each in nodes))
    progress.end()
    faults = [f"{each}: {outcome}" for each, outcome in zip(nodes, outcomes, strict=True) if isinstance(outcome, str)]
    for each, outcome in zip(nodes, outcomes, strict=True):
        if not isinstance(outcome, str):
            for name in outcome:
                click.echo(f"{name} loaded into {each}")
    if faults:
        raise Problem(f"{archive.path} was not loaded into " + "; ".join(faults))


async def _into_node(cluster: Cluster, archive: Archive, node: str, progress: _Progress) -> list[str] | str:
    """The names of the images that came, or why none did."""
    headers = {"Content-Type": ARCHIVE_TYPE}
    if not archive.packed:
        headers["Content-Length"] = str(archive.size)
    try:
        reply = await cluster.client.upload(
            images_path(node), _pieces(archive, node, progress), headers, UNPACK_SECONDS
        )
    except (ApiError, gzip.BadGzipFile, EOFError) as error:
        return str(error)
    names: list[str] = reply.json()["images"]
    return names


async def _pieces(archive: Archive, node: str, progress: _Progress) -> AsyncIterator[bytes]:
    with archive.path.open("rb") as file:
        source = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if archive.packed else file
        while piece := await asyncio.to_thread(source.read, PIECE_BYTES):
            progress.show(node, file.tell())
            yield piece


class _Progress:
    """How much of the archive each node has been sent, on one line of a terminal; nothing elsewhere."""

    def __init__(self, size: int, nodes: list[str]) -> None:
        self._size = max(size, 1)
        self._sent = dict.fromkeys(nodes, 0)
        self._shown = 0.0
        self._width = 0
        self._is_terminal = sys.stderr.isatty()

    def show(self, node: str, sent: int) -> None:
        self._sent[node] = sent
        now = time.monotonic()
        if not self._is_terminal or now - self._shown < SHOW_SECONDS:
            return
        self._shown = now
        line = "  ".join(f"{each} {100 * count // self._size}%" for each, count in self._sent.items())
        self._width = max(self._width, len(line))
        click.echo(f"\r{line:<{self._width}}", nl=False, err=True)

    def end(self) -> None:
        if self._width:
            click.echo(f"\r{'':<{self._width}}\r", nl=False, err=True)
