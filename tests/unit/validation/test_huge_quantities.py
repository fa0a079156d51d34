"""Amounts of any length are judged, not stumbled over."""

from __future__ import annotations

import pytest

from api.quantity import is_whole, parse_quantity
from controller.registry.validation.resources import check_quantity


@pytest.mark.parametrize("text", ["9" * 30, "9" * 190, "1e199", "-1e150", "1e-199", "999Ei", "0.5"])
def test_a_quantity_of_any_length_is_judged(text: str) -> None:
    errors: list[object] = []
    check_quantity(errors, "pods", "pods", text)  # type: ignore[arg-type]
    whole = is_whole(parse_quantity(text))
    assert len(errors) == text.startswith("-") + (not whole)
