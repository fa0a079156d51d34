"""A registry for a lab's nodes: images that upstream test suites name, served as docker.io and registry.k8s.io.

The tests have no way to the internet, and `imagePullPolicy: Always` asks a registry even for an image that is there.
Used by tests/compat. Serves the distribution API as far as containerd asks, plainly, on the lab's bridge.
"""

from __future__ import annotations

import json
import tarfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from agent.runtime.containerd_config import containerd_paths
from deploy.lab import Lab

_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_MIRRORED = ("docker.io", "gcr.io", "registry.k8s.io")


@contextmanager
def serving(lab: Lab, archives: Mapping[str, Path]) -> Iterator[None]:
    """Inside the block the lab's nodes pull REPOSITORY:TAG (without a host), as `archives` names them, from here."""
    known: dict[str, bytes] = {}
    tags: dict[str, str] = {}
    for name, archive in archives.items():
        blobs, manifest = _read(archive)
        known |= blobs
        tags[name] = manifest

    class Answer(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            repository, _, rest = urlsplit(self.path).path.removeprefix("/v2/").rpartition("/")
            repository, _, kind = repository.rpartition("/")
            digest = tags.get(f"{repository}:{rest}", rest)
            body = known.get(digest, b"")
            self.send_response(200 if digest in known or self.path == "/v2/" else 404)
            self.send_header("Content-Type", _MANIFEST if kind == "manifests" else "application/octet-stream")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Docker-Content-Digest", digest)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            """Nothing is logged: what fails shows in the pod's events."""

    with ThreadingHTTPServer((urlsplit(lab.server).hostname or "", 0), Answer) as server:
        for node in lab.state.nodes:
            _mirror(lab.node_dir(node), f"http://{server.server_address[0]!s}:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def _mirror(data_dir: Path, url: str) -> None:
    for host in _MIRRORED:
        directory = containerd_paths(data_dir).home / "certs.d" / host
        directory.mkdir(parents=True, exist_ok=True)
        text = f'server = "{url}"\n[host."{url}"]\n  capabilities = ["pull", "resolve"]\n'
        (directory / "hosts.toml").write_text(text)


def _read(archive: Path) -> tuple[dict[str, bytes], str]:
    """The blobs of an OCI archive by digest, and its manifest's digest."""
    with tarfile.open(archive) as tar:
        files = {member.name: _content(tar, member) for member in tar if member.isfile()}
    blobs = {"sha256:" + name.rpartition("/")[2]: content for name, content in files.items() if "blobs/" in name}
    return blobs, json.loads(files["index.json"])["manifests"][0]["digest"]


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = tar.extractfile(member)
    assert stream is not None
    return stream.read()
