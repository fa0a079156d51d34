"""Label and field selectors: parse, match, print.

Used by the store's indexes and watches, the reconcilers, the scheduler, validation and the CLI; imports only api.names.
Grammar and error wording are those of k8s.io/apimachinery/pkg/labels and .../fields. Selectors are immutable and
hashable. `matches()` is on every list and watch event, so equalities are checked first, straight on a dict.
https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from api.names import is_label_value, is_qualified_name

_SYMBOLS = "=!(),><"
_OPERATORS = {"in": "in", "notin": "notin", "=": "=", "==": "==", "!=": "!=", ">": "gt", "<": "lt"}
_EXPECTED_OPERATORS = "in, notin, =, ==, !=, gt, lt"
_FROM_OBJECT = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!"}


@dataclass(frozen=True)
class Requirement:
    """One condition on one label. `operator`: in, notin, =, ==, !=, exists, !, gt, lt."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        match self.operator:
            case "in" | "=" | "==":
                return value is not None and value in self.values
            case "notin" | "!=":
                return value is None or value not in self.values
            case "exists":
                return value is not None
            case "!":
                return value is None
        return value is not None and self._compares(value)

    def _compares(self, value: str) -> bool:
        actual, limit = _int64(value), _int64(self.values[0])
        if actual is None or limit is None:
            return False
        return actual > limit if self.operator == "gt" else actual < limit

    def __str__(self) -> str:
        match self.operator:
            case "exists":
                return self.key
            case "!":
                return f"!{self.key}"
            case "in" | "notin":
                return f"{self.key} {self.operator} ({','.join(sorted(self.values))})"
            case "gt" | "lt":
                return f"{self.key}{'>' if self.operator == 'gt' else '<'}{self.values[0]}"
        return f"{self.key}{self.operator}{self.values[0]}"


@dataclass(frozen=True)
class LabelSelector:
    """All requirements must hold; none at all matches everything. `nothing` is the selector that matches nothing."""

    requirements: tuple[Requirement, ...] = ()
    nothing: bool = False
    _equal: tuple[tuple[str, str], ...] = field(init=False, repr=False, compare=False, default=())
    _others: tuple[Requirement, ...] = field(init=False, repr=False, compare=False, default=())

    def __post_init__(self) -> None:
        equal = [r for r in self.requirements if r.operator in ("=", "==", "in") and len(r.values) == 1]
        object.__setattr__(self, "_equal", tuple((r.key, r.values[0]) for r in equal))
        object.__setattr__(self, "_others", tuple(r for r in self.requirements if r not in equal))

    def matches(self, labels: Mapping[str, str]) -> bool:
        if self.nothing:
            return False
        for key, value in self._equal:
            if labels.get(key) != value:
                return False
        return not self._others or all(requirement.matches(labels) for requirement in self._others)

    @property
    def everything(self) -> bool:
        return not self.requirements and not self.nothing

    @property
    def equalities(self) -> dict[str, str]:
        """What must be exactly so: for looking up in an index before `matches`."""
        return dict(self._equal)

    def __str__(self) -> str:
        return ",".join(map(str, self.requirements))


EVERYTHING = LabelSelector()
NOTHING = LabelSelector(nothing=True)


def parse_label_selector(text: str) -> LabelSelector:
    """Reads `a=b,c!=d,e in (f,g),!h,i>1`. Raises ValueError in Kubernetes' words."""
    if not text:
        return EVERYTHING
    requirements = _Parser(list(_tokens(text))).requirements()
    return LabelSelector(tuple(sorted(requirements, key=lambda r: r.key)))


def from_object(selector: Mapping[str, Any] | None) -> LabelSelector:
    """A `metav1.LabelSelector`: None matches nothing, `{}` everything. Raises ValueError for an invalid one."""
    if selector is None:
        return NOTHING
    found = [_checked(key, "=", (value,)) for key, value in (selector.get("matchLabels") or {}).items()]
    for expression in selector.get("matchExpressions") or ():
        operator = _FROM_OBJECT.get(expression.get("operator") or "")
        if operator is None:
            raise ValueError(f'"{expression.get("operator") or ""}" is not a valid label selector operator')
        found.append(_checked(expression.get("key") or "", operator, tuple(expression.get("values") or ())))
    return LabelSelector(tuple(sorted(found, key=lambda r: r.key)))


def from_labels(labels: Mapping[str, str] | None) -> LabelSelector:
    """The selector of an old-style map (Service, ReplicationController): every label must be equal."""
    return LabelSelector(tuple(Requirement(key, "=", (value,)) for key, value in sorted((labels or {}).items())))


@dataclass(frozen=True)
class FieldTerm:
    field: str
    value: str
    negated: bool = False

    def __str__(self) -> str:
        escaped = self.value.replace("\\", "\\\\").replace(",", "\\,").replace("=", "\\=")
        return f"{self.field}{'!=' if self.negated else '='}{escaped}"


@dataclass(frozen=True)
class FieldSelector:
    """Terms that must all hold on an object's selectable fields (an absent field counts as empty)."""

    terms: tuple[FieldTerm, ...] = ()

    def matches(self, fields: Mapping[str, str]) -> bool:
        return all((fields.get(term.field, "") == term.value) is not term.negated for term in self.terms)

    @property
    def everything(self) -> bool:
        return not self.terms

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields it speaks of, for refusing unknown ones."""
        return tuple(term.field for term in self.terms)

    @property
    def equalities(self) -> dict[str, str]:
        return {term.field: term.value for term in self.terms if not term.negated}

    def renamed(self, names: Mapping[str, str]) -> FieldSelector:
        """The same question about objects whose fields are called otherwise."""
        return FieldSelector(tuple(replace(term, field=names.get(term.field, term.field)) for term in self.terms))

    def __str__(self) -> str:
        return ",".join(map(str, self.terms))


def parse_field_selector(text: str) -> FieldSelector:
    """Reads `spec.nodeName=a,status.phase!=Running`. Raises ValueError in Kubernetes' words."""
    terms = []
    for part in sorted(_split_terms(text)):
        if not part:
            continue
        at, operator = min(((part.find(op), op) for op in ("!=", "==", "=") if op in part), default=(-1, ""))
        if at < 0:
            raise ValueError(f"invalid selector: '{text}'; can't understand '{part}'")
        if operator == "=" and part.startswith("==", at):
            operator = "=="
        terms.append(FieldTerm(part[:at], _unescaped(part[at + len(operator) :]), operator == "!="))
    return FieldSelector(tuple(terms))


def _split_terms(text: str) -> list[str]:
    parts, start, escaped = [], 0, False
    for index, char in enumerate(text):
        if escaped:
            escaped = False
        elif char == "\\":
            escaped = True
        elif char == ",":
            parts.append(text[start:index])
            start = index + 1
    return [*parts, text[start:]]


def _unescaped(value: str) -> str:
    out, escaped = [], False
    for char in value:
        if escaped:
            if char not in "\\,=":
                raise ValueError(f"invalid field selector: invalid escape sequence: \\{char}")
            out.append(char)
            escaped = False
        elif char == "\\":
            escaped = True
        elif char in ",=":
            raise ValueError(f"invalid field selector: unescaped character in value: {ord(char)}")
        else:
            out.append(char)
    if escaped:
        raise ValueError("invalid field selector: invalid escape sequence: \\")
    return "".join(out)


def _int64(text: str) -> int | None:
    if not text.isascii() or "_" in text or text != text.strip():
        return None
    try:
        value = int(text)
    except ValueError:
        return None
    return value if -(2**63) <= value < 2**63 else None


def _checked(key: str, operator: str, values: tuple[str, ...]) -> Requirement:
    faults = []
    if wrong := is_qualified_name(key):
        faults.append(f'key: Invalid value: "{key}": {"; ".join(wrong)}')
    listed = "[" + ",".join(f'"{value}"' for value in values) + "]" if values else "null"
    if operator in ("in", "notin") and not values:
        faults.append(f"values: Invalid value: {listed}: for 'in', 'notin' operators, values set can't be empty")
    if operator in ("exists", "!") and values:
        faults.append(f"values: Invalid value: {listed}: values set must be empty for exists and does not exist")
    if operator in ("gt", "lt") and _int64(values[0]) is None:
        detail = "for 'Gt', 'Lt' operators, the value must be an integer"
        faults.append(f'values[0]: Invalid value: "{values[0]}": {detail}')
    for index, value in enumerate(values):
        if wrong := is_label_value(value):
            faults.append(f'values[{index}][{key}]: Invalid value: "{value}": {"; ".join(wrong)}')
    if faults:
        raise ValueError(faults[0] if len(faults) == 1 else "[" + ", ".join(faults) + "]")
    return Requirement(key, operator, values)


def _tokens(text: str) -> Iterable[str]:
    """Splits into words, operators and brackets; ends with "" (end of string)."""
    position, end = 0, len(text)
    while position < end:
        char = text[position]
        if char in " \t\r\n":
            position += 1
            continue
        start = position
        if char in _SYMBOLS:
            position += 2 if text[position : position + 2] in ("==", "!=") else 1
        else:
            while position < end and text[position] not in _SYMBOLS and text[position] not in " \t\r\n":
                position += 1
        yield text[start:position]
    yield ""


def _is_word(token: str) -> bool:
    return bool(token) and token[0] not in _SYMBOLS


class _Parser:
    """Recursive descent over the tokens; mirrors where Kubernetes notices a fault, because clients see its words."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._position = 0

    def _peek(self) -> str:
        return self._tokens[min(self._position, len(self._tokens) - 1)]

    def _next(self) -> str:
        token = self._peek()
        self._position += 1
        return token

    def requirements(self) -> list[Requirement]:
        found: list[Requirement] = []
        while True:
            token = self._peek()
            if token == "":
                return found
            if not _is_word(token) and token != "!":
                raise ValueError(f"found '{token}', expected: !, identifier, or 'end of string'")
            try:
                found.append(self._requirement())
            except ValueError as fault:
                raise ValueError(f"unable to parse requirement: {fault}") from None
            token = self._next()
            if token == "":
                return found
            if token != ",":
                raise ValueError(f"found '{token}', expected: ',' or 'end of string'")
            if not _is_word(self._peek()) and self._peek() != "!":
                raise ValueError(f"found '{self._peek()}', expected: identifier after ','")

    def _requirement(self) -> Requirement:
        token = self._next()
        negated = token == "!"
        if negated:
            token = self._next()
        if not _is_word(token):
            raise ValueError(f"found '{token}', expected: identifier")
        if wrong := is_qualified_name(token):
            raise ValueError(f'<nil>: Invalid value: "{token}": {"; ".join(wrong)}')
        if negated or self._peek() in ("", ","):
            return _checked(token, "!" if negated else "exists", ())
        word = self._next()
        operator = _OPERATORS.get(word)
        if operator is None:
            raise ValueError(f"found '{word}', expected: {_EXPECTED_OPERATORS}")
        values = self._set() if operator in ("in", "notin") else (self._exact(),)
        return _checked(token, operator, tuple(sorted(set(values))))

    def _exact(self) -> str:
        if self._peek() in ("", ","):
            return ""
        token = self._next()
        if not _is_word(token):
            raise ValueError(f"found '{token}', expected: identifier")
        return token

    def _set(self) -> tuple[str, ...]:
        token = self._next()
        if token != "(":
            raise ValueError(f"found '{token}' expected: '('")
        if self._peek() == ")":
            self._next()
            return ("",)
        if not _is_word(self._peek()) and self._peek() != ",":
            raise ValueError(f"found '{self._peek()}', expected: ',', ')' or identifier")
        values: list[str] = [""] if self._peek() == "," else []
        while True:
            token = self._next()
            if _is_word(token):
                values.append(token)
                if self._peek() not in (",", ")"):
                    raise ValueError(f"found '{self._peek()}', expected: ',' or ')'")
            elif token == ",":
                if self._peek() in (",", ")"):
                    values.append("")
                if self._peek() == ",":
                    self._next()
                    continue
            else:
                raise ValueError(f"found '{token}', expected: ',', or identifier")
            if self._peek() == ")":
                break
        self._next()
        return tuple(values)
