"""Whatever arrives, the codec refuses it politely and the walker never stumbles; defaults settle at once."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from api.codec import ManifestError, decode_body, load_manifests
from api.codec.json_text import parse_json
from api.errors import BadRequest, UnsupportedMediaType
from api.kinds import KINDS, Kind
from api.schema import check, default, unimplemented
from api.schema.facts import Type, fields_of, known_kinds, struct_of

scalars = st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats(allow_nan=False) | st.text()
kinds = st.sampled_from([Kind(group, version, kind, "x") for group, version, kind in known_kinds()])


def shaped(struct: str, depth: int) -> st.SearchStrategy[Any]:
    """Objects that look like a struct, with wrong values, unknown fields and nulls here and there."""
    names = {
        name: (st.just(None) | scalars | values(field.type, depth - 1)) for name, field in fields_of(struct).items()
    }
    return st.fixed_dictionaries({}, optional={**names, "typo": scalars}) if depth > 0 else scalars


def values(kind: Type, depth: int) -> st.SearchStrategy[Any]:
    if kind.shape == "struct":
        return st.deferred(lambda: shaped(kind.struct, depth))
    if kind.shape == "list" and kind.element is not None:
        return st.lists(values(kind.element, depth), max_size=2)
    if kind.shape == "map" and kind.element is not None:
        return st.dictionaries(st.text(max_size=3), values(kind.element, depth), max_size=2)
    right = {"string": st.text(), "bool": st.booleans(), "int32": st.integers(0, 9), "quantity": st.just("0.5")}
    return right.get(kind.shape, scalars)


@st.composite
def kind_and_object(draw: st.DrawFn) -> tuple[Kind, Any]:
    kind = draw(kinds)
    struct = struct_of(kind)
    assert struct is not None
    return kind, draw(shaped(struct, 4))


@given(kind_and_object())
@settings(max_examples=150, deadline=None)
def test_the_walker_never_raises_and_its_result_is_final(row: tuple[Kind, Any]) -> None:
    kind, obj = row
    before = copy.deepcopy(obj)
    checked = check(kind, obj)
    assert obj == before
    if checked.type_errors or not isinstance(checked.obj, dict):
        return
    again = check(kind, checked.obj)
    assert (again.obj, again.unknown, again.type_errors) == (checked.obj, [], [])
    default(kind, checked.obj)
    once = copy.deepcopy(checked.obj)
    default(kind, checked.obj)
    assert checked.obj == once
    unimplemented(kind, once)


json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)


@given(kinds, json_values)
@settings(max_examples=150, deadline=None)
def test_the_walker_takes_any_json(kind: Kind, value: Any) -> None:
    check(kind, value)


@given(st.binary(max_size=200), st.sampled_from(KINDS), st.sampled_from(["json", "yaml", "vnd.kubernetes.protobuf"]))
@settings(max_examples=300, deadline=None)
def test_random_bytes_are_refused_with_a_4xx(body: bytes, kind: Kind, subtype: str) -> None:
    for prefix in (b"", b"k8s\0", b"{", f"kind: {kind.kind}\n".encode()):
        with contextlib.suppress(BadRequest, UnsupportedMediaType):
            assert isinstance(decode_body(prefix + body, f"application/{subtype}", kind).obj, dict)


@st.composite
def messages(draw: st.DrawFn, depth: int = 3) -> bytes:
    """Bytes that are well-formed protobuf, with numbers and lengths that mostly make sense."""
    out = b""
    for _ in range(draw(st.integers(0, 4))):
        number = draw(st.integers(1, 31))
        if draw(st.booleans()):
            out += _varint(number << 3) + _varint(draw(st.integers(0, (1 << 64) - 1)))
        else:
            data = draw(messages(depth - 1) if depth else st.binary(max_size=6))
            out += _varint(number << 3 | 2) + _varint(len(data)) + data
    return out


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


@given(kinds, messages())
@settings(max_examples=300, deadline=None)
def test_random_protobuf_is_an_object_or_a_bad_request(kind: Kind, message: bytes) -> None:
    meta = b"\n" + _varint(len(kind.api_version)) + kind.api_version.encode()
    meta += b"\x12" + _varint(len(kind.kind)) + kind.kind.encode()
    body = b"k8s\0\n" + _varint(len(meta)) + meta + b"\x12" + _varint(len(message)) + message
    try:
        obj = decode_body(body, "application/vnd.kubernetes.protobuf", kind).obj
    except BadRequest:
        return
    orjson.dumps(obj)
    check(kind, obj)


@given(json_values.filter(lambda value: isinstance(value, dict)), st.booleans())
@settings(deadline=None)
def test_json_without_duplicates_has_none_however_it_is_spaced(value: Any, indent: bool) -> None:
    text = orjson.dumps(value, option=orjson.OPT_INDENT_2 if indent else 0)
    assert parse_json(text) == (orjson.loads(text), [])


@given(st.text(max_size=80))
@settings(max_examples=200, deadline=None)
def test_any_text_is_manifests_or_a_manifest_error(text: str) -> None:
    try:
        load_manifests(text, "f")
    except ManifestError as error:
        assert error.line >= 1
