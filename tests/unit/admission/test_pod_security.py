"""Pod Security: the levels, and what the labels of a namespace make of them."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from api import kinds
from api.errors import Forbidden
from api.objects import Object
from controller.admission.attributes import Attributes, Operation
from controller.admission.pod_levels import violations
from controller.admission.pod_security import admit_secure
from controller.admission.types import Request, User
from controller.store.types import Key, Record
from tests.unit.admission.test_admission import Cache

PODS = kinds.by_resource("", "pods")
GOOD = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def spec(security: Any = None, **more: Any) -> Object:
    return {"containers": [{"name": "c", "image": "i", "securityContext": security or {}}], **more}


def test_a_bare_pod_is_baseline_but_not_restricted() -> None:
    assert violations("baseline", {}, spec()) == []
    assert violations("restricted", {}, spec()) == [
        'allowPrivilegeEscalation != false (container "c" must set securityContext.allowPrivilegeEscalation=false)',
        'unrestricted capabilities (container "c" must set securityContext.capabilities.drop=["ALL"])',
        'runAsNonRoot != true (pod or container "c" must set securityContext.runAsNonRoot=true)',
        'seccompProfile (pod or container "c" must set securityContext.seccompProfile.type to "RuntimeDefault" or '
        '"Localhost")',
    ]
    assert violations("restricted", {}, spec(GOOD)) == []


@pytest.mark.parametrize(
    ("pod", "why"),
    [
        (spec({"privileged": True}), 'privileged (container "c" must not set securityContext.privileged=true)'),
        (spec(hostNetwork=True, hostPID=True), "host namespaces (hostNetwork=true, hostPID=true)"),
        (spec(volumes=[{"name": "v", "hostPath": {"path": "/"}}]), 'hostPath volumes (volume "v")'),
        (
            spec({"capabilities": {"add": ["SYS_ADMIN", "CHOWN"]}}),
            'non-default capabilities (container "c" must not include "SYS_ADMIN" in securityContext.capabilities.add)',
        ),
        (
            {"containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": 80}]}]},
            'hostPort (container "c" uses hostPort 80)',
        ),
        (
            spec(securityContext={"sysctls": [{"name": "net.core.somaxconn", "value": "1"}]}),
            "forbidden sysctls (net.core.somaxconn)",
        ),
        (
            spec({"seccompProfile": {"type": "Unconfined"}}),
            'seccompProfile (container "c" must not set securityContext.seccompProfile.type to "Unconfined")',
        ),
    ],
)
def test_what_baseline_forbids(pod: Object, why: str) -> None:
    assert violations("baseline", {}, pod) == [why]
    assert violations("privileged", {}, pod) == []


def judged(labels: dict[str, str], obj: Object, kind: kinds.Kind = PODS) -> list[str]:
    record = Record(Key("", "namespaces", "", "shop"), 7, orjson.dumps({}), labels, {})
    request = Request(User("x"))
    admit_secure(Attributes(request, Operation.CREATE, kind, "shop", "x", obj), Cache(record))
    return request.warnings


def test_an_enforced_level_refuses_the_pod() -> None:
    pod = {"metadata": {"name": "x"}, "spec": spec({"privileged": True})}
    with pytest.raises(Forbidden) as refused:
        judged({"pod-security.kubernetes.io/enforce": "baseline"}, pod)
    assert refused.value.message == (
        'pods "x" is forbidden: violates PodSecurity "baseline:latest": '
        'privileged (container "c" must not set securityContext.privileged=true)'
    )
    assert judged({}, pod) == []


def test_a_template_is_warned_of_only() -> None:
    deployment = {"metadata": {"name": "x"}, "spec": {"template": {"metadata": {}, "spec": spec(hostPID=True)}}}
    labels = {"pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/warn": "baseline"}
    told = judged(labels, deployment, kinds.by_resource("apps", "deployments"))
    assert told == ['would violate PodSecurity "baseline:latest": host namespaces (hostPID=true)']
