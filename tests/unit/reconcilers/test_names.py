"""Names of children."""

from __future__ import annotations

import re
from itertools import islice

from controller.reconcilers.children import FormerNames
from controller.reconcilers.names import ALPHABET, child_names, template_hash


def test_names_look_like_those_of_kubernetes() -> None:
    for name in islice(child_names("web-5d4f8c7b9", "u", ()), 50):
        assert re.fullmatch(f"web-5d4f8c7b9-[{ALPHABET}]{{5}}", name)


def test_the_same_owner_and_taken_names_give_the_same_new_names() -> None:
    once = list(islice(child_names("x", "u", ("x-aaaaa",)), 5000))
    assert once == list(islice(child_names("x", "u", ("x-aaaaa",)), 5000))
    assert len(set(once)) == 5000
    assert once[:9] != list(islice(child_names("x", "another", ()), 9))


def test_a_taken_name_is_passed_over_and_the_others_stay() -> None:
    first, second, third = islice(child_names("x", "u", ()), 3)
    assert list(islice(child_names("x", "u", {second}), 2)) == [first, third]


def test_a_long_owner_name_is_cut_so_that_the_name_is_a_dns_label() -> None:
    assert len(next(child_names("n" * 80, "u", ()))) == 63


def test_the_template_hash_depends_on_content_and_collisions_not_on_order() -> None:
    one = template_hash({"a": 1, "b": 2}, 0)
    assert one == template_hash({"b": 2, "a": 1}, 0)
    assert one != template_hash({"a": 1, "b": 2}, 1)
    assert re.fullmatch(f"[{ALPHABET}]{{10}}", one)


def next_names(former: FormerNames) -> list[str]:
    return list(islice(child_names("x", "u", former.of("u"), former.era_of("u")), 10))


def test_names_of_an_earlier_life_of_the_controller_do_not_come_back() -> None:
    assert not set(next_names(FormerNames())) & set(next_names(FormerNames()))


def test_names_do_not_come_back_when_an_owner_has_had_more_pods_than_are_remembered() -> None:
    former = FormerNames()
    first = next_names(former)
    for name in islice(child_names("x", "u", (), former.era_of("u")), 1001):
        former.remember("u", name)
    assert not former.of("u") and not set(next_names(former)) & set(first)


def test_a_create_is_repeated_under_its_name_while_others_go() -> None:
    former = FormerNames()
    pending, other = islice(child_names("x", "u", former.of("u"), former.era_of("u")), 2)
    former.remember("u", other)
    assert next(child_names("x", "u", former.of("u"), former.era_of("u"))) == pending
