"""pytest hook of the student's version: a test that reaches an unwritten function is skipped with
the reason "waits for ..."; it does not fail. handout.py imports it into tests/conftest.py.
"""

import re

import pytest

UNWRITTEN = re.compile(r"NotImplementedError(?:: |\(['\"])(\w+)")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    report = (yield).get_result()
    match = UNWRITTEN.search(str(report.longrepr))          # the traceback
    if report.failed and match:
        report.outcome = "skipped"
        report.longrepr = (str(item.path), 0, f"waits for {match[1]}")
