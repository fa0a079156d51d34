"""Unmodified kopf runs an operator against a real controller, and both are killed in the middle of the work.

A hundred flowers are planted, trimmed and dug up (kopf_operator.py): custom objects with finalizers, owned children,
status patches, events and webhooks. kopf promises each handler at least once, again only if its success was not yet
on record; so what was on record before a kill must not happen again. Two gaps of kopf's own are allowed for: an object
whose finalizer it set without hearing so waits for its next event (`nudge`), and it writes metadata and status apart,
so that a status may be missing after its own death (pots are looked at instead).
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from controller.store.server import dying_with_us
from tests.integration.chaos.plane import Plane, running
from tests.integration.chaos.wire import Answer, Broken, Connection, Unsent

FLOWERS = 100
SECONDS = 60.0
GROUP, NAMESPACE = "garden.example.com", "garden"
PLURAL = f"/apis/{GROUP}/v1/namespaces/{NAMESPACE}/flowers"
CORE = f"/api/v1/namespaces/{NAMESPACE}"
MAPS = f"{CORE}/configmaps"
MERGE = {"Content-Type": "application/merge-patch+json"}
Object = dict[str, Any]


def definition() -> Object:
    whole = {"type": "integer", "minimum": 0}
    spec = {"type": "object", "required": ["petals"], "properties": {"petals": whole, "colour": {"type": "string"}}}
    status = {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "properties": {"petals": whole}}
    schema = {"type": "object", "properties": {"spec": spec, "status": status}}
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
    }
    names = {"plural": "flowers", "singular": "flower", "kind": "Flower"}
    return {
        "metadata": {"name": f"flowers.{GROUP}"},
        "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [version]},
    }


def flower(name: str, petals: int) -> Object:
    kind = {"apiVersion": f"{GROUP}/v1", "kind": "Flower"}
    return {**kind, "metadata": {"name": name}, "spec": {"petals": petals}}


@dataclass
class Garden:
    """What the test asks of the controller, and the operator's process."""

    plane: Plane
    directory: Path
    idle: list[Connection] = field(default_factory=list)

    async def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        """Tried again until somebody answers."""
        while True:
            connection = self.idle.pop() if self.idle else self.plane.connection()
            try:
                answer = await connection.request(method, path, body, headers)
            except (Unsent, Broken):
                await asyncio.sleep(0.1)
            else:
                self.idle.append(connection)
                return answer

    async def made(self, path: str, body: Object) -> None:
        answer = await self.ask("POST", path, body)
        assert answer.status in (201, 409), answer.body

    async def items(self, path: str) -> list[Object]:
        items: list[Object] = (await self.ask("GET", path)).json()["items"]
        return items

    async def until(self, path: str, holds: Callable[[list[Object]], bool], what: str) -> list[Object]:
        """The items of a list once `holds` is true of them."""
        deadline = time.monotonic() + SECONDS
        while not holds(items := await self.items(path)):
            assert time.monotonic() < deadline, f"not within {SECONDS} s: {what}\n{self.log[-3000:]}"
            await asyncio.sleep(0.2)
        return items

    async def restart(self) -> None:
        self.plane.kill()
        self.plane.start()
        await self.plane.ready()

    @property
    def log(self) -> str:
        return (self.directory / "operator.log").read_text()

    def effects(self) -> Counter[str]:
        file = self.directory / "effects"
        return Counter(file.read_text().splitlines()) if file.exists() else Counter()

    @contextmanager
    def operator(self) -> Iterator[subprocess.Popen[bytes]]:
        pki = self.plane.directory / "pki"
        environment = {
            "KUBECONFIG": str(self.plane.directory / "admin.kubeconfig"),
            "SERVER": f"https://127.0.0.1:{self.plane.port}",
            "NAMESPACE": NAMESPACE,
            "TOKEN": self.plane.token.strip(),
            "CA": str(pki / "ca.crt"),
            "HOOK_CERTIFICATE": str(pki / "apiserver.crt"),
            "HOOK_KEY": str(pki / "apiserver.key"),
            "EFFECTS": str(self.directory / "effects"),
        }
        program = Path(__file__).with_name("kopf_operator.py")
        line = [sys.executable, "-m", "kopf", "run", "--standalone", "-n", NAMESPACE, str(program)]
        with (self.directory / "operator.log").open("ab") as log:
            process = subprocess.Popen(
                line, stdout=log, stderr=log, env={**os.environ, **environment}, preexec_fn=dying_with_us()
            )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def planted(flowers: list[Object]) -> list[Object]:
    return [each for each in flowers if each.get("status", {}).get("plant")]


def trimmed(maps: list[Object]) -> int:
    return len([each for each in maps if each.get("data", {}).get("petals") == "7"])


def names(objects: list[Object]) -> set[str]:
    return {each["metadata"]["name"] for each in objects}


@pytest.fixture
async def garden(tmp_path: Path) -> AsyncIterator[Garden]:
    """A controller that knows flowers."""
    async with running(Plane(tmp_path / "plane", options=("--controllers", "*,-scheduler"))) as plane:
        made = Garden(plane, tmp_path)
        await made.made("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        await made.made("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition())
        yield made


async def hooked(garden: Garden) -> None:
    """Returns when kopf's webhooks are configured and answer."""
    path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
    await garden.until(path, lambda found: any(each.get("webhooks") for each in found), "webhooks")
    async with asyncio.timeout(SECONDS):
        while (answer := await garden.ask("POST", f"{PLURAL}?dryRun=All", flower("probe", 5))).status == 500:
            assert "failed calling webhook" in answer.message
            await asyncio.sleep(0.1)


async def plant(garden: Garden) -> None:
    for number in range(FLOWERS):
        await garden.made(PLURAL, flower(f"f{number}", 5))


async def test_a_hundred_flowers_outlive_the_end_of_controller_and_operator(garden: Garden) -> None:
    with garden.operator() as operator:
        await hooked(garden)
        await plant(garden)
        await garden.until(PLURAL, lambda found: len(planted(found)) >= 20, "some flowers are planted")
        on_record = names(planted(await garden.items(PLURAL)))
        await garden.restart()
        flowers = await all_planted(garden)
        assert all(each["metadata"]["finalizers"] and each["spec"]["colour"] == "red" for each in flowers)
        assert all(garden.effects()[f"plant {name}"] == 1 for name in on_record)
        await check_pots(garden, flowers, "5")
        await refuse_what_the_webhook_refuses(garden)
        for name in names(flowers):
            assert (await garden.ask("PATCH", f"{PLURAL}/{name}", {"spec": {"petals": 7}}, MERGE)).status == 200
        await garden.until(MAPS, lambda found: trimmed(found) >= 20, "some flowers are trimmed")
        operator.kill()
    with garden.operator():
        await hooked(garden)
        await garden.until(MAPS, lambda found: trimmed(found) == FLOWERS, "all flowers are trimmed")
        await check_pots(garden, flowers, "7")
        await check_events(garden, names(flowers))
        assert (await garden.ask("DELETE", PLURAL)).status == 200
        await garden.until(PLURAL, lambda found: len(found) <= FLOWERS - 20, "some flowers are dug up")
        await garden.restart()
        await garden.until(PLURAL, lambda found: not found, "all flowers are gone")
        await garden.until(MAPS, lambda found: names(found) == {"kube-root-ca.crt"}, "all pots went")
    effects = garden.effects()
    for effect in ("plant", "trim", "dig"):
        done = {line.split()[1]: count for line, count in effects.items() if line.startswith(f"{effect} ")}
        assert len(done) == FLOWERS, f"{effect}: {sorted(done)}"
    print(f"{effects.total()} handlers ran for {3 * FLOWERS} effects, {garden.log.count('Traceback')} tracebacks")


async def all_planted(garden: Garden) -> list[Object]:
    """The flowers once all are planted; those that wait when nothing moves any more are nudged."""
    before = -1
    async with asyncio.timeout(SECONDS):
        while len(done := planted(flowers := await garden.items(PLURAL))) < FLOWERS:
            if len(done) == before:
                await nudge(garden, names(flowers) - names(done))
            before = len(done)
            await asyncio.sleep(1.5)
    return flowers


async def nudge(garden: Garden, late: set[str]) -> None:
    patch = {"metadata": {"annotations": {"example.com/nudged": "yes"}}}
    for name in late:
        await garden.ask("PATCH", f"{PLURAL}/{name}", patch, MERGE)


async def check_pots(garden: Garden, flowers: list[Object], petals: str) -> None:
    """One pot a flower, owned by it, and one receipt."""
    uids = {each["metadata"]["name"]: each["metadata"]["uid"] for each in flowers}
    maps = await garden.items(MAPS)
    pots = [each for each in maps if each["metadata"]["name"].endswith("-pot")]
    owners = {each["metadata"]["name"]: each["metadata"]["ownerReferences"][0]["uid"] for each in pots}
    assert owners == {f"{name}-pot": uid for name, uid in uids.items()}
    assert {each["data"]["petals"] for each in pots} == {petals}
    assert len([name for name in names(maps) if name.endswith("-receipt")]) == FLOWERS


async def check_events(garden: Garden, flowers: set[str]) -> None:
    events = await garden.until(
        f"{CORE}/events?fieldSelector=reason=Planted,involvedObject.kind=Flower",
        lambda found: {each["involvedObject"]["name"] for each in found} == flowers,
        "each planting is an event",
    )
    assert {each["type"] for each in events} == {"Normal"}


async def refuse_what_the_webhook_refuses(garden: Garden) -> None:
    refused = await garden.ask("POST", PLURAL, flower("monster", 5000))
    assert refused.status == 422, refused.body
    assert refused.message.startswith('admission webhook "inspect.') and "too many petals" in refused.message
    warned = await garden.ask("POST", f"{PLURAL}?dryRun=All", flower("heavy", 600))
    assert (warned.status, warned.headers["warning"]) == (201, '299 - "this one will droop"')
