"""What all tests share: in CI, a test that is skipped because something is missing has failed."""

import os
from collections.abc import Generator
from typing import Any

import pytest


def _refuse(report: Any, gpu: bool = False) -> None:
    """Turn a skip into a failure when MUSWEEP_REQUIRE_ALL is set; tests that need CUDA may still be skipped."""
    if os.environ.get("MUSWEEP_REQUIRE_ALL") != "1" or gpu or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    report.outcome = "failed"
    report.longrepr = f"{report.nodeid}: {reason} (MUSWEEP_REQUIRE_ALL=1 does not allow skips)"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    report = yield
    _refuse(report, gpu=item.get_closest_marker("gpu") is not None)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, Any, Any]:
    report = yield
    _refuse(report)
    return report
