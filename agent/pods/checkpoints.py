"""The pods of this node on disk, so that an agent that starts without the control plane knows what it runs.

Written when a pod is taken on, removed with the pod's directory, read once at start. With each pod stands the boot in
which it was taken on: what was started before another boot runs no more. Blocking, small files; only root may read
them. An unreadable file is skipped: the API will say what should be there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import structlog

from agent import hostinfo
from agent.paths import Paths
from agent.volumes.places import make_private
from api.objects import Object, uid_of

_log = structlog.get_logger()


@dataclass(frozen=True)
class Checkpoint:
    """A pod as it was remembered; `same_boot`: the machine has run without a break since."""

    pod: Object
    same_boot: bool


def save_checkpoint(paths: Paths, pod: Object) -> None:
    """Remembers a pod as the API served it. Raises OSError."""
    _save(paths.checkpoint(uid_of(pod)), {"bootID": hostinfo.boot_id(), "pod": pod})


def save_service_environment(paths: Paths, uid: str, variables: Mapping[str, str]) -> None:
    """Remembers what a pod's containers are told of services. Raises OSError."""
    _save(paths.service_environment(uid), variables)


def load_service_environment(paths: Paths, uid: str) -> dict[str, str] | None:
    """What the pod's containers were last told of services; None when they never were."""
    try:
        found = orjson.loads(paths.service_environment(uid).read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    return {str(name): str(value) for name, value in found.items()} if isinstance(found, dict) else None


def _save(file: Path, content: Mapping[str, Any]) -> None:
    make_private(file.parent)
    fresh = file.with_suffix(".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(orjson.dumps(content))
    fresh.rename(file)


def load_checkpoints(paths: Paths) -> list[Checkpoint]:
    """The pods that were here when the agent stopped."""
    found = []
    for file in sorted(paths.pods.glob("*/pod.json")):
        try:
            kept = orjson.loads(file.read_bytes())
        except (OSError, orjson.JSONDecodeError) as error:
            _log.warning("checkpoint skipped", file=str(file), error=str(error))
            continue
        pod = kept.get("pod", kept) if isinstance(kept, dict) else None  # before boots were noted, the pod alone
        if isinstance(pod, dict) and uid_of(pod) == file.parent.name:
            found.append(Checkpoint(pod, kept.get("bootID") == hostinfo.boot_id()))
    return found
