"""Selectors: every operator, and the words for what cannot be parsed."""

import pytest

from api.selectors import EVERYTHING, NOTHING, from_object, parse_field_selector, parse_label_selector

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
