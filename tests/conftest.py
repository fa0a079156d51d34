"""Fixtures every room shares: a real etcd for the session, a store on its own prefix for each test."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from controller.store import Store, StoreConfig
from tests.etcd_process import EtcdProcess, opened

pytest_plugins = ["tests.cluster"]
settings.register_profile("wherry", deadline=None)  # a busy machine is no fault
settings.load_profile("wherry")

_prefixes = itertools.count(1)


@pytest.fixture(scope="session")
def etcd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The endpoint of a real etcd on a temp dir, for the whole session; use a prefix of your own."""
    process = EtcdProcess(tmp_path_factory.mktemp("etcd"))
    process.start()
    try:
        process.listening()
        yield process.endpoint
    finally:
        process.kill()


@pytest.fixture
def store_config(etcd: str) -> StoreConfig:
    """A store's configuration with a prefix nobody used before."""
    return StoreConfig(endpoints=(etcd,), encryption_key=b"k" * 32, prefix=f"/test{next(_prefixes)}")


@pytest.fixture
async def store(store_config: StoreConfig) -> AsyncIterator[Store]:
    """An open, running store, empty at first."""
    async with opened(store_config) as running:
        yield running


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """A skipped test fails the run unless ALLOW_SKIP=1: what is not run proves nothing."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.skipped and not os.environ.get("ALLOW_SKIP"):
        report.outcome = "failed"
        report.longrepr = f"skipped, and ALLOW_SKIP is not set: {report.longrepr}"


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """A test that failed and is run once more leaves its name and the failure's cause in the file $WHERRY_RERUNS."""
    if report.outcome == "rerun" and (file := os.environ.get("WHERRY_RERUNS")) and not _is_worker():  # type: ignore[comparison-overlap]
        crash = getattr(report.longrepr, "reprcrash", None)
        cause = crash.message if crash is not None else str(report.longrepr)
        with Path(file).open("a") as reruns:
            reruns.write(f"{report.nodeid}: {' '.join(cause.split())[:500]}\n")


def _is_worker() -> bool:
    """Of pytest-xdist, whose reports the main process sees, too."""
    return "PYTEST_XDIST_WORKER" in os.environ
