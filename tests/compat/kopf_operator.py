"""An operator written with kopf, run unmodified (`kopf run`) by test_kopf.py: each Flower gets a pot that it owns.

Every side effect is appended to the file $EFFECTS before it happens, so that a test can count them. The pot is made
under a name that follows from the flower's, the receipt of a planting outlives the flower until the finalizer's handler
takes it away.
"""

from __future__ import annotations

import os
import ssl
from typing import Any

import aiohttp
import kopf

FLOWERS = ("garden.example.com", "v1", "flowers")
MAPS = f"{os.environ['SERVER']}/api/v1/namespaces/{os.environ['NAMESPACE']}/configmaps"
RETRY_SECONDS = 0.2


@kopf.on.startup()
async def start(settings: kopf.OperatorSettings, memo: kopf.Memo, **_: Any) -> None:
    context = ssl.create_default_context(cafile=os.environ["CA"])
    headers = {"Authorization": f"Bearer {os.environ['TOKEN']}"}
    memo.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context), headers=headers)
    settings.networking.error_backoffs = [RETRY_SECONDS] * 100
    settings.posting.default_backoffs = [RETRY_SECONDS] * 100
    settings.queueing.error_delays = [RETRY_SECONDS]
    settings.admission.managed = "garden.example.com"
    settings.admission.server = kopf.WebhookServer(
        addr="127.0.0.1",
        host="127.0.0.1",
        cafile=os.environ["CA"],
        certfile=os.environ["HOOK_CERTIFICATE"],
        pkeyfile=os.environ["HOOK_KEY"],
    )


@kopf.on.cleanup()
async def stop(memo: kopf.Memo, **_: Any) -> None:
    await memo.session.close()


@kopf.on.mutate(*FLOWERS, operations=["CREATE"])
def paint(spec: kopf.Spec, patch: kopf.Patch, **_: Any) -> None:
    if "colour" not in spec:
        patch.spec["colour"] = "red"


@kopf.on.validate(*FLOWERS, operations=["CREATE"])
def inspect(spec: kopf.Spec, warnings: list[str], **_: Any) -> None:
    if spec["petals"] > 1000:
        raise kopf.AdmissionError("too many petals", code=422)
    if spec["petals"] > 500:
        warnings.append("this one will droop")


@kopf.on.create(*FLOWERS)
async def plant(name: str, spec: kopf.Spec, body: kopf.Body, memo: kopf.Memo, **_: Any) -> dict[str, Any]:
    note("plant", name)
    pot = {"metadata": {"name": f"{name}-pot"}, "data": {"petals": str(spec["petals"])}}
    kopf.adopt(pot, owner=body)
    receipt = {"metadata": {"name": f"{name}-receipt"}}
    for child in (pot, receipt):
        await ask(memo, "POST", MAPS, child, allowed=(409,))
    kopf.info(body, reason="Planted", message=f"{name} stands in its pot")
    return {"petals": spec["petals"]}


@kopf.on.update(*FLOWERS, field="spec.petals")
async def trim(name: str, new: Any, patch: kopf.Patch, memo: kopf.Memo, **_: Any) -> None:
    note("trim", name)
    await ask(memo, "PATCH", f"{MAPS}/{name}-pot", {"data": {"petals": str(new)}})
    patch.status["petals"] = new


@kopf.on.delete(*FLOWERS)
async def dig(name: str, memo: kopf.Memo, **_: Any) -> None:
    note("dig", name)
    await ask(memo, "DELETE", f"{MAPS}/{name}-receipt", None, allowed=(404,))


def note(effect: str, name: str) -> None:
    with open(os.environ["EFFECTS"], "a") as file:
        file.write(f"{effect} {name}\n")


async def ask(memo: kopf.Memo, method: str, url: str, body: Any, *, allowed: tuple[int, ...] = ()) -> None:
    """One request; tried again by kopf when the server is away. `allowed`: what an earlier try may have left behind."""
    headers = {"Content-Type": "application/merge-patch+json"} if method == "PATCH" else {}
    try:
        async with memo.session.request(method, url, json=body, headers=headers) as answer:
            if answer.status >= 500:
                raise kopf.TemporaryError(await answer.text(), delay=RETRY_SECONDS)
            if answer.status >= 400 and answer.status not in allowed:
                raise kopf.PermanentError(await answer.text())
    except aiohttp.ClientError as error:
        raise kopf.TemporaryError(str(error), delay=RETRY_SECONDS) from error
