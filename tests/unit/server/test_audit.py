"""The audit policy: which rule decides, and what a broken file is told."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from controller.admission.types import User
from controller.server.audit import AuditLog, AuditSettings, _redacted
from controller.server.audit_policy import BadPolicy, parse_policy
from controller.server.target import parse_target

HEAD = "apiVersion: audit.k8s.io/v1\nkind: Policy\n"
POLICY = """
apiVersion: audit.k8s.io/v1
kind: Policy
rules:
- level: None
  users: ["system:kube-proxy"]
  verbs: [watch]
- level: Request
  resources:
  - group: ""
    resources: [pods, "*/scale"]
  namespaces: [shop]
- level: None
  nonResourceURLs: ["/healthz*"]
- level: Metadata
"""


def level(user: str, verb: str, path: str) -> str:
    target = parse_target(path)
    return next(rule.level for rule in parse_policy(POLICY) if rule.matches(User(user), verb, target, path))


def test_the_first_rule_that_matches_decides() -> None:
    assert level("system:kube-proxy", "watch", "/api/v1/services") == "None"
    assert level("eve", "watch", "/api/v1/services") == "Metadata"
    assert level("eve", "create", "/api/v1/namespaces/shop/pods") == "Request"
    assert level("eve", "get", "/api/v1/namespaces/shop/pods/x/log") == "Metadata"
    assert level("eve", "create", "/api/v1/namespaces/other/pods") == "Metadata"
    assert level("eve", "get", "/healthz/etcd") == "None"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: [", "no YAML"),
        ("kind: Pod", "kind: must be Policy"),
        ("kind: Policy\napiVersion: v1", "apiVersion: must be"),
        (f"{HEAD}", "rules: at least one is needed"),
        (f"{HEAD}omitStage: [Panic]", "omitStage: unknown field"),
        (f"{HEAD}omitStages: [Never]", "omitStages: must be a list of RequestReceived"),
        (
            f"{HEAD}rules: [{{level: None, omitManagedFields: 1}}]",
            "rules\\[0\\].omitManagedFields: must be true or false",
        ),
        (
            f"{HEAD}rules: [{{level: None, resources: [{{names: []}}]}}]",
            "rules\\[0\\].resources\\[0\\].names: unknown field",
        ),
        (f"{HEAD}rules: [{{level: All}}]", "rules\\[0\\].level: 'All' is none of None, Metadata"),
        (f"{HEAD}rules: [{{level: None, user: [x]}}]", "rules\\[0\\].user: unknown field"),
        (f"{HEAD}rules: [{{level: None, users: x}}]", "rules\\[0\\].users: must be a list"),
    ],
)
def test_a_broken_policy_says_where(text: str, why: str) -> None:
    with pytest.raises(BadPolicy, match=why):
        parse_policy(text)


def test_what_a_policy_omits_holds_for_all_its_rules() -> None:
    head = f"{HEAD}omitStages: [RequestReceived]\nomitManagedFields: true\n"
    rules = "rules: [{level: Request, omitStages: [Panic], omitManagedFields: false}, {level: Metadata}]"
    first, second = parse_policy(head + rules)
    assert first.omitted_stages == {"RequestReceived", "Panic"} and not first.omits_managed_fields
    assert second.omitted_stages == {"RequestReceived"} and second.omits_managed_fields


def test_the_values_of_a_json_patch_of_a_secret_are_not_shown() -> None:
    patch = [{"op": "add", "path": "/data/k", "value": "aGk="}, {"op": "replace", "path": "/data", "value": {"k": "x"}}]
    assert [each["value"] for each in _redacted(patch)] == ["<redacted>", "<redacted>"]


def test_secrets_keep_their_names_and_lose_their_values() -> None:
    secret = {"metadata": {"name": "x"}, "data": {"password": "aGk="}, "items": [{"stringData": {"k": "v"}}]}
    shown = _redacted(secret)
    assert shown == {
        "metadata": {"name": "x"},
        "data": {"password": "<redacted>"},
        "items": [{"stringData": {"k": "<redacted>"}}],
    }


def test_old_logs_go_by_number_and_by_age(tmp_path: Path) -> None:
    """As the CIS benchmark asks: ten files, thirty days."""
    path = tmp_path / "audit.log"
    assert (AuditSettings(path).kept, AuditSettings(path).kept_days) == (10, 30)
    log = AuditLog(AuditSettings(path, limit_bytes=10))
    for number in range(14):
        log._write([b"x" * 9 + str(number % 10).encode()])
    assert {each.name for each in tmp_path.iterdir()} == {"audit.log", *(f"audit.log.{n}" for n in range(1, 11))}
    other = tmp_path / "audit.log.mine"
    other.touch()
    for each, days in ((tmp_path / "audit.log.9", 31), (tmp_path / "audit.log.8", 29), (other, 99)):
        os.utime(each, times=(time.time() - days * 86400,) * 2)
    log._expire()
    assert not (tmp_path / "audit.log.9").exists() and (tmp_path / "audit.log.8").exists() and other.exists()
