"""LimitRanges: defaults that containers get, and bounds they are held to, in Kubernetes' words."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from api import kinds
from api.errors import Forbidden
from api.objects import Object
from controller.admission.attributes import Attributes, Operation
from controller.admission.limit_ranges import ANNOTATION, admit_within_limits
from controller.admission.types import Request, User
from controller.store.types import Key, Record
from tests.unit.admission.test_admission import Cache

PODS = kinds.by_resource("", "pods")
CLAIMS = kinds.by_resource("", "persistentvolumeclaims")


def admitted(obj: Object, *rules: Object, kind: kinds.Kind = PODS) -> Object:
    limits = {"metadata": {"name": "l"}, "spec": {"limits": list(rules)}}
    cache = Cache(Record(Key("", "limitranges", "shop", "l"), 7, orjson.dumps(limits), {}, {}))
    attributes = Attributes(Request(User("x")), Operation.CREATE, kind, "shop", "x", obj)
    admit_within_limits(attributes, cache)
    return obj


def a_pod(*resources: Any) -> Object:
    containers = [{"name": f"c{number}", "resources": each} for number, each in enumerate(resources)]
    return {"metadata": {"name": "x"}, "spec": {"containers": containers}}


@pytest.mark.proves("LimitRange.spec.limits.default", "LimitRange.spec.limits.defaultRequest")
def test_a_container_without_resources_gets_the_defaults_and_the_pod_says_so() -> None:
    rule = {"type": "Container", "default": {"cpu": "1", "memory": "1Gi"}, "defaultRequest": {"cpu": "100m"}}
    pod = admitted(a_pod({}, {"limits": {"cpu": "2"}, "requests": {"cpu": "1"}}), rule)
    resources = [container["resources"] for container in pod["spec"]["containers"]]
    assert resources[0] == {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "100m"}}
    assert resources[1] == {"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "1"}}
    assert pod["metadata"]["annotations"][ANNOTATION] == (
        "LimitRanger plugin set: cpu request for container c0; cpu, memory limit for container c0; "
        "memory limit for container c1"
    )


@pytest.mark.parametrize(
    ("rule", "resources", "why"),
    [
        (
            {"type": "Container", "min": {"cpu": "100m"}},
            {"requests": {"cpu": "50m"}},
            "minimum cpu usage per Container is 100m, but request is 50m",
        ),
        (
            {"type": "Container", "min": {"cpu": "100m"}},
            {},
            "minimum cpu usage per Container is 100m.  No request is specified",
        ),
        (
            {"type": "Container", "max": {"cpu": "1"}},
            {"limits": {"cpu": "2"}},
            "maximum cpu usage per Container is 1, but limit is 2",
        ),
        (
            {"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}},
            {"limits": {"cpu": "2"}, "requests": {"cpu": "500m"}},
            "cpu max limit to request ratio per Container is 2, but provided ratio is 4.000000",
        ),
        (
            {"type": "Pod", "max": {"memory": "1Gi"}},
            {"limits": {"memory": "1536Mi"}, "requests": {"memory": "1Mi"}},
            "maximum memory usage per Pod is 1Gi, but limit is 1536Mi",
        ),
    ],
)
@pytest.mark.proves(
    "LimitRange.spec.limits.min", "LimitRange.spec.limits.max", "LimitRange.spec.limits.maxLimitRequestRatio"
)
def test_what_is_out_of_bounds_is_refused(rule: Object, resources: Object, why: str) -> None:
    with pytest.raises(Forbidden) as refused:
        admitted(a_pod(resources), rule)
    assert refused.value.message == f'pods "x" is forbidden: {why}'


@pytest.mark.proves("LimitRange.spec.limits.type")
def test_a_pod_is_measured_by_the_sum_of_its_containers() -> None:
    half = {"limits": {"memory": "600Mi"}, "requests": {"memory": "600Mi"}}
    with pytest.raises(Forbidden, match="but limit is 1200Mi"):
        admitted(a_pod(half, half), {"type": "Pod", "max": {"memory": "1Gi"}})


def test_a_claim_is_measured_by_its_request() -> None:
    claim = {"metadata": {"name": "x"}, "spec": {"resources": {"requests": {"storage": "5Gi"}}}}
    rule = {"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}}
    with pytest.raises(Forbidden, match="maximum storage usage per PersistentVolumeClaim is 1Gi, but request is 5Gi"):
        admitted(claim, rule, kind=CLAIMS)


@pytest.mark.parametrize(
    ("asked", "rule", "why"),
    [
        ({"storage": "1Gi"}, {"min": {"storage": "2Gi"}}, "minimum PER 2Gi, but request is 1Gi"),
        ({}, {"min": {"storage": "2Gi"}}, "minimum PER 2Gi.  No request is specified"),
        ({}, {"max": {"storage": "2Gi"}}, "maximum PER 2Gi.  No request is specified"),
    ],
)
def test_a_claim_has_to_ask_within_the_bounds(asked: Object, rule: Object, why: str) -> None:
    claim = {"metadata": {"name": "x"}, "spec": {"resources": {"requests": asked}}}
    with pytest.raises(Forbidden) as refused:
        admitted(claim, {"type": "PersistentVolumeClaim", **rule}, kind=CLAIMS)
    told = why.replace("PER", "storage usage per PersistentVolumeClaim is")
    assert refused.value.message.endswith(f"is forbidden: {told}")


def test_what_is_exactly_on_the_bound_is_allowed() -> None:
    claim = {"metadata": {"name": "x"}, "spec": {"resources": {"requests": {"storage": "2Gi"}}}}
    bounds = {"min": {"storage": "2Gi"}, "max": {"storage": "2Gi"}}
    admitted(claim, {"type": "PersistentVolumeClaim", **bounds}, kind=CLAIMS)
    cpu = {"limits": {"cpu": "1"}, "requests": {"cpu": "500m"}}
    bounds = {"min": {"cpu": "500m"}, "max": {"cpu": "1"}, "maxLimitRequestRatio": {"cpu": "2"}}
    admitted(a_pod(cpu), {"type": "Container", **bounds})


@pytest.mark.parametrize(
    ("resources", "why"),
    [
        ({"limits": {"cpu": "1"}, "requests": {"cpu": "0"}}, "but no request is specified or request is 0"),
        ({"requests": {"cpu": "1"}}, "but no limit is specified or limit is 0"),
    ],
)
def test_a_ratio_needs_both_of_its_sides(resources: Object, why: str) -> None:
    with pytest.raises(Forbidden) as refused:
        admitted(a_pod(resources), {"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}})
    words = "cpu max limit to request ratio per Container is 2"
    assert refused.value.message == f'pods "x" is forbidden: {words}, {why}'


def test_a_limit_below_the_minimum_is_refused_as_a_request_is() -> None:
    with pytest.raises(Forbidden, match="minimum cpu usage per Container is 1, but limit is 500m"):
        admitted(
            a_pod({"limits": {"cpu": "500m"}, "requests": {"cpu": "1"}}), {"type": "Container", "min": {"cpu": "1"}}
        )


def test_a_pod_is_measured_by_its_hungriest_init_container_where_that_is_more() -> None:
    def asking(memory: str) -> Object:
        return {"limits": {"memory": memory}, "requests": {"memory": memory}}

    rule = {"type": "Pod", "max": {"memory": "1Gi"}}
    pod = a_pod(asking("600Mi"), asking("400Mi"))
    pod["spec"]["initContainers"] = [{"name": "i", "resources": asking("900Mi")}, {"name": "j"}]
    admitted(pod, rule)
    pod["spec"]["initContainers"][1]["resources"] = asking("1025Mi")
    with pytest.raises(Forbidden, match="but limit is 1025Mi"):
        admitted(pod, rule)
    alone = {"metadata": {"name": "x"}, "spec": {"initContainers": [{"name": "i", "resources": asking("2Gi")}]}}
    with pytest.raises(Forbidden, match="but limit is 2Gi"):
        admitted(alone, rule)
    greedy = {"limits": {"memory": "1Gi"}, "requests": {"memory": "2Gi"}}
    with pytest.raises(Forbidden, match="maximum memory usage per Container is 1Gi, but request is 2Gi"):
        admitted(a_pod(greedy), {"type": "Container", "max": {"memory": "1Gi"}})
