"""The checker itself: it must accept what a register can do, and reject everything else."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as some

from tests.integration.chaos.history import Action, Operation, Outcome
from tests.integration.chaos.linearizability import NotLinearizable, linearize

READ, CREATE, REPLACE, SWAP, DELETE = Action
DONE, CONFLICT, EXISTS, MISSING, UNKNOWN = Outcome
FOR_EVER = float("inf")


def op(
    action: Action,
    when: tuple[float, float],
    tag: str | None = None,
    outcome: Outcome = DONE,
    *,
    over: str | None = None,
    version: int = 0,
) -> Operation:
    return Operation(action, when[0], tag, over, outcome, when[1], version)


def accepted(*operations: Operation) -> bool:
    try:
        order = linearize(operations)
    except NotLinearizable:
        return False
    return {one for one in operations if one.outcome is not UNKNOWN} <= set(order)


def test_one_after_the_other_is_accepted() -> None:
    assert accepted(
        op(READ, (0, 1), None),
        op(CREATE, (2, 3), "a", version=1),
        op(READ, (4, 5), "a", version=1),
        op(SWAP, (6, 7), "b", over="a", version=2),
        op(CREATE, (8, 9), "c", EXISTS),
        op(DELETE, (10, 11)),
        op(REPLACE, (12, 13), "d", MISSING),
        op(READ, (14, 15), None),
    )


def test_a_lost_write_is_rejected() -> None:
    assert not accepted(op(CREATE, (0, 1), "a"), op(READ, (2, 3), None))
    assert not accepted(op(CREATE, (0, 1), "a"), op(SWAP, (2, 3), "b", over="a"), op(READ, (4, 5), "a"))


def test_a_stale_read_is_rejected_unless_it_overlaps() -> None:
    def read_at(moment: float) -> bool:
        return accepted(
            op(CREATE, (0, 1), "a"), op(REPLACE, (2, 4), "b"), op(READ, (moment, moment + 0.5), "a"),
        )  # fmt: skip

    assert read_at(3)
    assert not read_at(5)


def test_reads_never_go_back() -> None:
    write = op(REPLACE, (2, 9), "b")
    assert accepted(op(CREATE, (0, 1), "a"), write, op(READ, (3, 4), "a"), op(READ, (5, 6), "b"))
    assert not accepted(op(CREATE, (0, 1), "a"), write, op(READ, (3, 4), "b"), op(READ, (5, 6), "a"))


def test_a_conflict_needs_another_write() -> None:
    first = op(CREATE, (0, 1), "a")
    refused = op(SWAP, (2, 3), "b", CONFLICT, over="a")
    assert not accepted(first, refused)
    assert not accepted(first, refused, op(SWAP, (4, 5), "c", over="a"))
    assert accepted(first, refused, op(SWAP, (2, 5), "c", over="a"))
    assert accepted(first, refused, op(SWAP, (2, FOR_EVER), "c", UNKNOWN, over="a"))


def test_two_swaps_over_one_value_cannot_both_succeed() -> None:
    swaps = [op(SWAP, (2, 5), tag, over="a") for tag in "bc"]
    assert not accepted(op(CREATE, (0, 1), "a"), *swaps)


def test_already_exists_and_not_found_need_their_reason() -> None:
    assert not accepted(op(CREATE, (0, 1), "a", EXISTS))
    assert not accepted(op(CREATE, (0, 1), "a"), op(DELETE, (2, 3), None, MISSING))
    assert accepted(op(CREATE, (0, 9), "a"), op(DELETE, (2, 3), None, MISSING))
    assert not accepted(op(CREATE, (0, 1), "a"), op(DELETE, (2, 3)), op(DELETE, (4, 5)))


def test_an_unknown_write_happens_late_or_never_but_only_once() -> None:
    unknown = op(REPLACE, (2, FOR_EVER), "b", UNKNOWN)
    first = op(CREATE, (0, 1), "a")
    assert accepted(first, unknown, op(READ, (90, 91), "a"))
    assert accepted(first, unknown, op(READ, (5, 6), "a"), op(READ, (90, 91), "b"))
    assert not accepted(first, unknown, op(READ, (1.1, 1.9), "b"))
    assert not accepted(
        first, unknown, op(READ, (3, 4), "b"), op(REPLACE, (5, 6), "c"), op(READ, (7, 8), "b")
    )  # fmt: skip


def test_versions_follow_the_order_of_the_writes() -> None:
    assert not accepted(op(CREATE, (0, 1), "a", version=5), op(REPLACE, (2, 3), "b", version=4))
    assert not accepted(op(CREATE, (0, 1), "a", version=5), op(READ, (2, 3), "a", version=6))
    overlapping = op(REPLACE, (2, 6), "b", version=9), op(REPLACE, (2, 6), "c", version=8)
    assert accepted(op(CREATE, (0, 1), "a", version=5), *overlapping, op(READ, (7, 8), "b", version=9))
    assert not accepted(op(CREATE, (0, 1), "a", version=5), *overlapping, op(READ, (7, 8), "c", version=8))


def test_an_unexplained_value_is_rejected() -> None:
    assert not accepted(op(READ, (0, 1), "from nowhere"))


def played(seed: int, clients: int, amount: int) -> list[Operation]:
    """A true history: each operation takes effect at one moment within its time, some answers get lost."""
    chance = random.Random(seed)
    free = dict.fromkeys(range(clients), 0.0)
    planned = []
    for number in range(amount):
        client = chance.randrange(clients)
        started = free[client] + chance.random()
        ended = started + chance.random() * 4
        free[client] = ended
        planned.append((chance.uniform(started, ended), started, ended, f"v{number}"))
    state: str | None = None
    version, history, old = 0, [], ["v0"]
    for _, started, ended, tag in sorted(planned):
        action = chance.choice(list(Action))
        one = Operation(action, started, tag, chance.choice([state or "v0", *old[-3:]]))
        outcome = DONE
        if action is CREATE and state is not None:
            outcome = EXISTS
        elif action in (REPLACE, SWAP, DELETE) and state is None:
            outcome = MISSING
        elif action is SWAP and one.expected != state:
            outcome = CONFLICT
        effective = outcome is DONE and action is not READ
        version += effective
        if action is READ:
            one.tag = state
        elif effective:
            state = None if action is DELETE else tag
            old.append(tag)
        one.end(outcome, ended, version if action in (CREATE, REPLACE, SWAP) and effective else 0)
        if chance.random() < 0.1:
            one.end(UNKNOWN, FOR_EVER)
        history.append(one)
    return history


@settings(max_examples=60, deadline=None)
@given(seed=some.integers(0, 2**32), clients=some.integers(1, 20))
def test_what_really_happened_is_always_accepted(seed: int, clients: int) -> None:
    assert accepted(*played(seed, clients, 150))


@settings(max_examples=40, deadline=None)
@given(seed=some.integers(0, 2**32))
def test_a_write_that_vanishes_from_a_true_history_is_noticed(seed: int) -> None:
    history = played(seed, 4, 60)
    after = max(one.ended for one in history if one.outcome is not UNKNOWN) + 1
    late = [op(CREATE, (after, after + 1), "x", EXISTS), op(REPLACE, (after, after + 1), "x", MISSING)]
    certain = [one for one in history if one.outcome is not UNKNOWN]
    closing = [op(REPLACE, (after + 2, after + 3), "y"), op(READ, (after + 4, after + 5), "y")]
    assert not accepted(*certain, *late)
    assert accepted(*history, *closing) or accepted(*history, op(CREATE, (after + 2, after + 3), "y"), closing[1])
    assert not accepted(*history, *closing, op(READ, (after + 6, after + 7), "x"))
