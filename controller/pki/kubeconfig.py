"""The kubeconfig file: what kubectl needs to reach and trust the API server.

Called by files.py (the administrator's) and the CLI. Pure. Invariant: self-contained, no paths in it.
"""

from __future__ import annotations

import base64

from controller.pki.authority import Pair

_TEMPLATE = """\
apiVersion: v1
kind: Config
clusters:
- name: wherry
  cluster:
    server: {server}
    certificate-authority-data: {ca}
users:
- name: admin
  user:
    client-certificate-data: {certificate}
    client-key-data: {key}
contexts:
- name: wherry
  context:
    cluster: wherry
    user: admin
current-context: wherry
"""


def render_kubeconfig(server: str, ca: bytes, client: Pair) -> str:
    """A kubeconfig for `server` (https://HOST:PORT) with the client's certificate inside."""
    return _TEMPLATE.format(
        server=server,
        ca=base64.b64encode(ca).decode(),
        certificate=base64.b64encode(client.certificate).decode(),
        key=base64.b64encode(client.key).decode(),
    )
