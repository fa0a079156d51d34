"""What a newcomer is given works as it is: each image is built by the quick start, and nothing waits for a Secret."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
BUILT = re.findall(r"image build -t (\S+)", (ROOT / "deploy" / "quickstart.sh").read_text())


def values(tree: Any, wanted: str) -> Iterator[Any]:
    """Every value of a key, however deep."""
    parts = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in parts:
        if key == wanted:
            yield value
        yield from values(value, wanted)


def test_manifests_and_chart_use_images_that_the_quick_start_builds() -> None:
    chart = yaml.safe_load((ROOT / "charts" / "hello" / "values.yaml").read_text())
    manifests = [one for file in (ROOT / "manifests").glob("*.yaml") for one in yaml.safe_load_all(file.read_text())]
    assert {chart["image"], *values(manifests, "image")} <= set(BUILT)
    assert list(values(manifests, "secretName")) == []


def test_every_path_that_readme_names_exists() -> None:
    for path in re.findall(r"\]\((?!https?:)([^)#]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / path).exists(), path
