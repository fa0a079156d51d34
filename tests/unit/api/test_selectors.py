"""Selectors: every operator, and the words for what cannot be parsed."""

from typing import Any

import pytest

from api.selectors import (
    EVERYTHING,
    NOTHING,
    FieldSelector,
    FieldTerm,
    LabelSelector,
    Requirement,
    from_labels,
    from_object,
    parse_field_selector,
    parse_label_selector,
)

LABELS = {"app": "web", "tier": "2"}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("app=web", True),
        ("app==db", False),
        ("app!=db", True),
        ("gone!=x", True),
        ("app in (web,db)", True),
        ("app in (db)", False),
        ("app notin (db)", True),
        ("gone notin (db)", True),
        ("app", True),
        ("!app", False),
        ("!gone", True),
        ("tier>1", True),
        ("tier<2", False),
        ("app>1", False),
        ("app=web,tier>5", False),
        ("gone in (,x)", False),
    ],
)
def test_label_selectors_match_as_kubernetes_does(text: str, matches: bool) -> None:
    assert parse_label_selector(text).matches(LABELS) is matches


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
        ("a in b", "unable to parse requirement: found 'b' expected: '('"),
        ("a=b c", "found 'c', expected: ',' or 'end of string'"),
        ("a=b,", "found '', expected: identifier after ','"),
        ("=a", "found '=', expected: !, identifier, or 'end of string'"),
        ("a ~ b", "unable to parse requirement: found '~', expected: in, notin, =, ==, !=, gt, lt"),
        ("-a", '<nil>: Invalid value: "-a": name part must consist'),
        ("a>x", "for 'Gt', 'Lt' operators, the value must be an integer"),
        ("a=b_", 'values[0][a]: Invalid value: "b_": a valid label must be'),
    ],
)
def test_bad_label_selectors_are_explained(text: str, fault: str) -> None:
    with pytest.raises(ValueError) as raised:
        parse_label_selector(text)
    assert fault in str(raised.value)


def test_text_survives_a_round_trip() -> None:
    text = "!f,a in (b,c),d!=e,g>3,h"
    assert str(parse_label_selector(str(parse_label_selector(text)))) == str(parse_label_selector(text))


def test_objects_select_and_their_absence_selects_nothing() -> None:
    selector = from_object(
        {"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "x", "operator": "DoesNotExist"}]}
    )
    assert selector.matches(LABELS) and selector.equalities == {"app": "web"}
    assert from_object(None) == NOTHING and not NOTHING.matches({})
    assert from_object({}) == EVERYTHING and EVERYTHING.matches({})
    with pytest.raises(ValueError, match='"Foo" is not a valid label selector operator'):
        from_object({"matchExpressions": [{"key": "x", "operator": "Foo"}]})


def test_field_selectors_match_and_unescape() -> None:
    selector = parse_field_selector(r"metadata.name=a\,b,status.phase!=Failed")
    assert selector.matches({"metadata.name": "a,b"})
    assert not selector.matches({"metadata.name": "a,b", "status.phase": "Failed"})
    assert selector.equalities == {"metadata.name": "a,b"}


@pytest.mark.parametrize("text", ["a", "a=b=c", r"a=\x", "a=b\\"])
def test_bad_field_selectors_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="selector"):
        parse_field_selector(text)


@pytest.mark.parametrize(
    ("text", "requirements"),
    [
        ("a", [("a", "exists", ())]),
        ("!a", [("a", "!", ())]),
        (" ! a ", [("a", "!", ())]),
        ("a=b", [("a", "=", ("b",))]),
        ("a==b", [("a", "==", ("b",))]),
        ("a\t!=\nb\r", [("a", "!=", ("b",))]),
        ("a=", [("a", "=", ("",))]),
        ("a=,b", [("a", "=", ("",)), ("b", "exists", ())]),
        ("a>5", [("a", "gt", ("5",))]),
        ("a < 5", [("a", "lt", ("5",))]),
        ("b=1,a=2", [("a", "=", ("2",)), ("b", "=", ("1",))]),
        ("a in (c,b,c)", [("a", "in", ("b", "c"))]),
        ("a notin(b)", [("a", "notin", ("b",))]),
        ("a in ()", [("a", "in", ("",))]),
        ("a in (,)", [("a", "in", ("",))]),
        ("a in (,b)", [("a", "in", ("", "b"))]),
        ("a in (b,)", [("a", "in", ("", "b"))]),
        ("a in (b,,c)", [("a", "in", ("", "b", "c"))]),
        ("in in (in,notin)", [("in", "in", ("in", "notin"))]),
        ("a=in", [("a", "=", ("in",))]),
        ("x/a,!y.z/b", [("x/a", "exists", ()), ("y.z/b", "!", ())]),
    ],
)
def test_label_selectors_are_read_as_kubernetes_does(text: str, requirements: list[tuple[str, str, Any]]) -> None:
    wanted = LabelSelector(tuple(Requirement(*requirement) for requirement in requirements))
    assert parse_label_selector(text) == wanted


_INTEGER = "for 'Gt', 'Lt' operators, the value must be an integer"
_OPERATORS = "in, notin, =, ==, !=, gt, lt"
_VALUE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (",", "found ',', expected: !, identifier, or 'end of string'"),
        ("(", "found '(', expected: !, identifier, or 'end of string'"),
        ("a,", "found '', expected: identifier after ','"),
        ("a,,b", "found ',', expected: identifier after ','"),
        ("a,=b", "found '=', expected: identifier after ','"),
        ("!a=b", "found '=', expected: ',' or 'end of string'"),
        ("a=b=c", "found '=', expected: ',' or 'end of string'"),
        ("a in (b) c", "found 'c', expected: ',' or 'end of string'"),
        ("!", "unable to parse requirement: found '', expected: identifier"),
        ("!!a", "unable to parse requirement: found '!', expected: identifier"),
        ("a=!b", "unable to parse requirement: found '!', expected: identifier"),
        ("a=(b)", "unable to parse requirement: found '(', expected: identifier"),
        ("a b", f"unable to parse requirement: found 'b', expected: {_OPERATORS}"),
        ("a (b)", f"unable to parse requirement: found '(', expected: {_OPERATORS}"),
        ("a in b", "unable to parse requirement: found 'b' expected: '('"),
        ("a in", "unable to parse requirement: found '' expected: '('"),
        ("a in (", "unable to parse requirement: found '', expected: ',', ')' or identifier"),
        ("a in (=", "unable to parse requirement: found '=', expected: ',', ')' or identifier"),
        ("a in (b c)", "unable to parse requirement: found 'c', expected: ',' or ')'"),
        ("a in (b,", "unable to parse requirement: found '', expected: ',', or identifier"),
        ("a in (b,,)", "unable to parse requirement: found ')', expected: ',', or identifier"),
        ("a in (,,)", "unable to parse requirement: found ')', expected: ',', or identifier"),
        ("a in (b,=)", "unable to parse requirement: found '=', expected: ',', or identifier"),
        ("a>x", f'unable to parse requirement: values[0]: Invalid value: "x": {_INTEGER}'),
        ("a>9223372036854775808", f'unable to parse requirement: values[0]: Invalid value: "{2**63}": {_INTEGER}'),
        ("a>1_0", f'unable to parse requirement: values[0]: Invalid value: "1_0": {_INTEGER}'),
        ("a=b_", f'unable to parse requirement: values[0][a]: Invalid value: "b_": {_VALUE}'),
        (
            "a in (b_,c,d_)",
            f'unable to parse requirement: [values[0][a]: Invalid value: "b_": {_VALUE}, '
            f'values[2][a]: Invalid value: "d_": {_VALUE}]',
        ),
    ],
)
def test_each_fault_of_a_label_selector_has_kubernetes_words(text: str, fault: str) -> None:
    with pytest.raises(ValueError) as raised:
        parse_label_selector(text)
    assert str(raised.value) == fault


@pytest.mark.parametrize(
    ("text", "value", "matches"),
    [
        ("a>1", "2", True),
        ("a>1", "1", False),
        ("a<1", "0", True),
        ("a<1", "1", False),
        ("a>0", "9223372036854775807", True),
        ("a>1", "9223372036854775808", False),
        ("a<1", "-9223372036854775809", False),
        ("a<1", "-9223372036854775808", True),
        ("a>1", "1_0", False),
        ("a>1", " 2", False),
        ("a>1", "\u0662", False),
        ("a>1", "", False),
        ("a>1", None, False),
        ("a<1", None, False),
        ("a==x", "x", True),
        ("a==x", None, False),
        ("a in (x)", "y", False),
        ("a in (x,y)", "y", True),
        ("a in (x,y)", None, False),
        ("a notin (x,y)", "y", False),
        ("a notin (x,y)", None, True),
        ("a!=x", "x", False),
        ("a!=x", "y", True),
        ("a", "", True),
        ("!a", None, True),
    ],
)
def test_one_requirement_on_one_label(text: str, value: str | None, matches: bool) -> None:
    found = {} if value is None else {"a": value}
    selector = parse_label_selector(text)
    assert selector.matches(found) is matches
    assert selector.requirements[0].matches(found) is matches


@pytest.mark.parametrize("text", ["!a", "a", "a=b", "a==b", "a!=", "a in (b,c)", "a notin (b)", "a>1", "a<1,b>2,c"])
def test_a_label_selector_is_printed_as_it_is_read(text: str) -> None:
    assert str(parse_label_selector(text)) == text


def test_what_a_selector_says_of_itself() -> None:
    selector = parse_label_selector("a=1,b in (2),c in (3,4),d==5,e!=6")
    assert selector.equalities == {"a": "1", "b": "2", "d": "5"}
    assert not selector.everything and not NOTHING.everything and EVERYTHING.everything
    assert parse_label_selector("") is EVERYTHING
    assert str(LabelSelector((Requirement("a", "in", ("c", "b")),))) == "a in (b,c)"


def test_selectors_of_objects_are_read_whole() -> None:
    expressions = [
        {"key": "e", "operator": "In", "values": ["y", "x"]},
        {"key": "d", "operator": "NotIn", "values": ["z"]},
        {"key": "c", "operator": "Exists"},
        {"key": "b", "operator": "DoesNotExist", "values": []},
    ]
    assert from_object({"matchLabels": {"f": "1", "a": "2"}, "matchExpressions": expressions}) == LabelSelector(
        (
            Requirement("a", "=", ("2",)),
            Requirement("b", "!"),
            Requirement("c", "exists"),
            Requirement("d", "notin", ("z",)),
            Requirement("e", "in", ("y", "x")),
            Requirement("f", "=", ("1",)),
        )
    )
    assert from_object({"matchLabels": None, "matchExpressions": None}) == EVERYTHING
    assert from_labels({"b": "1", "a": "2"}) == LabelSelector(
        (Requirement("a", "=", ("2",)), Requirement("b", "=", ("1",)))
    )
    assert from_labels(None) == EVERYTHING


_EMPTY_SET = "for 'in', 'notin' operators, values set can't be empty"
_KEY = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)


@pytest.mark.parametrize(
    ("selector", "fault"),
    [
        ({"matchExpressions": [{"key": "a"}]}, '"" is not a valid label selector operator'),
        ({"matchExpressions": [{"key": "a", "operator": "in"}]}, '"in" is not a valid label selector operator'),
        ({"matchExpressions": [{"key": "a", "operator": "In"}]}, f"values: Invalid value: null: {_EMPTY_SET}"),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn"}]}, f"values: Invalid value: null: {_EMPTY_SET}"),
        (
            {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["x", "y"]}]},
            'values: Invalid value: ["x","y"]: values set must be empty for exists and does not exist',
        ),
        (
            {"matchExpressions": [{"key": "a", "operator": "DoesNotExist", "values": ["x"]}]},
            'values: Invalid value: ["x"]: values set must be empty for exists and does not exist',
        ),
        ({"matchLabels": {"a_": "b"}}, f'key: Invalid value: "a_": {_KEY}'),
        ({"matchLabels": {"a": "b_"}}, f'values[0][a]: Invalid value: "b_": {_VALUE}'),
        (
            {"matchLabels": {"a_": "b_"}},
            f'[key: Invalid value: "a_": {_KEY}, values[0][a_]: Invalid value: "b_": {_VALUE}]',
        ),
        (
            {"matchExpressions": [{"operator": "Exists"}]},
            f'key: Invalid value: "": name part must be non-empty; {_KEY}',
        ),
    ],
)
def test_each_fault_of_an_objects_selector_has_kubernetes_words(selector: Any, fault: str) -> None:
    with pytest.raises(ValueError) as raised:
        from_object(selector)
    assert str(raised.value) == fault


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("", []),
        (",", []),
        ("a=b", [("a", "b")]),
        ("a==b", [("a", "b")]),
        ("a!=b", [("a", "b", True)]),
        ("b=,,a=1", [("a", "1"), ("b", "")]),
        ("=x", [("", "x")]),
        (r"a=b\,c\=d\\e", [("a", r"b,c=d\e")]),
        (r"a!=\\,b=1", [("a", "\\", True), ("b", "1")]),
    ],
)
def test_field_selectors_are_read_and_printed(text: str, terms: list[Any]) -> None:
    selector = parse_field_selector(text)
    assert selector == FieldSelector(tuple(FieldTerm(*term) for term in terms))
    assert parse_field_selector(str(selector)) == selector
    assert selector.everything is (not terms) and selector.fields == tuple(term[0] for term in terms)


def test_field_selectors_are_printed_escaped() -> None:
    assert str(FieldSelector((FieldTerm("a", "b,c=d\\e"), FieldTerm("f", "g", True)))) == r"a=b\,c\=d\\e,f!=g"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("b=1,a", "invalid selector: 'b=1,a'; can't understand 'a'"),
        ("a=b=c", "invalid field selector: unescaped character in value: 61"),
        ("a!==b", "invalid field selector: unescaped character in value: 61"),
        (r"a=\x", r"invalid field selector: invalid escape sequence: \x"),
        ("a=b\\", "invalid field selector: invalid escape sequence: \\"),
    ],
)
def test_each_fault_of_a_field_selector_has_kubernetes_words(text: str, fault: str) -> None:
    with pytest.raises(ValueError) as raised:
        parse_field_selector(text)
    assert str(raised.value) == fault


@pytest.mark.parametrize(
    ("text", "fields", "matches"),
    [
        ("a=1", {"a": "1"}, True),
        ("a=1", {"a": "2"}, False),
        ("a=", {}, True),
        ("a!=", {}, False),
        ("a!=1", {}, True),
        ("a=1,b!=2", {"a": "1", "b": "2"}, False),
        ("a=1,b!=2", {"a": "1", "b": "3"}, True),
    ],
)
def test_absent_fields_count_as_empty(text: str, fields: dict[str, str], matches: bool) -> None:
    assert parse_field_selector(text).matches(fields) is matches
