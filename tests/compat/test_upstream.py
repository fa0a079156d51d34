"""Client libraries' own test suites, unmodified, against the lab. Who deviates is named in README.md, with the reason.

kr8s' tests are in its wheel, which the lock pins by hash. lightkube's are in no package: test_lightkube.py covers the
same, and WHERRY_LIGHTKUBE_TESTS=.../lightkube/e2e-tests runs the originals, too. WHERRY_FULL=1 runs all of kr8s', else
those are left out that say the same twice, or nothing about a server. What fails is run once more, as kr8s' own CI
does up to three times: some of its tests list what those before them are just deleting.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

from tests.cluster import CLIENTS

FULL = os.environ.get("WHERRY_FULL") == "1"
LIGHTKUBE = os.environ.get("WHERRY_LIGHTKUBE_TESTS", "")
ROOT = Path(__file__).parents[2]
SECONDS = 900

# Test -> why it does not pass. A deviation that went away fails the test, too.
DEVIATIONS = {"test_api_resources": "wherry serves metrics.k8s.io, whose `pods` the test does not expect"}
# Not run: what needs other libraries and no server; "for manual testing only".
LEFT_OUT = (
    "test_cast_to_from_kubernetes",
    "test_cast_to_from_pykube_ng",
    "test_pod_port_forward_context_manager_manual",
)
# The same again in synchronous form, through another spelling, with 200 MB instead of 40; or no server's doing.
REPEATED = (
    *("test_dynamic_classes and (certificatesigningrequests or v1 or k8s)", "test_pod_port_forward_start_stop"),
    *("test_pod_port_forward_context_manager_sync", "test_pod_create_and_delete_sync", "test_pod_wait_ready_sync"),
    *("test_pod_get_sync", "test_pod_label_sync", "test_certs_on_disk and False", "test_kubeconfig_", "test_url_"),
    *("test_service_account_dns", "test_namespace_with_url", "test_sync", "test_data_utils.py", "test_config.py"),
    *("_vendored", "test_gen.py", "test_testutils.py", "_kubernetes_version", "class", "from_file", "sync_"),
)


def run(directory: Path, kubeconfig: Path, *words: str) -> dict[str, str]:
    """Test -> passed, failed or skipped, as a child pytest with its own configuration saw it."""
    report = directory / "report.xml"
    environment = {
        **os.environ,
        "KUBECONFIG": str(kubeconfig),
        "KUBECTL": str(CLIENTS / "kubectl"),
        "HOME": str(directory),
        "PYTHONPATH": str(ROOT),
    }
    options = ("asyncio_mode=auto", "asyncio_default_fixture_loop_scope=function", "xfail_strict=true")
    argv = [sys.executable, "-m", "pytest", "-q", "-c", "/dev/null", "--rootdir", str(directory), *words]
    argv += ["-p", "no:cacheprovider", "-p", "no:xdist", f"--junitxml={report}"]
    argv += [word for option in options for word in ("-o", option)]
    done = subprocess.run(
        argv, cwd=directory, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert report.exists(), done.stdout + done.stderr
    print(done.stdout)  # shown when the test fails
    cases = ElementTree.parse(report).iter("testcase")
    return {f"{case.get('classname')}.{case.get('name')}": _outcome(case) for case in cases}


def _outcome(case: ElementTree.Element) -> str:
    outcomes = {child.tag: child.get("type") for child in case}
    if "failure" in outcomes or "error" in outcomes:
        return "failed"
    return "skipped" if outcomes.get("skipped") == "pytest.skip" else "passed"


def having(outcomes: dict[str, str], outcome: str) -> set[str]:
    """The names of the tests, without module and class."""
    return {re.sub(r"^[^\[]*\.", "", name) for name, each in outcomes.items() if each == outcome}


def test_kr8s(admin_kubeconfig: Path, tmp_path: Path) -> None:
    left_out = LEFT_OUT if FULL else (*LEFT_OUT, *REPEATED)
    words = ("-p", "tests.compat.kr8s_cluster", "--pyargs", "kr8s", "-k")
    chosen = " and ".join(f"not ({expression})" for expression in left_out)
    outcomes = run(tmp_path, admin_kubeconfig, *words, chosen)
    if again := having(outcomes, "failed") - set(DEVIATIONS):
        names = " or ".join(sorted({name.partition("[")[0] for name in again}))
        outcomes |= run(tmp_path, admin_kubeconfig, *words, f"({names}) and {chosen}")
    assert having(outcomes, "failed") == set(DEVIATIONS)
    assert having(outcomes, "skipped") == set()
    assert len(outcomes) > (280 if FULL else 130)


if LIGHTKUBE:

    def test_lightkube(admin_kubeconfig: Path, tmp_path: Path) -> None:
        outcomes = run(tmp_path, admin_kubeconfig, LIGHTKUBE)
        assert set(outcomes.values()) == {"passed"}
