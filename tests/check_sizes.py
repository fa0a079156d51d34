"""Checks the sizes that keep this code readable: files, functions, parameters. Generated code is exempt.

usage: python -m tests.check_sizes   Prints what is too large and exits 1; called by deploy/test.sh.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOMS = ("api", "controller", "agent", "cli", "deploy")
GENERATED = "agent/runtime/pb"
FILE_LINES = 500
FUNCTION_LINES = 60
PARAMETERS = 5
ROOM_LINES = {"api": 5_000, "controller": 12_000, "agent": 8_000, "cli": 2_500}


def sources(room: str) -> Iterator[Path]:
    return (path for path in sorted(Path(room).rglob("*.py")) if GENERATED not in str(path))


def faults_in(path: Path) -> Iterator[str]:
    text = path.read_text()
    lines = text.count("\n")
    if lines > FILE_LINES:
        yield f"{path}: {lines} lines, at most {FILE_LINES}"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from function_faults(path, node)


def function_faults(path: Path, node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    where = f"{path}:{node.lineno} {node.name}"
    length = (node.end_lineno or node.lineno) - node.lineno + 1
    if length > FUNCTION_LINES:
        yield f"{where}: {length} lines, at most {FUNCTION_LINES}"
    names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    count = len([name for name in names if name not in ("self", "cls")])
    if count > PARAMETERS and not node.decorator_list:
        yield f"{where}: {count} parameters, at most {PARAMETERS}"


def main() -> None:
    faults = [fault for room in ROOMS for path in sources(room) for fault in faults_in(path)]
    for room, limit in ROOM_LINES.items():
        total = sum(path.read_text().count("\n") for path in sources(room))
        if total > limit:
            faults.append(f"{room}/: {total} lines, at most {limit}")
    print("\n".join(faults) or "sizes: all within limits")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
