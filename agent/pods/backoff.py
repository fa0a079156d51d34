"""Back-off of restarts and image pulls, as the kubelet counts it. Pure.

The first restart is at once; then 10 s, doubling to 5 min; forgotten after 10 min without a failure. Called by the
lifecycle (when may it start?) and the worker (it starts: remember). Rule: k8s.io/client-go/util/flowcontrol.Backoff.
"""

from __future__ import annotations

from dataclasses import dataclass

FIRST_SECONDS = 10.0
LAST_SECONDS = 300.0
FORGET_SECONDS = 2 * LAST_SECONDS
SKEW_SECONDS = 5.0


@dataclass(frozen=True)
class Entry:
    """`delay_seconds` counted from a failure; `updated_at` is when the last attempt was let through."""

    delay_seconds: float
    updated_at: float


def expired(entry: Entry, moment: float) -> bool:
    return moment - entry.updated_at > FORGET_SECONDS


def is_over(until: float, now: float) -> bool:
    """Whether a wait has ended. No wait is longer than LAST_SECONDS: one that seems to be was made before the clock was
    set back, and is over."""
    return not now < until <= now + LAST_SECONDS + SKEW_SECONDS


def due_at(entry: Entry | None, failed_at: float) -> float:
    """When the next attempt after a failure may start; 0.0 is at once."""
    if entry is None or expired(entry, failed_at):
        return 0.0
    return failed_at + entry.delay_seconds


def following(entry: Entry | None, failed_at: float, now: float) -> Entry:
    """What to remember when an attempt starts after the failure at `failed_at`."""
    if entry is None or expired(entry, failed_at):
        return Entry(FIRST_SECONDS, now)
    return Entry(min(entry.delay_seconds * 2, LAST_SECONDS), now)


def shown(entry: Entry) -> str:
    """A delay as Go prints it: `10s`, `1m20s`, `5m0s`."""
    minutes, seconds = divmod(int(entry.delay_seconds), 60)
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"
