"""What went wrong, in words for the person at the terminal: what, where, why, what to do.

Commands raise `Problem`; `explain` turns the API's refusals and the system's errors into one. Imports nothing heavy.
"""

from __future__ import annotations

import sys


class Problem(Exception):
    """One sentence, advice on its own line, and the exit code."""

    def __init__(self, text: str, advice: str = "", exit_code: int = 1) -> None:
        super().__init__(text)
        self.text = text
        self.advice = advice
        self.exit_code = exit_code


class OutputClosed(Exception):
    """Whoever read our output went away, as `| head` does: no error, and nothing to say. No OSError, so that nobody
    takes it for trouble with the server."""

    exit_code = 141
    """What a shell shows for a program that SIGPIPE ended."""


def closes_output(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(map(closes_output, error.exceptions))
    return isinstance(error, OutputClosed)


def explain(error: Exception) -> Problem | None:
    """The words for an error, or None for one that is a bug of ours and deserves its traceback."""
    if isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        return explain(error.exceptions[0])
    if isinstance(error, Problem):
        return error
    errors = sys.modules.get("api.errors")
    client = sys.modules.get("api.client")
    if client is not None and isinstance(error, client.Unreachable):
        return Problem(str(error), "Is the cluster up? `wherry up` starts one here; --kubeconfig names another.")
    if errors is not None and isinstance(error, errors.ApiError):
        return Problem(f"the server refused: {error}" if error.code < 500 else f"the server failed: {error}")
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return Problem(f"{where}{error.strerror or error}")
    return None
