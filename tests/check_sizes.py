"""Checks the sizes that keep this code readable: files, functions, parameters, rooms. Generated code is exempt.

Rooms are counted in lines of code: blank lines, comments and docstrings are free (D3 in DESIGN.md). Parameters are
those that can be given by position; a keyword-only flag names itself at the call.

usage: python -m tests.check_sizes   Prints what is too large and exits 1; called by deploy/test.sh.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOMS = ("api", "controller", "agent", "cli", "deploy")
GENERATED = "agent/runtime/pb"
FILE_LINES = 500
FUNCTION_LINES = 60
PARAMETERS = 5
ROOM_LINES = {"api": 7_120, "controller": 28_100, "agent": 15_500, "cli": 2_400}
_FREE = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)


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
    names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
    count = len([name for name in names if name not in ("self", "cls")])
    if count > PARAMETERS and not node.decorator_list:
        yield f"{where}: {count} parameters, at most {PARAMETERS}"


def code_lines(path: Path) -> int:
    """How many lines hold code: not blank, no comment, no docstring."""
    text = path.read_text()
    docstrings: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            docstrings.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _FREE:
            code.update(range(token.start[0], token.end[0] + 1))
    return len(code - docstrings)


def main() -> None:
    faults = [fault for room in ROOMS for path in sources(room) for fault in faults_in(path)]
    for room, limit in ROOM_LINES.items():
        total = sum(code_lines(path) for path in sources(room))
        if total > limit:
            faults.append(f"{room}/: {total} lines of code, at most {limit}")
    print("\n".join(faults) or "sizes: all within limits")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
