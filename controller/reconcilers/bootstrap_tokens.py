"""Bootstrap tokens are deleted when their time is over.

Run by the loop, one key a Secret. The decision is pure. Rules: k8s.io/kubernetes pkg/controller/bootstrap/tokencleaner.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from api import kinds
from api.objects import Object, name_of, namespace_of, parse_time, uid_of
from controller.pki.join import NAMESPACE, SECRET_TYPE
from controller.reconcilers.actions import Delete
from controller.reconcilers.loop import NOTHING, Decision, Failure, Source, Watch
from controller.reconcilers.views import Views
from controller.store.types import Event, Key

SECRETS = kinds.by_resource("", "secrets")


@dataclass(frozen=True)
class Observed:
    """A token and when it ends; None: never."""

    secret: Object
    ends: datetime | None
    now: datetime


def decide(observed: Observed) -> Decision:
    secret, ends = observed.secret, observed.ends
    if ends is None:
        return NOTHING
    left = (ends - observed.now).total_seconds()
    if left > 0:
        return Decision(requeue_after_seconds=left)
    return Decision((Delete(SECRETS, namespace_of(secret), name_of(secret), uid_of(secret)),))


def end_of(secret: Object, now: datetime) -> datetime | None:
    """When a token ends: what cannot be read is over."""
    text = (secret.get("data") or {}).get("expiration")
    if not text:
        return None
    try:
        return parse_time(base64.b64decode(text, validate=True).decode())
    except (ValueError, binascii.Error):
        return now


class BootstrapTokenCleaner:
    name = "token-cleaner-controller"
    concurrency = 1

    def __init__(self, views: Views, clock: Callable[[], datetime]) -> None:
        self._views = views
        self._clock = clock

    def sources(self) -> Sequence[Source]:
        return (Watch(SECRETS.resource, _token_key),)

    def observe(self, key: tuple[str, str], failure: Failure | None) -> Observed | None:
        del failure
        record = self._views.store.get(Key(*SECRETS.resource, *key))
        if record is None or record.fields.get("type") != SECRET_TYPE:
            return None
        secret, now = record.parse(), self._clock()
        return Observed(secret, end_of(secret, now), now)

    def decide(self, observed: Observed) -> Decision:
        return decide(observed)


def _token_key(event: Event) -> Iterable[tuple[str, str]]:
    key = event.record.key
    mine = key.namespace == NAMESPACE and event.record.fields.get("type") == SECRET_TYPE
    return ((key.namespace, key.name),) if mine else ()
