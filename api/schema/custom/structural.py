"""A structural schema: `openAPIV3Schema` parsed into frozen nodes that the rest of this package walks.

Made once for each version of a CustomResourceDefinition, after that passed validation. A node keeps what acts on
objects; descriptions and the like stay in the original. Rules:
https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from api.objects import Object

_VALUE_KEYWORDS = (
    *("maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum", "multipleOf"),
    *("maxLength", "minLength", "pattern", "format", "enum"),
    *("maxItems", "minItems", "uniqueItems", "maxProperties", "minProperties", "required"),
    *("allOf", "anyOf", "oneOf", "not"),
)
INT_OR_STRING = "x-kubernetes-int-or-string"
PRESERVE = "x-kubernetes-preserve-unknown-fields"
EMBEDDED = "x-kubernetes-embedded-resource"
RULES = "x-kubernetes-validations"


@dataclass(frozen=True, eq=False)
class Structural:
    """One place of the schema, equal only to itself. `type` "" means int-or-string or anything at all.

    `additional` is the schema of a map's values, True where any value may stand. `keywords` holds the value
    validations as JSON schema has them, `rules` the CEL rules.
    """

    type: str = ""
    nullable: bool = False
    int_or_string: bool = False
    properties: Mapping[str, Structural] = field(default_factory=dict)
    additional: Structural | bool = False
    items: Structural | None = None
    preserves_unknown: bool = False
    embedded: bool = False
    has_default: bool = False
    default: Any = None
    list_type: str = ""
    list_map_keys: tuple[str, ...] = ()
    map_type: str = ""
    keywords: Mapping[str, Any] = field(default_factory=dict)
    rules: tuple[Mapping[str, Any], ...] = ()

    def child(self, name: str) -> Structural | None:
        """The schema of a field or of a map's value; None where the schema says nothing."""
        found = self.properties.get(name)
        if found is None and isinstance(self.additional, Structural):
            return self.additional
        return found

    @property
    def knows_fields(self) -> bool:
        """Whether a field that has no schema here is unknown (and pruned)."""
        return not self.preserves_unknown and not self.additional


def parse_structural(schema: Object) -> Structural:
    """The node tree of an `openAPIV3Schema` that passed validation."""
    additional = schema.get("additionalProperties", False)
    items = schema.get("items")
    return Structural(
        type=schema.get("type") or "",
        nullable=bool(schema.get("nullable")),
        int_or_string=bool(schema.get(INT_OR_STRING)),
        properties={name: parse_structural(child) for name, child in (schema.get("properties") or {}).items()},
        additional=parse_structural(additional) if isinstance(additional, dict) else bool(additional),
        items=parse_structural(items) if isinstance(items, dict) else None,
        preserves_unknown=bool(schema.get(PRESERVE)),
        embedded=bool(schema.get(EMBEDDED)),
        has_default="default" in schema,
        default=schema.get("default"),
        list_type=schema.get("x-kubernetes-list-type") or "",
        list_map_keys=tuple(schema.get("x-kubernetes-list-map-keys") or ()),
        map_type=schema.get("x-kubernetes-map-type") or "",
        keywords={name: schema[name] for name in _VALUE_KEYWORDS if name in schema},
        rules=tuple(schema.get(RULES) or ()),
    )
