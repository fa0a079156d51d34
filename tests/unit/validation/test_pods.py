"""Pods: what is refused, at which path and in which words."""

from typing import Any

import pytest

# ruff: noqa: E501 -- the table holds Kubernetes' sentences whole
from api.objects import Object, clone
from tests.unit.validation.objects import judged, pod, pod_with, stored

C = "spec.containers[0]"
V = "spec.volumes[0]"


def volume(**source: Any) -> Object:
    return pod(volumes=[{"name": "v", **source}])


def env(**value: Any) -> Object:
    return pod_with(env=[{"name": "A", **value}])


@pytest.mark.parametrize(
    "good",
    [
        pod(),
        pod_with(ports=[{"containerPort": 80, "hostPort": 80, "name": "http"}]),
        pod_with(livenessProbe={"httpGet": {"port": "http", "path": "/"}}),
        pod_with(securityContext={"privileged": True}),
        pod(volumes=[{"name": "v", "emptyDir": {}}], tolerations=[{"operator": "Exists"}]),
        pod(
            initContainers=[
                {"name": "s", "image": "i", "restartPolicy": "Always", "startupProbe": {"exec": {"command": ["x"]}}}
            ]
        ),
        pod_with(resources={"requests": {"cpu": "1", "example.com/gpu": "1"}, "limits": {"example.com/gpu": 1}}),
        env(valueFrom={"fieldRef": {"fieldPath": "metadata.labels['app']"}}),
    ],
)
def test_good_pods_pass(good: Object) -> None:
    assert judged(good) == []


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (pod(containers=[]), "spec.containers: Required value"),
        (pod_with(image=""), f"{C}.image: Required value"),
        (pod_with(image=" i"), f'{C}.image: Invalid value: " i": must not have leading or trailing whitespace'),
        (
            pod_with(imagePullPolicy="Foo"),
            f'{C}.imagePullPolicy: Unsupported value: "Foo": supported values: "Always", "IfNotPresent", "Never"',
        ),
        (pod_with(ports=[{}]), f"{C}.ports[0].containerPort: Required value"),
        (
            {
                **pod_with(securityContext={"runAsUser": 1}),
                "spec": pod_with(securityContext={"runAsUser": 1})["spec"] | {"os": {"name": "windows"}},
            },
            f"{C}.securityContext.runAsUser: Forbidden: cannot be set for a windows pod",
        ),
        (
            pod_with(securityContext={"seccompProfile": {"type": "Unconfined", "localhostProfile": "x"}}),
            f'{C}.securityContext.seccompProfile.localhostProfile: Invalid value: {{"Type":"Unconfined","LocalhostProfile":"x"}}: can only be set when seccomp type is Localhost',
        ),
        (
            pod(hostPID=True, shareProcessNamespace=True),
            "spec.securityContext.shareProcessNamespace: Invalid value: true: ShareProcessNamespace and HostPID cannot both be enabled",
        ),
        (
            pod(resourceClaims=[{"name": "x"}]),
            'spec.resourceClaims[0]: Invalid value: {"Name":"x","ResourceClaimName":null,"ResourceClaimTemplateName":null}: must specify one of: `resourceClaimName`, `resourceClaimTemplateName`',
        ),
        (
            pod(
                topologySpreadConstraints=[
                    {
                        "maxSkew": 1,
                        "topologyKey": "zone",
                        "whenUnsatisfiable": "DoNotSchedule",
                        "matchLabelKeys": ["a"],
                        "labelSelector": {
                            "matchLabels": {"a": "b"},
                            "matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}],
                        },
                    }
                ]
            ),
            'spec.topologySpreadConstraints[0][0]: Invalid value: "a": exists in both matchLabelKeys and labelSelector',
        ),
        (
            pod_with(ports=[{"containerPort": 70000}]),
            f"{C}.ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ),
        (
            pod_with(ports=[{"containerPort": 1, "hostPort": 9}, {"containerPort": 2, "hostPort": 9}]),
            f'{C}.ports[1].hostPort: Duplicate value: "TCP//9"',
        ),
        (pod_with(env=[{}]), f"{C}.env[0].name: Required value"),
        (
            env(value="x", valueFrom={"fieldRef": {"fieldPath": "metadata.name"}}),
            f'{C}.env[0].valueFrom: Invalid value: "": may not be specified when `value` is not empty',
        ),
        (
            env(valueFrom={"fieldRef": {"fieldPath": "spec.foo"}}),
            f'{C}.env[0].valueFrom.fieldRef.fieldPath: Invalid value: "spec.foo": error converting fieldPath: field label not supported: spec.foo',
        ),
        (env(valueFrom={"secretKeyRef": {"name": "s"}}), f"{C}.env[0].valueFrom.secretKeyRef.key: Required value"),
        (pod_with(envFrom=[{}]), f'{C}.envFrom: Invalid value: "": must specify one of: `configMapRef` or `secretRef`'),
        (pod_with(volumeMounts=[{"name": "v", "mountPath": "/v"}]), f'{C}.volumeMounts[0].name: Not found: "v"'),
        (
            pod_with(livenessProbe={"periodSeconds": 5}),
            f"{C}.livenessProbe: Required value: must specify a handler type",
        ),
        (
            pod_with(livenessProbe={"tcpSocket": {"port": 1}, "successThreshold": 2}),
            f"{C}.livenessProbe.successThreshold: Invalid value: 2: must be 1",
        ),
        (pod_with(lifecycle={"preStop": {"exec": {}}}), f"{C}.lifecycle.preStop.exec.command: Required value"),
        (
            pod_with(resources={"requests": {"cpu": "-1"}}),
            f'{C}.resources.requests[cpu]: Invalid value: "-1": must be greater than or equal to 0',
        ),
        (
            pod_with(resources={"requests": {"cpu": "0.5"}, "limits": {"cpu": "100m"}}),
            f'{C}.resources.requests: Invalid value: "500m": must be less than or equal to cpu limit of 100m',
        ),
        (
            pod_with(resources={"requests": {"ex.io/gpu": "1"}}),
            f"{C}.resources.limits: Required value: Limit must be set for non overcommitable resources",
        ),
        (
            pod_with(securityContext={"runAsUser": -5}),
            f"{C}.securityContext.runAsUser: Invalid value: -5: must be between 0 and 2147483647, inclusive",
        ),
        (
            pod_with(restartPolicy="Sometimes"),
            f'{C}.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "Never", "OnFailure"',
        ),
        (pod(initContainers=[{"name": "c", "image": "i"}]), 'spec.initContainers[0].name: Duplicate value: "c"'),
        (
            pod(initContainers=[{"name": "i", "image": "i", "readinessProbe": {"tcpSocket": {"port": 1}}}]),
            "spec.initContainers[0].readinessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
        ),
        (volume(hostPath={}), f"{V}.hostPath.path: Required value"),
        (
            volume(emptyDir={}, hostPath={"path": "/"}),
            f"{V}.hostPath: Forbidden: may not specify more than 1 volume type",
        ),
        (volume(hostPath={"path": "/a/../b"}), f"{V}.hostPath.path: Invalid value: \"/a/../b\": must not contain '..'"),
        (
            volume(secret={"secretName": "s", "defaultMode": 5000}),
            f"{V}.secret.defaultMode: Invalid value: 5000: must be a number between 0 and 0777 (octal), both inclusive",
        ),
        (
            volume(configMap={"name": "c", "items": [{"key": "k", "path": "/abs"}]}),
            f'{V}.configMap.items[0].path: Invalid value: "/abs": must be a relative path',
        ),
        (
            pod(restartPolicy="Sometimes"),
            'spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "OnFailure", "Never"',
        ),
        (
            pod(activeDeadlineSeconds=0),
            "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
        ),
        (pod(hostname="a.b"), 'spec.hostname: Invalid value: "a.b": must not contain dots'),
        (
            pod(nodeSelector={"a b": "c"}),
            "spec.nodeSelector: Invalid value: \"a b\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
        ),
        (
            pod(tolerations=[{"operator": "Exists", "value": "x"}]),
            "spec.tolerations[0].operator: Invalid value: \"x\": value must be empty when `operator` is 'Exists'",
        ),
        (
            pod(
                affinity={"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}
            ),
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must have at least one node selector term",
        ),
        (
            pod(topologySpreadConstraints=[{"maxSkew": 0, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule"}]),
            "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero",
        ),
        (pod(dnsPolicy="None"), "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"),
        (
            pod(hostAliases=[{"ip": "x"}]),
            'spec.hostAliases[0].ip: Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)',
        ),
        (pod(hostUsers=False, hostPID=True), "spec.HostPID: Forbidden: when `pod.Spec.HostUsers` is false"),
        (
            pod(ephemeralContainers=[{"name": "e", "image": "i"}]),
            "spec.ephemeralContainers: Forbidden: cannot be set on create",
        ),
    ],
)
def test_bad_pods_are_refused_with_kubernetes_words(bad: Object, error: str) -> None:
    assert judged(bad) == [error]


def test_extended_resources_are_whole() -> None:
    errors = judged(pod_with(resources={"limits": {"example.com/gpu": "0.5"}}))
    detail = '[example.com/gpu]: Invalid value: "500m": must be an integer'
    assert errors == [f"{C}.resources.limits{detail}", f"{C}.resources.requests{detail}"]


def test_all_faults_are_told_at_once_and_in_order() -> None:
    bad = pod(
        containers=[{"name": "C"}, {"name": "d", "image": "i", "ports": [{"containerPort": 0}]}], restartPolicy="x"
    )
    assert [error.partition(":")[0] for error in judged(bad)] == [
        "spec.containers[0].name",
        "spec.containers[0].image",
        "spec.containers[1].ports[0].containerPort",
        "spec.restartPolicy",
    ]


def test_a_spec_is_judged_again_when_only_its_volume_changes() -> None:
    mounts = [{"name": "v", "mountPath": "/v"}]
    good = pod(volumes=[{"name": "v", "emptyDir": {}}])
    good["spec"]["containers"][0]["volumeMounts"] = mounts
    assert judged(good) == []
    bad = clone(good)
    bad["spec"]["volumes"] = []
    assert judged(bad) == [f'{C}.volumeMounts[0].name: Not found: "v"']


def updated(old: Object, **spec: Any) -> list[str]:
    new = clone(old)
    new["spec"] |= spec
    return judged(new, old)


def test_images_deadlines_and_new_tolerations_may_change() -> None:
    old = stored(pod())
    judged(old)
    tolerations = [*old["spec"].get("tolerations", []), {"key": "a", "operator": "Exists"}]
    containers = [old["spec"]["containers"][0] | {"image": "new"}]
    assert updated(old, containers=containers, tolerations=tolerations, activeDeadlineSeconds=5) == []


def test_containers_may_not_be_added() -> None:
    old = stored(pod())
    judged(old)
    more = [*old["spec"]["containers"], old["spec"]["containers"][0] | {"name": "d"}]
    assert updated(old, containers=more) == ["spec.containers: Forbidden: pod updates may not add or remove containers"]


def test_other_fields_may_not_change_and_the_difference_is_shown() -> None:
    old = stored(pod())
    judged(old)
    [error] = updated(old, nodeName="n1")
    assert error.startswith("spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`")
    assert '\n- "NodeName": "",\n+ "NodeName": "n1",\n' in error


def test_a_deadline_may_only_shrink() -> None:
    old = stored(pod(activeDeadlineSeconds=5))
    judged(old)
    assert updated(old, activeDeadlineSeconds=4) == []
    assert updated(old, activeDeadlineSeconds=6) == [
        "spec.activeDeadlineSeconds: Invalid value: 6: must be less than or equal to previous value"
    ]


def test_a_container_that_ended_for_good_does_not_run_again() -> None:
    old = stored(pod(restartPolicy="Never"))
    old["status"] = {"containerStatuses": [{"name": "c", "state": {"terminated": {"exitCode": 0}}}]}
    new = clone(old) | {"status": {"containerStatuses": [{"name": "c", "state": {"running": {}}}]}}
    assert judged(new, old, subresource="status") == [
        "status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state"
    ]


def test_ephemeral_containers_may_be_added_but_not_changed() -> None:
    old = stored(pod())
    judged(old)
    added = clone(old)
    added["spec"]["ephemeralContainers"] = [{"name": "e", "image": "i", "targetContainerName": "c"}]
    assert judged(added, old, subresource="ephemeralcontainers") == []
    other = clone(added)
    other["spec"]["ephemeralContainers"][0]["image"] = "j"
    [error] = judged(other, added, subresource="ephemeralcontainers")
    assert 'existing ephemeral containers "e" may not be changed' in error


@pytest.mark.proves(
    "Pod.spec.ephemeralContainers.ports",
    "Pod.spec.ephemeralContainers.resources",
    "Pod.spec.ephemeralContainers.livenessProbe",
    "Pod.spec.ephemeralContainers.readinessProbe",
    "Pod.spec.ephemeralContainers.startupProbe",
    "Pod.spec.ephemeralContainers.lifecycle",
    "Pod.spec.ephemeralContainers.restartPolicy",
    "Pod.spec.ephemeralContainers.restartPolicyRules",
)
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ports", [{"containerPort": 80, "protocol": "TCP"}]),
        ("resources", {"limits": {"cpu": "1"}}),
        *((probe, {"exec": {"command": ["true"]}}) for probe in ("livenessProbe", "readinessProbe", "startupProbe")),
        ("lifecycle", {"preStop": {"exec": {"command": ["true"]}}}),
        ("restartPolicy", "Always"),
        ("restartPolicyRules", [{"action": "Restart", "exitCodes": {"operator": "In", "values": [1]}}]),
    ],
)
def test_what_an_ephemeral_container_may_not_have_is_refused(field: str, value: Any) -> None:
    old = stored(pod())
    judged(old)
    added = clone(old)
    added["spec"]["ephemeralContainers"] = [{"name": "e", "image": "i", field: value}]
    errors = judged(added, old, subresource="ephemeralcontainers")
    assert any(error.startswith(f"spec.ephemeralContainers[0].{field}: Forbidden") for error in errors), errors


def test_profiles_in_annotations_are_judged_and_stay() -> None:
    old = stored(pod())
    name, seccomp = "container.apparmor.security.beta.kubernetes.io/", "seccomp.security.alpha.kubernetes.io/pod"
    new = clone(old)
    new["metadata"]["annotations"] = {f"{name}none": "foo", seccomp: "foo"}
    assert judged(new) == [
        f'metadata.annotations[{name}none]: Invalid value: "none": container not found',
        f'metadata.annotations[{name}none]: Invalid value: "foo": invalid AppArmor profile name: "foo"',
        f'metadata.annotations.{seccomp}: Invalid value: "foo": must be a valid seccomp profile',
    ]
    assert f"metadata.annotations[{name}none]: Forbidden: may not add AppArmor annotations" in judged(new, old)


def test_the_qos_class_is_for_ever() -> None:
    old = stored({**pod(), "status": {"qosClass": "BestEffort"}})
    new = {**old, "status": {"qosClass": "Guaranteed"}}
    assert judged(new, old, subresource="status") == [
        'status.qosClass: Invalid value: "Guaranteed": field is immutable'
    ]


def test_a_pod_has_one_address_of_each_family() -> None:
    old = stored(pod())
    both = {**old, "status": {"podIP": "1.2.3.4", "podIPs": [{"ip": "1.2.3.4"}, {"ip": "2001:db8::1"}]}}
    assert judged(both, old, subresource="status") == []
    both["status"]["podIPs"][1]["ip"] = "1.2.3.4"
    assert judged(both, old, subresource="status") == [
        'status.podIPs: Invalid value: [{"IP":"1.2.3.4"},{"IP":"1.2.3.4"}]: may specify no more than one IP for each IP family',
        'status.podIPs[1]: Duplicate value: {"IP":"1.2.3.4"}',
    ]
