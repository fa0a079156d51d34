"""Lists made item by item are byte for byte what encoding them whole would give."""

from __future__ import annotations

from typing import Any

import pytest

from api.watchdog import Stalls
from controller.server.negotiation import Form
from controller.server.reply import encode, encode_list

ITEMS: list[dict[str, Any]] = [
    {"metadata": {"name": "a", "labels": {}}, "spec": {"list": [1, 2.5, None, True], "empty": [], "text": "x\ny: é"}},
    {"metadata": {"name": "long", "annotations": {"k": "word " * 60}}},
    {},
]


@pytest.mark.parametrize("items", [ITEMS, ITEMS[:1], []], ids=["three", "one", "none"])
@pytest.mark.parametrize("key", ["items", "rows"])
@pytest.mark.parametrize(("form", "pretty"), [(Form(), False), (Form(), True), (Form(yaml=True), False)])
async def test_a_list_made_in_turns_is_the_list_made_at_once(
    items: list[dict[str, Any]], key: str, form: Form, pretty: bool
) -> None:
    head = {"kind": "XList", "apiVersion": "v1", "metadata": {"resourceVersion": "7"}}
    whole = encode({**head, key: items}, form, pretty=pretty)
    assert await encode_list(head, key, iter(items), form, pretty=pretty) == whole


def test_a_stall_is_told_with_what_of_it_was_our_own() -> None:
    stalls = Stalls()
    for late, spent in ((0.001, 0.0), (0.3, 0.02), (0.06, 0.5)):
        stalls._note(late, spent)
    assert (stalls.longest, stalls.held) == (0.3, 0.06)
    histogram, longest, held = stalls.collect()
    counts = {sample.labels.get("le"): sample.value for sample in histogram.samples if sample.name.endswith("_bucket")}
    assert (counts["0.005"], counts["0.1"], counts["+Inf"]) == (1, 2, 3)
    assert (longest.samples[0].value, held.samples[0].value) == (0.3, 0.06)
