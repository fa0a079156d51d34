"""Startup, readiness and liveness probes: when to look, and what the looks add up to.

`judge` is the pure part; `watch_life` and `watch_readiness` run the probes of one attempt at a container and tell the
worker each change. Readiness and liveness wait for startup. A first look is taken at once, and counts only if it
succeeds: a program that is up at once is ready at once, and one that is not has its first period, as on a kubelet.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from agent.probing import Outcome, Prober, Result, Target

ProbeKind = Literal["startup", "readiness", "liveness"]
DEFAULT_PERIOD_SECONDS = 10
DEFAULT_TIMEOUT_SECONDS = 1
DEFAULT_FAILURES = 3


@dataclass(frozen=True)
class ProbeSpec:
    """The numbers of a probe, with Kubernetes' defaults."""

    kind: ProbeKind
    action: Mapping[str, Any]
    delay_seconds: float = 0.0
    period_seconds: float = DEFAULT_PERIOD_SECONDS
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    successes: int = 1
    failures: int = DEFAULT_FAILURES


@dataclass(frozen=True)
class Tally:
    """A run of equal results and the verdict so far (None: not known yet)."""

    last: Result = "unknown"
    run: int = 0
    verdict: bool | None = None


@dataclass(frozen=True)
class Finding:
    """What a probe tells its worker: a failed look (for the event), and a new verdict if it changed."""

    kind: ProbeKind
    outcome: Outcome
    verdict: bool | None = None


def probe_spec(kind: ProbeKind, container: Mapping[str, Any]) -> ProbeSpec | None:
    given = container.get(f"{kind}Probe")
    if not given:
        return None
    return ProbeSpec(
        kind,
        given,
        delay_seconds=given.get("initialDelaySeconds") or 0,
        period_seconds=given.get("periodSeconds") or DEFAULT_PERIOD_SECONDS,
        timeout_seconds=given.get("timeoutSeconds") or DEFAULT_TIMEOUT_SECONDS,
        successes=given.get("successThreshold") or 1,
        failures=given.get("failureThreshold") or DEFAULT_FAILURES,
    )


def judge(tally: Tally, spec: ProbeSpec, result: Result) -> Tally:
    """Counts one look: the verdict changes when its threshold of equal results in a row is reached. Pure."""
    if result == "unknown":
        return tally
    run = tally.run + 1 if tally.last == result else 1
    needed = spec.successes if result == "success" else spec.failures
    verdict = (result == "success") if run >= needed else tally.verdict
    return replace(tally, last=result, run=run, verdict=verdict)


@dataclass(frozen=True)
class Watch:
    """One attempt at a container to be probed: since when it runs, and whether it is past its startup already."""

    prober: Prober
    target: Target
    started_at: float
    tell: Callable[[Finding], None]
    past_startup: bool = False


async def watch_life(watch: Watch) -> None:
    """Startup, then liveness: until cancelled, or until one of them condemned the container."""
    startup = probe_spec("startup", watch.target.container)
    if startup is not None and not watch.past_startup and not await _until_verdict(watch, startup):
        return
    if (liveness := probe_spec("liveness", watch.target.container)) is not None:
        await _keep_looking(watch, liveness)


async def watch_readiness(watch: Watch) -> None:
    """Of a container that is past its startup: until cancelled."""
    if (readiness := probe_spec("readiness", watch.target.container)) is not None:
        await _keep_looking(watch, readiness)


async def _until_verdict(watch: Watch, spec: ProbeSpec) -> bool:
    tally = Tally()
    await _delay(watch, spec)
    tally = await _first_look(watch, spec, tally)
    while tally.verdict is None:
        await asyncio.sleep(spec.period_seconds)
        tally = await _look(watch, spec, tally)
    return tally.verdict


async def _keep_looking(watch: Watch, spec: ProbeSpec) -> None:
    tally = Tally(verdict=True if spec.kind == "liveness" else None)
    await _delay(watch, spec)
    if spec.kind == "readiness":
        tally = await _first_look(watch, spec, tally)
    while spec.kind != "liveness" or tally.verdict:
        await asyncio.sleep(spec.period_seconds)
        tally = await _look(watch, spec, tally)


async def _delay(watch: Watch, spec: ProbeSpec) -> None:
    left = watch.started_at + spec.delay_seconds - time.time()
    await asyncio.sleep(min(max(0.0, left), spec.delay_seconds))  # never longer, wherever the clock was set


async def _first_look(watch: Watch, spec: ProbeSpec, tally: Tally) -> Tally:
    outcome = await watch.prober.look(spec.action, watch.target, spec.timeout_seconds)
    return _counted(watch, spec, tally, outcome) if outcome.result == "success" else tally


async def _look(watch: Watch, spec: ProbeSpec, tally: Tally) -> Tally:
    return _counted(watch, spec, tally, await watch.prober.look(spec.action, watch.target, spec.timeout_seconds))


def _counted(watch: Watch, spec: ProbeSpec, tally: Tally, outcome: Outcome) -> Tally:
    after = judge(tally, spec, outcome.result)
    changed = after.verdict if after.verdict != tally.verdict else None
    if changed is not None or outcome.result != "success":
        watch.tell(Finding(spec.kind, outcome, changed))
    return after
