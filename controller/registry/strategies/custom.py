"""Strategies of custom resources and of the definitions that make them.

Rules from k8s.io/apiextensions-apiserver/pkg/registry/{customresource,customresourcedefinition}/strategy.go: the
generation counts all but metadata (and the status, where it is a subresource); a status write changes only the status.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from api.objects import Object
from controller.registry.strategies.base import Strategy, bump_generation_if, keep
from controller.registry.strategies.common import spec_and_status


def _count(new: Object, old: Mapping[str, Any], ignored: dict[str, None]) -> None:
    bump_generation_if({**new, **ignored} != {**old, **ignored}, new, old)


def _prepare_with_status(obj: Object) -> None:
    obj.pop("status", None)
    obj["metadata"]["generation"] = 1


def _prepare(obj: Object) -> None:
    obj["metadata"]["generation"] = 1


def _update_with_status(new: Object, old: Mapping[str, Any]) -> None:
    keep(new, old, "status")
    _count(new, old, {"metadata": None, "status": None})


def _update(new: Object, old: Mapping[str, Any]) -> None:
    _count(new, old, {"metadata": None})


def _update_status(new: Object, old: Mapping[str, Any]) -> None:
    """All but the status stays as it was."""
    managed = new["metadata"].get("managedFields")
    status = {"status": new["status"]} if "status" in new else {}
    new.clear()
    new.update({**old, "metadata": dict(old["metadata"])})
    new.pop("status", None)
    new.update(status)
    if managed is not None:
        new["metadata"]["managedFields"] = managed


@lru_cache(maxsize=2)
def custom_strategy(has_status: bool) -> Strategy:
    """How custom resources behave, with and without a status of their own."""
    return Strategy(
        prepare_create=_prepare_with_status if has_status else _prepare,
        prepare_update=_update_with_status if has_status else _update,
        prepare_status=_update_status,
        unconditional_update=False,
    )


def _storage_versions(obj: Mapping[str, Any]) -> list[str]:
    return [version["name"] for version in obj["spec"].get("versions") or () if version.get("storage")]


def _prepare_definition(obj: Object) -> None:
    obj["metadata"]["generation"] = 1
    status = {"conditions": None, "acceptedNames": {"plural": "", "kind": ""}}
    obj["status"] = {**status, "storedVersions": _storage_versions(obj)[:1] or None}


def _update_definition(new: Object, old: Mapping[str, Any]) -> None:
    """Objects may be stored in every version that ever was the storage version, until somebody says otherwise."""
    keep(new, old, "status")
    status = dict(new.get("status") or {})
    stored = list(status.get("storedVersions") or ())
    status["storedVersions"] = [*stored, *(name for name in _storage_versions(new) if name not in stored)]
    new["status"] = status
    bump_generation_if(new.get("spec") != old.get("spec"), new, old)


DEFINITION = replace(
    spec_and_status(None),
    prepare_create=_prepare_definition,
    prepare_update=_update_definition,
    unconditional_update=False,
    returns_deleted=True,
)
