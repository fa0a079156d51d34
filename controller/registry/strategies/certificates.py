"""CertificateSigningRequest: the spec is written once; approval and status are written by different people.

Rules from k8s.io/kubernetes/pkg/registry/certificates/certificates/strategy.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.objects import Object, format_time
from controller.admission.types import utc_now
from controller.registry.strategies.base import Strategy, keep

_SETTLED = ("Approved", "Denied")


def _prepare(obj: Object) -> None:
    obj["status"] = {}


def _prepare_update(new: Object, old: Mapping[str, Any]) -> None:
    keep(new, old, "spec")
    keep(new, old, "status")


def _prepare_status(new: Object, old: Mapping[str, Any]) -> None:
    """Who signs writes the certificate and whether it failed; whether it is approved is not his to say."""
    keep(new, old, "spec")
    status, before = new.get("status") or {}, old.get("status") or {}
    settled = [each for each in before.get("conditions") or () if each["type"] in _SETTLED]
    others = [each for each in status.get("conditions") or () if each["type"] not in _SETTLED]
    _set(new, {**status, "conditions": _timed([*settled, *others], before)})


def prepare_approval(new: Object, old: Mapping[str, Any]) -> None:
    """Who approves writes conditions, and may label and annotate the request; no more of its status."""
    status, before = new.get("status") or {}, old.get("status") or {}
    keep(new, old, "spec")
    _set(new, {**before, "conditions": _timed(status.get("conditions") or [], before)})


def _set(new: Object, status: Object) -> None:
    new["status"] = {name: value for name, value in status.items() if value}


def _timed(conditions: list[Object], before: Mapping[str, Any]) -> list[Object]:
    """Conditions without times get them: now, or what they had."""
    known = {each["type"]: each for each in before.get("conditions") or ()}
    now = format_time(utc_now())
    for each in conditions:
        same = known.get(each.get("type", ""), {}).get("status") == each.get("status")
        since = known[each["type"]].get("lastTransitionTime") if same else None
        each["lastTransitionTime"] = each.get("lastTransitionTime") or since or now
        each["lastUpdateTime"] = each.get("lastUpdateTime") or now
    return conditions


SIGNING_REQUEST = Strategy(
    prepare_create=_prepare, prepare_update=_prepare_update, prepare_status=_prepare_status, unconditional_update=True
)
