"""Any sequence of changes leaves a kernel with what a fresh table of the same services holds."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agent.network.model import Key, Service, ServicePort
from agent.network.services.render import EMPTY, Block, render
from agent.network.services.table import Change, Table
from tests.unit.network.services.records import SITE, endpoint, service, slice


class ModelKernel:
    """nftables, as strict as the real one about what exists and what refers to what."""

    def __init__(self) -> None:
        self.chains: dict[str, list[str]] = {}
        self.sets: set[str] = set()
        self.elements: dict[str, dict[str, str]] = {}

    def apply(self, change: Change) -> None:
        assert all(chain in self.chains for chain in change.flushed)
        assert not self.sets & set(change.sets)
        self.sets |= set(change.sets)
        self.chains.update(change.chains)
        for name, keys in change.elements_gone.items():
            for key in keys:
                del self.elements[name][key]
        for name, pairs in change.elements.items():
            for pair in pairs:
                key, _, value = pair.partition(" : ")
                assert key not in self.elements.setdefault(name, {})
                self.elements[name][key] = value
        for chain in change.chains_gone:
            del self.chains[chain]
        self.sets -= set(change.sets_gone)
        self._check_references()

    def _check_references(self) -> None:
        rules = [rule for chain in self.chains.values() for rule in chain]
        verdicts = [value for elements in self.elements.values() for value in elements.values()]
        for line in (*rules, *verdicts):
            for target in re.findall(r"goto (\S+)", line):
                assert target in self.chains or target == "refuse"
            for name in re.findall(r"@(affinity\S+)", line):
                assert name in self.sets

    def meaning(self) -> Any:
        """All of it, with drawn numbers replaced by the addresses they stand for."""
        numbers = self.elements.get("endpoints", {})
        used: set[str] = set()

        def resolve(rule: str) -> str:
            found = re.search(r"mod (\d+) offset (\d+) map", rule)
            if not found:
                return rule
            drawn = [str(int(found[2]) + place) for place in range(int(found[1]))]
            used.update(drawn)
            return rule.replace(found[0], " ".join(numbers[number] for number in drawn))

        chains = {name: [resolve(rule) for rule in rules] for name, rules in self.chains.items()}
        assert used == numbers.keys(), "no number is left behind"
        others = {name: elements for name, elements in self.elements.items() if name != "endpoints" and elements}
        return chains, self.sets, others


names = st.sampled_from(["a", "b", "c"])
endpoints = st.lists(
    st.builds(
        endpoint, st.integers(1, 40).map("10.244.1.{}".format), st.sampled_from(["n1", "n2"]), ready=st.booleans()
    ),
    max_size=30,
)


@st.composite
def blocks(draw: st.DrawFn) -> tuple[Key, Block]:
    name = draw(names)
    made: Service = service(
        name,
        "10.96.1." + {"a": "1", "b": "2", "c": "3"}[name],
        type="LoadBalancer",
        ports=(ServicePort("http", "TCP", 80, draw(st.sampled_from([0, 30_001, 30_002]))),),
        external_ips=draw(st.sampled_from([(), ("203.0.113.1",)])),
        created=draw(st.sampled_from(["", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"])),
        balancer_ips=draw(st.sampled_from([(), ("203.0.113.2",)])),
        source_ranges=draw(st.sampled_from([(), ("192.0.2.0/24",)])),
        affinity_seconds=draw(st.sampled_from([0, 60])),
        internal_local=draw(st.booleans()),
        external_local=draw(st.booleans()),
    )
    slices = [slice(*draw(endpoints), name=name), slice(*draw(endpoints)[:3], name=name, port=9090)]
    return made.key, draw(st.sampled_from([EMPTY, render(made, slices, 4, SITE)]))


batches = st.lists(st.dictionaries(names, blocks(), max_size=3).map(lambda made: dict(made.values())), max_size=8)


@settings(max_examples=150, deadline=None)
@given(batches)
def test_changes_one_after_another_equal_a_fresh_table(changes: list[dict[Key, Block]]) -> None:
    table, kernel = Table(4, "t", SITE), ModelKernel()
    for desired in changes:
        kernel.apply(table.change(desired))
    final = {key: block for desired in changes for key, block in desired.items()}
    fresh = ModelKernel()
    fresh.apply(Table(4, "t", SITE).change(final))
    assert kernel.meaning() == fresh.meaning()
    again = ModelKernel()
    again.apply(table.everything())
    assert again.meaning() == fresh.meaning()
    assert not table.change(final), "nothing to do twice"


def test_the_oldest_service_keeps_an_external_address_whatever_its_name_and_whenever_it_was_seen() -> None:
    slices = [slice(endpoint("10.244.1.1"))]
    made = {
        name: service(name, f"10.96.1.{number}", created=f"2026-01-0{number}T00:00:00Z", external_ips=("203.0.113.1",))
        for number, name in enumerate(("c", "b", "a"), 1)
    }
    blocks = {each.key: render(each, slices, 4, SITE) for each in made.values()}
    table, kernel = Table(4, "t", SITE), ModelKernel()
    for name in ("a", "c", "b"):
        kernel.apply(table.change({("shop", name): blocks[("shop", name)]}))
    assert kernel.elements["externals"] == {"203.0.113.1 . tcp . 80": "goto external/shop/c/tcp/80"}
    again = service("c", "10.96.1.1", created="2026-01-09T00:00:00Z", external_ips=("203.0.113.1",))
    kernel.apply(table.change({again.key: render(again, slices, 4, SITE)}))
    assert kernel.elements["externals"] == {"203.0.113.1 . tcp . 80": "goto external/shop/b/tcp/80"}
