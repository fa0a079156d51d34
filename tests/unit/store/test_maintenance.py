"""Compaction: what is kept for how long when nobody says."""

from __future__ import annotations

from controller.store.maintenance import ROUNDS_A_KEEP, Mark, decide
from controller.store.store import StoreConfig


def test_history_lives_five_minutes_and_a_continue_token_is_expired_within_ten() -> None:
    keep = StoreConfig(endpoints=("unix:/x",), encryption_key=b"").keep_seconds
    marks: list[Mark] = []
    compacted: dict[float, int] = {}
    now = 0.0
    while now <= 600:
        plan = decide(marks, now, int(now) + 1, keep)
        marks = plan.marks
        compacted[now] = plan.compact_to
        now += keep / ROUNDS_A_KEEP
    assert not any(upto for at, upto in compacted.items() if at < 300)
    assert min(at for at, upto in compacted.items() if upto) < 600
