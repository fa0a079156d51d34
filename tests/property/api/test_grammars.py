"""Quantities are canonical after one pass; selectors agree with a naive reading of their meaning."""

import contextlib
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from api.quantity import canonical, parse_quantity, render_quantity
from api.selectors import Requirement, from_object, parse_label_selector

numbers = st.decimals(min_value=-(10**12), max_value=10**12, places=3, allow_nan=False, allow_infinity=False)
suffixes = st.sampled_from(["", "n", "u", "m", "k", "M", "G", "T", "Ki", "Mi", "Gi", "e3", "E-3"])
texts = st.builds(lambda number, suffix: f"{number:f}{suffix}", numbers, suffixes)

keys = st.sampled_from(["a", "b", "c"])
values = st.sampled_from(["", "1", "2", "x"])
labels = st.dictionaries(keys, values)


@given(texts)
def test_canonical_keeps_the_value_and_is_a_fixed_point(text: str) -> None:
    once = canonical(text)
    assert parse_quantity(once) == parse_quantity(text)
    assert canonical(once) == once


@given(texts, texts)
def test_a_rendered_sum_reads_back_as_the_sum(left: str, right: str) -> None:
    total = parse_quantity(left) + parse_quantity(right)
    limit = Decimal(2**63 - 1)
    if abs(total) < limit:
        assert parse_quantity(render_quantity(total, left)) == total


def means(requirement: Requirement, found: dict[str, str]) -> bool:
    """What the documentation says an operator means."""
    has = requirement.key in found
    among = has and found[requirement.key] in requirement.values
    return {
        "in": among,
        "=": among,
        "==": among,
        "notin": not among,
        "!=": not among,
        "exists": has,
        "!": not has,
    }[requirement.operator]


requirements = st.one_of(
    st.builds(lambda k, v: Requirement(k, "in", tuple(v)), keys, st.lists(values, min_size=1, unique=True)),
    st.builds(lambda k, v: Requirement(k, "notin", tuple(v)), keys, st.lists(values, min_size=1, unique=True)),
    st.builds(lambda k, op, v: Requirement(k, op, (v,)), keys, st.sampled_from(["=", "==", "!="]), values),
    st.builds(lambda k, op: Requirement(k, op), keys, st.sampled_from(["exists", "!"])),
)


@given(st.lists(requirements, max_size=4), labels)
def test_a_selector_is_the_conjunction_of_its_requirements(wanted: list[Requirement], found: dict[str, str]) -> None:
    selector = parse_label_selector(",".join(map(str, wanted)))
    assert selector.matches(found) == all(means(requirement, found) for requirement in wanted)


@given(st.lists(requirements, max_size=4), labels)
def test_printing_a_selector_keeps_its_meaning(wanted: list[Requirement], found: dict[str, str]) -> None:
    selector = parse_label_selector(",".join(map(str, wanted)))
    assert parse_label_selector(str(selector)).matches(found) == selector.matches(found)


@given(labels, labels)
def test_match_labels_are_a_subset_test(wanted: dict[str, str], found: dict[str, str]) -> None:
    assert from_object({"matchLabels": wanted}).matches(found) == (wanted.items() <= found.items())


@given(st.text(max_size=30))
def test_no_text_makes_the_parsers_fail_otherwise_than_with_value_error(text: str) -> None:
    for parse in (parse_label_selector, parse_quantity):
        with contextlib.suppress(ValueError):
            parse(text)
