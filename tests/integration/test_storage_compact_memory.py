"""What a compaction takes in memory is bounded in bytes, however the rows lie."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MEMORY = 96 << 20
ROWS = 3_000_000
FILES = 25
ROW_BYTES = 45
"""Of a row in memory, one copy of it: half of all rows would not fit."""


@pytest.mark.parametrize("points", [20_000, 1], ids=["a city", "one fast point"])
def test_an_hour_larger_than_its_memory_is_compacted_within_it(tmp_path: Path, points: int) -> None:
    run(tmp_path, points, FILES, ROWS // FILES)
    found = json.loads(run(tmp_path, MEMORY))
    assert (found["rows"], found["files_after"]) == (ROWS, 1)
    assert found["bytes"] < MEMORY < ROWS * ROW_BYTES


def run(folder: Path, *words: int) -> str:
    """The module's answer."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.storage_compact_memory", str(folder), *map(str, words)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout
