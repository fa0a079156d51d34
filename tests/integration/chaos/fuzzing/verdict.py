"""Which answers are failures of ours: everything from 500 on, but for what Kubernetes itself answers so.

Imports nothing of ours: schemathesis loads it, too. A real API server's recorded answers have these without a reason.
"""

from __future__ import annotations

from typing import Any

import orjson

_SAID_BY_KUBERNETES = (
    "resourceVersion: Invalid value: ",  # of a watch
    "does not contain declared merge key: ",  # of a strategic merge patch
    "cannot merge lists without merge key",
    "doesn't match $setElementOrder list:",
)
_REACHING_OUT = ("/proxy", "/log", "/exec", "/attach", "/portforward")
"""What these paths lead to may be away: 502, 503 and 504 are about that."""


def is_failure(status: int, path: str, body: bytes) -> bool:
    if status < 500:
        return False
    if status > 501 and any(part in path for part in _REACHING_OUT):
        return False
    try:
        said: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        return True
    if not isinstance(said, dict):
        return True
    if status == 504:  # a resourceVersion that does not exist yet
        return "Too large resource version" not in str(said.get("message"))
    return "reason" in said or not any(words in said.get("message", "") for words in _SAID_BY_KUBERNETES)
