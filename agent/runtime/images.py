"""What the agent knows about images besides running them: when to pull, with whose credentials, and loading archives.

Called by the pod workers (policy, credentials), by `cri` and by `containerd` (archives). Policy and credentials are
pure. An archive is loaded by `ctr`, which every package of containerd brings: containerd 1.x has no call that takes an
archive, so the alternative is to write, blob by blob, what ctr is (ingestion, leases, docker's format, unpacking).
Rules: kubernetes.io/docs/concepts/containers/images (pull policy, pre-pulled images, matching of credentials).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import fnmatch
import re
import shutil
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import orjson

from agent.runtime.errors import Failed, InvalidConfig, RuntimeFault, Timeout
from agent.runtime.protocol import ImageAuth
from agent.runtime.reference import Reference, normalize, parse_reference

PullPolicy = Literal["Always", "IfNotPresent", "Never"]
NAMESPACE = "k8s.io"
PIECE_BYTES = 1 << 20
_LOAD_SECONDS = 600.0
"""How long unpacking may take once the whole archive has arrived."""
_BARE = re.compile(r"^import-\d{4}-\d\d-\d\d:(?=[^:]+$)")
_UNPACKED = re.compile(r"^unpacking (\S+) \(sha256:[0-9a-f]+\)", re.MULTILINE)


def pull_policy(image: str, declared: str = "") -> PullPolicy:
    """The policy of a container: as declared, else Always for the tag `latest` and IfNotPresent otherwise."""
    match declared:
        case "Always" | "IfNotPresent" | "Never":
            return declared
    try:
        reference = parse_reference(image)
    except ValueError:
        return "IfNotPresent"
    return "Always" if reference.tag == "latest" else "IfNotPresent"


def must_pull(policy: PullPolicy, present: bool) -> bool:
    """Whether a pull comes before the container; with Never and an absent image neither happens."""
    return policy == "Always" or (policy == "IfNotPresent" and not present)


def credentials_for(image: str, configs: Iterable[Mapping[str, Any]]) -> list[ImageAuth]:
    """What may open an image's registry, most specific first; try them in order, then none at all.

    `configs` are Docker configuration documents, each the parsed `.dockerconfigjson` (with `auths`) or `.dockercfg` of
    an imagePullSecret. A key is a registry, with or without https:// and a path; its host may hold `*` within a part.
    """
    reference = parse_reference(image)
    found: list[tuple[str, ImageAuth]] = []
    for config in configs:
        entries = config.get("auths", config)
        for key, entry in entries.items() if isinstance(entries, Mapping) else ():
            pattern = _registry_pattern(key)
            if isinstance(entry, Mapping) and _opens(pattern, reference):
                found.append((pattern, _auth(entry)))
    found.sort(key=lambda match: len(match[0]), reverse=True)
    return [auth for _, auth in found]


def _registry_pattern(key: str) -> str:
    bare = key.removeprefix("https://").removeprefix("http://").rstrip("/")
    for ending in ("/v1", "/v2"):
        bare = bare.removesuffix(ending)
    host, slash, path = bare.partition("/")
    host = "docker.io" if host in ("index.docker.io", "registry-1.docker.io") else host
    return host + slash + path


def _opens(pattern: str, reference: Reference) -> bool:
    host, _, path = pattern.partition("/")
    parts, wanted = host.split("."), reference.registry.split(".")
    same_host = len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, wanted, parts))
    return same_host and (not path or (reference.path + "/").startswith(path.rstrip("/") + "/"))


def _auth(entry: Mapping[str, Any]) -> ImageAuth:
    username, password = str(entry.get("username") or ""), str(entry.get("password") or "")
    encoded = str(entry.get("auth") or "")
    if encoded and not username:
        try:
            username, _, password = base64.b64decode(encoded).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            username = ""
    return ImageAuth(
        username=username,
        password=password,
        identity_token=str(entry.get("identitytoken") or ""),
        registry_token=str(entry.get("registrytoken") or ""),
    )


def read_docker_config(text: bytes) -> Mapping[str, Any]:
    """A Docker configuration document out of a Secret; {} when it is none (the pull then says why it fails)."""
    try:
        parsed = orjson.loads(text)
    except orjson.JSONDecodeError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


async def pieces_of(archive: Path) -> AsyncIterator[bytes]:
    """A file's content, piece by piece, read beside the event loop."""
    with archive.open("rb") as file:
        while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
            yield piece


async def load_archive(socket: Path, archive: AsyncIterable[bytes]) -> list[str]:
    """Import an OCI or Docker archive into the containerd at `socket`; returns the images' full names.

    The archive goes through a pipe, so that neither memory nor disk holds it once more. Names in it are completed as
    Kubernetes completes them (`hello` becomes docker.io/library/hello:latest), or a pod that says `image: hello` would
    not find it. InvalidConfig when it is no archive; what `archive` raises passes on, and then nothing is imported.
    """
    output = await _ctr(socket, "images", "import", "-", given=archive)
    names = _UNPACKED.findall(output)
    if not names:
        raise InvalidConfig("the archive holds no image with a name and for this machine")
    for name in names:
        if full_name(name) != name:
            await _ctr(socket, "images", "tag", "--force", name, full_name(name))
            await _ctr(socket, "images", "remove", name)
    return [full_name(name) for name in names]


def room_fault(directory: Path, archive_bytes: int) -> str:
    """Why an archive of that size does not fit beside `directory`: "" if it does, or if its size is not known yet.

    An image takes its layers' room twice, packed and unpacked.
    """
    free = shutil.disk_usage(directory).free
    needed = 2 * archive_bytes
    if not archive_bytes or needed <= free:
        return ""
    return (
        f"no room for the image: an archive of {archive_bytes / 1e9:.2f} GB takes about {needed / 1e9:.2f} GB, and "
        f"{free / 1e9:.2f} GB are free below {directory}; remove images or files there, or give it a larger disk"
    )


def full_name(imported: str) -> str:
    """What Kubernetes calls an image that ctr imported; ctr takes a bare `hello` for the tag of a nameless image."""
    return normalize(_BARE.sub("", imported))


async def _ctr(socket: Path, *arguments: str, given: AsyncIterable[bytes] | None = None) -> str:
    """Runs ctr, with `given` as its input; returns its output. It is killed when the input breaks off."""
    binary = shutil.which("ctr")
    if binary is None:
        raise Failed("ctr is not installed; it comes with containerd")
    process = await asyncio.create_subprocess_exec(
        binary,
        *("--address", str(socket), "--namespace", NAMESPACE),
        *arguments,
        stdin=asyncio.subprocess.DEVNULL if given is None else asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        if given is not None and process.stdin is not None:
            await _feed(process.stdin, given)
        async with asyncio.timeout(_LOAD_SECONDS):
            output, complaint = await process.communicate()
    except TimeoutError:
        raise Timeout(f"ctr {arguments[0]} {arguments[1]} took longer than {_LOAD_SECONDS:g}s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise _refused(complaint.decode(errors="replace").strip().removeprefix("ctr: "))
    return output.decode(errors="replace")


async def _feed(pipe: asyncio.StreamWriter, pieces: AsyncIterable[bytes]) -> None:
    """What ctr says is little and fits its pipes meanwhile. A ctr that has ended says itself why."""
    try:
        async for piece in pieces:
            pipe.write(piece)
            await pipe.drain()
    except (BrokenPipeError, ConnectionResetError):
        if not pipe.transport.is_closing():
            raise  # it is the source that broke off
    finally:
        pipe.close()  # `communicate` does not, and ctr would wait for the rest of what is no archive


def _refused(complaint: str) -> RuntimeFault:
    if "no space left on device" in complaint:
        return Failed(f"the image does not fit on this node's disk: {complaint}")
    return InvalidConfig(complaint)
