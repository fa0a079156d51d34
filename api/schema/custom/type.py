"""CustomType: everything that generic code asks of the schema of one version of a custom kind.

Hung on its row in the table of kinds (`Kind.custom`); `api.schema`, columns, scales and the registry ask it where they
ask the built-in facts for other kinds. Immutable. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

from api.errors import FieldError, invalid
from api.kinds import Kind
from api.objects import Object
from api.printing import AGE, NAME, Column, age_of, name_of, since
from api.schema.custom import rules
from api.schema.custom.jsonpath import Step, find, parse_path
from api.schema.custom.shaping import drop_nulls, prune, set_defaults
from api.schema.custom.structural import PRESERVE, Structural, parse_structural
from api.schema.custom.values import NEW, WHOLE, embedded_faults, faults_in, list_faults

_MOST_REPLICAS = 2**31 - 1
_TYPES: dict[str, tuple[type, ...]] = {"integer": (int,), "number": (int, float), "boolean": (bool,)}


@dataclass(frozen=True)
class ScalePaths:
    """Where a custom object keeps what its scale subresource shows; `selector` "" when it has none."""

    replicas: str
    status_replicas: str
    selector: str = ""


@dataclass(frozen=True)
class Family:
    """All versions of one definition, and how its objects get from one to another."""

    name: str
    """The definition's."""
    types: dict[str, CustomType] = field(default_factory=dict)
    """By apiVersion, also of versions that are not served: objects may still be stored in them."""
    storage: str = ""
    """The apiVersion in which objects are written."""
    webhook: Mapping[str, Any] | None = None
    """`spec.conversion.webhook`; None: conversion by name only."""


@dataclass(frozen=True)
class CustomType:
    """One version of a custom kind. `schema` is the original, for OpenAPI; `columns` are (column, its path)."""

    schema: Object
    root: Structural
    columns: tuple[tuple[Column, tuple[Step, ...]], ...]
    scale: ScalePaths | None = None
    has_status: bool = False
    deprecated: bool = False
    warning: str = ""
    """Told to everybody who uses this version when it is deprecated; "" for the usual words."""
    ruled: bool = False
    stamp: str = ""
    """Which state of which definition this is."""
    family: Family = field(default=Family(""), repr=False, compare=False)

    @staticmethod
    def of(version: Object, stamp: str = "", family: Family | None = None) -> CustomType:
        """From one of `spec.versions` of a definition that passed validation."""
        schema = (version.get("schema") or {}).get("openAPIV3Schema") or {}
        subresources = version.get("subresources") or {}
        paths = subresources.get("scale")
        root = parse_structural(schema or {PRESERVE: True})
        return CustomType(
            schema=schema,
            root=root,
            columns=tuple(_column(each) for each in version.get("additionalPrinterColumns") or ()),
            scale=_scale(paths) if paths else None,
            has_status="status" in subresources,
            deprecated=bool(version.get("deprecated")),
            warning=version.get("deprecationWarning") or "",
            stamp=stamp,
            ruled=rules.available() and rules.has_rules(root),
            family=family or Family(""),
        )

    def shape(self, obj: Object, *, pruned: bool = True) -> list[str]:
        """Brings an object into its stored form, in place; the paths of unknown fields, which go when `pruned`."""
        unknown = prune(obj, self.root, resource=True) if pruned else []
        drop_nulls(obj, self.root)
        return unknown

    def default(self, obj: Object) -> None:
        set_defaults(obj, self.root)

    def validate(self, obj: Object, old: Object | None, *, subresource: str = "") -> list[FieldError]:
        """Every fault of an object's values, in Kubernetes' order; metadata is judged elsewhere."""
        before = NEW if old is None else old
        faults = list(faults_in(obj, self.root, "", before, resource=True))
        if self.scale is not None and subresource != "status":
            faults += _scale_faults(obj, self.scale)
        faults += embedded_faults(obj, self.root, "")
        faults += list_faults(obj, self.root, "")
        if self.ruled:
            if any(rules.is_blocking(fault) for fault in faults):
                faults.append(invalid(WHOLE, None, rules.BLOCKED))
            else:
                faults += rules.rule_faults(obj, before, self.root)
        return faults

    def headings(self) -> tuple[Column, ...]:
        return (NAME, *(column for column, _ in self.columns)) if self.columns else (NAME, AGE)

    def cells(self, obj: Any, now: datetime) -> list[Any]:
        if not self.columns:
            return [name_of(obj), age_of(obj, now)]
        return [name_of(obj), *(_cell(column, find(obj, path), now) for column, path in self.columns)]


def family_of(definition: Object, stamp: str = "") -> Family:
    """Every version of a definition that passed validation."""
    spec = definition["spec"]
    conversion = spec.get("conversion") or {}
    webhook = conversion.get("webhook") if conversion.get("strategy") == "Webhook" else None
    storage = next((version["name"] for version in spec["versions"] if version["storage"]), "")
    family = Family(definition["metadata"]["name"], storage=f"{spec['group']}/{storage}", webhook=webhook)
    for version in spec["versions"]:
        family.types[f"{spec['group']}/{version['name']}"] = CustomType.of(version, stamp, family)
    return family


def custom_of(kind: Kind) -> CustomType | None:
    return cast("CustomType | None", kind.custom)


def _column(wire: Object) -> tuple[Column, tuple[Step, ...]]:
    path = wire["jsonPath"]
    text = wire.get("description") or f"Custom resource definition column (in JSONPath format): {path}"
    column = Column(wire["name"], text, wire["type"], wire.get("format") or "", wire.get("priority") or 0)
    return column, parse_path(path)


def _scale(wire: Object) -> ScalePaths:
    return ScalePaths(wire["specReplicasPath"], wire["statusReplicasPath"], wire.get("labelSelectorPath") or "")


def _cell(column: Column, found: list[Any], now: datetime) -> Any:
    """A value as the table shows it: by the column's type, null when there is none or it has another type."""
    if not found or found[0] is None:
        return None
    first = found[0]
    if column.type == "date":
        return since(first if isinstance(first, str) else None, now)
    wanted = _TYPES.get(column.type)
    if wanted is not None:
        fits = isinstance(first, wanted) and (column.type == "boolean" or not isinstance(first, bool))
        return first if fits else None
    return " ".join(_text(each) for each in found)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + " ".join(_quoted(each) for each in value) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f'"{name}":{_quoted(each)}' for name, each in value.items()) + "}"
    return str(value)


def _quoted(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else _text(value)


def value_at(obj: Object, path: str) -> Any:
    """What a simple path (`.spec.replicas`) leads to, None for nothing."""
    found = find(obj, parse_path(path)) if path else []
    return found[0] if found else None


def _scale_faults(obj: Object, paths: ScalePaths) -> Iterator[FieldError]:
    for path in (paths.replicas, paths.status_replicas):
        count = value_at(obj, path)
        if count is None:
            continue
        if isinstance(count, bool) or not isinstance(count, int):
            found = {str: "string", bool: "bool", float: "float64", dict: "map[string]interface {}"}
            kind = found.get(type(count), "[]interface {}")
            yield invalid(path, 0, f"{path} accessor error: {_text(count)} is of the type {kind}, expected int64")
        elif count < 0:
            yield invalid(path, count, "should be a non-negative integer")
        elif count > _MOST_REPLICAS:
            yield invalid(path, count, f"should be less than or equal to {_MOST_REPLICAS}")
    selector = value_at(obj, paths.selector)
    if selector is not None and not isinstance(selector, str):
        yield invalid(paths.selector, "", f"{paths.selector} accessor error: {_text(selector)} is no string")
