"""Pod Security: the levels, and what the labels of a namespace make of them."""

from __future__ import annotations

from itertools import product
from typing import Any

import orjson
import pytest

from api import kinds
from api.errors import Forbidden, Invalid
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


ENFORCE, AUDIT, WARN = (f"pod-security.kubernetes.io/{mode}" for mode in ("enforce", "audit", "warn"))


def labelled(old: dict[str, str], new: dict[str, str], *pods: Record) -> list[str]:
    """The warnings of a change of a namespace's labels."""
    after, before = ({"metadata": {"name": "shop", "labels": labels}} for labels in (new, old))
    request = Request(User("x"))
    kind = kinds.by_resource("", "namespaces")
    admit_secure(Attributes(request, Operation.UPDATE, kind, "", "shop", after, before), Cache(*pods))
    return request.warnings


def present(name: str, pod: Object, namespace: str = "shop") -> Record:
    obj = {"metadata": {"name": name}, "spec": pod}
    return Record(Key("", "pods", namespace, name), 7, orjson.dumps(obj), {}, {})


def test_a_namespace_whose_level_rises_is_told_of_the_pods_that_break_it() -> None:
    pods = (
        *(present(name, spec({"privileged": True})) for name in ("c", "a", "b")),
        *(present(name, spec(hostPID=True)) for name in ("e", "d")),
        present("f", spec(hostNetwork=True, hostPID=True), "elsewhere"),
        present("g", spec()),
        present("h", spec(volumes=[{"name": "v", "hostPath": {"path": "/"}}])),
    )
    baseline = {ENFORCE: "baseline", f"{ENFORCE}-version": "v1.30"}
    assert labelled({}, baseline, *pods) == [
        'existing pods in namespace "shop" violate the new PodSecurity enforce level "baseline:v1.30"',
        "d (and 1 other pod): host namespaces",
        "h: hostPath volumes",
        "a (and 2 other pods): privileged",
    ]
    assert labelled(baseline, baseline, *pods) == []
    assert labelled({ENFORCE: "restricted"}, baseline, *pods) == []
    assert labelled({}, {ENFORCE: "restricted"}, present("ok", spec(GOOD))) == []


def test_of_many_kinds_of_violations_ten_are_told() -> None:
    contexts: list[Object] = [{}, {"privileged": True}, {"procMount": "Unmasked"}]
    contexts.append({"privileged": True, "procMount": "Unmasked"})
    others: list[Object] = [{}, {"hostPID": True}, {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}]
    pods = [present(f"p{n}", spec(own, **more)) for n, (own, more) in enumerate(product(contexts, others))]
    assert len(labelled({}, {ENFORCE: "baseline"}, *pods)) == 1 + 10


@pytest.mark.parametrize(
    ("label", "value", "why"),
    [
        (ENFORCE, "harsh", '"harsh": must be one of privileged, baseline, restricted'),
        (AUDIT, "", '"": must be one of privileged, baseline, restricted'),
        (f"{WARN}-version", "1.30", '"1.30": must be "latest" or "v1.x"'),
        (f"{WARN}-version", "v1.030", '"v1.030": must be "latest" or "v1.x"'),
    ],
)
def test_a_label_that_names_no_level_or_version_is_refused_when_it_is_new(label: str, value: str, why: str) -> None:
    with pytest.raises(Invalid) as refused:
        labelled({}, {label: value})
    assert refused.value.message == f'Namespace "shop" is invalid: metadata.labels[{label}]: Invalid value: {why}'
    assert labelled({label: value}, {label: value, "other": "label"}) == []
    assert labelled({}, {ENFORCE: "privileged", f"{WARN}-version": "v1.0", f"{AUDIT}-version": "latest"}) == []


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        ({"tolerations": [{"operator": "Exists"}], "activeDeadlineSeconds": 5}, False),
        ({"containers": [{"name": "c", "image": "other", "securityContext": {"privileged": True}}]}, False),
        ({"hostPID": True}, True),
        ({"containers": [{"name": "c", "image": "i", "securityContext": {"privileged": True}, "stdin": True}]}, True),
        ({"initContainers": [{"name": "c", "image": "i"}]}, True),
        ({"ephemeralContainers": [{"name": "c", "image": "i"}]}, True),
    ],
)
def test_an_update_is_judged_when_it_may_change_what_the_pod_is_allowed(change: Object, refused: bool) -> None:
    old = {"metadata": {"name": "x"}, "spec": spec({"privileged": True})}
    new = {"metadata": {"name": "x"}, "spec": {**old["spec"], **change}}
    record = Record(Key("", "namespaces", "", "shop"), 7, orjson.dumps({}), {ENFORCE: "baseline"}, {})
    attributes = Attributes(Request(User("x")), Operation.UPDATE, PODS, "shop", "x", new, old)
    if refused:
        with pytest.raises(Forbidden):
            admit_secure(attributes, Cache(record))
    else:
        admit_secure(attributes, Cache(record))


def test_what_is_no_level_counts_as_the_strictest_and_other_labels_as_none() -> None:
    pod = {"metadata": {"name": "x"}, "spec": spec()}
    with pytest.raises(Forbidden, match=r'violates PodSecurity "restricted:latest"'):
        judged({ENFORCE: "harsh"}, pod)
    assert judged({"other": "label"}, pod) == []
    secrets = kinds.by_resource("", "secrets")
    assert judged({ENFORCE: "restricted", WARN: "restricted"}, {"metadata": {"name": "x"}}, secrets) == []
    template = {"metadata": {"name": "x"}, "template": {"spec": spec(hostPID=True)}}
    assert len(judged({WARN: "baseline"}, template, kinds.by_resource("", "podtemplates"))) == 1
    cron = {"metadata": {"name": "x"}, "spec": {"jobTemplate": {"spec": {"template": {"spec": spec(hostPID=True)}}}}}
    assert len(judged({WARN: "baseline"}, cron, kinds.by_resource("batch", "cronjobs"))) == 1
    assert judged({WARN: "baseline"}, {"metadata": {"name": "x"}}, kinds.by_resource("batch", "cronjobs")) == []


def two(first: Any, second: Any, **more: Any) -> Object:
    contexts = [{**GOOD, **first}, {**GOOD, **second}]
    containers = [{"name": name, "securityContext": own} for name, own in zip("cd", contexts, strict=True)]
    return {"containers": containers, **more}


def capabilities(*added: str, drop: tuple[str, ...] = ("ALL",)) -> Object:
    return {"capabilities": {"add": list(added), "drop": list(drop)}}


def seccomp(kind: str) -> Object:
    return {"seccompProfile": {"type": kind}}


UNCONFINED = {"securityContext": seccomp("Unconfined")}
VOLUMES = (
    {"name": "v", "nfs": {}},
    {"name": "w", "iscsi": {}},
    {"name": "x", "emptyDir": {}},
    {"name": "y", "nfs": {}},
)
NO_ROOT = {"runAsNonRoot": None}


@pytest.mark.parametrize(
    ("pod", "why"),
    [
        (two({}, {}), None),
        (two(capabilities("NET_BIND_SERVICE"), {}), None),
        (
            two(capabilities("CHOWN"), capabilities("KILL", drop=())),
            'unrestricted capabilities (container "d" must set securityContext.capabilities.drop=["ALL"]; containers '
            '"c", "d" must not include "CHOWN", "KILL" in securityContext.capabilities.add)',
        ),
        (two({}, {}, volumes=[VOLUMES[2], {"name": "z", "configMap": {}}]), None),
        (two({}, {}, volumes=[VOLUMES[0]]), 'restricted volume types (volume "v" uses restricted volume type "nfs")'),
        (
            two({}, {}, volumes=[VOLUMES[0], VOLUMES[3]]),
            'restricted volume types (volumes "v", "y" use restricted volume type "nfs")',
        ),
        (
            two({}, {}, volumes=list(VOLUMES)),
            'restricted volume types (volumes "v", "w", "y" use restricted volume types "iscsi", "nfs")',
        ),
        (
            two({"runAsNonRoot": False}, NO_ROOT),
            'runAsNonRoot != true (container "c" must not set securityContext.runAsNonRoot=false)',
        ),
        (
            two({"runAsNonRoot": False}, {}, securityContext={"runAsNonRoot": False}),
            "runAsNonRoot != true (pod must not set securityContext.runAsNonRoot=false; container "
            '"c" must not set securityContext.runAsNonRoot=false)',
        ),
        (
            two(NO_ROOT, NO_ROOT),
            'runAsNonRoot != true (pod or containers "c", "d" must set securityContext.runAsNonRoot=true)',
        ),
        (two(NO_ROOT, NO_ROOT, securityContext={"runAsNonRoot": True}), None),
        (two({"runAsUser": 1}, {}, securityContext={"runAsUser": 1}), None),
        (two({"runAsUser": 0}, {}), 'runAsUser=0 (container "c" must not set runAsUser=0)'),
        (
            two({"runAsUser": 0}, {"runAsUser": 0}, securityContext={"runAsUser": 0}),
            'runAsUser=0 (pod and containers "c", "d" must not set runAsUser=0)',
        ),
        (two(seccomp("Localhost"), {}), None),
        (
            two({}, {}, **UNCONFINED),
            'seccompProfile (pod must not set securityContext.seccompProfile.type to "Unconfined")',
        ),
        (
            two(seccomp("Unconfined"), {}),
            'seccompProfile (container "c" must not set securityContext.seccompProfile.type to "Unconfined")',
        ),
        (
            two({"seccompProfile": None}, {}),
            'seccompProfile (pod or container "c" must set securityContext.seccompProfile.type to "RuntimeDefault" or '
            '"Localhost")',
        ),
        (two({"seccompProfile": None}, {}, securityContext=seccomp("RuntimeDefault")), None),
        (
            two({"allowPrivilegeEscalation": True}, {"allowPrivilegeEscalation": None}),
            'allowPrivilegeEscalation != false (containers "c", "d" must set '
            "securityContext.allowPrivilegeEscalation=false)",
        ),
    ],
)
def test_what_restricted_forbids(pod: Object, why: str | None) -> None:
    assert violations("restricted", {}, pod) == ([] if why is None else [why])


@pytest.mark.parametrize(
    ("pod", "why"),
    [
        (
            two(seccomp("Unconfined"), seccomp("Unconfined"), **UNCONFINED),
            'seccompProfile (pod and containers "c", "d" must not set securityContext.seccompProfile.type to '
            '"Unconfined")',
        ),
        (
            two(
                {"windowsOptions": {"hostProcess": True}}, {}, securityContext={"windowsOptions": {"hostProcess": True}}
            ),
            'hostProcess (pod and container "c" must not set securityContext.windowsOptions.hostProcess=true)',
        ),
        (
            two({"seLinuxOptions": {"type": "t", "user": "u"}}, {}, securityContext={"seLinuxOptions": {"role": "r"}}),
            'seLinuxOptions (type "t"; user may not be set; role may not be set)',
        ),
        (
            two({"procMount": "Unmasked"}, {"procMount": "Default"}),
            'procMount (container "c" must not set securityContext.procMount to "Unmasked")',
        ),
        (two({"appArmorProfile": {"type": "Unconfined"}}, {}), "forbidden AppArmor profile (Unconfined)"),
        (
            two(
                {},
                {},
                securityContext={"sysctls": [{"name": "kernel.shm_rmid_forced"}, {"name": "a.b"}, {"name": "c"}]},
            ),
            "forbidden sysctls (a.b, c)",
        ),
        (
            {"containers": [{"name": n, "ports": [{"hostPort": p}, {}]} for n, p in (("c", 81), ("d", 80))]},
            'hostPort (containers "c", "d" use hostPorts 80, 81)',
        ),
        (
            {"containers": [{"name": "c", "livenessProbe": {"httpGet": {"host": "h"}}, "lifecycle": {}}]},
            'probe or lifecycle host (container "c" uses probe or lifecycle host "h")',
        ),
        (
            {"containers": [{"name": n, "lifecycle": {"preStop": {"tcpSocket": {"host": n}}}} for n in "cd"]},
            'probe or lifecycle host (containers "c", "d" use probe or lifecycle hosts "c", "d")',
        ),
    ],
)
def test_what_baseline_forbids_in_pod_and_containers_together(pod: Object, why: str) -> None:
    assert violations("baseline", {}, pod) == [why]


def test_profiles_of_old_are_judged_by_their_annotations() -> None:
    name = "container.apparmor.security.beta.kubernetes.io/"
    fine = {name + "a": "runtime/default", name + "b": "localhost/x", name + "c": "", "other": "unconfined"}
    assert violations("baseline", {"annotations": fine}, two({}, {})) == []
    wrong = {name + "b": "unconfined", name + "a": "x"}
    assert violations("baseline", {"annotations": wrong}, two({}, {})) == [
        f'forbidden AppArmor profiles ({name}a="x", {name}b="unconfined")'
    ]
