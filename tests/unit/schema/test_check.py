"""What the walker finds: unknown fields by path, type errors in Go's words, and the canonical form."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from api.kinds import Kind, by_gvk
from api.objects import Object
from api.schema import check

POD = Kind("", "v1", "Pod", "pods")
CONFIG_MAP = Kind("", "v1", "ConfigMap", "configmaps")
CRD = Kind("apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", namespaced=False)


def pod(**spec: Any) -> Object:
    container = {"name": "c", "image": "busybox:1"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {"containers": [container], **spec}}


def test_a_clean_object_is_returned_itself() -> None:
    obj = pod(hostNetwork=True)
    checked = check(POD, obj)
    assert checked.obj is obj
    assert (checked.unknown, checked.type_errors) == ([], [])


def test_unknown_fields_are_named_with_indexes_and_pruned_and_the_argument_stays_as_it_was() -> None:
    obj = pod(typo=1)
    obj["spec"]["containers"][0]["imaeg"] = "y"
    before = copy.deepcopy(obj)
    checked = check(POD, obj)
    assert checked.unknown == ["spec.containers[0].imaeg", "spec.typo"]
    assert checked.obj == pod()
    assert obj == before


def test_without_prune_the_object_stays_whole() -> None:
    obj = pod(typo=1)
    checked = check(POD, obj, prune=False)
    assert checked.obj is obj
    assert checked.unknown == ["spec.typo"]


FIELD = "json: cannot unmarshal {} into Go struct field {} of type {}"


@pytest.mark.parametrize(
    ("spec", "error"),
    [
        ({"containers": "x"}, FIELD.format("string", "PodSpec.spec.containers", "[]v1.Container")),
        ({"containers": [{"image": 5}]}, FIELD.format("number", "Container.spec.containers.image", "string")),
        ({"containers": [3]}, FIELD.format("number", "PodSpec.spec.containers", "v1.Container")),
        ({"restartPolicy": {}}, FIELD.format("object", "PodSpec.spec.restartPolicy", "v1.RestartPolicy")),
        ({"hostNetwork": "yes"}, FIELD.format("string", "PodSpec.spec.hostNetwork", "bool")),
        ({"priority": 1.5}, FIELD.format("number 1.5", "PodSpec.spec.priority", "int32")),
        ({"priority": 1 << 31}, FIELD.format("number 2147483648", "PodSpec.spec.priority", "int32")),
        ({"activeDeadlineSeconds": True}, FIELD.format("bool", "PodSpec.spec.activeDeadlineSeconds", "int64")),
        ({"nodeSelector": ["a"]}, FIELD.format("array", "PodSpec.spec.nodeSelector", "map[string]string")),
        ({"nodeSelector": {"a": 1}}, FIELD.format("number", "PodSpec.spec.nodeSelector", "string")),
        (
            {"volumes": [{"hostPath": 1}]},
            FIELD.format("number", "Volume.spec.volumes.hostPath", "v1.HostPathVolumeSource"),
        ),
        (
            {"containers": [{"livenessProbe": {"tcpSocket": {"port": 1.5}}}]},
            FIELD.format("number 1.5", "TCPSocketAction.spec.containers.livenessProbe.tcpSocket.port", "int32"),
        ),
        (
            {"overhead": {"cpu": "1 Gi"}},
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
    ],
)
def test_type_errors_are_worded_as_the_go_decoder_words_them(spec: Object, error: str) -> None:
    obj = pod()
    obj["spec"] = spec
    assert check(POD, obj).type_errors[0] == error


def test_the_whole_object_may_be_of_the_wrong_type() -> None:
    checked = check(POD, ["x"])  # type: ignore[arg-type]
    assert checked.type_errors == ["json: cannot unmarshal array into Go value of type v1.Pod"]


def test_times_are_read_with_offsets_and_fractions_and_faults_name_the_element() -> None:
    obj = pod()
    obj["metadata"]["creationTimestamp"] = "2024-03-01T12:00:00.25+02:00"
    assert check(POD, obj).obj["metadata"]["creationTimestamp"] == "2024-03-01T10:00:00Z"
    obj["metadata"]["creationTimestamp"] = "yesterday"
    assert check(POD, obj).type_errors == [
        'parsing time "yesterday" as "2006-01-02T15:04:05Z07:00": cannot parse "yesterday" as "2006"'
    ]
    obj["metadata"]["creationTimestamp"] = "2024-13-01T12:00:00Z"
    assert check(POD, obj).type_errors == ['parsing time "2024-13-01T12:00:00Z": month out of range']
    lease = {"spec": {"renewTime": "2024-03-01T12:00:00+00:00"}}
    found = check(Kind("coordination.k8s.io", "v1", "Lease", "leases"), lease).obj
    assert found["spec"]["renewTime"] == "2024-03-01T12:00:00.000000Z"


def test_quantities_become_canonical() -> None:
    resources = {"requests": {"cpu": 0.5, "memory": "1024Mi", "pods": 3}}
    obj = pod(containers=[{"name": "c", "resources": resources}])
    checked = check(POD, obj).obj["spec"]["containers"][0]["resources"]
    assert checked == {"requests": {"cpu": "500m", "memory": "1Gi", "pods": "3"}}


def test_nulls_and_empty_optional_values_go_but_pointers_keep_their_zero() -> None:
    obj = pod(hostNetwork=False, nodeName="", volumes=[], automountServiceAccountToken=False, securityContext={})
    obj["metadata"]["labels"] = {"a": None, "b": ""}
    obj["status"] = None
    checked = check(POD, obj).obj
    assert checked == {
        **pod(automountServiceAccountToken=False, securityContext={}),
        "metadata": {"name": "x", "labels": {"b": ""}},
    }


def test_a_null_inside_a_list_or_map_is_the_zero_of_its_type() -> None:
    assert check(CONFIG_MAP, {"data": {"a": None}}).obj == {"data": {"a": ""}}
    assert check(POD, pod(tolerations=[None])).obj["spec"]["tolerations"] == [{}]


def test_a_condition_keeps_the_null_that_go_writes() -> None:
    condition = {"type": "Ready", "status": "True", "lastProbeTime": None, "lastTransitionTime": None}
    obj = {**pod(), "status": {"conditions": [condition]}}
    assert check(POD, obj).obj is obj


def test_base64_is_checked_and_says_where_it_breaks() -> None:
    assert check(CONFIG_MAP, {"binaryData": {"z": "!!"}}).type_errors == ["illegal base64 data at input byte 0"]
    assert check(CONFIG_MAP, {"binaryData": {"z": "YQ==\n"}}).obj == {"binaryData": {"z": "YQ=="}}


def test_json_schemas_may_be_a_schema_or_something_simpler() -> None:
    schema = {"type": "object", "additionalProperties": False, "properties": {"a": {"items": {"typo": 1}}}}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    found = check(CRD, {"spec": {"versions": [version]}})
    assert found.type_errors == []
    assert found.unknown == ["spec.versions[0].schema.openAPIV3Schema.properties.a.items.typo"]


def test_a_schema_nested_too_deep_is_an_error_and_no_crash() -> None:
    schema: Object = {}
    for _ in range(900):
        schema = {"not": schema}
    version = {"schema": {"openAPIV3Schema": {**schema, "typo": 1}}}
    assert check(CRD, {"spec": {"versions": [version]}}).type_errors == ["json: exceeded max depth"]


def test_a_custom_resource_gets_its_metadata_checked_only() -> None:
    kind = Kind("ex.io", "v1", "W", "ws")
    obj = {"metadata": {"name": "a", "labels": {"x": None}, "typo": 1}, "spec": {"anything": None}}
    found = check(kind, obj)
    assert found.unknown == ["metadata.typo"]
    assert found.obj == {"metadata": {"name": "a"}, "spec": {"anything": None}}
    assert check(kind, {"metadata": {"labels": 5}}).type_errors != []


def test_checking_twice_finds_nothing_new() -> None:
    kind = by_gvk("", "v1", "Pod")
    assert kind is not None
    first = check(kind, pod(overhead={"cpu": "0.1"}, hostPID=False, nodeSelector=None)).obj
    assert check(kind, first).obj is first
