"""What pods nest deeper than Python recurses is measured and removed all the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from agent.trees import remove_tree
from agent.volumes.usage import disk_use

LEVELS = 3 * sys.getrecursionlimit()


def deep(directory: Path) -> Path:
    """A chain of directories, longer than any path may be, with 64 kB at its end."""
    script = f"for i in $(seq {LEVELS}); do mkdir d && cd -P d || exit 1; done; head -c 65536 /dev/zero >f"
    subprocess.run(["sh", "-c", script], cwd=directory, check=True)
    return directory


def test_a_tree_deeper_than_python_recurses_is_measured_and_removed(tmp_path: Path) -> None:
    made = deep(tmp_path)
    assert disk_use(made) >= 65536
    remove_tree(made)
    assert not made.exists()


def test_what_others_remove_meanwhile_is_removed_and_links_are_not_followed(tmp_path: Path) -> None:
    kept, tree = tmp_path / "kept", tmp_path / "tree"
    kept.mkdir()
    tree.mkdir()
    os.symlink(kept, tree / "link")
    remove_tree(tree)
    remove_tree(tree)
    assert kept.exists()
