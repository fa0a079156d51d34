"""Patterns are Go's, and no text makes them slow; rules of custom resources have a budget."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from api.schema.custom import rules
from api.schema.custom.patterns import BadPattern, check_pattern, find_all, matches
from api.schema.custom.structural import Structural, parse_structural
from api.schema.custom.values import NEW, faults_in


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|a)*b", "(x+x+)+y", "(.*)(.*)(.*)(.*)[^x]$"])
def test_a_pattern_that_stalls_other_engines_is_quick(pattern: str) -> None:
    began = time.perf_counter()
    matches(pattern, "x" * 200_000 + "a" * 200_000 + "!")
    assert time.perf_counter() - began < 1.0


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("(", "missing closing ): `(`"),
        (")", "unexpected ): `)`"),
        ("[a", "missing closing ]: `[a`"),
        ("(?=x)", "invalid or unsupported Perl syntax: `(?=`"),
        ("a{1001}", "invalid repeat count: `{1001}`"),
        ("*", "missing argument to repetition operator: `*`"),
        ("a**", "invalid nested repetition operator: `**`"),
        ("\\", "trailing backslash at end of expression"),
        (r"\Z", r"invalid escape sequence: `\Z`"),
        (r"(a)\1", r"invalid escape sequence: `\1`"),
        ("[z-a]", "invalid character class range: `z-a`"),
        ("x" * 3_000_000, "expression too large"),
    ],
)
def test_what_go_refuses_is_refused_in_its_words(pattern: str, why: str) -> None:
    with pytest.raises(BadPattern) as refused:
        check_pattern(pattern)
    assert str(refused.value).startswith(f"error parsing regexp: {why}"[:200])


def test_go_means_by_a_pattern_what_we_mean() -> None:
    assert matches(r"^a\z", "a")
    assert not matches("a$", "a\n")
    assert matches(r"^\p{L}{3}$", "äöü")
    assert matches(r"^[\p{L}\p{N} ]{1,253}$", "ein Name")
    assert find_all("é|b", "aéb") == ["é", "b"]
    with pytest.raises(ValueError, match="too many"):
        find_all("a", "a" * 200_000)


def test_multiples_are_judged_as_go_judges_them() -> None:
    def is_multiple(value: float, factor: float) -> bool:
        return not list(faults_in(value, parse_structural({"type": "number", "multipleOf": factor}), "n"))

    assert is_multiple(0.3, 0.1)
    assert is_multiple(-4, 2)
    assert is_multiple(0, 0.5)
    assert not is_multiple(0.35, 0.1)
    assert not is_multiple(5, 0)
    assert not is_multiple(1e300, 1e-300)


def ruled(*texts: str) -> Structural:
    items = {"type": "array", "items": {"type": "integer"}}
    schema = {"type": "object", "properties": {"list": items, "text": {"type": "string"}}}
    return replace(parse_structural(schema), rules=tuple({"rule": text} for text in texts))


@pytest.mark.skipif(not rules.available(), reason="CEL is an extra")
def test_a_rule_that_iterates_too_much_is_a_fault_and_the_last() -> None:
    value = {"list": [*range(200)]}
    faults = list(rules.rule_faults(value, NEW, ruled("self.list.all(x, self.list.all(y, x == x))", "false")))
    assert len(faults) == 1
    assert "no further validation rules will be run" in faults[0].body
    assert "call cost exceeds limit" in faults[0].body


@pytest.mark.skipif(not rules.available(), reason="CEL is an extra")
def test_the_rules_of_an_object_share_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "BUDGET_SECONDS", 0.05)
    many = ruled(*["self.list.all(x, x in self.list)"] * 500)
    began = time.thread_time()
    (fault,) = rules.rule_faults({"list": [*range(3000)]}, NEW, many)
    assert time.thread_time() - began < 2
    assert fault.body.endswith(rules.NO_BUDGET)
