"""The reserve on etcd's disk: how much is kept, when it is given up, when it is whole again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controller.store.reserve import Decision, Seen, decide, reserve_bytes

MIB = 1 << 20
STAGE = 64 * MIB
BALLAST = 2 * STAGE
FREE = 10_000 * MIB


def decided(seen: Seen) -> Decision:
    return decide(seen, BALLAST, STAGE)


def test_five_percent_are_kept_at_most_256_mib_and_nothing_of_a_tiny_disk() -> None:
    assert reserve_bytes(63 * MIB) == 0
    assert reserve_bytes(100 * MIB) == 5 * MIB
    assert reserve_bytes(1000 * MIB) == 50 * MIB
    assert reserve_bytes(1 << 40) == 256 * MIB


def test_an_empty_disk_gets_the_whole_reserve() -> None:
    assert decided(Seen(FREE, 0, BALLAST, False)) == Decision(BALLAST, BALLAST, False)


def test_nothing_is_added_once_less_than_a_stage_is_free_though_the_reserve_is_whole() -> None:
    assert not decided(Seen(STAGE, BALLAST, 0, False)).short
    assert decided(Seen(STAGE - 1, BALLAST, 0, False)) == Decision(BALLAST, 0, True)


def test_additions_are_taken_again_only_with_half_a_stage_more_so_that_it_does_not_flutter() -> None:
    assert decided(Seen(STAGE + 1, BALLAST, 0, True)).short
    assert not decided(Seen(STAGE + STAGE // 2, BALLAST, 0, True)).short


def test_a_database_that_used_half_of_its_room_on_a_full_disk_gets_one_stage_of_the_ballast() -> None:
    assert decided(Seen(0, BALLAST, STAGE, True)) == Decision(BALLAST, 0, True)
    assert decided(Seen(0, BALLAST, STAGE + 1, True)) == Decision(STAGE, STAGE, True)
    assert decided(Seen(0, STAGE, BALLAST, True)) == Decision(0, STAGE, True)
    assert decided(Seen(0, 0, BALLAST, True)) == Decision(0, 0, True)


def test_a_ballast_is_made_again_when_that_leaves_a_stage_free() -> None:
    assert decided(Seen(2 * STAGE - 1, STAGE, 0, True)) == Decision(STAGE, 0, True)
    assert decided(Seen(2 * STAGE, STAGE, 0, True)) == Decision(BALLAST, 0, True)
    assert decided(Seen(2 * STAGE + STAGE // 2, STAGE, 0, True)) == Decision(BALLAST, 0, False)


@given(st.integers(0, 1 << 30), st.integers(0, BALLAST), st.integers(0, 1 << 28), st.booleans())
def test_no_look_takes_more_than_is_there_and_nothing_is_added_without_a_whole_reserve(
    free: int, ballast: int, lacking: int, short: bool
) -> None:
    decision = decided(Seen(free, ballast, lacking, short))
    assert 0 <= decision.ballast <= BALLAST and 0 <= decision.extension <= lacking
    assert decision.ballast + decision.extension <= free + ballast
    assert decision.short or (decision.ballast == BALLAST and decision.extension == lacking)
