"""Encoding of values and records: spliced, never parsed."""

from __future__ import annotations

import orjson
import pytest

from api.objects import Object
from controller.store.cipher import Cipher, Unsealable
from controller.store.keys import Keyspace
from controller.store.types import Event, EventType, Key
from controller.store.values import Codec, Draft, NotOurs, same_content, serialized, spliced, unspliced

KEYSPACE = Keyspace("/wherry")
CODEC = Codec(KEYSPACE, Cipher(b"k" * 32))
KEY = Key("", "configmaps", "default", "settings")


def config_map(**data: str) -> Object:
    return {
        "data": {"metadata": '"metadata":{"resourceVersion":"7"', **data},
        "metadata": {"resourceVersion": "5", "name": "settings", "labels": {"app": "a"}, "uid": "u1"},
        "kind": "ConfigMap",
        "apiVersion": "v1",
    }


def draft_of(obj: Object, key: Key = KEY) -> Draft:
    return Draft(CODEC, key, KEYSPACE.name(key), obj)


def test_a_version_is_spliced_into_the_objects_own_metadata_and_nowhere_else() -> None:
    obj = config_map()
    raw = spliced(serialized(obj), 4711)
    obj["metadata"]["resourceVersion"] = "4711"
    assert orjson.loads(raw) == obj
    assert list(orjson.loads(raw)) == ["kind", "apiVersion", "metadata", "data"]


def test_taking_the_version_out_gives_back_what_was_serialized() -> None:
    empty: Object = {"metadata": {}}
    for plain in (serialized(config_map()), serialized(empty)):
        assert unspliced(spliced(plain, 12)) == plain


def test_a_record_moves_to_another_version_without_being_parsed() -> None:
    record = draft_of(config_map()).record(99)
    assert record.at_version(123456).raw == draft_of(config_map()).record(123456).raw
    left = Event(EventType.MODIFIED, record, record.at_version(5)).left.record
    assert (left.version, left.parse()["metadata"]["resourceVersion"]) == (99, "99")


def test_content_is_compared_whatever_the_order_of_its_fields() -> None:
    raw = draft_of(config_map(a="1", b="2")).record(8).raw
    assert same_content(raw, serialized(config_map(b="2", a="1")))
    assert not same_content(raw, serialized(config_map(a="2", b="1")))
    assert not same_content(raw, serialized(config_map(a="1")))


def test_what_the_writer_keeps_is_what_a_reader_of_etcd_gets() -> None:
    for key in (KEY, Key("", "secrets", "default", "settings")):
        draft = draft_of(config_map(), key)
        read = CODEC.record(key, KEYSPACE.name(key), draft.value(17, 2**64 - 1), 3)
        assert read == draft.record(3 * 4096 + 17)


def test_secrets_are_sealed_to_their_key_and_others_are_not() -> None:
    secret = Key("", "secrets", "default", "password")
    value = draft_of(config_map(word="swordfish"), secret).value(0, 1)
    assert b"swordfish" not in value
    assert b"swordfish" in draft_of(config_map(word="swordfish")).value(0, 1)
    with pytest.raises(NotOurs):
        CODEC.record(secret, KEYSPACE.name(secret._replace(name="other")), value, 1)
    with pytest.raises(Unsealable):
        Cipher(b"x" * 32).unseal(b"name", CODEC.cipher.seal(b"name", b"plain"))


@pytest.mark.parametrize("value", [b"", b"\x01", b"\x09" * 30, b"\x01" + bytes(10) + b"{", b"\x01" + bytes(10) + b"[]"])
def test_values_of_others_are_refused_and_nothing_else_happens(value: bytes) -> None:
    with pytest.raises(NotOurs):
        CODEC.record(KEY, b"/wherry//configmaps/default/settings", value, 1)


def test_keys_translate_both_ways_and_own_keys_are_no_objects() -> None:
    for key in (KEY, Key("apps", "deployments", "a", "b"), Key("", "nodes", "", "n1")):
        assert KEYSPACE.key(KEYSPACE.name(key)) == key
    assert KEYSPACE.key(KEYSPACE.own("leader", "controller")) is None
    assert KEYSPACE.key(b"/wherry/\xff/a/b/c") is None
    assert KEYSPACE.bounds(("", "pods"), "a") == (b"/wherry//pods/a/", b"/wherry//pods/a0")


def test_selectable_fields_follow_kubernetes() -> None:
    pod = {"metadata": {"name": "p"}, "spec": {"nodeName": "n", "hostNetwork": True}, "status": {"podIP": "10.0.0.1"}}
    fields = draft_of(pod, Key("", "pods", "d", "p")).fields
    assert (fields["metadata.name"], fields["metadata.namespace"], fields["spec.nodeName"]) == ("p", "d", "n")
    assert (fields["spec.hostNetwork"], fields["status.podIP"], fields["status.phase"]) == ("true", "10.0.0.1", "")
    assert draft_of({"spec": None}, Key("", "nodes", "", "n")).fields["spec.unschedulable"] == "false"
    event = {"metadata": {}, "involvedObject": {"name": "p"}, "source": {"component": "kubelet"}, "reason": "Started"}
    fields = draft_of(event, Key("", "events", "d", "e")).fields
    assert (fields["involvedObject.name"], fields["source"], fields["reason"]) == ("p", "kubelet", "Started")
    assert draft_of({"spec": "garbage", "metadata": {"labels": None}}, Key("", "pods", "d", "p")).labels == {}
