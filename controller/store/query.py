"""What a reader asks the store for, and what it gets: Query and Page.

Called by server, registry, reconcilers and the store itself. Imports only `api` and the store's vocabulary.
Lists are ordered by "namespace/name" as bytes, the order of etcd and therefore of Kubernetes.
"""

from __future__ import annotations

from api.quick import quick_dataclass
from api.selectors import FieldSelector, LabelSelector
from controller.store.types import Record


@quick_dataclass(frozen=True, slots=True)
class Query:
    """Narrows a list or a watch. `after` (namespace, name) and `limit` page a list; a watch ignores them."""

    namespace: str = ""
    """Empty: all namespaces."""
    labels: LabelSelector | None = None
    fields: FieldSelector | None = None
    after: tuple[str, str] | None = None
    limit: int = 0
    """0: no limit."""

    @property
    def selects(self) -> bool:
        """Whether objects have to be looked at one by one."""
        return not ((self.labels is None or self.labels.everything) and (self.fields is None or self.fields.everything))

    def matches(self, record: Record) -> bool:
        """Whether the selectors hold on a record; the namespace is not looked at."""
        if self.labels is not None and not self.labels.matches(record.labels):
            return False
        return self.fields is None or self.fields.matches(record.fields)


@quick_dataclass(frozen=True, slots=True)
class Page:
    """One page of a list."""

    records: list[Record]
    version: int
    """The resourceVersion of the list: every change up to it is in, none after it."""
    remaining: int
    """0: the list ends here. Exact without selectors; with selectors it only says that there is more."""

    @property
    def last(self) -> tuple[str, str] | None:
        """(namespace, name) of the last record: `Query.after` of the next page."""
        if not self.records:
            return None
        key = self.records[-1].key
        return (key.namespace, key.name)
