"""The files of ConfigMap, Secret, downwardAPI and projected volumes."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from agent.pods.fields import Facts
from agent.volumes.payload import File, Ingredients, TokenAsk, VolumeFault, needs, payload_of
from tests.unit.agent.builders import a_pod

HAVE = Ingredients(
    Facts("n1", ("192.0.2.1",)),
    {
        ("configmap", "cm"): {"data": {"a": "1", "b": "2"}, "binaryData": {"c": base64.b64encode(b"\xff").decode()}},
        ("secret", "s"): {"data": {"k": base64.b64encode(b"v").decode()}},
        ("configmap", "gone"): None,
    },
    {TokenAsk("", 3607): "tok"},
)


def files(volume: dict[str, Any], **spec: Any) -> dict[str, File]:
    return payload_of(a_pod(**spec), {"name": "v", **volume}, HAVE)


def test_a_config_map_shows_all_its_keys_or_the_chosen_ones() -> None:
    assert files({"configMap": {"name": "cm"}}) == {"a": File(b"1"), "b": File(b"2"), "c": File(b"\xff")}
    chosen = {"name": "cm", "items": [{"key": "a", "path": "sub/x", "mode": 0o400}], "defaultMode": 0o600}
    assert files({"configMap": chosen}) == {"sub/x": File(b"1", 0o400)}


def test_what_is_missing_is_named_unless_it_is_optional() -> None:
    with pytest.raises(VolumeFault, match='configmap "gone" not found'):
        files({"configMap": {"name": "gone"}})
    with pytest.raises(VolumeFault, match="configmap references non-existent config key: x"):
        files({"configMap": {"name": "cm", "items": [{"key": "x", "path": "x"}]}})
    with pytest.raises(VolumeFault, match="references non-existent secret key: x"):
        files({"secret": {"secretName": "s", "items": [{"key": "x", "path": "x"}]}})
    assert files({"configMap": {"name": "gone", "optional": True}}) == {}


def test_a_projected_volume_joins_its_sources() -> None:
    sources = [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
        {"secret": {"name": "s"}},
        {"downwardAPI": {"items": [{"path": "ns", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
    ]
    volume = {"name": "v", "projected": {"sources": sources, "defaultMode": 0o644}}
    assert needs(volume) == ({("secret", "s")}, {TokenAsk("", 3607)})
    made = files({"projected": volume["projected"]})
    assert made == {"token": File(b"tok"), "k": File(b"v"), "ns": File(b"ns")}
    grouped = files({"projected": volume["projected"]}, securityContext={"fsGroup": 7})
    assert grouped["token"].mode == 0o600


def test_volumes_without_files_need_nothing() -> None:
    assert needs({"name": "v", "emptyDir": {}}) == (set(), set())
