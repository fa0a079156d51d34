"""What pod workers ask of the node's network before a container of a pod starts.

Implemented by the policy part; `OPEN` is for nodes without a network of ours and for tests. Invariant: a container
starts only after `admitted` returned for its sandbox.
"""

from __future__ import annotations

from typing import Protocol

from api.objects import Object


class Gate(Protocol):
    def announce(self, pod: Object, ips: tuple[str, ...]) -> None:
        """A sandbox of the pod has these addresses now. Never blocks; idempotent; a later call replaces an earlier."""

    def withdraw(self, pod: Object) -> None:
        """The pod's sandbox is gone, and its addresses may be given to others. Idempotent."""

    async def admitted(self, pod: Object) -> None:
        """Returns when the kernel judges the announced pod's packets as the policies want; at once without policies.

        May wait for the API server, if that was not heard yet; the caller bounds the wait.
        """


class _Open:
    def announce(self, pod: Object, ips: tuple[str, ...]) -> None:
        return None

    def withdraw(self, pod: Object) -> None:
        return None

    async def admitted(self, pod: Object) -> None:
        return None


OPEN: Gate = _Open()
