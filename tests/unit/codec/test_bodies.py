"""Request bodies: which format, which kind, and how Kubernetes words it when they cannot be read."""

from __future__ import annotations

import orjson
import pytest

from api.codec import decode_body
from api.codec.json_text import parse_json
from api.errors import BadRequest, UnsupportedMediaType
from api.kinds import Kind

POD = Kind("", "v1", "Pod", "pods")
CONFIG_MAP = Kind("", "v1", "ConfigMap", "configmaps")
SCALER = Kind("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")
DELETE_OPTIONS = Kind("", "v1", "DeleteOptions", "")
JSON, YAML = "application/json", "application/yaml"
SCHEME = 'in scheme "pkg/api/legacyscheme/scheme.go:30"'


def message(body: bytes, content_type: str = JSON, kind: Kind | None = CONFIG_MAP) -> str:
    with pytest.raises(BadRequest) as caught:
        decode_body(body, content_type, kind)
    return caught.value.message


def test_api_version_and_kind_are_filled_in() -> None:
    for content_type in (JSON, "", "application/json; charset=utf-8", YAML):
        decoded = decode_body(b'{"data": {"a": "b"}}', content_type, CONFIG_MAP)
        assert decoded.obj == {"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "b"}}
        assert decoded.duplicates == []
    assert decode_body(b"{}", JSON, None).obj == {}


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(UnsupportedMediaType) as caught:
        decode_body(b"x", "text/plain", CONFIG_MAP)
    assert caught.value.message == (
        "the body of the request was in an unknown format - accepted media types include: "
        "application/json, application/yaml, application/vnd.kubernetes.protobuf"
    )


UNRECOGNIZED = "the object provided is unrecognized (must be of type ConfigMap): "
PARSE = UNRECOGNIZED + "couldn't get version/kind; json parse error: "


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"{", PARSE + "unexpected end of JSON input ({)"),
        (b"", PARSE + "unexpected end of JSON input (<empty>)"),
        (b"nope", PARSE + "invalid character 'n' looking for beginning of value (6e6f7065)"),
        (
            b'{"kind": 5}',
            PARSE + 'json: cannot unmarshal number into Go struct field .kind of type string ({"kind": 5})',
        ),
    ],
)
def test_what_is_no_json_object_is_unrecognized(body: bytes, expected: str) -> None:
    assert message(body) == expected


def test_a_long_body_is_shown_in_part() -> None:
    assert message(b'{"a": ' + b"x" * 50).endswith('({"a": xxxxxxxxxxxxxxxxxxxxxxxx ...)')
    assert "cannot unmarshal array into Go value of type struct" in message(b"[1]")


def test_the_kind_must_be_the_one_of_the_url() -> None:
    foo = message(b'{"apiVersion": "v1", "kind": "Foo"}', kind=POD)
    assert (
        foo == f'Foo in version "v1" cannot be handled as a Pod: no kind "Foo" is registered for version "v1" {SCHEME}'
    )
    other = message(b'{"apiVersion": "foo/v1", "kind": "Pod"}', kind=POD)
    assert (
        other
        == f'Pod in version "v1" cannot be handled as a Pod: no kind "Pod" is registered for version "foo/v1" {SCHEME}'
    )
    assert "unknown conversion" in message(b'{"apiVersion": "apps/v1", "kind": "Deployment"}', kind=POD)
    assert message(b'{"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler"}', kind=SCALER) == (
        "the API version in the data (autoscaling/v1) does not match the expected API version (autoscaling/v2)"
    )


def test_delete_options_may_come_in_the_version_of_any_group() -> None:
    body = b'{"apiVersion": "apps/v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0}'
    assert decode_body(body, JSON, DELETE_OPTIONS).obj["gracePeriodSeconds"] == 0


@pytest.mark.parametrize(
    ("body", "paths"),
    [
        (b'{"a":1,"b":{"a":1},"c":[{"a":"x:y"}]}', []),
        (b'{"kind":"A","kind":"B"}', ["kind"]),
        (b'{"a" :1,"b":{"c":[{"d":1,"e":2,"d":3}]}}', ["b.c[0].d"]),
        (b'{"a":{"x":1},"a":{"y":2}}', ["a"]),
        (b'{"a":1,"\\u0061":2}', ["a"]),
        (b'{"a":"\\u003a","b":1,"b":2}', ["b"]),
        (b'{"a":1,"a":2,"a":3}', ["a"]),
    ],
)
def test_duplicate_keys_are_found_by_path(body: bytes, paths: list[str]) -> None:
    value, duplicates = parse_json(body)
    assert duplicates == paths
    assert value == orjson.loads(body)


def test_yaml_is_read_as_kubernetes_reads_it() -> None:
    text = b"""
    data:
      time: 12:30
      date: 2024-01-01
      octal: 0644
      modern: 0o17
      hex: 0x1F
      float: 1e3
      half: .5
      words: [yes, Off, ~, "no", null]
      1: one
      true: two
      folded: >-
        a
        b
    base: &base {x: 1, y: 2}
    merged: {<<: *base, x: 3}
    """
    assert decode_body(text, YAML, None).obj == {
        "data": {
            "time": "12:30",
            "date": "2024-01-01",
            "octal": 420,
            "modern": 15,
            "hex": 31,
            "float": 1000,
            "half": 0.5,
            "words": [True, False, None, "no", None],
            "1": "one",
            "true": "two",
            "folded": "a b",
        },
        "base": {"x": 1, "true": 2},
        "merged": {"x": 3, "true": 2},
    }


def test_yaml_duplicates_are_found() -> None:
    found = decode_body(b"data: {a: x, a: z}\nkind: ConfigMap\nkind: ConfigMap\n", YAML, CONFIG_MAP)
    assert found.duplicates == ["data.a", "kind"]
    assert found.repeated == ['line 1: key "a" already set in map', 'line 3: key "kind" already set in map']
    in_json = decode_body(b'{"data": {"a": "1",\n "a": "2"}}', YAML, CONFIG_MAP)
    assert in_json.repeated == ['line 2: key "a" already set in map']


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: [", "yaml: line 2: did not find expected node content"),
        ("a: &x [*x]", "yaml: line 1: an anchor contains itself"),
        ("a: *x", "yaml: line 1: found undefined alias"),
        ("a: !!python/object:os.system x", "yaml: line 1: unknown tag tag:yaml.org,2002:python/object:os.system"),
        ("a: .inf", "yaml: line 1: cannot read '.inf' as float"),
        ("[a]: b", "yaml: line 1: a key must be a plain word"),
        ("a: 1\n---\nb: 2", "the body holds more than one YAML document"),
        ("[" * 5000, "yaml: "),
        ("a: " + "[" * 300 + "]" * 300, "yaml: line 1: exceeded max depth"),
    ],
)
def test_bad_yaml_is_refused_with_its_line(text: str, why: str) -> None:
    assert why in message(text.encode(), YAML)


def test_an_alias_bomb_is_refused() -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    for previous, name in zip("abcdefgh", "bcdefghi", strict=True):
        lines.append(f"{name}: &{name} [{', '.join(['*' + previous] * 9)}]")
    assert "document contains excessive aliasing" in message("\n".join(lines).encode(), YAML)
    long = "a: &a " + "x" * 100_000 + "\nb: [" + ", ".join(["*a"] * 1000) + "]"
    assert "document contains excessive aliasing" in message(long.encode(), YAML)


def test_bytes_that_are_no_text_are_refused_as_yaml() -> None:
    assert "error converting YAML to JSON" in message(b"\xff\xfe\x00", YAML)
    assert UNRECOGNIZED in message(b"\x00\x01", YAML)
