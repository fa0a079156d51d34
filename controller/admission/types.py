"""Who asks, and what a request carries through admission into the registry.

`Request` is built once per HTTP request by the server, or once per loop by a reconciler, the scheduler, the node
lifecycle. Called by server, reconcilers, scheduler and registry (which re-exports both names); imports only `api`
and the store's vocabulary. Invariant: a Request says nothing about the object; the object travels beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from controller.store.types import Guard

NODE_PREFIX = "system:node:"
NODES_GROUP = "system:nodes"
MASTERS_GROUP = "system:masters"


@dataclass(frozen=True, slots=True)
class User:
    """An authenticated identity (authentication.k8s.io/v1 UserInfo)."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def node(self) -> str:
        """The node this identity is the agent of, or "" (system:node:NAME in group system:nodes)."""
        if self.name.startswith(NODE_PREFIX) and NODES_GROUP in self.groups:
            return self.name[len(NODE_PREFIX) :]
        return ""


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True)
class Request:
    """One request on its way in. `warnings` collects the texts of `Warning:` headers.

    `duplicates` are the paths of duplicate keys the decoder saw in the body, `repeated` what the YAML decoder says of
    them; `field_validation` says what becomes of them and of unknown fields: "Strict" 400, "Warn" a warning each,
    "Ignore" nothing.
    `guards` are compared in the same transaction as the write (leadership).
    `trusted` means that the object was made from an already validated template: no schema walk, and no validation but
    of what admission may have changed (pods; everything where there are mutating webhooks).
    """

    user: User
    dry_run: bool = False
    field_manager: str = ""
    field_validation: str = "Warn"
    warnings: list[str] = field(default_factory=list)
    duplicates: tuple[str, ...] = ()
    repeated: tuple[str, ...] = ()
    guards: tuple[Guard, ...] = ()
    trusted: bool = False
    force: bool = False
    """Server-side apply: take over fields other managers own."""
    user_agent: str = ""
    large: bool = False
    """Its body is: what is made of it is judged beside the event loop."""
    now: Callable[[], datetime] = utc_now
