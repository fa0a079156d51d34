"""Random structural schemas with nasty patterns, rules and numbers: refused in field errors, or able to judge anything.

WHERRY_FULL=1 takes 100,000 of them. A failure is told with its seed: `judged(SEED)`.
"""

from __future__ import annotations

import copy
import json
import os
import random
import time
from typing import Any

import orjson

from api.kinds import by_gvk
from api.objects import Object
from api.schema import check
from api.schema.custom.type import CustomType
from controller.registry.validation.schemas import check_schema
from tests.integration.chaos.fuzzing.objects import FLOATS, NUMBERS, PATTERNS, Maker

SCHEMAS = 100_000 if os.environ.get("WHERRY_FULL") else 1500
SLOW_SECONDS = 2.0
RULES = (
    *("self == oldSelf", "self.a > 1", "has(self.a)", "self.all(x, self.all(y, true))", "self.matches('(a+)+$')"),
    *("self.sum() > 1", "self.isSorted()", "self.max() > self.min()", "self.findAll('a*').size() > 1", "1/0 == self"),
    *(
        "self.find('(') == ''",
        "self in [1,'a']",
        "self + self == self",
        "self.exists(x, x == 'a')",
        "self.a.b.c",
        "'a'",
    ),
    *("duration(self) > duration('1h')", "self.map(x, x*2).size() > 0", "oldSelf.a == self.a", "self.split(',') == []"),
    *("self ? true : false", "-self < 0", "self*9223372036854775807 > 1", "int(self) == 1", "string(self) == 'x'", "x"),
    *("timestamp(self) > timestamp('2020-01-01T00:00:00Z')", "self.getFullYear() > 1", "type(self) == int", "self["),
    *("self[0] == 1", "self['a'] == 1", "dyn(self).b", "(" * 40 + "1", "self.replace('a','b') == 'b'", "\x00", "true"),
    *("self.substring(5) == ''", "math.greatest(self) == 1", "self.?a.orValue(1) == 1", "base64.decode(self) == b'a'"),
)
FORMATS = (
    *("int32", "int64", "date-time", "date", "duration", "byte", "uuid", "ipv4", "ipv6", "cidr", "email", "hostname"),
    *("uri", "mac", "password", "double", "isbn", "creditcard", "hexcolor", "rgbcolor", "k8s-short-name", "unheard"),
)
_NUMERIC = ("minimum", "maximum", "exclusiveMaximum", "exclusiveMinimum", "multipleOf", "format", "enum")
_KEYWORDS: dict[str, tuple[str, ...]] = {
    "string": ("pattern", "maxLength", "minLength", "format", "enum"),
    "integer": _NUMERIC,
    "number": _NUMERIC,
    "array": ("minItems", "maxItems", "uniqueItems", "enum"),
    "object": ("minProperties", "maxProperties", "required", "enum"),
    "boolean": ("enum",),
}
_ANY_KEYWORD = (
    "pattern",
    "maxLength",
    "minimum",
    "multipleOf",
    "enum",
    "format",
    "maxItems",
    "required",
    "uniqueItems",
)
_NAMES = ("a", "b", "c", "namespace", "a-b", "a.b", "é", "__x", "metadata")


class Author:
    """Writes schemas and values for them, by chance."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.maker = Maker(self.chance)

    def schema(self, depth: int, kind: str = "") -> Object:
        chance = self.chance
        kind = kind or chance.choice((*_KEYWORDS, "object", "array", "int-or-string", "any"))
        if depth <= 0 and kind in ("array", "object"):
            kind = "string"
        made: Object = {"type": kind} if kind in _KEYWORDS else {}
        if kind == "int-or-string":
            made["x-kubernetes-int-or-string"] = True
        elif kind == "any":
            made["x-kubernetes-preserve-unknown-fields"] = True
        elif kind == "object":
            made |= self._fields(depth)
        elif kind == "array":
            made |= self._items(depth)
        for name in chance.sample(_KEYWORDS.get(kind, _ANY_KEYWORD), chance.choice((0, 0, 1))):
            made[name] = self._keyword(name)
        if chance.random() < 0.15:
            made[chance.choice(("allOf", "anyOf", "oneOf"))] = [
                self._logic(made, 2) for _ in range(chance.randint(0, 3))
            ]
        if chance.random() < 0.08:
            made["not"] = self._logic(made, 2)
        if chance.random() < 0.15:
            made["nullable"] = True
        if chance.random() < 0.2:
            made["x-kubernetes-validations"] = [self._rule() for _ in range(chance.randint(1, 2))]
        if chance.random() < 0.1:
            made["default"] = self.value(made) if chance.random() < 0.7 else self.maker.anything(2)
        return made

    def _fields(self, depth: int) -> Object:
        which = self.chance.random()
        if which < 0.7:
            names = self.chance.sample(_NAMES, self.chance.randint(1, 3))
            return {"properties": {name: self.schema(depth - 1) for name in names}}
        if which < 0.9:
            return {"additionalProperties": self.schema(depth - 1)}
        return {"x-kubernetes-preserve-unknown-fields": True, "x-kubernetes-embedded-resource": which < 0.95}

    def _items(self, depth: int) -> Object:
        which = self.chance.choice(("", "", "set", "map", "atomic"))
        made: Object = {"items": self.schema(depth - 1)} | ({"x-kubernetes-list-type": which} if which else {})
        if which == "map":
            fields = {"k": self.schema(0), "v": self.schema(depth - 1)}
            made["items"] = {"type": "object", "properties": fields, "required": ["k"]}
            made["x-kubernetes-list-map-keys"] = ["k"]
        return made

    def _rule(self) -> Object:
        chance = self.chance
        rule: Object = {"rule": chance.choice(RULES)}
        more = {
            "messageExpression": chance.choice(RULES),
            "message": self.maker.text(),
            "optionalOldSelf": True,
            "reason": chance.choice(("FieldValueInvalid", "FieldValueForbidden", "x")),
            "fieldPath": chance.choice((".a", ".a.b", "['a']", "x")),
        }
        return rule | {name: value for name, value in more.items() if chance.random() < 0.15}

    def _keyword(self, name: str) -> Any:
        chance = self.chance
        if chance.random() < 0.04:
            return self.maker.anything(2)
        match name:
            case "pattern":
                return chance.choice(PATTERNS)
            case "format":
                return chance.choice(FORMATS)
            case "enum":
                return [self.maker.anything(1) for _ in range(chance.randint(0, 3))]
            case "required":
                return [chance.choice("abc") for _ in range(chance.randint(0, 2))]
            case "minimum" | "maximum" | "multipleOf":
                return chance.choice(NUMBERS + FLOATS)
            case "uniqueItems" | "exclusiveMinimum" | "exclusiveMaximum":
                return chance.random() < 0.7
        return chance.choice((0, 1, 2, 5, -1, 2**31, 2**63 - 1))

    def _logic(self, outer: Object, depth: int) -> Object:
        """What may stand inside allOf and its like."""
        chance = self.chance
        made: Object = {name: self._keyword(name) for name in chance.sample(_ANY_KEYWORD, chance.randint(1, 2))}
        if "properties" in outer and chance.random() < 0.5:
            made["properties"] = {name: self._logic(below, depth - 1) for name, below in outer["properties"].items()}
        if isinstance(outer.get("items"), dict) and chance.random() < 0.5:
            made["items"] = self._logic(outer["items"], depth - 1)
        if depth > 0 and chance.random() < 0.2:
            made[chance.choice(("anyOf", "allOf", "oneOf"))] = [self._logic(outer, depth - 1)]
        if depth > 0 and chance.random() < 0.1:
            made["not"] = self._logic(outer, depth - 1)
        return made

    def value(self, schema: Any) -> Any:
        """Mostly of the schema's type."""
        chance = self.chance
        if chance.random() < 0.05:
            return self.maker.anything(2)
        match schema.get("type"):
            case "object" if "properties" in schema:
                fields = schema["properties"].items()
                return {name: self.value(below) for name, below in fields if chance.random() < 0.8}
            case "object" if isinstance(schema.get("additionalProperties"), dict):
                below = schema["additionalProperties"]
                return {self.maker.text(): self.value(below) for _ in range(chance.randint(0, 3))}
            case "array" if isinstance(schema.get("items"), dict):
                return [self.value(schema["items"]) for _ in range(chance.randint(0, 3))]
            case "string":
                return self.maker.text()
            case "integer" | "number":
                return chance.choice(NUMBERS if schema["type"] == "integer" else FLOATS)
            case "boolean":
                return chance.random() < 0.5
        return self.maker.anything(2)


def judged(seed: int) -> int:
    """How many objects a schema judged: 0 when it was refused."""
    author = Author(seed)
    schema: Object = {"type": "object", "properties": {"spec": author.schema(4, "object"), "status": author.schema(2)}}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": _as_sent(schema)}}
    kind = by_gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition")
    assert kind is not None
    checked = check(kind, {"metadata": {}, "spec": {"group": "g", "versions": [version]}})
    if checked.type_errors:
        return 0
    (version,) = checked.obj["spec"]["versions"]
    if check_schema(version["schema"]["openAPIV3Schema"], "spec"):
        return 0
    custom, old = CustomType.of(version), None
    for _ in range(6):
        made = {name: author.value(below) for name, below in schema["properties"].items()}
        obj = _as_sent({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "x"}, **made})
        custom.shape(obj)
        custom.default(obj)
        faults = custom.validate(obj, old)
        orjson.dumps([[fault.field, fault.reason, fault.body] for fault in faults])
        if not faults:
            old = copy.deepcopy(obj)
    return 6


def _as_sent(value: Any) -> Any:
    return orjson.loads(json.dumps(value).encode("utf-8", "surrogatepass"))


def test_a_schema_is_refused_or_judges_anything_in_time() -> None:
    total = 0
    for seed in range(SCHEMAS):
        began = time.thread_time()
        try:
            total += judged(seed)
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error
        assert time.thread_time() - began < SLOW_SECONDS, f"seed {seed}"
    assert total > SCHEMAS, "most schemas are not even taken seriously"
