"""CEL rules of custom resources (x-kubernetes-validations): compiled once, evaluated on every write.

Called by CustomType (evaluate) and when a definition is validated (compile). Needs the extra `wherry[cel]`; without it
`available()` is False and definitions with rules are answered with a warning. Values are handed over as the schema
types them: numbers as doubles, date-time and duration strings as such, field names that CEL cannot spell escaped.
Rules: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#validation-rules
"""

from __future__ import annotations

import importlib.util
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache, lru_cache
from typing import Any, NamedTuple

from api.errors import FieldError, duplicate, invalid
from api.schema.custom.patterns import find_all
from api.schema.custom.structural import Structural
from api.schema.custom.values import NEW, WHOLE, below, children

BLOCKED = (
    "some validation rules were not checked because the object was invalid; "
    "correct the existing errors to complete validation"
)
BUDGET_SECONDS = 1.0
"""Kubernetes' runtime cost budget of a request is meant to be about that."""
NO_BUDGET = "validation failed due to running out of cost budget, no further validation rules will be run"
_BLOCKING = frozenset(
    {"FieldValueRequired", "FieldValueNotSupported", "FieldValueTooLong", "FieldValueTooMany", "FieldValueTypeInvalid"}
)
_VARIABLES = ("self", "oldSelf", "object", "oldObject", "request", "params", "namespaceObject", "variables")
"""What expressions see: the first two in rules of custom resources, the others in admission."""
_OLD = re.compile(r"\boldSelf\b")
_MISSING_KEY = re.compile(r'^NOT_FOUND: Key not found in map : "(.*)"$')
_REASONS = {
    "FieldValueForbidden": "Forbidden",
    "FieldValueRequired": "Required value",
}
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_RESERVED = frozenset(
    (
        *("true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if"),
        *("import", "let", "loop", "package", "namespace", "return", "var", "void", "while"),
    )
)
_ESCAPES = (("__", "__underscores__"), (".", "__dot__"), ("-", "__dash__"), ("/", "__slash__"))
_DURATION_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


class BadRule(ValueError):
    """A rule that does not compile; the message is the compiler's."""


def available() -> bool:
    return importlib.util.find_spec("cel_expr_python") is not None


def has_rules(node: Structural) -> bool:
    children = [*node.properties.values(), *([node.items] if node.items else [])]
    if isinstance(node.additional, Structural):
        children.append(node.additional)
    return bool(node.rules) or any(has_rules(child) for child in children)


def is_blocking(fault: FieldError) -> bool:
    """Whether rules are not evaluated on an object with such a fault."""
    return fault.reason in _BLOCKING


@cache
def _environment() -> Any:
    from cel_expr_python import cel
    from cel_expr_python.ext import ext_bindings, ext_encoders, ext_math, ext_optional, ext_strings

    extensions = [
        ext_strings.ExtStrings(),
        ext_math.ExtMath(),
        ext_optional.ExtOptional(),
        ext_bindings.ExtBindings(),
        ext_encoders.ExtEncoders(),
    ]
    kind = cel.Type
    variables = dict.fromkeys(_VARIABLES, kind.DYN)
    return cel.NewEnv(variables=variables, extensions=extensions, functions=_functions(cel))


def _functions(cel: Any) -> list[Any]:
    """Kubernetes' own additions for lists and regular expressions."""
    kind = cel.Type
    many = kind.List(kind.DYN)

    def declared(name: str, result: Any, parameters: list[Any], act: Any) -> Any:
        return cel.FunctionDecl(name, [cel.Overload(f"wherry_{name}", result, parameters, True, act)])

    return [
        declared("isSorted", kind.BOOL, [many], lambda items: list(items) == sorted(items)),
        declared("sum", kind.DYN, [many], lambda items: sum(items)),
        declared("min", kind.DYN, [many], lambda items: min(items)),
        declared("max", kind.DYN, [many], lambda items: max(items)),
        declared("find", kind.STRING, [kind.STRING, kind.STRING], _find),
        declared(
            "findAll", kind.List(kind.STRING), [kind.STRING, kind.STRING], lambda text, pattern: find_all(pattern, text)
        ),
    ]


def _find(text: str, pattern: str) -> str:
    return next(iter(find_all(pattern, text, 1)), "")


@lru_cache(maxsize=4096)
def compile_rule(text: str) -> Any:
    """A compiled expression. Raises BadRule."""
    try:
        return _environment().compile(text)
    except RuntimeError as error:
        raise BadRule(f"compilation failed: {error}".replace("INVALID_ARGUMENT: ", "", 1)) from error


def rule_faults(value: Any, old: Any, node: Structural) -> Iterator[FieldError]:
    """The faults that rules find in a value; `old` is what it replaces, or NEW. What did not change is not judged."""
    budget = _Budget(BUDGET_SECONDS)
    try:
        yield from _rule_faults(value, old, node, "", budget)
    except _Exhausted as ended:
        yield ended.fault


@dataclass
class _Budget:
    """What the rules of one object may take altogether, in seconds of computing."""

    left: float

    def evaluate(self, text: str, data: Mapping[str, Any], where: str, message: str) -> Any:
        """The outcome of a rule. Raises _Exhausted."""
        began = time.thread_time()
        try:
            outcome = compile_rule(text).eval(data=data)
        except RuntimeError as error:
            why = (
                f"'{error}': no further validation rules will be run due to call cost exceeds limit for rule: {message}"
            )
            raise _Exhausted(where, why) from error
        self.left -= time.thread_time() - began
        if self.left < 0:
            raise _Exhausted(where, NO_BUDGET)
        return outcome


class _Exhausted(Exception):
    """The rules took too much: no further one is looked at."""

    def __init__(self, where: str, why: str) -> None:
        super().__init__(why)
        self.fault = FieldError(where, "FieldValueInvalid", f"Invalid value: {why}")


def _rule_faults(value: Any, old: Any, node: Structural, path: str, budget: _Budget) -> Iterator[FieldError]:
    if value is None or (old is not NEW and value == old):
        return
    for rule in node.rules:
        yield from _judged(rule, value, old, node, _Place(path, budget))
    for name, item, child, before in children(value, old, node):
        if path or name != "metadata":
            yield from _rule_faults(item, before, child, below(path, name), budget)


class _Place(NamedTuple):
    path: str
    budget: _Budget


def _judged(rule: Mapping[str, Any], value: Any, old: Any, node: Structural, at: _Place) -> Iterator[FieldError]:
    text = rule["rule"]
    mentions_old = _OLD.search(text) is not None
    if mentions_old and old is NEW and not rule.get("optionalOldSelf"):
        return
    data = {"self": to_cel(value, node)}
    if mentions_old:
        data["oldSelf"] = None if old is NEW else to_cel(old, node)
    where = _pointed(at.path, rule.get("fieldPath") or "")
    message = (rule.get("message") or "").strip() or f"failed rule: {text.strip()}"
    outcome = at.budget.evaluate(text, data, where, message)
    if outcome.type().name() == "ERROR":
        why = _MISSING_KEY.sub(r"no such key: \1", str(outcome.plain_value()))
        yield invalid(at.path or WHOLE, node.type, f"{why} evaluating rule: {message}")
    elif outcome.plain_value() is not True:
        reason = rule.get("reason") or "FieldValueInvalid"
        told = _told(rule.get("messageExpression") or "", data) or message
        composed = node.type in ("object", "array")  # whose values are not shown
        if reason == "FieldValueDuplicate":
            yield FieldError(where, reason, "Duplicate value") if composed else duplicate(where, value)
        elif reason in _REASONS or composed:
            yield FieldError(where, reason, f"{_REASONS.get(reason, 'Invalid value')}: {told}")
        else:
            yield invalid(where, value, told)


def _told(expression: str, data: Mapping[str, Any]) -> str:
    """What a messageExpression makes of the values; "" when it fails or is no single line."""
    if not expression:
        return ""
    try:
        said = compile_rule(expression).eval(data=data).plain_value()
    except RuntimeError:
        return ""
    return said.strip() if isinstance(said, str) and "\n" not in said else ""


def _pointed(path: str, field: str) -> str:
    below = re.sub(r"\['([^']*)'\]", r"[\1]", field)
    return (path + below).lstrip(".") or "<nil>"


# ---- values ----


def to_cel(value: Any, node: Structural) -> Any:
    """A JSON value as CEL shall see it."""
    if isinstance(value, dict):
        return {_spelled(name, node): _item(item, node.child(name)) for name, item in value.items()}
    if isinstance(value, list):
        return [_item(item, node.items) for item in value]
    if node.type == "number" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if node.type == "integer" and isinstance(value, float):
        return int(value)
    if node.type == "string" and isinstance(value, str):
        return _typed(value, node.keywords.get("format"))
    return value


def _item(value: Any, node: Structural | None) -> Any:
    return value if node is None else to_cel(value, node)


def _typed(value: str, format: str | None) -> Any:
    try:
        if format in ("date-time", "date"):
            return datetime.fromisoformat(value)
        if format == "duration":
            return timedelta(seconds=_seconds(value))
    except ValueError:
        pass
    return value


def _seconds(text: str) -> float:
    parts = re.findall(r"(\d+\.?\d*|\.\d+)(ns|us|µs|ms|s|m|h)", text)
    total = sum(float(amount) * _DURATION_UNITS[unit] for amount, unit in parts)
    return -total if text.startswith("-") else total


def _spelled(name: str, node: Structural) -> str:
    """A property's name as an expression spells it; keys of maps stay as they are."""
    if name not in node.properties:
        return name
    if name in _RESERVED:
        return f"__{name}__"
    if _IDENTIFIER.fullmatch(name) and "__" not in name:
        return name
    for plain, escaped in _ESCAPES:
        name = name.replace(plain, escaped) if plain == "__" or plain in name else name
    return name
