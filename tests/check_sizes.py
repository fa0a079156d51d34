"""Checks the sizes that keep this code readable: files, functions, parameters. Generated code is exempt.

Rooms are counted in lines of code: blank lines, comments and docstrings are free (D3 in DESIGN.md). Their totals are
shown beside those of the last release, and the longest files and functions with them; neither fails the run.
Parameters are those that can be given by position; a keyword-only flag names itself at the call.

usage: python -m tests.check_sizes   Prints the sizes, and exits 1 if something is too large; called by deploy/test.sh.
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
TAIL = 5
"""How many of the longest files and functions are shown."""
AT_LAST_RELEASE = {"api": 7_107, "controller": 28_068, "agent": 15_102, "cli": 2_184}
"""Lines of code a room; set anew when a version is released."""
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


def sizes(paths: list[Path]) -> Iterator[str]:
    """What is shown: each room's lines and growth, then the tail of files and functions."""
    for room, before in AT_LAST_RELEASE.items():
        total = sum(code_lines(path) for path in paths if path.parts[0] == room)
        yield f"{room}: {total:,} lines of code, {total - before:+,} since the last release"
    files = sorted(((path.read_text().count("\n"), str(path)) for path in paths), reverse=True)
    yield "longest files: " + ", ".join(f"{name} {lines}" for lines, name in files[:TAIL])
    functions = [
        ((node.end_lineno or node.lineno) - node.lineno + 1, f"{path}:{node.name}")
        for path in paths
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    longest = sorted(functions, reverse=True)[:TAIL]
    yield "longest functions: " + ", ".join(f"{name} {lines}" for lines, name in longest)


def main() -> None:
    paths = [path for room in ROOMS for path in sources(room)]
    faults = [fault for path in paths for fault in faults_in(path)]
    print("\n".join([*sizes(paths), *faults]))
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
