"""The controller's clock is set back an hour, and forward again: liveness counts monotonic time, so nobody notices."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from api.client import MERGE_PATCH
from api.objects import parse_time
from tests.integration.chaos.agents import DEPLOYMENTS, Fleet, names
from tests.integration.chaos.clients import MAPS, config_map
from tests.integration.chaos.plane import Plane
from tests.integration.chaos.test_stalls import (
    CALM_SECONDS,
    TTL_SECONDS,
    check_unharmed,
    granted_again,
    rolls_on,
    settled,
)

HOUR = 3600


async def made_at(plane: Plane, name: str) -> datetime:
    connection = plane.connection()
    answer = await connection.request("POST", MAPS, config_map(name, "x"))
    connection.close()
    assert answer.status == 201, answer.body
    return parse_time(answer.json()["metadata"]["creationTimestamp"])


async def account_token(plane: Plane) -> str:
    connection = plane.connection()
    path = "/api/v1/namespaces/default/serviceaccounts/default/token"
    answer = await connection.request("POST", path, {"spec": {"expirationSeconds": 7200}})
    connection.close()
    return str(answer.json()["status"]["token"])


async def who(plane: Plane, token: str) -> Any:
    connection = plane.connection()
    connection.token = token
    path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    answer = await connection.request("POST", path, {})
    connection.close()
    return answer.json()["status"]["userInfo"]["username"] if answer.status == 201 else answer.body


async def count_ready_time(fleet: Fleet) -> None:
    """From now on pods are available only a while after they became ready: by the clock."""
    patch = {"spec": {"minReadySeconds": 1}}
    await fleet.client.patch(DEPLOYMENTS, ("default", "rolled", ""), patch, MERGE_PATCH)


async def test_an_hour_back_and_forth_kills_no_pod_and_stops_no_work(tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    clock.write_text("0")
    plane = Plane(tmp_path / "plane", module=("tests.integration.chaos.skewed", str(clock)))
    account = "system:serviceaccount:default:default"
    async with settled(plane) as fleet:
        before, token = names(fleet.pods), await account_token(plane)
        await count_ready_time(fleet)
        clock.write_text(str(-HOUR))
        assert datetime.now(UTC) - await made_at(plane, "back") > timedelta(minutes=59)
        await asyncio.sleep(TTL_SECONDS + 2)
        await check_unharmed(fleet, before)
        assert await who(plane, token) == account, "a token of before the change"
        plane.kill()
        plane.start()
        await plane.ready()
        await granted_again(fleet)
        assert await who(plane, token) == account
        late = await account_token(plane)
        await asyncio.sleep(CALM_SECONDS)
        await check_unharmed(fleet, before)
        clock.write_text("0")
        assert datetime.now(UTC) - await made_at(plane, "forth") < timedelta(minutes=1)
        assert await who(plane, late) == account
        await asyncio.sleep(TTL_SECONDS + 2)
        await check_unharmed(fleet, before)
        clock.write_text(str(-HOUR))
        await rolls_on(fleet, "v1")
