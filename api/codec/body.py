"""One request body to one object, whatever its content type.

Called by server and registry for POST, PUT, DELETE and apply bodies (patches in the other dialects are no objects).
Imports the three readers. Invariant: whatever the bytes are, the only errors are BadRequest and UnsupportedMediaType.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any

from api.codec.faults import cannot_be_handled, not_registered, unknown_format, unrecognized
from api.codec.json_text import Unparsable, parse_json
from api.errors import BadRequest, invalid, invalid_object
from api.kinds import Kind
from api.objects import Object
from api.quick import quick_dataclass
from api.schema.facts import struct_named
from api.schema.walker import json_kind

YAML_VALUES = 50_000
"""The largest known objects have half as many; most clients send JSON, which is a hundred times as quick to read."""
JSON, YAML, PROTOBUF = "application/json", "application/yaml", "application/vnd.kubernetes.protobuf"
_GO_TYPE_META = (
    'struct { APIVersion string "json:\\"apiVersion,omitempty\\""; Kind string "json:\\"kind,omitempty\\"" }'
)


@quick_dataclass(frozen=True, slots=True)
class Decoded:
    """`duplicates` are paths of keys that occur twice in one mapping (`metadata.name`).

    `repeated`: what Go's YAML decoder says of them, when the body was YAML.
    """

    obj: Object
    duplicates: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)


def decode_body(body: bytes, content_type: str, kind: Kind | None) -> Decoded:
    """Decodes a body; apiVersion and kind are filled in from `kind` when absent and must match it when present.

    `kind` None: any object, nothing is filled in. An empty content type means JSON. DeleteOptions may come in any
    API version. The object is not checked against its schema yet. Raises BadRequest, UnsupportedMediaType.
    """
    media = content_type.partition(";")[0].strip().lower() or JSON
    if media == JSON:
        value, duplicates = _read_json(body, kind)
    elif media == YAML:
        value, duplicates, repeated = _read_yaml(body, kind)
        return Decoded(_identified(value, kind, body), duplicates, repeated)
    elif media == PROTOBUF:
        from api.codec.protobuf import decode_envelope

        value, duplicates = decode_envelope(body, kind), []
    else:
        raise unknown_format()
    return Decoded(_identified(value, kind, body), duplicates)


def _read_json(body: bytes, kind: Kind | None) -> tuple[Any, list[str]]:
    try:
        return parse_json(body)
    except Unparsable as fault:
        raise unrecognized(kind, body, f"couldn't get version/kind; json parse error: {fault}") from fault


def _read_yaml(body: bytes, kind: Kind | None) -> tuple[Any, list[str], list[str]]:
    """YAML, or JSON sent as YAML (as Helm does), which is much cheaper to read as what it is.

    Only the YAML decoder has words for keys that repeat, so JSON in which some do is read by it, too.
    """
    if body[:1] == b"{":
        try:
            value, duplicates = parse_json(body)
        except Unparsable:
            pass
        else:
            if not duplicates:
                return value, [], []
    from api.codec.yaml_text import YamlFault, read_documents

    try:
        documents = list(read_documents(body.decode("utf-8"), most=YAML_VALUES))
    except (YamlFault, UnicodeDecodeError) as fault:
        raise unrecognized(kind, body, f"error converting YAML to JSON: {fault}") from fault
    if len(documents) > 1:
        raise unrecognized(kind, body, "the body holds more than one YAML document")
    if not documents:
        return None, [], []
    return documents[0].value, documents[0].duplicates, documents[0].repeated


def _identified(value: Any, kind: Kind | None, body: bytes) -> Object:
    """The value with apiVersion and kind, if it is an object and of the kind that belongs here."""
    if not isinstance(value, dict):
        raise unrecognized(kind, body, f"couldn't get version/kind; json parse error: {_not_an_object(value)}")
    obj: Object = value
    for name in ("apiVersion", "kind"):
        given = obj.get(name)
        if given is not None and type(given) is not str:
            found = json_kind(given)
            why = f"json: cannot unmarshal {found} into Go struct field .{name} of type string"
            raise unrecognized(kind, body, f"couldn't get version/kind; json parse error: {why}")
    if kind is None:
        return obj
    if kind.custom is not None:
        _check_custom(obj, kind, body)
    api_version, name = obj.get("apiVersion") or kind.api_version, obj.get("kind") or kind.kind
    if (api_version != kind.api_version or name != kind.kind) and not _is_delete_options(kind, name):
        raise _mismatch(kind, api_version, name)
    obj["apiVersion"], obj["kind"] = api_version, name
    return obj


def _check_custom(obj: Object, kind: Kind, body: bytes) -> None:
    """Custom objects have to say what they are."""
    name, api_version = obj.get("kind") or "", obj.get("apiVersion") or ""
    if not name:
        raise unrecognized(kind, body, f"Object 'Kind' is missing in '{body.decode('utf-8', 'replace')}'")
    if api_version != kind.api_version:
        raise _other_version(kind, api_version)
    if name != kind.kind:
        metadata = obj.get("metadata")
        named = metadata.get("name") if isinstance(metadata, dict) else ""
        fault = invalid("kind", name, f"must be {kind.kind}")
        raise invalid_object(kind.group, name, named if isinstance(named, str) else "", [fault])


def _other_version(kind: Kind, given: str) -> BadRequest:
    return BadRequest(
        f"the API version in the data ({given}) does not match the expected API version ({kind.api_version})"
    )


def _is_delete_options(kind: Kind, name: str) -> bool:
    return name == kind.kind == "DeleteOptions"


def _mismatch(kind: Kind, api_version: str, name: str) -> BadRequest:
    group, _, version = api_version.rpartition("/")
    if struct_named(group, version, name) is None:
        return not_registered(kind, api_version, name)
    if name == kind.kind:
        return _other_version(kind, api_version)
    why = f"converting (v1.{name}) to ({kind.group.partition('.')[0] or 'core'}.{kind.kind}): unknown conversion"
    return cannot_be_handled(kind, why, given_kind=name, given_version=api_version)


def _not_an_object(value: Any) -> str:
    if value is None:
        return "unexpected end of JSON input"
    return f"json: cannot unmarshal {json_kind(value)} into Go value of type {_GO_TYPE_META}"
