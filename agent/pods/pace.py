"""How soon a step that did not help may be done again. Pure.

Used by the worker. A step that failed, or that is asked for a second time before the pod came to rest, did not do what
it was for: it is done again later and later, whatever the cause. So no fault, known or not, makes a worker spin.
"""

from __future__ import annotations

from collections import Counter

from agent.pods.lifecycle import Step

FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS = 0.1, 5.0
_MOST_DOUBLINGS = 10


class Pace:
    """Of one worker: what it did since its pod was last at rest."""

    def __init__(self) -> None:
        self._times: Counter[Step] = Counter()

    def rest(self) -> None:
        """There was nothing to do: what was done before is no sign of trouble any more."""
        self._times.clear()

    def pause_after(self, step: Step, *, failed: bool) -> float:
        """Seconds to wait after a step was done; 0 when it is the first time and went well."""
        before = self._times[step]
        self._times[step] += 1
        if not before and not failed:
            return 0.0
        doublings = min(before if failed else before - 1, _MOST_DOUBLINGS)
        return float(min(FIRST_PAUSE_SECONDS * 2**doublings, LAST_PAUSE_SECONDS))
