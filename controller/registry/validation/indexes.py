"""Which indexes of a Job a text like `1,3-5` names, in the words of Kubernetes' own reader.

Called by batch. Source: k8s.io/kubernetes/pkg/apis/batch/validation (validateIndexesFormat).
"""

from __future__ import annotations

import re

_match_number = re.compile(r"[+-]?[0-9]+").fullmatch


def count_indexes(text: str, completions: int) -> int:
    """How many indexes `text` names. Raises ValueError for one that is not below `completions`, and for disorder."""
    total, last = 0, None
    for interval in text.split(",") if text else ():
        limits = interval.split("-")
        if len(limits) > 2:
            rule = "violates the requirement that an index interval can have at most two parts separated by '-'"
            raise ValueError(f'the fragment "{interval}" {rule}')
        first = _index(limits[0], completions)
        final = _index(limits[1], completions) if len(limits) == 2 else first
        if len(limits) == 2 and first >= final:
            raise ValueError(f"non-increasing order, previous: {first}, current: {final}")
        if last is not None and last >= first:
            raise ValueError(f"non-increasing order, previous: {last}, current: {first}")
        total, last = total + final - first + 1, final
    return total


def _index(text: str, completions: int) -> int:
    if not _match_number(text):
        raise ValueError(f'cannot convert string to integer for index: "{text}"')
    if int(text) >= completions:
        raise ValueError(f'too large index: "{text}"')
    return int(text)
