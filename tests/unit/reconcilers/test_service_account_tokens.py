"""Secrets that ask for a token: decisions compared whole."""

from __future__ import annotations

from typing import Any

from api.objects import Object
from controller.reconcilers.actions import Delete, Write
from controller.reconcilers.loop import NOTHING, Decision
from controller.reconcilers.service_account_tokens import ACCOUNT_UID, SECRETS, Observed, decide

ACCOUNT = {"metadata": {"name": "bot", "namespace": "w", "uid": "uid-bot"}}
WHERE = (SECRETS, "w", "s", "uid-s")


def secret(**annotations: str) -> Object:
    metadata: dict[str, Any] = {"name": "s", "namespace": "w", "uid": "uid-s", "annotations": annotations}
    return {"metadata": metadata}


def test_an_empty_secret_is_filled_and_names_the_account_it_speaks_for() -> None:
    merge = {"data": {"token": "t"}, "metadata": {"annotations": {ACCOUNT_UID: "uid-bot"}}}
    assert decide(Observed(secret(), ACCOUNT, {"token": "t"})) == Decision((Write(*WHERE, merge=merge),))


def test_a_full_one_is_left_alone() -> None:
    assert decide(Observed(secret(**{ACCOUNT_UID: "uid-bot"}), ACCOUNT)) == NOTHING


def test_one_of_no_account_or_of_a_former_one_goes() -> None:
    assert decide(Observed(secret(), None)) == Decision((Delete(*WHERE),))
    assert decide(Observed(secret(**{ACCOUNT_UID: "older"}), ACCOUNT)) == Decision((Delete(*WHERE),))


def test_what_is_being_deleted_is_nobodys_business() -> None:
    going = secret()
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert decide(Observed(going, None)) == NOTHING
