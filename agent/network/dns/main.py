"""The DNS process of a node: `python -m agent.network.dns.main --control PATH --sockets 3,4 ...`.

Started by `process` in the agent with its sockets already open, in a session of its own: it outlives the agent and
answers with what it knows. SIGTERM, or `drain` on its control socket, end it once nothing is under way. Everything is
in `server`, imported after asyncio is kept from importing ssl: the process is to stay small.
"""

from __future__ import annotations

import sys


def main() -> None:
    sys.modules["ssl"] = None  # type: ignore[assignment]  # 5 MB that nobody here needs; asyncio does without
    from agent.network.dns import server

    server.main()


if __name__ == "__main__":
    main()
