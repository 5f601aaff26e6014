"""Benchmarks that reach into decoding are run once, untimed: what they use may change and nobody would see."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["mapping", "codecs", "decode", "frames"])
def test_benchmarks_of_decoding_run_and_count_right(name: str) -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        f"bench/test_bench_{name}.py",
        "-q",
        "-x",
        "--benchmark-disable",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout
