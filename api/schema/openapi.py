"""OpenAPI v3 documents, one a group version, generated from the same facts that check and default use.

Called by the server's /openapi/v3 (which keeps the encoded document) and by tests. kubectl reads from it how to patch
(merge keys), whether the server validates fields (the `fieldValidation` parameter), and what `kubectl explain` prints.
Paths are in `openapi_paths`; descriptions are our own, in `data/descriptions.json`.
Source of the extensions: https://kubernetes.io/docs/concepts/overview/kubernetes-api/#openapi-v3.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import Any

import orjson

from api.kinds import Kind
from api.objects import Object
from api.schema.custom.structural import PRESERVE, RULES
from api.schema.custom.type import custom_of
from api.schema.facts import Field, Type, fields_of, is_atomic, struct_of
from api.schema.openapi_paths import paths_of

REF = "#/components/schemas/"
_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_EXTENSIONS = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1."
_LIST_META = "meta.v1.ListMeta"
_ALWAYS = ("meta.v1.DeleteOptions", "meta.v1.Status")

_SPECIALS: dict[str, tuple[str, Object]] = {
    "time": (_META + "Time", {"type": "string", "format": "date-time"}),
    "microtime": (_META + "MicroTime", {"type": "string", "format": "date-time"}),
    "duration": (_META + "Duration", {"type": "string"}),
    "fields": (_META + "FieldsV1", {"type": "object"}),
    "raw": ("io.k8s.apimachinery.pkg.runtime.RawExtension", {"type": "object"}),
    "quantity": (
        "io.k8s.apimachinery.pkg.api.resource.Quantity",
        {"oneOf": [{"type": "string"}, {"type": "number"}]},
    ),
    "intorstring": (
        "io.k8s.apimachinery.pkg.util.intstr.IntOrString",
        {"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]},
    ),
    "json": (_EXTENSIONS + "JSON", {}),
    "propsorbool": (_EXTENSIONS + "JSONSchemaPropsOrBool", {}),
    "propsorarray": (_EXTENSIONS + "JSONSchemaPropsOrArray", {}),
    "propsorstrings": (_EXTENSIONS + "JSONSchemaPropsOrStringArray", {}),
}
_SCALARS: dict[str, Object] = {
    "string": {"type": "string"},
    "bool": {"type": "boolean"},
    "int32": {"type": "integer", "format": "int32"},
    "int64": {"type": "integer", "format": "int64"},
    "float64": {"type": "number", "format": "double"},
    "bytes": {"type": "string", "format": "byte"},
}
_PATCH = {"type": "object", "description": "A change to an object, in the dialect that the content type names."}
_MERGE_NAMES = (
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-patch-merge-key",
    "x-kubernetes-patch-strategy",
    "x-kubernetes-map-type",
)


def definition(kind: Kind) -> Object:
    """The JSON schema of `kind` as OpenAPI shows it, references unresolved; {} for a kind without built-in types."""
    struct = struct_of(kind)
    return _struct_schema(struct, _gvks(kind)) if struct is not None else {}


def openapi_v3(group: str, version: str, kinds: Iterable[Kind]) -> Object:
    """The document served at /openapi/v3/apis/GROUP/VERSION (or /openapi/v3/api/v1) for the given kinds."""
    served = [kind for kind in kinds if (kind.group, kind.version) == (group, version)]
    schemas = _Schemas()
    paths: Object = {}
    for kind in served:
        schemas.add_kind(kind)
        paths.update(paths_of(kind, schemas.name_for(kind), schemas.list_name_for(kind), schemas.reference_to))
    for struct in _ALWAYS:
        schemas.add(struct)
    schemas.components[_META + "DeleteOptions"]["x-kubernetes-group-version-kind"] = [
        {"group": "", "kind": "DeleteOptions", "version": "v1"},
        *([{"group": group, "kind": "DeleteOptions", "version": version}] if group else ()),
    ]
    schemas.components[_META + "Patch"] = _PATCH
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "unversioned"},
        "paths": dict(sorted(paths.items())),
        "components": {"schemas": dict(sorted(schemas.components.items()))},
    }


def component_name(struct: str) -> str:
    """`io.k8s.api.core.v1.Pod` for core.v1.Pod: the names client libraries know."""
    package, _, name = struct.rpartition(".")
    if package == "meta.v1":
        return _META + name
    if package == "apiextensions.v1":
        return _EXTENSIONS + name
    return f"io.k8s.api.{struct}"


class _Schemas:
    """The components of one document; adding a struct adds all that it mentions."""

    def __init__(self) -> None:
        self.components: Object = {}

    def name_for(self, kind: Kind) -> str:
        struct = struct_of(kind)
        if struct is not None:
            return component_name(struct)
        return f"{'.'.join(reversed(kind.group.split('.')))}.{kind.version}.{kind.kind}"

    def list_name_for(self, kind: Kind) -> str:
        return self.name_for(kind) + "List"

    def reference_to(self, kind: Kind) -> str:
        """The component of another kind, such as a subresource's; it is added when missing."""
        struct = struct_of(kind)
        if struct is not None:
            self.add(struct, _gvks(kind))
        return self.name_for(kind)

    def add_kind(self, kind: Kind) -> None:
        struct = struct_of(kind)
        if struct is None:
            self.components[self.name_for(kind)] = _custom_schema(kind)
            self.add("meta.v1.ObjectMeta")
        else:
            self.add(struct, _gvks(kind))
        if "list" in kind.verbs:
            self.add(_LIST_META)
            self.components[self.list_name_for(kind)] = _list_schema(kind, self.name_for(kind))

    def add(self, struct: str, gvks: list[Object] | None = None) -> None:
        waiting = [(struct, gvks)]
        while waiting:
            current, kinds = waiting.pop()
            name = component_name(current)
            if name in self.components:
                if kinds:
                    self.components[name]["x-kubernetes-group-version-kind"] = kinds
                continue
            self.components[name] = _struct_schema(current, kinds)
            for field in fields_of(current).values():
                inner = _innermost(field.type)
                if inner.shape == "struct":
                    waiting.append((inner.struct, None))
                elif inner.shape in _SPECIALS:
                    special, schema = _SPECIALS[inner.shape]
                    self.components.setdefault(special, {**schema, **_described(inner.shape)})
                    if inner.shape.startswith("props"):
                        waiting.append(("apiextensions.v1.JSONSchemaProps", None))


def _gvks(kind: Kind) -> list[Object]:
    return [{"group": kind.group, "kind": kind.kind, "version": kind.version}]


def _innermost(kind: Type) -> Type:
    while kind.element is not None:
        kind = kind.element
    return kind


def _struct_schema(struct: str, gvks: list[Object] | None) -> Object:
    fields = fields_of(struct)
    schema: Object = {"type": "object", **_described(struct)}
    if fields:
        schema["properties"] = {name: _property(struct, field) for name, field in sorted(fields.items())}
    required = sorted(name for name, field in fields.items() if field.required)
    if required:
        schema["required"] = required
    if is_atomic(struct):
        schema["x-kubernetes-map-type"] = "atomic"
    if gvks:
        schema["x-kubernetes-group-version-kind"] = gvks
    return schema


def _property(struct: str, field: Field) -> Object:
    schema = _type_schema(field.type)
    text = _text(f"{struct}.{field.name}") or _text(field.name)
    if "$ref" in schema:
        schema = {"allOf": [schema]}
    if text:
        schema["description"] = text
    for name, value in zip(_MERGE_NAMES, field.merge, strict=True):
        if value:
            schema[name] = value.split(",") if name.endswith("map-keys") else value
    return schema


def _type_schema(kind: Type) -> Object:
    if kind.shape == "struct":
        return {"$ref": REF + component_name(kind.struct)}
    if kind.shape in _SPECIALS:
        return {"$ref": REF + _SPECIALS[kind.shape][0]}
    if kind.shape in ("list", "items"):
        assert kind.element is not None
        return {"type": "array", "items": _type_schema(kind.element)}
    if kind.shape == "map":
        assert kind.element is not None
        return {"type": "object", "additionalProperties": _type_schema(kind.element)}
    return dict(_SCALARS[kind.shape])


def _list_schema(kind: Kind, item: str) -> Object:
    return {
        "type": "object",
        "description": f"A list of {kind.plural}.",
        "properties": {
            "apiVersion": {"type": "string", "description": _text("apiVersion")},
            "kind": {"type": "string", "description": _text("kind")},
            "metadata": {"allOf": [{"$ref": REF + component_name(_LIST_META)}]},
            "items": {"type": "array", "items": {"$ref": REF + item}},
        },
        "required": ["items"],
        "x-kubernetes-group-version-kind": [{"group": kind.group, "kind": kind.kind + "List", "version": kind.version}],
    }


def _custom_schema(kind: Kind) -> Object:
    """A definition's own schema, with what every object has and it need not say."""
    custom = custom_of(kind)
    schema: Object = orjson.loads(orjson.dumps(custom.schema)) if custom is not None else {PRESERVE: True}
    schema["type"] = "object"
    schema.pop(RULES, None)
    schema["properties"] = {
        **(schema.get("properties") or {}),
        "apiVersion": {"type": "string", "description": _text("apiVersion")},
        "kind": {"type": "string", "description": _text("kind")},
        "metadata": {
            "allOf": [{"$ref": REF + component_name("meta.v1.ObjectMeta")}],
            "description": _text("metadata"),
        },
    }
    schema["x-kubernetes-group-version-kind"] = _gvks(kind)
    return schema


@cache
def _descriptions() -> dict[str, str]:
    loaded: dict[str, Any] = orjson.loads((files("api.schema") / "data" / "descriptions.json").read_bytes())
    return loaded


def _text(name: str) -> str:
    return _descriptions().get(name, "")


def _described(name: str) -> Object:
    text = _text(name)
    return {"description": text} if text else {}
