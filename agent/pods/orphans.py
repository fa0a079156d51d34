"""Removing what belongs to no pod of this node: sandboxes, and directories of pods.

Called by the roster once the API was heard, and regularly ever after. Each is removed by itself: one that cannot be
keeps none of the others, and is tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from pathlib import Path

import structlog

from agent.pods.configs import NODE_LABEL
from agent.pods.workshop import Workshop
from agent.runtime.errors import RuntimeFault
from agent.volumes.volumes import remove_pod_directory

_log = structlog.get_logger()


async def remove_orphans(shop: Workshop, known: Collection[str], names: Collection[str]) -> int:
    """Removes what carries the uid of no `known` pod (a live view of them); returns how many could not be removed.
    `names`: those of this node, now and before."""
    return await _remove_sandboxes(shop, known, names) + await _remove_directories(shop, known)


async def _remove_sandboxes(shop: Workshop, known: Collection[str], names: Collection[str]) -> int:
    runtime, left = shop.runtime, 0
    try:
        boxes = [box for name in names for box in await runtime.list_sandboxes({NODE_LABEL: name})]
    except RuntimeFault as fault:
        _log.warning("orphans not listed", error=fault.message)
        return 1
    for box in boxes:
        if box.uid in known:
            continue
        pod = f"{box.namespace}/{box.name}"
        try:
            await runtime.stop_sandbox(box.id)
            await runtime.remove_sandbox(box.id)
            _log.info("sandbox of an unknown pod removed", pod=pod)
        except RuntimeFault as fault:
            _log.warning("sandbox of an unknown pod not removed", pod=pod, error=fault.message)
            left += 1
    return left


async def _remove_directories(shop: Workshop, known: Collection[str]) -> int:
    left = 0
    for directory in await asyncio.to_thread(_listed, shop.paths.pods):
        if directory.name in known:
            continue
        try:
            await asyncio.to_thread(remove_pod_directory, directory)
        except OSError as error:
            _log.warning("directory of an unknown pod not removed", directory=str(directory), error=str(error))
            left += 1
    return left


def _listed(pods: Path) -> list[Path]:
    return list(pods.iterdir()) if pods.is_dir() else []
