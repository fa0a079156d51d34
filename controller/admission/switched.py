"""Admission checks that an installation switches: `DenyServiceExternalIPs` and `EventRateLimit`.

Built by the controller's flags, given to the admission chain as further checks. What the leader itself writes (its
requests carry the leadership's guard) is not limited: a recorder bounds its events itself. Rules and words:
https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from api.errors import TooManyRequests
from api.objects import namespace_of
from controller.admission.attributes import Attributes, Operation

KNOWN = ("DenyServiceExternalIPs",)
_SERVICES = ("", "services")
_EVENTS = (("", "events"), ("events.k8s.io", "events"))
LIMIT_TYPES = ("Server", "Namespace", "User", "SourceAndObject")
MOST_BUCKETS = 4096
"""As Kubernetes' cacheSize: who was not heard of for longest is forgotten."""


def deny_external_ips(attributes: Attributes) -> None:
    """No Service gets external IPs that it has not already. Raises Forbidden."""
    if attributes.kind.resource != _SERVICES or attributes.subresource or attributes.obj is None:
        return
    wanted = set((attributes.obj.get("spec") or {}).get("externalIPs") or ())
    if wanted - set(((attributes.old or {}).get("spec") or {}).get("externalIPs") or ()):
        raise attributes.forbidden("Use of external IPs is denied by admission control.")


@dataclass(frozen=True)
class Limit:
    """So many events a second, `burst` at once, for each `type`: all together, a namespace, a user or an object."""

    type: str
    qps: float
    burst: int


DEFAULT_LIMITS = (Limit("User", 100, 2000),)
"""A node that starts all its pods at once stays far below; who floods the store does not."""


def parse_limits(text: str) -> tuple[Limit, ...]:
    """`TYPE=QPS:BURST`, comma-separated; "none" for no limit. Raises ValueError that says what is wrong."""
    if text.strip() == "none":
        return ()
    limits = []
    for part in text.split(","):
        kind, _, numbers = part.strip().partition("=")
        qps, _, burst = numbers.partition(":")
        if kind not in LIMIT_TYPES:
            raise ValueError(f"{part.strip()!r}: write TYPE=QPS:BURST or none; types are {', '.join(LIMIT_TYPES)}")
        if not (qps.isdigit() and burst.isdigit() and int(qps) and int(burst)):
            raise ValueError(f"{part.strip()!r}: QPS and BURST must be whole numbers above 0, as in {kind}=50:100")
        limits.append(Limit(kind, int(qps), int(burst)))
    return tuple(limits)


@dataclass
class EventRateLimit:
    """Token buckets, refilled as time goes by."""

    limits: tuple[Limit, ...]
    now: Callable[[], float] = time.monotonic
    _buckets: OrderedDict[tuple[str, str], tuple[float, float]] = field(default_factory=OrderedDict)
    """(tokens, as of when) by type and key, the least used first."""

    def __call__(self, attributes: Attributes) -> None:
        """Raises TooManyRequests."""
        if attributes.kind.resource not in _EVENTS or attributes.obj is None:
            return
        request = attributes.request
        if request.dry_run or request.guards or attributes.operation not in (Operation.CREATE, Operation.UPDATE):
            return
        for limit in self.limits:
            key = _key(limit.type, attributes)
            if not self._takes(limit, key):
                raise TooManyRequests(f"limit reached on type {limit.type} for key {key}", {"retryAfterSeconds": 1})

    def _takes(self, limit: Limit, key: str) -> bool:
        now, place = self.now(), (limit.type, key)
        tokens, since = self._buckets.pop(place, (float(limit.burst), now))
        tokens = min(float(limit.burst), tokens + (now - since) * limit.qps)
        self._buckets[place] = (tokens - 1 if tokens >= 1 else tokens, now)
        if len(self._buckets) > MOST_BUCKETS:
            self._buckets.popitem(last=False)
        return tokens >= 1


def _key(kind: str, attributes: Attributes) -> str:
    match kind:
        case "Namespace":
            return attributes.namespace
        case "User":
            return attributes.request.user.name
        case "SourceAndObject":
            return _source_and_object(attributes)
    return ""


def _source_and_object(attributes: Attributes) -> str:
    event = attributes.obj or {}
    about = event.get("involvedObject") or event.get("regarding") or {}
    source = event.get("source") or {}
    who = source.get("component") or event.get("reportingComponent") or event.get("reportingController") or ""
    parts: Iterable[object] = (
        who,
        source.get("host"),
        about.get("kind"),
        about.get("namespace") or namespace_of(event),
        about.get("name"),
        about.get("uid"),
        about.get("apiVersion"),
    )
    return "".join(str(part or "") for part in parts)
