"""One labelled node for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.ingress.scene import Scene, staged
from tests.integration.server.conftest import Cluster, cluster

__all__ = ["cluster"]


@pytest.fixture
async def scene(cluster: Cluster, tmp_path: Path) -> AsyncIterator[Scene]:
    async with staged(cluster, tmp_path / "agent") as made:
        yield made
