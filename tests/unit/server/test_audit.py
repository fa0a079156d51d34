"""The audit policy: which rule decides, and what a broken file is told."""

from __future__ import annotations

import pytest

from controller.admission.types import User
from controller.server.audit import BadPolicy, _redacted, parse_policy
from controller.server.target import parse_target

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
        ("kind: Policy", "rules: at least one is needed"),
        ("kind: Policy\nrules: [{level: All}]", "rules\\[0\\].level: 'All' is none of None, Metadata"),
        ("kind: Policy\nrules: [{level: None, user: [x]}]", "rules\\[0\\].user: unknown field"),
        ("kind: Policy\nrules: [{level: None, users: x}]", "rules\\[0\\].users: must be a list"),
    ],
)
def test_a_broken_policy_says_where(text: str, why: str) -> None:
    with pytest.raises(BadPolicy, match=why):
        parse_policy(text)


def test_secrets_keep_their_names_and_lose_their_values() -> None:
    secret = {"metadata": {"name": "x"}, "data": {"password": "aGk="}, "items": [{"stringData": {"k": "v"}}]}
    shown = _redacted(secret)
    assert shown == {
        "metadata": {"name": "x"},
        "data": {"password": "<redacted>"},
        "items": [{"stringData": {"k": "<redacted>"}}],
    }
