"""The objects of one kind, sorted and indexed.

Used by cache.py. Order is etcd's (namespace/name as bytes). Indexed are all labels and the fields in `INDEXED`; a list
looks at the smallest set of candidates its equalities or its namespace name. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import islice

from sortedcontainers import SortedDict

from controller.store.keys import place
from controller.store.query import Query
from controller.store.types import Record

INDEXED: dict[tuple[str, str], tuple[str, ...]] = {
    ("", "pods"): ("spec.nodeName", "status.phase"),
    ("", "events"): ("involvedObject.uid", "involvedObject.name"),
}
LABEL = "label:"
_NAME = "metadata.name"


class Indexes:
    def __init__(self, resource: tuple[str, str]) -> None:
        self._sorted = SortedDict()
        self._fields = INDEXED.get(resource, ())
        self._by_field: dict[tuple[str, str], set[str]] = {}
        self._by_label: dict[tuple[str, str], set[str]] = {}

    def __len__(self) -> int:
        return len(self._sorted)

    def __iter__(self) -> Iterator[Record]:
        return iter(self._sorted.values())

    def get(self, where: str) -> Record | None:
        found: Record | None = self._sorted.get(where)
        return found

    def put(self, record: Record) -> Record | None:
        """Returns the state before, None when there was none."""
        where = place(record.key.namespace, record.key.name)
        previous: Record | None = self._sorted.get(where)
        self._sorted[where] = record
        if previous is None:
            self._index(record, where)
        else:
            self._reindex(previous, record, where)
        return previous

    def remove(self, where: str) -> Record | None:
        previous: Record | None = self._sorted.pop(where, None)
        if previous is not None:
            for entry in previous.labels.items():
                _discard(self._by_label, entry, where)
            for field in self._fields:
                _discard(self._by_field, (field, previous.fields.get(field, "")), where)
        return previous

    def lookup(self, index: str, value: str) -> Iterable[Record]:
        """Objects by an indexed field or, as `label:KEY`, by a label, in order. Raises KeyError for another index."""
        if index.startswith(LABEL):
            found = self._by_label.get((index.removeprefix(LABEL), value), ())
        elif index in self._fields:
            found = self._by_field.get((index, value), ())
        else:
            raise KeyError(f"{index} is not indexed")
        return [self._sorted[where] for where in sorted(found)]

    def select(self, query: Query) -> tuple[list[Record], int]:
        """(records, remaining) as in Page."""
        places = self._places(query)
        if not query.selects:
            if query.limit <= 0:
                return [self._sorted[where] for where in places], 0
            records = [self._sorted[where] for where in islice(places, query.limit)]
            return records, sum(1 for _ in places)
        matching = (record for where in places if query.matches(record := self._sorted[where]))
        if query.limit <= 0:
            return list(matching), 0
        records = list(islice(matching, query.limit))
        return records, 0 if next(matching, None) is None else 1

    def _places(self, query: Query) -> Iterator[str]:
        """Where the objects that may match are, in order."""
        first = place(*query.after) if query.after else None
        candidates = self._candidates(query)
        low, high = (f"{query.namespace}/", f"{query.namespace}0") if query.namespace else (None, None)
        if candidates is None or (high and self._between(low, high) < len(candidates)):
            after = first is not None and (low is None or first > low)
            places: Iterator[str] = self._sorted.irange(first if after else low, high, (not after, False))
            return places
        start = f"{query.namespace}/" if query.namespace else ""
        return iter(sorted(where for where in candidates if where.startswith(start) and (not first or where > first)))

    def _between(self, low: str | None, high: str) -> int:
        """How many objects a namespace has: looking at all of them may be less than looking up a common label."""
        found: int = self._sorted.bisect_left(high) - self._sorted.bisect_left(low)
        return found

    def _candidates(self, query: Query) -> Collection[str] | None:
        """The smallest indexed set that holds all matches; None: all objects."""
        fields = query.fields.equalities if query.fields is not None else {}
        if _NAME in fields:
            where = place(query.namespace, fields[_NAME])
            if where in self._sorted:
                return (where,)
            if query.namespace:
                return ()
        found = [self._by_field.get((field, fields[field]), set()) for field in self._fields if field in fields]
        if query.labels is not None:
            found += [self._by_label.get(entry, set()) for entry in query.labels.equalities.items()]
        return min(found, key=len, default=None)

    def _index(self, record: Record, where: str) -> None:
        for entry in record.labels.items():
            _add(self._by_label, entry, where)
        for field in self._fields:
            _add(self._by_field, (field, record.fields.get(field, "")), where)

    def _reindex(self, previous: Record, record: Record, where: str) -> None:
        if previous.labels != record.labels:
            for entry in previous.labels.items() - record.labels.items():
                _discard(self._by_label, entry, where)
            for entry in record.labels.items() - previous.labels.items():
                _add(self._by_label, entry, where)
        for field in self._fields:
            before, now = previous.fields.get(field, ""), record.fields.get(field, "")
            if before != now:
                _discard(self._by_field, (field, before), where)
                _add(self._by_field, (field, now), where)


def _add(index: dict[tuple[str, str], set[str]], entry: tuple[str, str], where: str) -> None:
    members = index.get(entry)
    if members is None:
        index[entry] = {where}
    else:
        members.add(where)


def _discard(index: dict[tuple[str, str], set[str]], entry: tuple[str, str], where: str) -> None:
    members = index.get(entry)
    if members is not None:
        members.discard(where)
        if not members:
            del index[entry]
