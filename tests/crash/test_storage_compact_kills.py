"""A compaction may end at any instruction: no row is lost, doubled or wrong, no late row is counted twice."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STRIDE = 17
"""A dozen of some 190 steps, others in every run; `python -m tests.storage_compact_kills FOLDER 1 1` dies at all."""


def test_a_compaction_killed_at_any_durable_step_is_as_if_it_had_not_begun_or_had_ended(
    tmp_path: Path,
) -> None:
    first = random.SystemRandom().randint(1, STRIDE)
    print(f"first step {first}, every {STRIDE}th")
    done = subprocess.run(
        [sys.executable, "-m", "tests.storage_compact_kills", str(tmp_path), str(first), str(STRIDE)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    trials = [json.loads(line) for line in done.stdout.splitlines()]
    assert [trial["step"] for trial in trials[:-1]] == [first + k * STRIDE for k in range(len(trials) - 1)]
    assert trials[-1]["died"] is None, "the last trial ran to its end"
    assert len(trials) > 8
