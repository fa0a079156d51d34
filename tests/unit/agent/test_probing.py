"""Probes: what looks add up to, and when they are taken."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import pytest

from agent.probes import Finding, ProbeSpec, Tally, Watch, judge, watch_life, watch_readiness
from agent.probing import Outcome, Prober, Target
from agent.runtime.fake import FakeRuntime
from tests.unit.agent.builders import a_container

SPEC = ProbeSpec("readiness", {}, successes=2, failures=3)


def test_a_verdict_needs_its_threshold_of_equal_looks_in_a_row() -> None:
    tally = Tally()
    verdicts = []
    results = ("success", "failure", "success", "success", "failure", "failure", "unknown", "failure", "success")
    for result in results:
        tally = judge(tally, SPEC, result)  # type: ignore[arg-type]
        verdicts.append(tally.verdict)
    assert verdicts == [None, None, None, True, True, True, True, False, False]


class ScriptedProber(Prober):
    """Answers looks from a script; the last answer is repeated."""

    def __init__(self, *results: str) -> None:
        super().__init__(FakeRuntime())
        self._script: Iterator[str] = iter(results)
        self._last = ""
        self.looks: list[float] = []

    async def look(self, action: Any, target: Target, timeout_seconds: float) -> Outcome:
        self.looks.append(asyncio.get_running_loop().time())
        self._last = next(self._script, self._last)
        return Outcome(self._last)  # type: ignore[arg-type]


async def probed(prober: ScriptedProber, seconds: float, **probes: Any) -> list[Finding]:
    found: list[Finding] = []
    target = Target("id", a_container(**probes), "10.0.0.2")
    try:
        async with asyncio.timeout(seconds):
            watch = Watch(prober, target, time.time(), found.append)
            await asyncio.gather(watch_life(watch), watch_readiness(watch))
    except TimeoutError:
        pass
    return found


pytestmark = pytest.mark.looptime


async def test_readiness_is_found_at_the_first_look() -> None:
    prober = ScriptedProber("success")
    found = await probed(prober, 5, readinessProbe={"exec": {}, "periodSeconds": 10})
    assert [(finding.kind, finding.verdict) for finding in found] == [("readiness", True)]
    assert len(prober.looks) == 1


async def test_a_failing_first_look_does_not_count_and_the_next_are_a_period_apart() -> None:
    prober = ScriptedProber("failure")
    found = await probed(prober, 3.5, startupProbe={"exec": {}, "periodSeconds": 1, "failureThreshold": 2})
    assert [finding.verdict for finding in found] == [None, False]
    assert [round(at - prober.looks[0], 1) for at in prober.looks] == [0, 1, 2]


async def test_liveness_waits_for_startup() -> None:
    prober = ScriptedProber("failure", "failure", "success", "failure")
    probes = {
        "startupProbe": {"exec": {}, "periodSeconds": 1},
        "livenessProbe": {"exec": {}, "periodSeconds": 1, "failureThreshold": 2},
    }
    found = await probed(prober, 10, **probes)
    assert [(finding.kind, finding.verdict) for finding in found] == [
        ("startup", None), ("startup", True), ("liveness", None), ("liveness", False),
    ]  # fmt: skip


async def test_readiness_comes_and_goes() -> None:
    prober = ScriptedProber("success", "failure", "failure", "success")
    probe = {"exec": {}, "periodSeconds": 1, "failureThreshold": 2}
    found = await probed(prober, 4.5, readinessProbe=probe)
    assert [finding.verdict for finding in found if finding.verdict is not None] == [True, False, True]
