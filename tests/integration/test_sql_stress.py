"""Readers in a loop while a writer seals, compacts and brings late readings: no answer is wrong, none fails.

YUZUI_STRESS_S and YUZUI_STRESS_READERS make it longer and wider.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from storage.hot import HotTier
from storage.query import write_lake_sql
from tests.engines import ROOT
from tests.sql_stress import LEAST, POINTS
from tests.storage_rows import map_points

SECONDS = float(os.environ.get("YUZUI_STRESS_S", "8"))
READERS = int(os.environ.get("YUZUI_STRESS_READERS", "3"))


def start(what: str, root: Path) -> subprocess.Popen[str]:
    """One process of tests.sql_stress."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.sql_stress", what, str(root), str(SECONDS)],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def told(process: subprocess.Popen[str]) -> dict[str, Any]:
    out, _ = process.communicate(timeout=SECONDS + 300)
    assert process.returncode == 0
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


def test_no_answer_is_wrong_while_seals_and_compactions_run_and_late_readings_come(tmp_path: Path) -> None:
    map_points(tmp_path, POINTS)
    HotTier(tmp_path)
    write_lake_sql(tmp_path, "Asia/Shanghai", 7200)
    writer, readers = start("write", tmp_path), [start("read", tmp_path) for _ in range(READERS)]
    done, answers = told(writer), [told(reader) for reader in readers]
    print(done, answers)
    assert done["seals"] >= LEAST
    assert done["compactions"] >= LEAST
    for answer in answers:
        assert answer["wrong"] == []
        assert answer["errors"] == []
        assert answer["looks"] >= LEAST
        assert answer["ranges"] > 0
