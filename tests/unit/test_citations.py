"""What a docstring or comment cites is there for the reader."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
_ROOMS = ("api", "controller", "agent", "cli", "bench")
_CITED = re.compile(r"(?<![\w/.])((?:[a-z_]+/)+[a-z_]+\.py|[a-z_]+\.md)\b|design section \d")


def test_cited_files_exist() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    files = {f"/{name}" for name in listed}
    missing = []
    for name in listed:
        if name.endswith(".py") and name.split("/")[0] in _ROOMS and "/pb/" not in name:
            for match in _CITED.finditer((ROOT / name).read_text()):
                cited = match[1] or match[0]
                if not any(file.endswith(f"/{cited}") for file in files):
                    missing.append(f"{name}: {cited}")
    assert not missing
