"""CustomResourceDefinitions at work: names accepted, kinds served, objects cleared away when a definition goes.

Run by main.py in every API process; writes only the definitions' status and finalizer, by compare-and-set, so several
processes agree. Invariants: a kind is served before its definition says Established; two definitions of a group never
serve one name; a definition is removed only when no object of its kind is left. Rules:
k8s.io/apiextensions-apiserver/pkg/controller/{status,establish,finalizer}.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog

from api import kinds
from api.errors import ApiError
from api.objects import Object, condition_of, format_time, is_deleting, name_of
from api.schema.custom.type import custom_of
from controller.admission.types import MASTERS_GROUP, Request, User, utc_now
from controller.registry import DeleteOptions, Registry
from controller.registry.custom_kinds import rows_of
from controller.registry.deletion_plan import CLEANUP
from controller.store import Query
from controller.store.types import Event, StoreError

DEFINITIONS = kinds.by_resource("apiextensions.k8s.io", "customresourcedefinitions")
ESTABLISH_SECONDS = 0.01
"""Between serving a kind and saying so: other API processes learn of its names meanwhile."""
RETRY_SECONDS = 1.0
_NAMES = ("plural", "singular", "shortNames", "kind", "listKind")
_ACCEPTED = "the initial names have been accepted"
_log = structlog.get_logger()


@dataclass(frozen=True)
class Verdict:
    """What the status of a definition says next; `names` are the accepted ones."""

    names: Object
    conditions: tuple[Object, ...]


def judge_names(definition: Object, others: Iterable[Object], now: datetime) -> Verdict:
    """Which of a definition's names it gets, given what the group's other definitions have. Pure.

    A name that another one has is refused; what was accepted before stays. Of several refusals the last is told.
    """
    spec, status = definition["spec"], definition.get("status") or {}
    taken = _names_of(others, spec["group"])
    wanted: Object = spec["names"]
    before: Mapping[str, Any] = status.get("acceptedNames") or {}
    accepted: Object = {}
    conflict: tuple[str, str] | None = None
    for name in _NAMES:
        value = wanted.get(name)
        others_have = taken.kinds if name in ("kind", "listKind") else taken.resources
        clashing = [each for each in _listed(value) if each in others_have]
        if not clashing:
            keep = value
        else:
            keep = before.get(name)
            reason = {"listKind": "ListKindConflict", "shortNames": "ShortNamesConflict"}.get(name)
            conflict = (reason or f"{name.capitalize()}Conflict", clashing[0])
        if keep:
            accepted[name] = keep
    if wanted.get("categories"):
        accepted["categories"] = wanted["categories"]
    accepted.setdefault("plural", "")
    accepted.setdefault("kind", "")
    return Verdict(accepted, _conditions(status, conflict, now))


def _conditions(status: Object, conflict: tuple[str, str] | None, now: datetime) -> tuple[Object, ...]:
    established = condition_of(status, "Established") or {}
    if conflict is None:
        names = _condition("NamesAccepted", "True", "NoConflicts", "no conflicts found")
        outcome = _condition("Established", "False", "Installing", _ACCEPTED)
    else:
        names = _condition("NamesAccepted", "False", conflict[0], f'"{conflict[1]}" is already in use')
        outcome = _condition("Established", "False", "NotAccepted", "not all names are accepted")
    fresh = [names] if established.get("status") == "True" else [names, outcome]
    return _merged(status.get("conditions") or [], fresh, now)


def _condition(kind: str, status: str, reason: str, message: str) -> Object:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def _merged(present: list[Object], fresh: list[Object], now: datetime) -> tuple[Object, ...]:
    """The conditions with some set anew; a time moves only when the status does."""
    merged = {each["type"]: each for each in present}
    for each in fresh:
        old = merged.get(each["type"]) or {}
        since = old["lastTransitionTime"] if old.get("status") == each["status"] else format_time(now)
        merged[each["type"]] = {"lastTransitionTime": since, **each}
    return tuple(merged.values())


@dataclass(frozen=True)
class _Taken:
    resources: frozenset[str]
    kinds: frozenset[str]


def _names_of(others: Iterable[Object], group: str) -> _Taken:
    resources: set[str] = set()
    found: set[str] = set()
    for other in others:
        if other["spec"]["group"] != group:
            continue
        names = (other.get("status") or {}).get("acceptedNames") or {}
        for name in ("plural", "singular", "shortNames"):
            resources.update(_listed(names.get(name)))
        for name in ("kind", "listKind"):
            found.update(_listed(names.get(name)))
    return _Taken(frozenset(resources), frozenset(found))


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) and value else list(value or ())


def is_served(definition: Object) -> bool:
    """Its names were accepted: the kind answers requests from then on, just before the definition says so."""
    established = condition_of(definition.get("status") or {}, "Established") or {}
    return established.get("status") == "True" or established.get("reason") == "Installing"


def _says(status: Object, verdict: Verdict) -> bool:
    """Whether nothing but the times of conditions differs."""
    present = [{**each, "lastTransitionTime": ""} for each in status.get("conditions") or ()]
    told = [{**each, "lastTransitionTime": ""} for each in verdict.conditions]
    return bool(status.get("acceptedNames") == verdict.names and present == told)


_DEPRECATED = {
    ("", "endpoints"): ["v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"],
}
"""Built-in ones, in Kubernetes' words."""


def deprecations(kind: kinds.Kind) -> list[str]:
    """What who uses a deprecated version of a kind is told."""
    if kind.custom is None:
        return _DEPRECATED.get(kind.resource, [])
    schema = custom_of(kind)
    if schema is None or not schema.deprecated:
        return []
    return [schema.warning or f"{kind.api_version} {kind.kind} is deprecated"]


class Definitions:
    """All definitions of one API process."""

    def __init__(self, registry: Registry, clock: Callable[[], datetime] = utc_now) -> None:
        self._registry = registry
        self._clock = clock
        self._changed = asyncio.Event()
        self._shown: dict[str, tuple[str, tuple[kinds.Kind, ...]]] = {}

    def install(self) -> None:
        """Brings the table of kinds up to what the cache knows."""
        known = {name_of(each): each for each in self._all() if is_served(each)}
        shown = {name: self._rows(name, definition) for name, definition in known.items()}
        if {name: stamp for name, (stamp, _) in shown.items()} == {name: s for name, (s, _) in self._shown.items()}:
            return
        self._shown = shown
        kinds.serve_custom(row for _, rows in shown.values() for row in rows)

    def _rows(self, name: str, definition: Object) -> tuple[str, tuple[kinds.Kind, ...]]:
        status = definition.get("status") or {}
        stamp = repr((definition["metadata"]["uid"], definition["metadata"].get("generation"), is_deleting(definition),
                      status.get("acceptedNames"), status.get("storedVersions")))  # fmt: skip
        if self._shown.get(name, ("",))[0] == stamp:
            return self._shown[name]
        try:
            return stamp, rows_of(definition)
        except (KeyError, TypeError, ValueError) as error:
            _log.error("a definition cannot be served", definition=name, error=repr(error))
            return stamp, ()

    async def run(self) -> None:
        """Follows definitions until cancelled."""
        stop = self._registry.store.subscribe(DEFINITIONS.resource, self._on_event)
        try:
            self._changed.set()
            while True:
                await self._changed.wait()
                self._changed.clear()
                self.install()
                try:
                    for definition in self._all():
                        await self._settle(definition)
                except (ApiError, StoreError, TimeoutError) as error:
                    _log.info("definitions: trying again", error=str(error), retry_in=RETRY_SECONDS)
                    asyncio.get_running_loop().call_later(RETRY_SECONDS, self._changed.set)
                except Exception:  # one odd definition must not end the process; it is looked at again when one changes
                    _log.exception("a definition could not be settled")
        finally:
            stop()

    def _on_event(self, event: Event) -> None:
        del event
        self.install()
        self._changed.set()

    def _all(self) -> Iterator[Object]:
        for record in self._registry.store.list(DEFINITIONS.resource).records:
            yield record.parse()

    async def _settle(self, definition: Object) -> None:
        if is_deleting(definition):
            if CLEANUP in (definition["metadata"].get("finalizers") or ()):
                await self._clear(definition)
            return
        others = [each for each in self._all() if name_of(each) != name_of(definition)]
        status = definition.get("status") or {}
        verdict = judge_names(definition, others, self._clock())
        if not _says(status, verdict):
            await self._set_status(name_of(definition), verdict.names, list(verdict.conditions))
            return
        if (condition_of(status, "Established") or {}).get("reason") == "Installing":
            await asyncio.sleep(ESTABLISH_SECONDS)
            established = _condition("Established", "True", "InitialNamesAccepted", _ACCEPTED)
            conditions = _merged(status.get("conditions") or [], [established], self._clock())
            await self._set_status(name_of(definition), verdict.names, list(conditions))

    async def _set_status(self, name: str, names: Object, conditions: list[Object]) -> None:
        def change(current: Object) -> Object:
            current["status"] = {**(current.get("status") or {}), "acceptedNames": names, "conditions": conditions}
            return current

        await self._registry.modify(self._request(), DEFINITIONS, "", name, change, subresource="status")

    async def _clear(self, definition: Object) -> None:
        """Deletes the objects of a going definition; takes the finalizer away when none is left."""
        spec = definition["spec"]
        resource = (spec["group"], spec["names"]["plural"])
        mine = [row for row in self._shown.get(name_of(definition), ("", ()))[1] if row.stored_as is None]
        if mine and self._registry.store.list(resource, Query(limit=1)).records:
            await self._registry.delete_collection(self._request(), mine[0], Query(), DeleteOptions())
            await self._registry.store.current()
            if self._registry.store.list(resource, Query(limit=1)).records:
                asyncio.get_running_loop().call_later(RETRY_SECONDS, self._changed.set)
                return

        def release(current: Object) -> Object:
            finalizers = [each for each in current["metadata"].get("finalizers") or () if each != CLEANUP]
            current["metadata"]["finalizers"] = finalizers
            return current

        await self._registry.modify(self._request(), DEFINITIONS, "", name_of(definition), release)

    def _request(self) -> Request:
        user = User("system:apiserver", groups=(MASTERS_GROUP, "system:authenticated"))
        return Request(user=user, field_manager="kube-apiserver", trusted=True)
