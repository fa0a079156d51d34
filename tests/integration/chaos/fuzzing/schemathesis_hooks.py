"""What schemathesis is told (SCHEMATHESIS_HOOKS): a watch ends after a second, and which answers are failures."""

from __future__ import annotations

from typing import Any

import schemathesis
from verdict import is_failure  # type: ignore[import-not-found]  # loaded beside it, without the project


@schemathesis.hook  # type: ignore[untyped-decorator]
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Only `timeoutSeconds` of GETs is ours: without it a watch is endless."""
    del context, kwargs
    if case.method.upper() == "GET" and isinstance(case.query, dict):
        case.query["timeoutSeconds"] = 1


@schemathesis.check  # type: ignore[untyped-decorator]
def no_failure_of_ours(context: Any, response: Any, case: Any) -> None:
    del context
    assert not is_failure(response.status_code, case.path, response.content), response.text[:500]
