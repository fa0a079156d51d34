"""Which field of which kind is acted on, as far as a test proves it: the catalogue SUPPORT.md is made from this.

A test proves fields by a marker, a row of tests/conformance/pods by its list:

    @pytest.mark.proves("Deployment.spec.strategy.rollingUpdate.maxSurge")
    - name: a-variable-may-name-an-earlier-one
      proves: [containers.env.value]                 # below Pod.spec

A path proves each field it passes: `containers`, its `env`, and `value`. Markers are found by reading the sources, not
by importing them, and only on functions that pytest collects, so that a proof that is taken away is missed at once:
tests/unit/schema/test_support.py fails for each field that is neither proven nor warned of nor refused, and when
SUPPORT.md is not what this file makes. That every proof ran and passed is what a green run of deploy/test.sh says.

usage: python -m tests.proofs [--write]   Prints the catalogue, or writes SUPPORT.md.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import yaml

from api.schema.facts import Type, fields_of
from api.schema.support import IDLE_KINDS, REFUSED, WARNED

HERE = Path(__file__).parent
CATALOGUE = HERE.parent / "SUPPORT.md"
POD_TABLES = HERE / "conformance" / "pods"
POD_STORY = "conformance/test_pods.py"

ROOTS: Mapping[str, str] = {
    "Pod": "core.v1.PodSpec",
    "Deployment": "apps.v1.DeploymentSpec",
    "ReplicaSet": "apps.v1.ReplicaSetSpec",
    "StatefulSet": "apps.v1.StatefulSetSpec",
    "DaemonSet": "apps.v1.DaemonSetSpec",
    "PodDisruptionBudget": "policy.v1.PodDisruptionBudgetSpec",
    "Service": "core.v1.ServiceSpec",
    "Ingress": "networking.v1.IngressSpec",
    "IngressClass": "networking.v1.IngressClassSpec",
    "NetworkPolicy": "networking.v1.NetworkPolicySpec",
    "ResourceQuota": "core.v1.ResourceQuotaSpec",
    "LimitRange": "core.v1.LimitRangeSpec",
}
"""Kinds whose spec is held to the catalogue, with the struct of the spec."""
ELSEWHERE = frozenset({"meta.v1.ObjectMeta"})
"""Structs that are judged and kept the same for every kind: not part of a kind's own catalogue."""

Field = tuple[str, str]
"""(struct, name of one of its fields)."""
Proofs = Mapping[Field, tuple[str, ...]]
"""Fields with the tests that prove them, `file::test`."""


class UnknownField(ValueError):
    """A proof names a field that Kubernetes does not have."""


def innermost(kind: Type) -> Type:
    while kind.element is not None:
        kind = kind.element
    return kind


def fields_on(path: str) -> list[Field]:
    """The fields that `Kind.spec.a.b` passes. Raises UnknownField."""
    kind, spec, *names = path.split(".")
    if kind not in ROOTS or spec != "spec":
        raise UnknownField(f"{path}: paths begin with one of {', '.join(f'{root}.spec' for root in ROOTS)}")
    struct, passed = ROOTS[kind], []
    for name in names:
        field = fields_of(struct).get(name) if struct else None
        if field is None:
            raise UnknownField(f"{path}: {struct or 'a scalar'} has no field {name}")
        passed.append((struct, name))
        struct = innermost(field.type).struct
    return passed


def proofs_in(source: str, where: str) -> Iterator[tuple[str, str]]:
    """(path of the field, test) for each marker on a test in the text of a module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            for decorator in node.decorator_list:
                for path in _paths_below(decorator):
                    yield path, f"{where}::{node.name}"


def _paths_below(decorator: ast.expr) -> Iterator[str]:
    for call in ast.walk(decorator):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "pytest.mark.proves":
            yield from (str(ast.literal_eval(argument)) for argument in call.args)


def pod_rows() -> Iterator[tuple[str, dict[str, object]]]:
    """(table, row) for every row of every table of pods."""
    for table in sorted(POD_TABLES.glob("*.yaml")):
        for row in yaml.safe_load(table.read_text()):
            yield table.stem, row


@cache
def proofs() -> Proofs:
    """All proofs of all tests. Raises UnknownField."""
    found: defaultdict[Field, list[str]] = defaultdict(list)
    for file in sorted(HERE.rglob("test_*.py")):
        for path, test in proofs_in(file.read_text(), str(file.relative_to(HERE))):
            for field in fields_on(path):
                found[field].append(test)
    for table, row in pod_rows():
        paths = row["proves"]
        assert isinstance(paths, list), f"{table}: {row['name']} proves nothing"
        for path in paths:
            for field in fields_on(f"Pod.spec.{path}"):
                found[field].append(f"{POD_STORY}::{table}/{row['name']}")
    return {field: tuple(dict.fromkeys(tests)) for field, tests in found.items()}


def structs_of(kind: str) -> dict[str, None]:
    """The structs that a kind's spec consists of, in the order in which a reader meets them."""
    seen: dict[str, None] = {}
    waiting = [ROOTS[kind]]
    while waiting:
        struct = waiting.pop(0)
        if struct in seen or struct in ELSEWHERE or (struct in ROOTS.values() and struct != ROOTS[kind]):
            continue
        seen[struct] = None
        for name, field in fields_of(struct).items():
            inner = innermost(field.type)
            if inner.shape == "struct" and name not in WARNED.get(struct, {}) and name not in REFUSED.get(struct, {}):
                waiting.append(inner.struct)
    return seen


def unfiled(proven: Proofs) -> list[str]:
    """Fields of all roots that are not in exactly one place: proven, warned of, refused."""
    faults = []
    for kind in ROOTS:
        for struct in structs_of(kind):
            for name in fields_of(struct):
                places = ((struct, name) in proven, name in WARNED.get(struct, {}), name in REFUSED.get(struct, {}))
                if sum(places) != 1:
                    faults.append(f"{struct}.{name}: {'no proof' if not any(places) else 'proven and yet warned of'}")
    return faults


def rendered(proven: Proofs) -> str:
    lines = [
        "# What wherry acts on",
        "",
        "Made by `python -m tests.proofs --write` from what the tests prove; never edited. A field that is *warned of*",
        "is kept and answered with a Warning; one that is *refused* is answered with 422, for ignoring it would weaken",
        "isolation or lose data. Fields of metadata are the same for every kind.",
        "",
        "Kinds that are kept, checked and shown while nothing acts on them yet:",
        "",
        *(f"- {kind}{f' ({group})' if group else ''}: {why}" for (group, kind), why in IDLE_KINDS.items()),
    ]
    for kind in ROOTS:
        lines += ["", f"## {kind}"]
        for struct in structs_of(kind):
            lines += ["", f"### {struct}", "", "| field | | proof, or why not |", "|---|---|---|"]
            lines += [_line(struct, name, proven) for name in fields_of(struct)]
    return "\n".join(lines) + "\n"


def _line(struct: str, name: str, proven: Proofs) -> str:
    if why := WARNED.get(struct, {}).get(name):
        return f"| {name} | warned of | {why} |"
    if why := REFUSED.get(struct, {}).get(name):
        return f"| {name} | refused | {why} |"
    tests = proven.get((struct, name), ())
    return f"| {name} | acted on | `{tests[0]}` |" if tests else f"| {name} | **unproven** | |"


def main() -> None:
    text = rendered(proofs())
    if "--write" in sys.argv[1:]:
        CATALOGUE.write_text(text)
    else:
        print(text, end="")
    for fault in unfiled(proofs()):
        print(fault, file=sys.stderr)


if __name__ == "__main__":
    main()
