"""A registry with one image and one user, for tests of pulling: the distribution API as far as containerd asks.

Serves an OCI archive as `HOST:PORT/NAME:1`; everything but the right basic credentials is answered 401.
"""

from __future__ import annotations

import base64
import json
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

USER, PASSWORD = "puller", "s3cret"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@asynccontextmanager
async def serve_registry(archive: Path) -> AsyncIterator[str]:
    """Yields the registry's host:port (plain HTTP on loopback, which containerd accepts)."""
    with tarfile.open(archive) as tar:
        files = {member.name: _content(tar, member) for member in tar if member.isfile()}
    blobs = {"sha256:" + name.rpartition("/")[2]: content for name, content in files.items() if "blobs/" in name}
    digest = json.loads(files["index.json"])["manifests"][0]["digest"]
    wanted = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()

    async def answer(request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != wanted:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="test"'})
        kind, reference = request.path.split("/")[-2:]
        key = digest if kind == "manifests" and reference == "1" else reference
        if key not in blobs:
            return web.Response(status=200 if request.path == "/v2/" else 404)
        media = _MANIFEST if kind == "manifests" else "application/octet-stream"
        return web.Response(body=blobs[key], content_type=media, headers={"Docker-Content-Digest": key})

    application = web.Application()
    application.router.add_get("/v2/{rest:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield "127.0.0.1:{1}".format(*runner.addresses[0])
    finally:
        await runner.cleanup()


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = tar.extractfile(member)
    assert stream is not None
    return stream.read()
