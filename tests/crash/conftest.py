"""The fault matrix in a run of all tests: begun beside the tests of pure cores, counted at the end, passed or not."""

from __future__ import annotations

import pytest

from tests.engines import ROOT

COUNTED = pytest.StashKey[list[str]]()
BEGINS, ENDS = "test_the_faults_begin", "test_nothing_is_lost"
PURE = tuple(ROOT / "tests" / name for name in ("contract", "property", "unit"))
"""No engine, no browser and no broker runs there: minutes in which the faults, which wait a lot, have one core."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Engines and browsers first and alone; then the faults begin, the pure cores are tested, the faults are heard."""
    begins, pure, ends, others = [], [], [], []
    for item in items:
        name = getattr(item, "originalname", "")
        if name in (BEGINS, ENDS):
            (begins if name == BEGINS else ends).append(item)
        elif any(folder in item.path.parents for folder in PURE):
            pure.append(item)
        else:
            others.append(item)
    items[:] = [*others, *begins, *pure, *ends]


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
