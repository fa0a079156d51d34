"""What nests too deeply to be written again is refused where it comes in, whatever it comes as."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import orjson
import pytest

from api.codec import decode_body
from api.errors import BadRequest, Invalid
from api.kinds import by_gvk
from api.patch.json import json_patch
from tests.unit.codec.test_protobuf import body, field

DEEPEST = 185


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize("levels", [200, 260, 1000])
@pytest.mark.parametrize("dressed", [b"%s", b'{"x": "\\u00e9", "y": %s}', b"--- %s", b"y: %s"])
def test_a_deep_body_is_a_bad_request(levels: int, dressed: bytes) -> None:
    text = dressed % (b'{"a":' * levels + b"1" + b"}" * levels)
    media = "application/yaml" if dressed[:1] in (b"-", b"y") else "application/json"
    with pytest.raises(BadRequest, match="exceeded max depth"):
        decode_body(text, media, None)


def test_a_deep_json_in_protobuf_is_a_bad_request() -> None:
    revision = by_gvk("apps", "v1", "ControllerRevision")
    raw = field(2, field(1, b'{"a":' * 300 + b"1" + b"}" * 300))
    with pytest.raises(BadRequest, match="exceeded max depth"):
        decode_body(body("apps/v1", "ControllerRevision", raw), "application/vnd.kubernetes.protobuf", revision)


def test_what_nests_a_little_less_is_taken() -> None:
    assert orjson.dumps(decode_body(orjson.dumps(nested(DEEPEST)), "application/json", None).obj)


def test_patches_cannot_nest_deeper_either() -> None:
    place = "/a" * DEEPEST
    with pytest.raises(Invalid, match="rejected our request"):
        json_patch(nested(DEEPEST), [{"op": "replace", "path": place, "value": nested(DEEPEST)}])


def test_copies_do_not_fill_the_memory() -> None:
    began = time.perf_counter()
    twice = [{"op": "copy", "from": "/data", "path": f"/data/k{step}"} for step in range(40)]
    with pytest.raises(Invalid, match="rejected our request"):
        json_patch({"data": {"a": "x" * 1000}}, twice)
    assert time.perf_counter() - began < 2


def test_a_whole_number_that_json_has_not_is_a_bad_request() -> None:
    with pytest.raises(BadRequest, match="cannot read"):
        decode_body(b"a: " + b"9" * 400, "application/yaml", None)


@pytest.mark.parametrize("opener", [b"[", b"{", b"- ", b"? ", b"{a: [", b"- - ? "])
def test_a_text_that_only_opens_does_not_reach_the_recursive_composer(opener: bytes) -> None:
    began = time.process_time()
    with pytest.raises(BadRequest, match="exceeded max depth"):
        decode_body(opener * 500_000, "application/yaml", None)
    assert time.process_time() - began < 1


def test_directives_are_few() -> None:
    began = time.process_time()
    with pytest.raises(BadRequest, match="too many directives"):
        decode_body(
            b"".join(b"%%TAG !%d! tag:x,2000:\n" % n for n in range(50_000)) + b"---\na", "application/yaml", None
        )
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    "text",
    [
        b"{" + b"a: b, " * 400_000 + b"}",
        b"- \n" * 400_000,
        b"---\n" * 400_000,
        b"".join(b"a%d: 1\n" % (number % 20_000) for number in range(24_000)),
        b"x: &x {}\n" + b"y: {" + b"".join(b"k%d: 1, " % n for n in range(9_000)) + b"<<: *x, " * 3_000 + b"}",
    ],
    ids=["mapping", "list", "documents", "duplicates", "merges"],
)
def test_few_packed_bytes_of_yaml_cost_little(text: bytes) -> None:
    """Bodies come gzipped: 834 bytes were 1.6 s of CPU for any account."""
    began = time.process_time()
    with contextlib.suppress(BadRequest):
        decode_body(text, "application/yaml", None)
    assert time.process_time() - began < 1.5


def test_too_many_values_are_told_with_what_to_do() -> None:
    with pytest.raises(BadRequest, match="yaml: line 1: more than 50000 values and brackets; JSON may have more"):
        decode_body(b"a: [" + b"1," * 60_000 + b"]", "application/yaml", None)
    assert len(decode_body(b'{"a": [' + b"1," * 60_000 + b"1]}", "application/yaml", None).obj["a"]) == 60_001
