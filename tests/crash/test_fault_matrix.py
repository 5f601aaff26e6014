"""The fault matrix, its every-run column: nothing acknowledged is lost, doubled, changed or made up by any fault.

The faults run side by side in processes of their own (tests/crash/matrix.py); a test here waits for its own.
`scripts/faults` runs them alone, longer, and with a seed.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Sequence

import pytest

from tests.crash.conftest import COUNTED, ENDS
from tests.crash.matrix import FAULTS, Fault, run_all, words
from tests.faults_trial import Result

pytestmark = pytest.mark.crash

LANES = 3
WAIT_S = 2400.0
SEED = int(os.environ.get("YUZUI_SEED", random.SystemRandom().randrange(1 << 30)))


class Running(threading.Thread):
    """The chosen faults, on their way."""

    def __init__(self, chosen: Sequence[Fault]) -> None:
        super().__init__(daemon=True)
        self._chosen = chosen
        self._results: dict[str, Result] = {}
        self._changed = threading.Condition()

    def run(self) -> None:
        """Thread body."""
        run_all([(fault, fault.every) for fault in self._chosen], SEED, LANES, self._note)

    def _note(self, result: Result) -> None:
        with self._changed:
            self._results[result.fault] = result
            self._changed.notify_all()

    def result(self, fault: Fault) -> Result:
        """Wait for it."""
        with self._changed:
            assert self._changed.wait_for(lambda: fault.name in self._results, WAIT_S), (
                f"{fault.name} did not end"
            )
            return self._results[fault.name]


@pytest.fixture(scope="session")
def running(request: pytest.FixtureRequest) -> Running:
    """All faults whose tests were selected, begun together."""
    wanted = {
        item.callspec.params["fault"].name
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.originalname == ENDS
    }
    found = Running([fault for fault in FAULTS if fault.name in wanted])
    found.start()
    return found


def test_the_faults_begin(running: Running) -> None:
    """Long before they are asked for: a run of all tests has others to do meanwhile (conftest.py)."""
    assert running.ident is not None, "no thread runs them"


@pytest.mark.timeout(WAIT_S + 60)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_nothing_is_lost(fault: Fault, running: Running, request: pytest.FixtureRequest) -> None:
    result = running.result(fault)
    request.config.stash[COUNTED].append(words(result))
    print(f"YUZUI_SEED={SEED}", words(result))
    if result.skipped:
        pytest.skip(f"NOT TESTED: {result.skipped}")
    assert result.passed, words(result)
