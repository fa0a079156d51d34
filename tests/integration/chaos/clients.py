"""Clients that write one key against each other and note what they were told.

Used by test_linearizable.py. `counting` is a compare-and-set counter: read, add one, PUT with the resourceVersion that
was read. `contending` creates, replaces and deletes one key. What a reply means for the history stands in `_OUTCOMES`:
503 and 429 claim that nothing was written, and are held to it; 504 and a broken connection leave it open.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.integration.chaos.history import Action, History, Operation, Outcome
from tests.integration.chaos.wire import Answer, Broken, Connection, Unsent

MAPS = "/api/v1/namespaces/default/configmaps"
_OUTCOMES = {
    200: Outcome.DONE,
    201: Outcome.DONE,
    404: Outcome.MISSING,
    504: Outcome.UNKNOWN,
}
_REFUSED = (429, 503)
_PAUSE_SECONDS = 0.1


@dataclass
class Work:
    """What all clients share. `stop` ends them after the operation they are in."""

    history: History = field(default_factory=History)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    statuses: Counter[int] = field(default_factory=Counter)
    broken: int = 0
    _tags: itertools.count[int] = field(default_factory=itertools.count)

    def tag(self, client: str) -> str:
        return f"{client}.{next(self._tags)}"


@dataclass
class Client:
    """One client's own view: its connection and the history it writes."""

    name: str
    work: Work
    connection: Connection

    async def act(self, key: str, operation: Operation, method: str, body: Any = None) -> Answer | None:
        """Carries an operation out and notes how it ended. None: it was not carried out, or nobody knows."""
        self.work.history.begin(key, operation)
        path = MAPS if method == "POST" else f"{MAPS}/{key}"
        try:
            answer = await self.connection.request(method, path, body)
        except Unsent:
            self.work.history.withdraw(key, operation)
        except Broken:
            self.work.broken += 1
        else:
            self.work.statuses[answer.status] += 1
            if answer.status in _REFUSED:
                self.work.history.withdraw(key, operation)
            elif answer.status != 504:
                _note(operation, answer)
                return answer
        await asyncio.sleep(_PAUSE_SECONDS)
        return None

    async def read(self, key: str) -> tuple[str | None, Any]:
        """(tag, the object); asks until it is told."""
        while True:
            operation = Operation(Action.READ, time.monotonic())
            answer = await self.act(key, operation, "GET")
            if answer is not None:
                return operation.tag, answer.json()


def _note(operation: Operation, answer: Answer) -> None:
    body = answer.json()
    if answer.status == 409:
        outcome = Outcome.EXISTS if body["reason"] == "AlreadyExists" else Outcome.CONFLICT
        operation.end(outcome, time.monotonic())
        return
    assert answer.status in _OUTCOMES, f"{operation.action} was answered {answer.status}: {answer.message}"
    version = 0
    if body["kind"] == "ConfigMap":
        version = int(body["metadata"]["resourceVersion"])
        if operation.action is Action.READ:
            operation.tag = body["data"]["tag"]
    outcome = _OUTCOMES[answer.status]
    if operation.action is Action.READ:
        outcome = Outcome.DONE  # "not found" is what it read
    operation.end(outcome, time.monotonic(), version)


def config_map(key: str, tag: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": key}, "data": {"tag": tag, **data}}


async def counting(client: Client, key: str) -> int:
    """Adds one, again and again; how many additions were acknowledged."""
    acknowledged = 0
    while not client.work.stop.is_set():
        seen, obj = await client.read(key)
        tag = client.work.tag(client.name)
        obj["data"] = {"tag": tag, "count": str(int(obj["data"]["count"]) + 1)}
        operation = Operation(Action.SWAP, time.monotonic(), tag, seen)
        answer = await client.act(key, operation, "PUT", obj)
        acknowledged += answer is not None and answer.status == 200
    return acknowledged


async def contending(client: Client, key: str, chance: random.Random) -> None:
    """Creates, replaces, reads and deletes."""
    while not client.work.stop.is_set():
        action = chance.choices((Action.CREATE, Action.REPLACE, Action.DELETE, Action.READ), (3, 4, 2, 2))[0]
        tag = client.work.tag(client.name)
        operation = Operation(action, time.monotonic(), tag if action in (Action.CREATE, Action.REPLACE) else None)
        match action:
            case Action.CREATE:
                await client.act(key, operation, "POST", config_map(key, tag))
            case Action.REPLACE:
                await client.act(key, operation, "PUT", config_map(key, tag))
            case Action.DELETE:
                await client.act(key, operation, "DELETE")
            case _:
                await client.act(key, operation, "GET")
