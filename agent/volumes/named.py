"""Named volumes: directories of this node that outlive the containers that mount them.

Called by the server for `wherry volume` and `wherry run -v NAME:/path`. A volume NAME is DATA/volumes/NAME; nothing
else is recorded, so a directory moved there by hand is a volume, too. Blocking; imports nothing of the agent.
Invariant: no name leads out of the volumes' directory.
"""

from __future__ import annotations

import re
from pathlib import Path

from agent.trees import remove_tree
from api import errors

_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")


class NamedVolumes:
    """The volumes below one directory, which is made with the first of them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def path(self, name: str) -> Path:
        """Where a volume is or would be. Raises BadRequest for what cannot be a name."""
        if not _NAME.fullmatch(name):
            raise errors.BadRequest(f"{name!r} is no name of a volume: use a-z, 0-9, '.', '_' and '-', at most 63")
        return self._directory / name

    def names(self) -> list[str]:
        if not self._directory.is_dir():
            return []
        found = [entry.name for entry in self._directory.iterdir() if entry.is_dir()]
        return sorted(name for name in found if _NAME.fullmatch(name))

    def ensure(self, name: str) -> Path:
        """Makes a volume; one that exists is left alone. Every user may write to it: nobody knows yet who will run."""
        path = self.path(name)
        if not path.is_dir():
            self._directory.mkdir(mode=0o711, parents=True, exist_ok=True)
            path.mkdir(exist_ok=True)
            path.chmod(0o777)
        return path

    def remove(self, name: str) -> None:
        """Deletes a volume with its data. Raises NotFound."""
        path = self.path(name)
        if not path.is_dir():
            raise errors.NotFound(f"there is no volume {name} on this node")
        remove_tree(path)
