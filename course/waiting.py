"""pytest hooks of the student's version: a test that reaches an unwritten function is skipped with
the reason "waits for ..."; it does not fail. handout.py imports them into tests/conftest.py."""

import re

import pytest

UNWRITTEN = re.compile(r"NotImplementedError(?:: |\(['\"])(\w+)")


def skip_unwritten(report, path):
    match = UNWRITTEN.search(str(report.longrepr))          # the traceback
    if report.failed and match:
        report.outcome = "skipped"
        report.longrepr = (str(path), 0, f"waits for {match[1]}")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    skip_unwritten((yield).get_result(), item.path)


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report(collector):
    skip_unwritten((yield).get_result(), collector.path)
