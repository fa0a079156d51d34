"""Images for containers: pull policy, credentials, and the words for what goes wrong.

Called by the worker before each attempt. One pull of an image at a time; who waited finds it there. Rules:
kubernetes.io/docs/concepts/containers/images.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import orjson

from agent.events import NORMAL, WARNING
from agent.runtime.errors import ImagePullFailed, RuntimeFault
from agent.runtime.protocol import ImageAuth, ImageStatus, Runtime
from agent.runtime.reference import parse_reference
from api.objects import Object

Tell = Callable[[str, str, str], None]
"""(type, reason, message) of an event about the container."""
_HUB_NAMES = ("docker.io", "index.docker.io", "registry-1.docker.io")


class ImageFault(Exception):
    """The image cannot be had now: a waiting reason and message. `pull` is True when a registry was asked."""

    def __init__(self, reason: str, message: str, *, pull: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.pull = pull


class Images:
    """The images of a node, for its workers."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._pulling: dict[str, asyncio.Lock] = {}

    async def ensure(self, container: Object, secrets: Iterable[Object], tell: Tell) -> ImageStatus:
        """The image of a container, pulled if its policy says so. Raises ImageFault; RuntimeFault when retryable."""
        name = container.get("image") or ""
        try:
            parse_reference(name)
        except ValueError as error:
            text = f'Failed to apply default image tag "{name}": {error}'
            tell(WARNING, "InspectFailed", text)
            tell(WARNING, "Failed", "Error: InvalidImageName")
            raise ImageFault("InvalidImageName", text) from error
        policy = container.get("imagePullPolicy") or "IfNotPresent"
        found = await self._runtime.image_status(name) if policy != "Always" else None
        if found is not None:
            tell(NORMAL, "Pulled", _present(name))
            return found
        if policy == "Never":
            text = f'Container image "{name}" is not present with pull policy of Never'
            tell(WARNING, "ErrImageNeverPull", text)
            tell(WARNING, "Failed", "Error: ErrImageNeverPull")
            raise ImageFault("ErrImageNeverPull", text)
        return await self._pull(name, policy, secrets, tell)

    async def _pull(self, name: str, policy: str, secrets: Iterable[Object], tell: Tell) -> ImageStatus:
        asked = time.monotonic()
        async with self._pulling.setdefault(name, asyncio.Lock()):
            if policy != "Always" and (found := await self._runtime.image_status(name)):
                tell(NORMAL, "Pulled", _present(name))
                return found
            tell(NORMAL, "Pulling", f'Pulling image "{name}"')
            began = time.monotonic()
            try:
                image_id = await self._runtime.pull_image(name, auth_for(name, secrets))
                found = await self._runtime.image_status(image_id)
                if found is None:
                    raise ImagePullFailed(f'image "{name}" vanished after it was pulled')
            except RuntimeFault as fault:
                if fault.retryable and not isinstance(fault, ImagePullFailed):
                    raise
                tell(WARNING, "Failed", f'Failed to pull image "{name}": {fault.message}')
                tell(WARNING, "Failed", "Error: ErrImagePull")
                raise ImageFault("ErrImagePull", fault.message, pull=True) from fault
        took, waited = time.monotonic() - began, time.monotonic() - asked
        text = f'Successfully pulled image "{name}" in {took:.3g}s ({waited:.3g}s including waiting).'
        tell(NORMAL, "Pulled", f"{text} Image size: {found.size_bytes} bytes.")
        return found


def _present(name: str) -> str:
    return f'Container image "{name}" already present on machine and can be accessed by the pod'


def pull_secret_names(pod: Object) -> list[str]:
    return [entry["name"] for entry in pod["spec"].get("imagePullSecrets") or () if entry.get("name")]


def auth_for(image: str, secrets: Iterable[Object]) -> ImageAuth | None:
    """The credentials for an image's registry out of pull secrets; the most specific path wins. Pure."""
    reference = parse_reference(image)
    best: tuple[int, ImageAuth] | None = None
    for secret in secrets:
        for place, entry in _auths(secret).items():
            length = _match(place, reference.registry, reference.path)
            if length > (best[0] if best else 0):
                best = (length, _auth(place, entry))
    return best[1] if best else None


def _auths(secret: Object) -> Mapping[str, Mapping[str, Any]]:
    data = secret.get("data") or {}
    try:
        if raw := data.get(".dockerconfigjson"):
            auths: Mapping[str, Mapping[str, Any]] = orjson.loads(base64.b64decode(raw)).get("auths") or {}
            return auths
        if raw := data.get(".dockercfg"):
            old: Mapping[str, Mapping[str, Any]] = orjson.loads(base64.b64decode(raw))
            return old
    except (ValueError, AttributeError):
        return {}
    return {}


def _match(place: str, registry: str, path: str) -> int:
    """How much of `registry/path` an entry names; 0: none of it."""
    bare = place.removeprefix("https://").removeprefix("http://").rstrip("/")
    host, _, prefix = bare.partition("/")
    prefix = "" if prefix in ("v1", "v2") else prefix
    same = host == registry or (host in _HUB_NAMES and registry in _HUB_NAMES)
    if host.startswith("*."):
        same = registry.endswith(host[1:]) and "." not in registry[: -len(host[1:])]
    if not same or (prefix and not (path + "/").startswith(prefix + "/")):
        return 0
    return len(host) + len(prefix)


def _auth(place: str, entry: Mapping[str, Any]) -> ImageAuth:
    return ImageAuth(
        username=entry.get("username") or "",
        password=entry.get("password") or "",
        auth=entry.get("auth") or "",
        server_address=place,
        identity_token=entry.get("identitytoken") or "",
        registry_token=entry.get("registrytoken") or "",
    )
