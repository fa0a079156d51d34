"""What is judged is what is stored: after admission has changed it, however often its spec was good before."""

from __future__ import annotations

from dataclasses import replace

import pytest

from api import kinds
from api.errors import Invalid
from api.objects import Object
from controller.registry import Registry, Request
from tests.integration.registry.conftest import ACCOUNTS, NAMESPACES, PODS, a_pod, admin

LIMITS = kinds.by_resource("", "limitranges")
_CAUSE = r"must be less than or equal to cpu limit of 100m"


def asking(name: str) -> Object:
    pod = a_pod(name)
    pod["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "500m"}}
    return pod


async def namespace_with_limit(registry: Registry) -> None:
    """A namespace whose containers get a limit of 100m unless they say otherwise."""
    await registry.create(admin(), NAMESPACES, "", {"metadata": {"name": "small"}})
    await registry.create(admin(), ACCOUNTS, "small", {"metadata": {"name": "default"}})
    limit = {"type": "Container", "default": {"cpu": "100m"}}
    await registry.create(admin(), LIMITS, "small", {"metadata": {"name": "l"}, "spec": {"limits": [limit]}})


@pytest.mark.parametrize("request_", [admin(), replace(admin(), trusted=True)], ids=["a person", "a reconciler"])
async def test_a_spec_that_a_limit_range_makes_invalid_is_refused_wherever_it_was_good_before(
    registry: Registry, request_: Request
) -> None:
    await namespace_with_limit(registry)
    await registry.create(request_, PODS, "shop", asking("good"))
    await registry.create(request_, PODS, "shop", asking("good-again"))
    with pytest.raises(Invalid, match=_CAUSE):
        await registry.create(request_, PODS, "small", asking("bad"))
    with pytest.raises(Invalid, match=_CAUSE):
        await registry.create(request_, PODS, "small", asking("bad"))
    await registry.create(request_, PODS, "shop", asking("good-still"))


async def test_metadata_is_judged_for_every_pod_of_a_known_spec(registry: Registry) -> None:
    await registry.create(admin(), PODS, "shop", a_pod("one"))
    with pytest.raises(Invalid, match=r"metadata.labels"):
        await registry.create(admin(), PODS, "shop", a_pod("two", labels={"a b": "c"}))


async def test_a_spec_that_draws_a_warning_draws_it_every_time(registry: Registry) -> None:
    for name in ("one", "two", "three"):
        request = admin()
        pod = a_pod(name)
        pod["spec"]["containers"][0]["resources"] = {"requests": {"memory": "100m"}}
        await registry.create(request, PODS, "shop", pod)
        assert request.warnings, name
