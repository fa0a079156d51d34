"""Bootstrap tokens whose time is over: decisions compared whole."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest

from api.objects import Object, format_time
from controller.reconcilers.actions import Delete
from controller.reconcilers.bootstrap_tokens import SECRETS, Observed, decide, end_of
from controller.reconcilers.loop import NOTHING, Decision

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
GONE = Decision((Delete(SECRETS, "kube-system", "bootstrap-token-abcdef", "u"),))


def secret(expiration: str = "") -> Object:
    metadata = {"name": "bootstrap-token-abcdef", "namespace": "kube-system", "uid": "u"}
    data = {"expiration": base64.b64encode(expiration.encode()).decode()} if expiration else {}
    return {"metadata": metadata, "data": data}


@pytest.mark.parametrize(
    ("expiration", "expected"),
    [
        ("", NOTHING),
        (format_time(NOW + timedelta(minutes=2)), Decision(requeue_after_seconds=120.0)),
        (format_time(NOW), GONE),
        ("soon", GONE),
    ],
)
def test_a_token_goes_at_its_end_and_an_unreadable_end_is_over(expiration: str, expected: Decision) -> None:
    obj = secret(expiration)
    assert decide(Observed(obj, end_of(obj, NOW), NOW)) == expected
