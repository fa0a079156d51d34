"""Kinds that are not served yet: their rules stand ready."""

from typing import Any

import pytest

# ruff: noqa: E501 -- the table holds Kubernetes' sentences whole
from api.kinds import Kind
from api.names import is_dns_subdomain
from api.objects import Object, clone
from api.schema import default
from controller.registry.validation import validate
from controller.registry.validation.cron import schedule_fault

CLUSTER_WIDE = ("PersistentVolume", "StorageClass", "PriorityClass", "IngressClass", "CustomResourceDefinition")
POD_SPEC = {"containers": [{"name": "c", "image": "i"}]}
TEMPLATE = {"metadata": {"labels": {"a": "b"}}, "spec": POD_SPEC}
WORKLOAD = {"selector": {"matchLabels": {"a": "b"}}, "template": TEMPLATE}
JOB = {
    "manualSelector": True,
    "selector": {"matchLabels": {"a": "b"}},
    "template": {**TEMPLATE, "spec": {**POD_SPEC, "restartPolicy": "Never"}},
}


def judged(api_version: str, kind: str, fields: Object, old: Object | None = None, *, name: str = "x") -> list[str]:
    group, _, version = api_version.rpartition("/")
    found = Kind(group, version, kind, kind.lower() + "s", namespaced=kind not in CLUSTER_WIDE)
    metadata = {"name": name, "uid": "u"} | ({"namespace": "n"} if found.namespaced else {})
    obj: Object = {"apiVersion": api_version, "kind": kind, "metadata": metadata, **clone(fields)}
    stored = {**obj, **clone(old)} if old is not None else None
    for one in (obj, stored):
        if one is not None:
            default(found, one)
    return [str(error) for error in validate(found, obj, stored)]


def service(**spec: Any) -> Object:
    return {"spec": {"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ports": [{"port": 80}], **spec}}


def claim(**spec: Any) -> Object:
    return {"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, **spec}}


def ingress(**path: Any) -> Object:
    backend = {"service": {"name": "s", "port": {"number": 80}}}
    return {
        "spec": {
            "rules": [
                {"host": "a.b", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend, **path}]}}
            ]
        }
    }


@pytest.mark.parametrize(
    ("api_version", "kind", "fields", "errors"),
    [
        ("v1", "Service", service(), []),
        ("v1", "Service", service(ports=[]), ["spec.ports: Required value"]),
        (
            "v1",
            "Service",
            service(ports=[{"port": 1}, {"port": 2}]),
            ["spec.ports[0].name: Required value", "spec.ports[1].name: Required value"],
        ),
        ("v1", "Service", {"spec": {"type": "ExternalName"}}, ["spec.externalName: Required value"]),
        (
            "v1",
            "Service",
            service(externalTrafficPolicy="Local"),
            ['spec.externalTrafficPolicy: Invalid value: "Local": may only be set for externally-accessible services'],
        ),
        ("apps/v1", "StatefulSet", {"spec": {"serviceName": "s", **WORKLOAD}}, []),
        (
            "apps/v1",
            "StatefulSet",
            {"spec": {**WORKLOAD, "podManagementPolicy": "Foo"}},
            ["spec.podManagementPolicy: Invalid value: \"Foo\": must be 'OrderedReady' or 'Parallel'"],
        ),
        (
            "apps/v1",
            "StatefulSet",
            {"spec": {"serviceName": "a.b", **WORKLOAD}},
            ['spec.serviceName: Invalid value: "a.b": must not contain dots'],
        ),
        ("apps/v1", "DaemonSet", {"spec": WORKLOAD}, []),
        (
            "apps/v1",
            "DaemonSet",
            {
                "spec": {
                    **WORKLOAD,
                    "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 1}},
                }
            },
            [
                "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero"
            ],
        ),
        ("batch/v1", "Job", {"spec": JOB}, []),
        (
            "batch/v1",
            "Job",
            {"spec": {**JOB, "template": TEMPLATE}},
            ['spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"'],
        ),
        (
            "batch/v1",
            "Job",
            {"spec": {**JOB, "backoffLimitPerIndex": 1}},
            ["spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode"],
        ),
        (
            "batch/v1",
            "Job",
            {
                "spec": {
                    **JOB,
                    "completionMode": "Indexed",
                    "completions": 5,
                    "managedBy": "me",
                    "successPolicy": {
                        "rules": [{"succeededIndexes": "0-2", "succeededCount": 4}, {"succeededIndexes": "3,1-5"}]
                    },
                }
            },
            [
                'spec.managedBy: Invalid value: "me": must be a domain-prefixed path (such as "acme.io/foo")',
                "spec.successPolicy.rules[0].succeededCount: Invalid value: 4: must be less than or equal to 3 (the number of indexes in the specified succeededIndexes field)",
                'spec.successPolicy.rules[1].succeededIndexes: Invalid value: "3,1-5": error parsing succeededIndexes: too large index: "5"',
            ],
        ),
        (
            "autoscaling/v2",
            "HorizontalPodAutoscaler",
            {
                "spec": {
                    "maxReplicas": 3,
                    "scaleTargetRef": {"apiVersion": "v1", "kind": "Pod", "name": "x"},
                    "behavior": {"scaleUp": {"policies": [], "tolerance": "-1"}},
                    "metrics": [{"type": "Resource", "pods": {"metric": {}, "target": {}}}],
                }
            },
            [
                'spec.scaleTargetRef.apiVersion: Invalid value: "v1": apiVersion must specify API group',
                "spec.metrics[0].pods.metric.name: Required value: must specify a metric name",
                "spec.metrics[0].pods.target.type: Required value: must specify a metric target type",
                'spec.metrics[0].pods.target.type: Invalid value: "": must be either Utilization, Value, or AverageValue',
                "spec.metrics[0].pods.target.averageValue: Required value: must specify a positive target averageValue",
                "spec.metrics[0].resource: Required value: must populate information for the given metric source",
                "spec.behavior.scaleUp.policies: Required value: must specify at least one Policy",
                'spec.behavior.scaleUp.tolerance: Invalid value: "-1": must be greater than or equal to 0',
            ],
        ),
        (
            "batch/v1",
            "CronJob",
            {"spec": {"schedule": "*/5 * * * mon-fri", "jobTemplate": {"spec": {"template": JOB["template"]}}}},
            [],
        ),
        (
            "batch/v1",
            "CronJob",
            {"spec": {"schedule": "foo", "jobTemplate": {"spec": {"template": JOB["template"]}}}},
            ['spec.schedule: Invalid value: "foo": expected exactly 5 fields, found 1: [foo]'],
        ),
        ("networking.k8s.io/v1", "Ingress", ingress(), []),
        (
            "networking.k8s.io/v1",
            "Ingress",
            {"spec": {}},
            ["spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"],
        ),
        (
            "networking.k8s.io/v1",
            "Ingress",
            ingress(path="x"),
            ['spec.rules[0].http.paths[0].path: Invalid value: "x": must be an absolute path'],
        ),
        (
            "networking.k8s.io/v1",
            "NetworkPolicy",
            {
                "spec": {
                    "podSelector": {},
                    "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}]}],
                }
            },
            [
                'spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: "11.0.0.0/16": must be a strict subset of `cidr`'
            ],
        ),
        (
            "discovery.k8s.io/v1",
            "EndpointSlice",
            {"addressType": "IPv4", "endpoints": [{"addresses": ["127.0.0.1"]}]},
            [
                'endpoints[0].addresses[0]: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)'
            ],
        ),
        (
            "autoscaling/v2",
            "HorizontalPodAutoscaler",
            {
                "spec": {
                    "maxReplicas": 3,
                    "minReplicas": 5,
                    "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "x"},
                }
            },
            ["spec.maxReplicas: Invalid value: 3: must be greater than or equal to `minReplicas`"],
        ),
        (
            "policy/v1",
            "PodDisruptionBudget",
            {"spec": {"minAvailable": "150%"}},
            ['spec.minAvailable: Invalid value: "150%": must not be greater than 100%'],
        ),
        (
            "v1",
            "ResourceQuota",
            {"spec": {"hard": {"pods": "1.5"}}},
            ['spec.hard[pods]: Invalid value: "1500m": must be an integer'],
        ),
        (
            "v1",
            "ResourceQuota",
            {"spec": {"hard": {"secrets": "5"}, "scopes": ["BestEffort"]}},
            ['spec.scopes: Invalid value: ["BestEffort"]: unsupported scope applied to resource'],
        ),
        (
            "v1",
            "LimitRange",
            {"spec": {"limits": [{"type": "Container", "min": {"cpu": "2"}, "max": {"cpu": "1"}}]}},
            [
                'spec.limits[0].min[cpu]: Invalid value: "2": min value 2 is greater than max value 1',
                'spec.limits[0].defaultRequest[cpu]: Invalid value: "1": min value 2 is greater than default request value 1',
                'spec.limits[0].default[cpu]: Invalid value: "2": min value 2 is greater than default value 1',
            ],
        ),
        (
            "scheduling.k8s.io/v1",
            "PriorityClass",
            {"value": 2000000000},
            ["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"],
        ),
        ("storage.k8s.io/v1", "CSIStorageCapacity", {"storageClassName": "fast", "capacity": "5Gi"}, []),
        (
            "storage.k8s.io/v1",
            "CSIStorageCapacity",
            {"storageClassName": "Fast_", "capacity": "-1Gi"},
            [
                f'storageClassName: Invalid value: "Fast_": {is_dns_subdomain("Fast_")[0]}',
                'capacity: Invalid value: "-1Gi": must be greater than or equal to 0',
            ],
        ),
        (
            "storage.k8s.io/v1",
            "StorageClass",
            {"provisioner": "p", "reclaimPolicy": "Foo"},
            ['reclaimPolicy: Unsupported value: "Foo": supported values: "Delete", "Retain"'],
        ),
        (
            "v1",
            "PersistentVolume",
            {"spec": {"accessModes": ["ReadWriteOnce"], "capacity": {}, "hostPath": {"path": "/x"}}},
            ["spec.capacity: Required value", 'spec.capacity: Unsupported value: {}: supported values: "storage"'],
        ),
        ("v1", "PersistentVolumeClaim", claim(), []),
        (
            "v1",
            "PersistentVolumeClaim",
            claim(accessModes=[], resources={}),
            [
                "spec.accessModes: Required value: at least 1 access mode is required",
                "spec.resources[storage]: Required value",
            ],
        ),
    ],
)
def test_creates(api_version: str, kind: str, fields: Object, errors: list[str]) -> None:
    assert judged(api_version, kind, fields) == errors


@pytest.mark.parametrize(
    ("api_version", "kind", "old", "new", "error"),
    [
        (
            "v1",
            "Service",
            service(),
            service(clusterIP="10.0.0.2", clusterIPs=["10.0.0.2"]),
            'spec.clusterIPs[0]: Invalid value: ["10.0.0.2"]: may not change once set',
        ),
        (
            "batch/v1",
            "Job",
            {"spec": JOB},
            {"spec": {**JOB, "completions": 5}},
            "spec.completions: Invalid value: 5: field is immutable",
        ),
        (
            "storage.k8s.io/v1",
            "CSIStorageCapacity",
            {"storageClassName": "fast"},
            {"storageClassName": "slow"},
            'storageClassName: Invalid value: "slow": field is immutable',
        ),
        (
            "storage.k8s.io/v1",
            "StorageClass",
            {"provisioner": "p"},
            {"provisioner": "q"},
            'provisioner: Invalid value: "q": field is immutable',
        ),
        (
            "scheduling.k8s.io/v1",
            "PriorityClass",
            {"value": 5},
            {"value": 6},
            "value: Forbidden: may not be changed in an update.",
        ),
        (
            "apps/v1",
            "StatefulSet",
            {"spec": {"serviceName": "s", **WORKLOAD}},
            {"spec": {"serviceName": "t", **WORKLOAD}},
            "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
        ),
    ],
)
def test_updates(api_version: str, kind: str, old: Object, new: Object, error: str) -> None:
    assert judged(api_version, kind, new, old) == [error]
    assert judged(api_version, kind, old, old) == []


def test_a_claims_size_may_grow_only_once_bound() -> None:
    bigger = claim(resources={"requests": {"storage": "2Gi"}})
    bound = {"status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}}
    assert judged("v1", "PersistentVolumeClaim", bigger | bound, claim() | bound) == []
    [error] = judged("v1", "PersistentVolumeClaim", bigger, claim())
    assert error.startswith("spec: Forbidden: spec is immutable after creation except")


@pytest.mark.parametrize(
    "schedule", ["* * * * *", "0 0 1 1 ?", "@hourly", "@every 1h30m", "1,2-4/2 */3 1-31 jan-dec sun,sat"]
)
def test_good_schedules(schedule: str) -> None:
    assert schedule_fault(schedule) == ""


@pytest.mark.parametrize(
    ("schedule", "fault"),
    [
        ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
        ("60 * * * *", "end of range (60) above maximum (59): 60"),
        ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
        ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
        ("*/0 * * * *", "step of range should be a positive number: */0"),
        ("x * * * *", 'failed to parse int from x: strconv.Atoi: parsing "x": invalid syntax'),
        ("@often", "unrecognized descriptor: @often"),
    ],
)
def test_bad_schedules(schedule: str, fault: str) -> None:
    assert schedule_fault(schedule) == fault


def definition(schema: Object, **version: Any) -> Object:
    named = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}, **version}
    names = {"plural": "xs", "kind": "X"}
    return {"spec": {"group": "ex.io", "scope": "Namespaced", "names": names, "versions": [named]}}


def below(**properties: Object) -> Object:
    return {"type": "object", "properties": properties}


A = "spec.validation.openAPIV3Schema.properties[a]"
KEYED = {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k", "q"]}
KEY_NEEDED = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property"


@pytest.mark.parametrize(
    ("made", "errors"),
    [
        (definition(below(a={"type": "array"})), [f"{A}.items: Required value: must be specified"]),
        (definition(below(a={"type": "object", "additionalProperties": False})), []),
        (definition(below(a={"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": True})), []),
        (
            definition(below(a={"type": "string", "anyOf": [{"type": "string", "default": "x"}], "pattern": "("})),
            [
                f"{A}.anyOf[0].default: Forbidden: must be undefined to be structural",
                f"{A}.anyOf[0].type: Forbidden: must be empty to be structural",
                f'{A}.pattern: Invalid value: "(": must be a valid regular expression, but isn\'t: error parsing regexp: missing closing ): `(`',
            ],
        ),
        (
            definition(below(a={**KEYED, "items": below(k={"type": "string"})})),
            [
                f'{A}.x-kubernetes-list-map-keys: Invalid value: ["k","q"]: entries must all be names of item properties',
                f"{A}.items.properties[k].default: Required value: {KEY_NEEDED}",
            ],
        ),
        (
            definition(below(metadata={"type": "object", "properties": {"labels": {"type": "string"}}}, apiVersion={"type": "string", "default": "x"})),
            ["spec.validation.openAPIV3Schema.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified",
             "spec.validation.openAPIV3Schema.properties[apiVersion].default: Forbidden: must not be set in top-level apiVersion"],
        ),
        (
            definition(below(a={"type": "array", "items": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}})),
            [f'{A}.items.x-kubernetes-validations[0].rule: Invalid value: "self == oldSelf": oldSelf cannot be used on the uncorrelatable portion of the schema within {A}'],
        ),
        (
            definition(below(a={"type": "object", "properties": {}}), selectableFields=[{"jsonPath": ".a"}, {"jsonPath": ".b"}], additionalPrinterColumns=[{"name": "A", "type": "string", "jsonPath": "a"}]),
            [
                'spec.additionalPrinterColumns[0].JSONPath: Invalid value: "a": must be a simple json path starting with .',
                'spec.selectableFields[0].jsonPath: Invalid value: ".a": must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.',
                'spec.selectableFields[1].jsonPath: Invalid value: ".b": is an invalid path: does not refer to a valid field',
            ],
        ),
        (
            {**definition(below()), "status": {"storedVersions": ["v0"]}},
            [
                'status.storedVersions: Invalid value: ["v0"]: must have the storage version v1',
                'status.storedVersions[0]: Invalid value: "v0": missing from spec.versions; v0 was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in v0 and removes v0 from status.storedVersions',
            ],
        ),
    ],
)  # fmt: skip
def test_definitions(made: Object, errors: list[str]) -> None:
    found = judged("apiextensions.k8s.io/v1", "CustomResourceDefinition", made, name="xs.ex.io")
    assert found == errors
