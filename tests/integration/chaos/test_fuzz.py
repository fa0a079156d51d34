"""Requests made by chance against a whole API server: nothing from 500 on, nothing that hangs, memory that stays.

WHERRY_FULL=1 sends a million (WHERRY_FUZZ_INPUTS: another number; WHERRY_FUZZ_SEED: others), else a few thousand. A
failure is told with its seed: `python -m tests.integration.chaos.test_fuzz SEED...` shows what was sent.
"""

from __future__ import annotations

import asyncio
import collections
import os
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tests.integration.chaos.fuzzing.inputs import request_of
from tests.integration.chaos.fuzzing.objects import SPECS
from tests.integration.chaos.fuzzing.verdict import is_failure
from tests.integration.chaos.plane import FULL, Plane, prepared_plane, resident_bytes
from tests.integration.chaos.wire import Broken, Connection, Unsent

INPUTS = int(os.environ.get("WHERRY_FUZZ_INPUTS", "1000000" if FULL else "4000"))
FIRST = int(os.environ.get("WHERRY_FUZZ_SEED", "0"))
AT_ONCE = 6
REQUEST_SECONDS = 10.0
GROWTH_BYTES = 192 << 20
"""Beyond the first tenth: events kept for watches (64 MiB as counted) and caches fill, and then they are full."""


@dataclass
class Tally:
    statuses: collections.Counter[int] = field(default_factory=collections.Counter)
    failures: dict[str, str] = field(default_factory=dict)
    slowest_seconds: float = 0.0
    slowest_seed: int = 0
    resident: list[int] = field(default_factory=list)

    def note(self, seed: int, what: str) -> None:
        self.failures.setdefault(re.sub(r"\d+", "#", what)[:160], f"seed {seed}: {what[:600]}")


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    with prepared_plane(tmp_path_factory.mktemp("fuzz") / "plane", "--controllers", "none", prepare=_prepare) as found:
        yield found


async def _prepare(plane: Plane) -> None:
    connection = plane.connection()
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "gadgets.fuzz.test"},
        **SPECS["CustomResourceDefinition"],
    }
    for path, body in (
        ("/api/v1/namespaces", {"metadata": {"name": "fuzz"}}),
        ("/api/v1/namespaces/fuzz/serviceaccounts", {"metadata": {"name": "default"}}),
        ("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition),
    ):
        answer = await connection.request("POST", path, body)
        assert answer.status == 201, answer.body
    connection.close()


async def _client(plane: Plane, seeds: Iterator[int], tally: Tally, every: int) -> None:
    connection = plane.connection(REQUEST_SECONDS)
    for seed in seeds:
        if seed % every == 0:
            tally.resident.append(resident_bytes(plane.pid))
        await _one(connection, seed, tally)
    connection.close()


async def _one(connection: Connection, seed: int, tally: Tally) -> None:
    made = request_of(seed)
    began = time.monotonic()
    try:
        answer = await connection.request(made.method, made.path, made.body, made.headers)
    except (Broken, Unsent, UnicodeEncodeError) as error:
        tally.note(seed, f"{made.method} {made.path[:100]}: {type(error).__name__} {error}")
        connection.close()
        return
    seconds = time.monotonic() - began
    if seconds > tally.slowest_seconds and "watch" not in made.path:
        tally.slowest_seconds, tally.slowest_seed = seconds, seed
    tally.statuses[answer.status] += 1
    if is_failure(answer.status, made.path, answer.body):
        tally.note(
            seed, f"{answer.status} {answer.body[:400].decode('utf-8', 'replace')} {made.method} {made.path[:100]}"
        )


async def fuzz(plane: Plane) -> Tally:
    tally = Tally()
    seeds = iter(range(FIRST, FIRST + INPUTS))
    every = max(INPUTS // 20, 1)
    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(_client(plane, seeds, tally, every))
    tally.resident.append(resident_bytes(plane.pid))
    return tally


def test_whatever_is_sent_is_answered_and_leaves_nothing_behind(plane: Plane) -> None:
    began = time.monotonic()
    tally = asyncio.run(fuzz(plane))
    megabytes = [size >> 20 for size in tally.resident]
    print(f"{INPUTS} inputs from {FIRST} in {time.monotonic() - began:.0f} s; answers {sorted(tally.statuses.items())}")
    print(f"resident MiB {megabytes}; slowest {tally.slowest_seconds:.2f} s (seed {tally.slowest_seed})")
    trouble = "\n".join(
        [*tally.failures.values(), *(line[:3000] for line in plane.log.splitlines() if "Traceback" in line)][:20]
    )
    assert not trouble.strip(), trouble
    assert (asyncio.run(plane.get("/readyz"))).body == b"ok"
    early = max(tally.resident[: max(len(tally.resident) // 10, 2)])
    assert tally.resident[-1] - early < GROWTH_BYTES, megabytes
    assert tally.statuses[200] + tally.statuses[201] > INPUTS // 20, "most inputs are not even taken seriously"


if __name__ == "__main__":
    for number in sys.argv[1:]:
        shown = request_of(int(number))
        print(shown.method, shown.path, shown.headers)
        sys.stdout.buffer.write((shown.body or b"") + b"\n")
