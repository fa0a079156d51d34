"""The watch on what really runs: what overlapped for a moment in the middle of a story is found."""

from __future__ import annotations

from tests.e2e.what_runs import Running, Sentry

OLD, NEW, OTHER = Running("n1", "u1", "c1"), Running("n2", "u2", "c2"), Running("n2", "u3", "c3")
NAMES = {"u1": "web-0", "u2": "web-0", "u3": "web-1"}


def name_of(one: Running) -> str:
    return NAMES[one.uid]


def seen(*moments: tuple[float, set[Running]]) -> Sentry:
    sentry = Sentry({}, "sleep")
    sentry.moments = [(at, frozenset(running)) for at, running in moments]
    return sentry


def test_what_ran_twice_for_a_moment_is_told_with_its_servers() -> None:
    sentry = seen((1.0, {OLD, OTHER}), (5.0, {OLD, NEW, OTHER}), (5.1, {NEW, OTHER}))
    assert sentry.doubled(name_of, 1.0) == ["4.00 s: web-0 on n1, n2"]
    assert sentry.most_at_once(1.0) == 3
    assert not sentry.doubled(name_of, 6.0) and sentry.most_at_once(6.0) == 2, "what runs already counts"


def test_who_ends_before_the_other_begins_is_not_doubled() -> None:
    sentry = seen((1.0, {OLD, OTHER}), (5.0, {OTHER}), (5.1, {NEW, OTHER}))
    assert not sentry.doubled(name_of, 0.0)
    assert sentry.most_at_once(0.0) == 2
