"""Is a history linearizable? A checker of our own after Wing & Gong and porcupine, for one key at a time.

Used by the chaos tests. It looks for an order of the operations that respects real time and in which every answer is
the one a single register would have given: a Conflict needs a value other than the expected one, AlreadyExists needs a
value, NotFound needs none. An operation of unknown outcome may be anywhere after its start, or nowhere.
Four facts keep the search small. An answer that changes nothing can be taken as soon as it is right. Effective writes
must come in the order of their resourceVersions (which is checked by that, too). Of unknown deletes, and of unknown
creates whose value nobody saw, the one that began first stands for all: the others may be anywhere it may be left for.
An unknown replace whose value nobody saw explains nothing unless somebody compares values, and is left out.
Wing and Gong, "Testing and Verifying Concurrent Objects", 1993.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from tests.integration.chaos.history import Action, Operation, Outcome

MOST_STEPS = 3_000_000
_WRITES = (Action.CREATE, Action.REPLACE, Action.SWAP)
State = str | None


class NotLinearizable(AssertionError):
    """No order explains the answers; the message shows how far the best order got, and what then stood against it."""


def changes(operation: Operation) -> bool:
    return operation.action is not Action.READ and operation.outcome in (Outcome.DONE, Outcome.UNKNOWN)


def answered_rightly(state: State, operation: Operation) -> bool:
    """Whether a register holding `state` gives this answer. An unknown outcome counts as taking effect."""
    match operation.outcome:
        case Outcome.CONFLICT:
            return state is not None and state != operation.expected
        case Outcome.EXISTS:
            return state is not None
        case Outcome.MISSING:
            return state is None
    match operation.action:
        case Action.READ:
            return state == operation.tag
        case Action.CREATE:
            return state is None
        case Action.SWAP:
            return state is not None and state == operation.expected
        case _:
            return state is not None


def linearize(operations: Iterable[Operation], state: State = None) -> list[Operation]:
    """The order that explains the history of a key that held `state` at first. Raises NotLinearizable."""
    given = [one for one in operations if one.outcome is not Outcome.UNKNOWN or changes(one)]
    seen = {one.tag for one in given if one.action is Action.READ and one.outcome is Outcome.DONE}
    seen |= {one.expected for one in given}
    unseen = {id(one) for one in given if one.outcome is Outcome.UNKNOWN and one.tag not in seen}
    if not any(one.action is Action.SWAP or one.outcome is Outcome.CONFLICT for one in given):
        given = [one for one in given if not (id(one) in unseen and one.action is Action.REPLACE)]
    return _Search(sorted(given, key=lambda one: one.started), _versions(given), unseen).run(state)


def _versions(operations: Sequence[Operation]) -> dict[str, int]:
    """The resourceVersion of every value that anybody saw. Raises NotLinearizable for a value with two."""
    found: dict[str, int] = {}
    for one in operations:
        if one.tag is None or not one.version or one.outcome is not Outcome.DONE:
            continue
        if found.setdefault(one.tag, one.version) != one.version:
            raise NotLinearizable(f"{one.tag} was seen at version {found[one.tag]} and at {one.version}")
    return found


@dataclass(slots=True)
class _Frame:
    """One taken operation: where we came from, and what else could be tried there."""

    taken: Operation
    before: State
    others: Iterator[Operation]


class _Search:
    """`unseen`: ids of writes of unknown outcome whose value nobody read or compared with."""

    def __init__(self, operations: list[Operation], versions: dict[str, int], unseen: set[int]) -> None:
        self._unseen = unseen
        self._known = [one for one in operations if one.outcome is not Outcome.UNKNOWN]
        self._open = [one for one in operations if one.outcome is Outcome.UNKNOWN]
        everything = [*self._known, *self._open]
        self._bits = {id(one): 1 << place for place, one in enumerate(everything)}
        self._version = {id(one): versions.get(one.tag or "", 0) for one in everything if one.action in _WRITES}
        effective = [one for one in everything if changes(one) and self._version.get(id(one))]
        self._in_order = sorted(effective, key=lambda one: self._version[id(one)])
        self._mask = 0
        self._first = 0
        self._left = len(self._known)
        self._written = 0

    def run(self, state: State) -> list[Operation]:
        frames: list[_Frame] = []
        seen: set[tuple[int, State]] = set()
        best: list[Operation] = []
        choices = self._choices(state)
        for _ in range(MOST_STEPS):
            if not self._left:
                return [frame.taken for frame in frames]
            taken = next(choices, None)
            if taken is None:
                if len(frames) > len(best):
                    best = [frame.taken for frame in frames]
                if not frames:
                    raise NotLinearizable(self._story(best))
                frame = frames.pop()
                self._put_back(frame.taken)
                state, choices = frame.before, frame.others
                continue
            after = _after(state, taken)
            mark = (self._mask | self._bits[id(taken)], after)
            if mark in seen:
                continue
            seen.add(mark)
            frames.append(_Frame(taken, state, choices))
            self._take(taken)
            state = after
            choices = self._choices(state)
        raise NotLinearizable(f"no verdict after {MOST_STEPS} steps; {self._story(best)}")

    def _choices(self, state: State) -> Iterator[Operation]:
        """What may come next, the likeliest first: an unchanging answer alone if there is one."""
        candidates, bound = self._candidates()
        for one in candidates:
            if not changes(one) and answered_rightly(state, one):
                return iter((one,))
        following = self._following()
        writes = [one for one in candidates if changes(one) and self._fits(one, following)]
        writes.sort(key=lambda one: (one is not following, one.ended))
        late = [one for one in self._open if one.started <= bound and not self._mask & self._bits[id(one)]]
        late = [one for one in late if self._fits(one, following)]
        late = self._representatives(late)
        late.sort(key=lambda one: one is not following)
        if following in late:
            writes, late = [following, *writes], late[1:]
        return iter([one for one in (*writes, *late) if answered_rightly(state, one)])

    def _representatives(self, late: list[Operation]) -> list[Operation]:
        """Of unknown operations that do the same, the first to begin; `late` is in the order of beginning."""
        found: dict[object, Operation] = {}
        for one in late:
            same = one.action is Action.DELETE or (one.action is Action.CREATE and id(one) in self._unseen)
            found.setdefault(one.action if same else id(one), one)
        return list(found.values())

    def _candidates(self) -> tuple[list[Operation], float]:
        """Known operations that no other left one precedes in real time; and until when others may have begun."""
        found: list[Operation] = []
        bound = float("inf")
        for place in range(self._first, len(self._known)):
            one = self._known[place]
            if one.started > bound:
                break
            if not self._mask & self._bits[id(one)]:
                found.append(one)
                bound = min(bound, one.ended)
        return found, bound

    def _following(self) -> Operation | None:
        """Of the writes whose version is known, the next."""
        return self._in_order[self._written] if self._written < len(self._in_order) else None

    def _fits(self, one: Operation, following: Operation | None) -> bool:
        return one is following or not self._version.get(id(one))

    def _take(self, one: Operation) -> None:
        self._mask |= self._bits[id(one)]
        self._left -= one.outcome is not Outcome.UNKNOWN
        self._written += one is self._following()
        while self._first < len(self._known) and self._mask & self._bits[id(self._known[self._first])]:
            self._first += 1

    def _put_back(self, one: Operation) -> None:
        self._mask &= ~self._bits[id(one)]
        self._left += one.outcome is not Outcome.UNKNOWN
        if self._written and self._in_order[self._written - 1] is one:
            self._written -= 1
        if one.outcome is not Outcome.UNKNOWN:
            self._first = min(self._first, self._bits[id(one)].bit_length() - 1)

    def _story(self, best: list[Operation]) -> str:
        taken = {id(one) for one in best}
        left = [one for one in self._known if id(one) not in taken][:12]
        tail = "\n  ".join(map(str, best[-12:]))
        stuck = "\n  ".join(map(str, left))
        return f"{len(best)} of {len(self._known)} answers explained, the last:\n  {tail}\nthen none of\n  {stuck}"


def _after(state: State, taken: Operation) -> State:
    if not changes(taken):
        return state
    return None if taken.action is Action.DELETE else taken.tag
