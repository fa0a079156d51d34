"""Certificates: Secrets of type kubernetes.io/tls as PEM files, and who gets which by SNI.

Called by the part; `pairs` reads the Secrets. Pure. Invariant: what is handed on has a certificate that parses and the
key that belongs to it, so HAProxy never refuses to start because of one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from agent.network.ingress.model import Ingress
from agent.network.ingress.routes import Finding
from agent.network.model import Key


class BadSecret(Exception):
    """No certificate can be made of it; the message says why."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """`pem`: certificate chain and key. `names`: DNS names it is for."""

    pem: bytes
    names: tuple[str, ...]


def assign(
    ingresses: Iterable[Ingress], secrets: Mapping[Key, Certificate | str]
) -> tuple[dict[Key, list[str]], list[Finding]]:
    """The names each Secret's certificate is shown for, and what is wrong: a text instead of a certificate says why.

    A name that two Ingresses have a certificate for: the older Ingress's is shown.
    """
    names_of: dict[Key, list[str]] = {}
    owners: dict[str, Key] = {}
    findings = []
    for ingress in sorted(ingresses, key=lambda each: each.age):
        for tls in (tls for tls in ingress.tls if tls.secret):
            key = (ingress.key[0], tls.secret)
            found = secrets.get(key, "")
            if not isinstance(found, Certificate):
                if found:
                    findings.append(Finding(ingress, "BadSecret", f"Secret {'/'.join(key)} is not used: {found}"))
                continue
            for host in tls.hosts or found.names:
                if owners.setdefault(host, key) != key:
                    text = f"{host} has the certificate of Secret {'/'.join(owners[host])} already"
                    findings.append(Finding(ingress, "Conflict", text))
                elif host not in names_of.setdefault(key, []):
                    names_of[key].append(host)
    return names_of, findings
