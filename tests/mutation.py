"""Mutation scores: do the tests notice when the code is wrong?

usage: python -m tests.mutation [--workers N] [--fresh] [GROUP ...]     (pip install wherry[mutation] first)

Each group is some sources and the tests that guard them. mutmut changes the sources in a copy of the tracked files,
.cache/mutation/GROUP, one small fault at a time, and runs the tests that reach it; run again, it tries what changed.
Exits 1 when a group's tests let more than a fifth of the faults pass. Afterwards `mutmut show NAME` in that directory
says what a fault is. Sources that need etcd have few mutants at a time, so they are slow; `nice` the command.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

LEAST_SCORE = 0.8
_PATCH_TESTS = ("apply", "directives", "json_and_merge", "lists_and_maps", "managed_fields", "strategic")
_ADMISSION = ("chain", "ingress_class", "limit_ranges", "pod_levels", "pod_security", "pods", "quota")
_REGISTRY = ("deletion_plan", "intake", "known_specs", "pods", "ranges", "scale", "system_fields")
_CAUGHT = (1, 3, 36, 24, -24, 152, 255)
"""Exit codes of a test run that failed, or that hangs: a fault noticed."""
_SETTINGS = """
[tool.mutmut]
source_paths = ["api", "controller", "agent", "cli", "deploy", "bench"]
only_mutate = {sources}
pytest_add_cli_args_test_selection = {tests}
pytest_add_cli_args = ["-p", "no:cacheprovider"]
process_isolation = "forkserver"
use_git_change_detection = false
timeout_constant = 5.0
"""


@dataclass(frozen=True)
class Group:
    sources: tuple[str, ...]
    tests: tuple[str, ...]


GROUPS = {
    "patch": Group(("api/patch/*.py",), tuple(f"tests/unit/patch/test_{name}.py" for name in _PATCH_TESTS)),
    "selectors": Group(("api/selectors.py",), ("tests/unit/api/test_selectors.py",)),
    "quantity": Group(("api/quantity.py",), ("tests/unit/api/test_quantity.py",)),
    "admission": Group(
        tuple(f"controller/admission/{name}.py" for name in _ADMISSION),
        ("tests/unit/admission",),
    ),
    "registry": Group(
        (*(f"controller/registry/{name}.py" for name in _REGISTRY), "controller/registry/strategies/*.py"),
        ("tests/unit/registry",),
    ),
    "cache": Group(
        tuple(f"controller/store/{name}.py" for name in ("cache", "history", "query", "watchers")),
        ("tests/unit/store",),
    ),
    "watch": Group(("controller/server/watch.py",), ("tests/integration/server/test_watching.py",)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Mutation scores.")
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=", ".join(GROUPS))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--fresh", action="store_true", help="forget former runs")
    asked = parser.parse_args()
    if unknown := set(asked.groups) - set(GROUPS):
        parser.error(f"no such group: {', '.join(sorted(unknown))}")
    scores = [measure(name, asked.workers, fresh=asked.fresh) for name in asked.groups or GROUPS]
    sys.exit(0 if all(score >= LEAST_SCORE for score in scores) else 1)


def measure(name: str, workers: int, *, fresh: bool = False) -> float:
    """Runs a group's mutants and prints what became of them; returns the share that was caught."""
    directory = Path(".cache/mutation") / name
    if fresh:
        shutil.rmtree(directory, ignore_errors=True)
    copy_tree(directory, GROUPS[name])
    try_missed_again(directory)
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", str(workers)]
    subprocess.run(command, cwd=directory, check=True)
    return report(name, directory)


def copy_tree(directory: Path, group: Group) -> None:
    """The tracked files as they are now; an unchanged one keeps its time, so that its mutants are not made again."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], check=True, capture_output=True, text=True
    )
    for name in listed.stdout.splitlines():
        source, copy = Path(name), directory / name
        if not source.is_file() or (copy.is_file() and copy.read_bytes() == source.read_bytes()):
            continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, copy)
    settings = _SETTINGS.format(sources=json.dumps(group.sources), tests=json.dumps(group.tests))
    (directory / "pyproject.toml").write_text(Path("pyproject.toml").read_text() + settings)


def try_missed_again(directory: Path) -> None:
    """Mutants that a former run missed may be caught now: mutmut tries those without a result only."""
    for path in directory.glob("mutants/**/*.py.meta"):
        found = json.loads(path.read_text())
        codes: dict[str, int] = found["exit_code_by_key"]
        found["exit_code_by_key"] = {key: code if code in _CAUGHT else None for key, code in codes.items()}
        path.write_text(json.dumps(found))


def report(name: str, directory: Path) -> float:
    caught, total = 0, 0
    for path in sorted((directory / "mutants").rglob("*.py.meta")):
        codes: dict[str, int] = json.loads(path.read_text())["exit_code_by_key"]
        missed = sorted(key for key, code in codes.items() if code not in _CAUGHT)
        print(f"{path.relative_to(directory / 'mutants')}: {len(codes) - len(missed)} of {len(codes)}")
        print("".join(f"    {key}\n" for key in missed), end="")
        caught, total = caught + len(codes) - len(missed), total + len(codes)
    score = caught / total if total else 0.0
    print(f"{name}: {caught} of {total} mutants caught, {score:.1%}")
    return score


if __name__ == "__main__":
    main()
