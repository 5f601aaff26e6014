"""What the fault matrix counted stands at the end of a test run, passed or not: a number nobody sees says nothing."""

from __future__ import annotations

import pytest

COUNTED = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """A place for the lines."""
    config.stash[COUNTED] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """One line a fault."""
    lines = config.stash.get(COUNTED, [])
    if lines:
        terminalreporter.section("fault matrix")
        for line in lines:
            terminalreporter.line(line)
