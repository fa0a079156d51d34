"""Which images may go."""

from __future__ import annotations

from agent.pods.pruning import unused
from agent.runtime.pause import pause_image_name
from agent.runtime.protocol import Container, ImageStatus

NAMED = ImageStatus("sha256:1", ("localhost/web:1",), (), 1)
NAMELESS = ImageStatus("sha256:2", (), (), 1)
PAUSE = ImageStatus("sha256:3", (pause_image_name(),), (), 1)


def made_from(image: str, image_id: str) -> Container:
    return Container("c", "c", 0, "s", "exited", 0.0, image, image_id, {}, {})


def test_only_images_without_a_name_go_unless_all_are_asked_for() -> None:
    images = (NAMED, NAMELESS, PAUSE)
    assert unused(images, (), everything=False) == [NAMELESS]
    assert unused(images, (), everything=True) == [NAMED, NAMELESS]


def test_what_a_container_was_made_from_or_a_pod_is_about_to_use_stays() -> None:
    images = (NAMED, NAMELESS)
    assert unused(images, [made_from("sha256:2", "sha256:2")], everything=True) == [NAMED]
    assert unused(images, [made_from("localhost/web:1", "")], ["sha256:2"], everything=True) == []
