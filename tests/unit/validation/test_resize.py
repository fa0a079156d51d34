"""pods/resize: what may change about a pod's containers while they run, and how Kubernetes words the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

# ruff: noqa: E501 -- the table holds Kubernetes' sentences whole
from api.objects import Object, clone
from controller.registry.strategies.pods import prepare_resize, qos_class
from tests.unit.validation.objects import judged, pod, stored

SMALL = {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "64Mi"}}
Change = Callable[[Object], Any]


def running(**changes: Any) -> Object:
    containers = [{"name": name, "image": "i", "resources": clone(SMALL)} for name in ("a", "b")]
    once = {"name": "once", "image": "i", "resources": clone(SMALL)}
    made = stored(pod(containers=containers, initContainers=[once], **changes))
    made["metadata"]["generation"] = 1
    made["status"] = {"qosClass": qos_class(made["spec"])}
    return made


def resized(change: Change, old: Object | None = None) -> tuple[Object, list[str]]:
    """The pod after the strategy, and the errors."""
    before = old or running()
    new = clone(before)
    change(new)
    prepare_resize(new, before)
    return new, judged(new, before, subresource="resize")


def amount(side: str, name: str, value: str | None, index: int = 0, field: str = "containers") -> Change:
    def change(target: Object) -> None:
        sides = target["spec"][field][index]["resources"].setdefault(side, {})
        if value is None:
            del sides[name]
        else:
            sides[name] = value

    return change


def test_amounts_change_and_count_as_a_new_generation() -> None:
    def change(target: Object) -> None:
        amount("requests", "cpu", "200m")(target)
        amount("limits", "cpu", "1", 1)(target)
        amount("requests", "memory", "32Mi", field="initContainers")(target)

    new, errors = resized(change)
    assert errors == []
    assert new["metadata"]["generation"] == 2
    assert new["spec"]["containers"][0]["resources"]["requests"]["cpu"] == "200m"


def test_everything_else_is_taken_back_without_a_word() -> None:
    def change(target: Object) -> None:
        target["spec"]["containers"][0]["image"] = "other"
        target["spec"]["tolerations"] = [{"operator": "Exists"}]
        target["metadata"]["labels"] = {"new": "label"}
        target["status"]["phase"] = "Running"

    new, errors = resized(change)
    assert errors == []
    assert new["spec"]["containers"][0]["image"] == "i"
    assert "tolerations" not in new["spec"]
    assert new["metadata"].get("labels") == running()["metadata"].get("labels")
    assert new["metadata"]["generation"] == 1
    assert "phase" not in new["status"]


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (amount("requests", "cpu", None), "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed"),
        (amount("limits", "memory", None, 1), "spec.containers[1].resources.limits: Forbidden: resource limits cannot be removed"),
        (
            amount("limits", "memory", None, field="initContainers"),
            "spec.initContainers[0].resources.limits: Forbidden: resource limits cannot be removed",
        ),
        (amount("requests", "ephemeral-storage", "1Gi"), "spec: Forbidden: only cpu and memory resources are mutable"),
        (
            amount("requests", "ephemeral-storage", "1Gi", field="initContainers"),
            "spec.initContainers[0]: Forbidden: only cpu and memory resources for init or sidecar containers are mutable",
        ),
        (
            amount("requests", "memory", "65Mi"),
            'spec.containers[0].resources.requests: Invalid value: "65Mi": must be less than or equal to memory limit of 64Mi',
        ),
        (
            lambda target: target["spec"]["containers"].reverse(),
            "spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize",
        ),
        (
            lambda target: target["spec"]["containers"].pop(),
            "spec.containers: Forbidden: containers may not be added or removed on resize",
        ),
    ],
)  # fmt: skip
def test_what_no_resize_may_do(change: Change, error: str) -> None:
    assert error in resized(change)[1]


def test_the_quality_of_service_class_stays() -> None:
    def change(target: Object) -> None:
        for field in ("containers", "initContainers"):
            for one in target["spec"][field]:
                one["resources"] = {side: {"cpu": "1", "memory": "64Mi"} for side in ("requests", "limits")}

    why = 'spec: Invalid value: "Burstable": Pod QOS Class may not change as a result of resizing'
    assert resized(change)[1] == [why]


def test_some_pods_are_not_resized_at_all() -> None:
    mirror = running()
    mirror["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "x"}
    more = amount("requests", "cpu", "1")
    assert resized(more, mirror)[1] == [": Forbidden: static pods cannot be resized"]
    assert resized(more, running(os={"name": "windows"}))[1] == [": Forbidden: windows pods cannot be resized"]
    silent = running()
    silent["status"]["containerStatuses"] = [{"name": "a", "state": {"running": {}}}]
    assert resized(more, silent)[1] == ["spec: Forbidden: Pod running on node without support for resize"]


def test_an_init_container_that_would_have_to_restart_is_left_alone() -> None:
    old = running()
    old["spec"]["initContainers"][0]["resizePolicy"] = [{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]
    why = "non-sidecar init containers with a resize policy of RestartContainer cannot be resized"
    assert resized(amount("requests", "cpu", "1", field="initContainers"), old)[1] == [
        f"spec.initContainers[0]: Forbidden: {why}"
    ]
    old["spec"]["initContainers"][0]["restartPolicy"] = "Always"
    assert resized(amount("requests", "cpu", "1", field="initContainers"), old)[1] == []
