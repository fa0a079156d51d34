"""Lists by label and namespace: whichever way is shorter, they find the same."""

from __future__ import annotations

import pytest

from api.selectors import parse_label_selector
from controller.store.indexes import Indexes
from controller.store.query import Query
from controller.store.types import Key, Record


def filled() -> Indexes:
    """Twenty namespaces with two objects labelled a=1 each, and one namespace with thirty, of which one is."""
    indexes = Indexes(("", "pods"))
    crowd = [("big", f"o{number:02}", {"a": "1" if number == 7 else "2"}) for number in range(30)]
    for namespace, name, labels in [(f"n{n:02}", f"o{m}", {"a": "1"}) for n in range(20) for m in range(2)] + crowd:
        indexes.put(Record(Key("", "pods", namespace, name), 1, b"{}", labels, {}))
    return indexes


@pytest.mark.parametrize(("namespace", "names"), [("n05", ["o0", "o1"]), ("big", ["o07"]), ("none", [])])
def test_a_label_is_looked_up_in_its_namespace_only(namespace: str, names: list[str]) -> None:
    query = Query(namespace=namespace, labels=parse_label_selector("a=1"))
    records, remaining = filled().select(query)
    assert ([record.key.name for record in records], remaining) == (names, 0)


def test_pages_go_on_behind_the_last_name_either_way() -> None:
    chosen = parse_label_selector("a=1")
    records, _ = filled().select(Query(namespace="n05", labels=chosen, after=("n05", "o0"), limit=5))
    assert [record.key.name for record in records] == ["o1"]
    records, _ = filled().select(Query(namespace="big", labels=chosen, after=("big", "o07")))
    assert records == []
