"""Images for containers: pull policy, credentials, and the words for what goes wrong.

Called by the worker before each attempt. One pull of an image at a time; who waited finds it there. Rules:
kubernetes.io/docs/concepts/containers/images.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable, Iterable

from agent.events import NORMAL, WARNING
from agent.runtime.errors import ImagePullFailed, RuntimeFault
from agent.runtime.images import credentials_for, read_docker_config
from agent.runtime.protocol import ImageAuth, ImageStatus, Runtime
from agent.runtime.reference import parse_reference
from api.objects import Object

Tell = Callable[[str, str, str], None]
"""(type, reason, message) of an event about the container."""


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
                image_id = await self._pull_with_any(name, credentials(name, secrets))
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

    async def _pull_with_any(self, name: str, auths: list[ImageAuth]) -> str:
        """Tries each credential, and none at last when there is no other. Raises the last refusal."""
        for auth in auths[:-1]:
            try:
                return await self._runtime.pull_image(name, auth)
            except ImagePullFailed:
                continue
        return await self._runtime.pull_image(name, auths[-1] if auths else None)


def _present(name: str) -> str:
    return f'Container image "{name}" already present on machine and can be accessed by the pod'


def pull_secret_names(pod: Object) -> list[str]:
    return [entry["name"] for entry in pod["spec"].get("imagePullSecrets") or () if entry.get("name")]


def credentials(image: str, secrets: Iterable[Object]) -> list[ImageAuth]:
    """What the pod's pull secrets say about an image's registry, most specific first. Pure."""
    documents = []
    for secret in secrets:
        data = secret.get("data") or {}
        for key in (".dockerconfigjson", ".dockercfg"):
            if raw := data.get(key):
                documents.append(read_docker_config(base64.b64decode(raw)))
    return credentials_for(image, documents)
