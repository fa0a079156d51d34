"""The pods of this node on disk, so that an agent that starts without the control plane knows what it runs.

Written when a pod is taken on, removed with the pod's directory, read once at start. Blocking, small files; only root
may read them. An unreadable file is skipped: the API will say what should be there.
"""

from __future__ import annotations

import os

import orjson
import structlog

from agent.paths import Paths
from api.objects import Object, uid_of

_log = structlog.get_logger()


def save_checkpoint(paths: Paths, pod: Object) -> None:
    """Remembers a pod as the API served it. Raises OSError."""
    file = paths.checkpoint(uid_of(pod))
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_suffix(".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(orjson.dumps(pod))
    fresh.rename(file)


def load_checkpoints(paths: Paths) -> list[Object]:
    """The pods that were here when the agent stopped."""
    found = []
    for file in sorted(paths.pods.glob("*/pod.json")):
        try:
            pod = orjson.loads(file.read_bytes())
        except (OSError, orjson.JSONDecodeError) as error:
            _log.warning("checkpoint skipped", file=str(file), error=str(error))
            continue
        if isinstance(pod, dict) and uid_of(pod) == file.parent.name:
            found.append(pod)
    return found
