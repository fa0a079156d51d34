"""Which images of a node may go: what no container was made from. Called by the agent's server (`image prune`)."""

from __future__ import annotations

from collections.abc import Iterable

from agent.runtime.errors import RuntimeFault
from agent.runtime.pause import pause_image_name
from agent.runtime.protocol import Container, ImageStatus, Runtime


def unused(
    images: Iterable[ImageStatus], containers: Iterable[Container], wanted: Iterable[str] = (), *, everything: bool
) -> list[ImageStatus]:
    """Images that no container, running or ended, was made from and whose id is not `wanted`; unless `everything`, only
    those without a name."""
    used = {name for container in containers for name in (container.image, container.image_id)}
    used |= {pause_image_name(), *wanted}
    return [
        image
        for image in images
        if not used & {image.id, *image.tags, *image.digests} and (everything or not image.tags)
    ]


async def prune(runtime: Runtime, named: Iterable[str], *, everything: bool) -> list[ImageStatus]:
    """Removes them and tells which; one that cannot be removed stays. `named` are the images of this node's pods, whose
    containers may be about to be made."""
    found = [await runtime.image_status(name) for name in sorted(set(named))]
    wanted = [image.id for image in found if image is not None]
    removed = []
    images, containers = await runtime.list_images(), await runtime.list_containers()
    for image in unused(images, containers, wanted, everything=everything):
        try:
            await runtime.remove_image(image.id)
        except RuntimeFault:
            continue
        removed.append(image)
    return removed
