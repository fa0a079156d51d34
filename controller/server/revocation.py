"""Certificates of nodes that were deleted: no longer good, from the moment the Node is gone.

Called by authentication.py and join.py. The deletion of a Node writes, in its own transaction, a claim
`revoked/NAME/TIME` (see registry/revoked_nodes.py); a certificate says in its serial number when it was issued. So
every controller knows what every other was told, and a node that joins anew is good at once. Invariant: what was issued
before the last deletion of a node's name proves nothing, but for the list of the pods that are still bound to it, by
which a server that is cut out learns to end them.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qs

from aiohttp import web

from controller.registry.revoked_nodes import revoked_at
from controller.store import Store
from controller.store.types import Key


@dataclass
class Revocations:
    store: Store

    def after(self, node: str) -> int:
        """Milliseconds since 1970: what was issued up to then is revoked; 0: nothing is."""
        return revoked_at(node, (claim.name for claim in self.store.claims))

    def uid_of(self, node: str) -> str:
        """Of the Node as it is now. As long as it stays, nothing was revoked meanwhile."""
        record = self.store.get(Key("", "nodes", "", node))
        return record.uid if record is not None else ""


def lists_own_pods(request: web.BaseRequest, node: str) -> bool:
    path, _, query = request.raw_path.partition("?")
    return (
        request.method == "GET"
        and path == "/api/v1/pods"
        and parse_qs(query).get("fieldSelector") == [f"spec.nodeName={node}"]
    )
