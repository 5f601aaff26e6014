"""Dies at every durable step of a compaction, and looks at what the next start makes of it. Run as a module.

Each trial is two forked processes: one compacts a copy of a prepared lake and ends without any clean-up at the n-th
fsync, rename, unlink or Delta commit (before or after it); the other starts as an engine does and compares with the
truth. This process itself never touches Delta, which does not survive a fork. Prints one line of JSON a trial.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from deltalake import DeltaTable

from storage.compact import Compactor, fold_totals
from storage.hot import HotTier
from storage.rollups import hour_dir, minute_dir
from storage.sealed import Sealer
from storage.settings import CompactionSettings, SealedSettings
from tests.storage_oracle import city, finish, late_files, main_files, view
from tests.storage_rows import HOUR, T0, Row, batch

NOW = CompactionSettings(lateness_s=0, fold_s=0, files_per_hour_max=5)
DIED, DONE = 9, 0


def forked(work: Callable[[], None]) -> int:
    """Run ``work`` in a process of its own; its exit code."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = DONE
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def die_at(step: int) -> list[str]:
    """From now on count durable steps, each before and after; end the process at ``step``."""
    passed: list[str] = []

    def counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **words: Any) -> Any:
            reach(f"before {name}")
            result = real(*args, **words)
            reach(f"after {name}")
            return result

        return call

    def reach(name: str) -> None:
        passed.append(name)
        if len(passed) == step:
            print(json.dumps({"died": name, "step": step}))
            sys.stdout.flush()
            os._exit(DIED)

    os.fsync = counted("fsync", os.fsync)
    os.replace = counted("replace", os.replace)
    os.unlink = counted("unlink", os.unlink)
    DeltaTable.create_write_transaction = counted("commit", DeltaTable.create_write_transaction)
    return passed


def prepare(root: Path) -> None:
    """A lake of two hours, one of them compacted before and late again; the truth beside it."""
    stream, sealer = city(root, points=7)
    finish(Compactor(root, CompactionSettings(lateness_s=0)))
    for k in range(3):
        stream.write([(3, T0 + k, 1.0 + k), (4, T0 + HOUR + k, 2.0), (3, T0, 7.0), (3, T0, 7.0 + k)])
        sealer.seal(stream.seq)
    for k in range(6):
        stream.write([(5, T0 + 5 * HOUR + k, 1.0), (3, T0 + 2 * k, 1.0)])
        sealer.seal(stream.seq)
    late = [stream.late_new, stream.revised, stream.repeats]
    truth = {"rows": stream.rows(), "late": late, "seq": stream.seq}
    (root / "truth.json").write_text(json.dumps(truth))


def later(root: Path, sealer: Sealer, seq: int, hours: int) -> list[Row]:
    """Event time goes on by so much that every hour is due; the rows that say so."""
    rows = [(6, T0 + hours * HOUR, 0.0)]
    HotTier(root).write(seq, seq + 9, batch(seq, rows), batch(seq, []))
    sealer.seal(seq + 9)
    return rows


def compact(root: Path, step: int) -> None:
    """Do everything that is due, dying at ``step``."""
    sealer, compactor = Sealer(root, SealedSettings()), Compactor(root, NOW)
    compactor.look(0)
    truth = json.loads((root / "truth.json").read_text())
    truth["rows"] += later(root, sealer, truth["seq"], 1_000)
    truth["seq"] += 10
    (root / "truth.json").write_text(json.dumps(truth))
    passed = die_at(step)
    finish(compactor)
    print(json.dumps({"died": None, "step": len(passed)}))


def check(root: Path) -> None:
    """Start again: the view was never wrong, and what is left to do leads to the same end."""
    truth = json.loads((root / "truth.json").read_text())
    rows: list[Row] = sorted(tuple(row) for row in truth["rows"])
    assert view(root) == rows, "before the restart"
    sealer = Sealer(root, SealedSettings())
    compactor = Compactor(root, NOW)
    assert view(root) == rows, "after the restart"
    compactor.look(0)
    rows = sorted(rows + later(root, sealer, truth["seq"], 100_000))
    finish(compactor)
    assert view(root) == rows, "after the next compaction"
    compactor.tidy(0, now=0)
    compactor.tidy(0, now=100)
    for folder, named in (("readings", main_files(root)), ("late", late_files(root))):
        assert set((root / "lake" / folder).glob("date=*/*/*.parquet")) == set(named), "files nobody names"
    for rollups in (minute_dir(root), hour_dir(root)):
        spans = [path.name.rpartition("-")[0] for path in rollups.glob("*.parquet")]
        assert len(spans) == len(set(spans)), "two rollups of one span"
    totals = fold_totals(root)
    found = [sum(getattr(t, name) for t in totals) for name in ("late_new", "revised", "repeats")]
    assert late_files(root) == []
    assert found == truth["late"], (found, truth["late"])


def main() -> None:
    """Arguments: a folder, the first step to die at, and every how many (1 1 dies at all of them)."""
    base, first, stride = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    prepared, trial = base / "prepared", base / "trial"
    assert forked(partial(prepare, prepared)) == DONE
    step = first
    while True:
        shutil.rmtree(trial, ignore_errors=True)
        shutil.copytree(prepared, trial)
        code = forked(partial(compact, trial, step))
        assert code in (DIED, DONE), f"step {step}: compaction ended with {code}"
        verdict = forked(partial(check, trial))
        assert verdict == DONE, f"step {step}: wrong after a restart"
        if code == DONE:
            return
        step += stride


if __name__ == "__main__":
    main()
