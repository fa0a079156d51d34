"""What a client shows to an API server, and how it checks the server: `Credentials`, as PEM text and a token.

Read from a kubeconfig or made by joining. Called by api.client, agent and CLI. Imports the standard library and yaml
only; key material touches the disk only in a private temporary file, because Python's ssl can load it no other way.
"""

from __future__ import annotations

import base64
import os
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class Credentials:
    """`ca`, `cert` and `key` are PEM text ("" is none); `token` is a bearer token. No CA means the system's CAs."""

    ca: str = ""
    cert: str = ""
    key: str = ""
    token: str = ""
    insecure: bool = False

    def client_context(self) -> ssl.SSLContext:
        """A context that verifies the server against `ca` and presents `cert`. Raises ssl.SSLError for bad PEM."""
        context = ssl.create_default_context(cadata=self.ca or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.cert:
            load_pair(context, self.cert, self.key)
        return context


def load_pair(context: ssl.SSLContext, cert: str, key: str) -> None:
    """Loads a certificate and its key, both PEM text, into `context`."""
    descriptor, name = tempfile.mkstemp(prefix="wherry-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(cert.rstrip() + "\n" + key)
        context.load_cert_chain(name)
    finally:
        os.unlink(name)


@dataclass(frozen=True)
class Target:
    """One context of a kubeconfig: where, as whom, and the namespace to use when none is said."""

    server: str
    credentials: Credentials
    namespace: str = "default"


def load_kubeconfig(path: Path, context: str = "") -> Target:
    """Reads one context (the current one by default). Raises OSError, or ValueError saying what is missing."""
    config = yaml.safe_load(path.read_text()) or {}
    wanted = context or config.get("current-context") or ""
    chosen = _named(config, "contexts", wanted, path)["context"]
    cluster = _named(config, "clusters", chosen.get("cluster", ""), path)["cluster"]
    user = _named(config, "users", chosen["user"], path)["user"] if chosen.get("user") else {}
    credentials = Credentials(
        ca=_pem(cluster, "certificate-authority", path),
        cert=_pem(user, "client-certificate", path),
        key=_pem(user, "client-key", path),
        token=user.get("token") or "",
        insecure=bool(cluster.get("insecure-skip-tls-verify")),
    )
    return Target(cluster["server"], credentials, chosen.get("namespace") or "default")


def _named(config: dict[str, Any], section: str, name: str, path: Path) -> dict[str, Any]:
    for entry in config.get(section) or ():
        if entry.get("name") == name:
            found: dict[str, Any] = entry
            return found
    raise ValueError(f"{path}: no entry {name!r} in {section}")


def _pem(entry: dict[str, Any], name: str, path: Path) -> str:
    if data := entry.get(f"{name}-data"):
        return base64.b64decode(data).decode()
    file = entry.get(name)
    return (path.parent / str(file)).read_text() if file else ""
