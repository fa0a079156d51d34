"""Protobuf bodies: what kubectl 1.35 really sent, and the pitfalls one by one with bytes made by hand.

`kubectl_bodies.json` was recorded from kubectl by a server that kept the bodies; each row's object is what the same
command printed with --dry-run=client -o json, after the check (lists of kubectl's that can be null are left out).
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import orjson
import pytest

from api.codec import decode_body
from api.codec.protobuf import decode_struct
from api.errors import BadRequest
from api.kinds import Kind
from api.schema import check

PROTOBUF = "application/vnd.kubernetes.protobuf"
RECORDED = orjson.loads((Path(__file__).parent / "kubectl_bodies.json").read_bytes())


@pytest.mark.parametrize("row", RECORDED, ids=lambda row: row["command"])
def test_what_kubectl_sends_decodes_to_what_it_meant(row: dict[str, Any]) -> None:
    decoded = decode_body(base64.b64decode(row["body"]), PROTOBUF, None).obj
    group, _, version = decoded["apiVersion"].rpartition("/")
    checked = check(Kind(group, version, decoded["kind"], ""), decoded)
    assert (checked.unknown, checked.type_errors) == ([], [])
    assert checked.obj == row["object"]


def varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def body(api_version: str, kind: str, raw: bytes, **more: str) -> bytes:
    envelope = field(1, field(1, api_version) + field(2, kind)) + field(2, raw)
    if "encoding" in more:
        envelope += field(3, more["encoding"])
    return b"k8s\0" + envelope


def test_a_zero_is_kept_for_pointers_and_dropped_for_optional_values() -> None:
    spec = field(1, 0) + field(5, 0)  # replicas is a pointer, minReadySeconds is not
    assert decode_struct("apps.v1.DeploymentSpec", spec) == {"replicas": 0}
    account = field(4, 0)
    assert decode_struct("core.v1.ServiceAccount", account) == {"automountServiceAccountToken": False}
    assert decode_struct("core.v1.ContainerPort", field(1, "") + field(3, 0)) == {"containerPort": 0}


def test_embedded_structs_are_messages_on_the_wire_but_no_level_in_json() -> None:
    volume = field(1, "v") + field(2, field(2, field(1, "Memory")))
    assert decode_struct("core.v1.Volume", volume) == {"name": "v", "emptyDir": {"medium": "Memory"}}
    selector = field(1, field(1, "secret")) + field(2, "key")
    assert decode_struct("core.v1.SecretKeySelector", selector) == {"name": "secret", "key": "key"}
    probe = field(1, field(1, field(1, "true"))) + field(4, 3)
    assert decode_struct("core.v1.Probe", probe) == {"exec": {"command": ["true"]}, "periodSeconds": 3}
    rule = field(1, "CREATE") + field(2, field(3, "pods"))
    assert decode_struct("admissionregistration.v1.RuleWithOperations", rule) == {
        "operations": ["CREATE"],
        "resources": ["pods"],
    }


def test_special_types_become_their_json_form() -> None:
    assert decode_struct("core.v1.EmptyDirVolumeSource", field(2, field(1, "1Gi"))) == {"sizeLimit": "1Gi"}
    port = field(3, 80) + field(4, field(1, 1) + field(3, "web"))
    assert decode_struct("core.v1.ServicePort", port) == {"port": 80, "targetPort": "web"}
    assert decode_struct("core.v1.ServicePort", field(4, field(2, -5)))["targetPort"] == -5
    meta = field(8, field(1, 1700000000)) + field(9, field(1, 0)) + field(11, field(1, "k") + field(2, "v"))
    assert decode_struct("meta.v1.ObjectMeta", meta) == {
        "creationTimestamp": "2023-11-14T22:13:20Z",
        "labels": {"k": "v"},
    }
    lease = field(4, field(1, 1700000000) + field(2, 123456789))
    assert decode_struct("coordination.v1.LeaseSpec", lease) == {"renewTime": "2023-11-14T22:13:20.123456Z"}
    assert decode_struct("apps.v1.ControllerRevision", field(2, field(1, b'{"a":[1]}'))) == {"data": {"a": [1]}}
    assert decode_struct("core.v1.Secret", field(2, field(1, "k") + field(2, b"\0\xff"))) == {"data": {"k": "AP8="}}
    extra = field(4, field(1, "k") + field(2, field(1, "v1") + field(1, "v2")))
    assert decode_struct("authentication.v1.UserInfo", extra) == {"extra": {"k": ["v1", "v2"]}}


def test_json_schemas_of_crds() -> None:
    def schema(raw: bytes) -> Any:
        return decode_struct("apiextensions.v1.JSONSchemaProps", raw)

    assert schema(field(30, field(1, 0))) == {"additionalProperties": False}
    assert schema(field(30, field(1, 0) + field(2, field(5, "string")))) == {"additionalProperties": {"type": "string"}}
    assert schema(field(24, field(1, field(5, "object")))) == {"items": {"type": "object"}}
    assert schema(field(8, field(1, b"false")) + field(20, field(1, b'"a"'))) == {"default": False, "enum": ["a"]}
    assert schema(field(9, b"")[:1].replace(b"\x4a", b"\x49") + b"\0\0\0\0\0\0\xf0\x3f") == {"maximum": 1}
    assert schema(field(29, field(1, "a") + field(2, b""))) == {"properties": {"a": {}}}


def test_lists_of_numbers_come_packed_or_not() -> None:
    loose = field(4, 1) + field(4, 1 << 40)
    packed = field(4, varint(1) + varint(1 << 40))
    for raw in (loose, packed):
        assert decode_struct("core.v1.PodSecurityContext", raw) == {"supplementalGroups": [1, 1 << 40]}


def test_delete_options_come_with_the_group_of_the_resource() -> None:
    raw = body("apps/v1", "DeleteOptions", field(1, 0) + field(2, field(1, "u")) + field(4, "Foreground"))
    options = Kind("", "v1", "DeleteOptions", "")
    for kind in (options, None):
        assert decode_body(raw, PROTOBUF, kind).obj == {
            "apiVersion": "apps/v1",
            "kind": "DeleteOptions",
            "gracePeriodSeconds": 0,
            "preconditions": {"uid": "u"},
            "propagationPolicy": "Foreground",
        }


def test_field_numbers_nobody_knows_are_skipped() -> None:
    assert decode_struct("core.v1.ContainerPort", field(99, "x") + field(3, 1) + field(98, 7)) == {"containerPort": 1}


CONFIG_MAP = Kind("", "v1", "ConfigMap", "configmaps")


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"{}", "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"),
        (b"k8s\0\xff", "proto: unexpected EOF"),
        (body("v1", "Foo", b""), 'no kind "Foo" is registered for version "v1"'),
        (body("v1", "ConfigMap", field(2, "x")[:-1]), "proto: unexpected EOF"),
        (body("v1", "ConfigMap", b"\x0b"), "proto: illegal wireType 3"),
        (body("v1", "ConfigMap", field(1, 5)), "proto: wrong wireType = 0"),
        (body("v1", "ConfigMap", field(1, field(1, b"\xff"))), "proto: string field contains invalid UTF-8"),
        (body("v1", "ConfigMap", b"", encoding="gzip"), "content encoding 'gzip' is not supported"),
        (body("v1", "Secret", b""), "unknown conversion"),
        (body("v1", "ConfigMap", b"\x80" * 11), "proto: integer overflow"),
    ],
)
def test_broken_bytes_are_a_bad_request(raw: bytes, why: str) -> None:
    with pytest.raises(BadRequest) as caught:
        decode_body(raw, PROTOBUF, CONFIG_MAP)
    assert why in caught.value.message


def test_a_schema_nested_too_deep_is_refused() -> None:
    raw = b""
    for _ in range(200):
        raw = field(28, raw)
    definition = field(2, field(7, field(4, field(1, raw))))
    with pytest.raises(BadRequest):
        decode_body(body("apiextensions.k8s.io/v1", "CustomResourceDefinition", definition), PROTOBUF, None)


def test_durations_are_shown_as_go_shows_them() -> None:
    from api.codec.protobuf_values import Wire, read_value

    for nanos, shown in ((5_400_000_000_000, "1h30m0s"), (1_500_000_000, "1.5s"), (250_000_000, "250ms"), (0, "0s")):
        assert read_value("duration", Wire(2, field(1, nanos))) == shown
    assert read_value("duration", Wire(2, field(1, -60_000_000_000))) == "-1m0s"
