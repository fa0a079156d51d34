"""Who this controller process is: a name the next one on the same data directory has again, and no living one shares.

Called by main.py. A lock on DIR/controller.lock, held until the process ends however it ends, decides who may carry the
name written in it. So a leader key under one's own name was left behind by a dead predecessor and need not be waited
for. A second process on the same directory gets a name of its own.
"""

from __future__ import annotations

import fcntl
import secrets
import socket
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path


@dataclass(frozen=True)
class Instance:
    identity: str
    _lock: FileIO | None = field(default=None, repr=False)


def claim_instance(data_dir: Path) -> Instance:
    """Raises OSError when the lock file cannot be written."""
    name = socket.gethostname()
    lock = FileIO(data_dir / "controller.lock", "a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return Instance(f"{name}_{secrets.token_hex(8)}")
    lock.seek(0)
    kept = lock.read().decode(errors="replace").strip()
    if len(kept) != 16:
        kept = secrets.token_hex(8)
        lock.truncate(0)
        lock.write(kept.encode())
    return Instance(f"{name}_{kept}", lock)
