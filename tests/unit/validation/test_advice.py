"""What is legal but unwise: Kubernetes' warnings."""

from typing import Any

import pytest

from api.kinds import by_gvk
from api.objects import Object, clone
from controller.registry.validation.advice import advice
from tests.unit.validation.objects import deployment, pod, pod_with

TEMPLATE = "spec.template.spec"


def told(obj: Object, old: Object | None = None) -> list[str]:
    group, _, version = obj["apiVersion"].rpartition("/")
    kind = by_gvk(group, version, obj["kind"])
    assert kind is not None
    return advice(kind, obj, old)


def service(**spec: Any) -> Object:
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": spec}


@pytest.mark.parametrize(
    ("obj", "warnings"),
    [
        (pod(), []),
        (
            pod_with(env=[{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]),
            ['spec.containers[0].env[1]: hides previous definition of "A", which may be dropped when using apply'],
        ),
        (pod_with(env=[{"name": "A", "value": "1"}, {"name": "A", "value": "$(A)2"}]), []),
        (
            pod_with(ports=[{"containerPort": 1}, {"containerPort": 1, "hostPort": 2}, {"containerPort": 1}]),
            [
                "spec.containers[0].ports[1]: overlapping port definition with spec.containers[0].ports[0]",
                "spec.containers[0].ports[2]: duplicate port definition with spec.containers[0].ports[0]",
                "spec.containers[0].ports[2]: overlapping port definition with spec.containers[0].ports[1]",
            ],
        ),
        (
            pod_with(resources={"limits": {"memory": "100m"}}),
            [
                'spec.containers[0].resources.limits[memory]: fractional byte value "100m" is invalid,'
                " must be an integer"
            ],
        ),
        (
            pod_with(ports=[{"containerPort": 80, "protocol": "UDP", "hostIP": "10.0.0.1"}]),
            [
                "spec.containers[0].ports[0]: hostIP set without hostPort: "
                "{Name: HostPort:0 ContainerPort:80 Protocol:UDP HostIP:10.0.0.1}"
            ],
        ),
        (
            pod(
                volumes=[
                    {"name": "v", "secret": {"secretName": "s", "items": [{"path": "a"}, {"path": "a/b/"}]}},
                    {
                        "name": "w",
                        "projected": {
                            "sources": [
                                {},
                                {"serviceAccountToken": {"path": "t"}},
                                {"configMap": {"name": "c", "items": [{"path": "t"}, {"path": "t2"}]}},
                            ]
                        },
                    },
                ]
            ),
            [
                'volume "v" (Secret "s"): overlapping paths: "a/b" with "a"',
                'volume "w" (Projected) has no sources provided',
                'volume "w" (Projected ConfigMap "c"): overlapping paths: "t" with "t"',
            ],
        ),
        (
            pod(nodeSelector={"beta.kubernetes.io/os": "linux"}),
            ['spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead'],
        ),
        (
            service(clusterIP="None", sessionAffinity="ClientIP"),
            ["spec.SessionAffinity is ignored for headless services"],
        ),
        (
            service(externalIPs=["1.2.3.4"]),
            ["spec.externalIPs is deprecated and may no longer be implemented in some clusters"],
        ),
    ],
)
def test_warnings(obj: Object, warnings: list[str]) -> None:
    assert told(obj) == warnings


def test_a_template_is_judged_when_it_is_written_and_when_it_changes() -> None:
    obj = deployment()
    obj["spec"]["template"]["spec"]["imagePullSecrets"] = [{"name": "a"}, {"name": "a"}]
    obj["metadata"]["generation"] = 2
    warning = [f'{TEMPLATE}.imagePullSecrets[1].name: duplicate name "a"']
    assert told(obj) == warning
    assert told(obj, clone(obj)) == []
    assert told(obj, {**obj, "metadata": {**obj["metadata"], "generation": 1}}) == warning


def test_a_name_that_is_no_dns_label_surprises_in_pods() -> None:
    obj = deployment()
    obj["metadata"]["name"] = "a.b"
    assert told(obj)[0].startswith("metadata.name: this is used in Pod names and hostnames")


def test_annotations_that_became_fields_are_told_unless_the_field_is_there_too() -> None:
    obj = pod_with(securityContext={"seccompProfile": {"type": "RuntimeDefault"}})
    name = obj["spec"]["containers"][0]["name"]
    notes = ("seccomp.security.alpha.kubernetes.io/pod", f"container.seccomp.security.alpha.kubernetes.io/{name}")
    apparmor = f"container.apparmor.security.beta.kubernetes.io/{name}"
    obj["metadata"]["annotations"] = dict.fromkeys((*notes, apparmor), "unconfined")
    assert told(obj) == [
        f'metadata.annotations[{notes[0]}]: non-functional in v1.27+; use the "seccompProfile" field instead',
        f'metadata.annotations[{apparmor}]: deprecated since v1.30; use the "appArmorProfile" field instead',
    ]
