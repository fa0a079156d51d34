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
