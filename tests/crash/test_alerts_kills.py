"""kill -9 in the middle of a night: the same groups and the same notifications as if nobody had been killed.

The child records a night's events from where the outbox says Judge came to, as the engine does, and sometimes from
before that; the parent kills it at random. Nothing is told twice, nothing is left out.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

from anomaly.alerts.outbox import Outbox
from anomaly.settings import WebhookSettings
from tests.alerts_storm import night
from tests.engines import ROOT

KILLS = 6
STORMS, PER_STORM, STUCK, OUTAGES = 6, 25, 80, 3
HOOKS = [WebhookSettings.model_validate({"name": "room", "url": "http://127.0.0.1:1/"})]


def child(path: Path, seed: int) -> None:
    """Body of the process: record the rest of the night, a few events a transaction; say so after each."""
    events, rng = night(seed, STORMS, PER_STORM, STUCK, OUTAGES), random.Random(time.monotonic_ns())
    outbox = Outbox(path, HOOKS)
    done = max(outbox.judged_seq() - rng.randrange(30), 0)
    while done < len(events):
        upto = min(done + rng.randrange(1, 9), len(events))
        outbox.record(events[done:upto], max(upto, outbox.judged_seq()))
        done = upto
        print(done, flush=True)
        sys.stdin.readline()  # in step with who kills us; at its end on to the end
    outbox.close()


def told(path: Path) -> tuple[list[tuple[str, int, str]], set[tuple[str, str]], int]:
    """What was queued in order, who is in which group, and how many events there are."""
    outbox = Outbox(path)
    bodies = [json.loads(row[0])["data"] for row in outbox.rows("SELECT body FROM delivery ORDER BY rowid")]
    members = {(row[0], row[1]) for row in outbox.rows("SELECT id, grp FROM member")}
    events: int = outbox.rows("SELECT count(*) FROM alert_event")[0][0]
    outbox.close()
    return [(b["id"], b["revision"], b["group"]["reason"]) for b in bodies], members, events


def test_kills_change_neither_groups_nor_notifications(tmp_path: Path) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    rng = random.Random(seed)
    whole = Outbox(tmp_path / "whole.db", HOOKS)
    events = night(seed, STORMS, PER_STORM, STUCK, OUTAGES)
    whole.record(events, len(events))
    whole.close()
    expected = told(tmp_path / "whole.db")

    killed, code = 0, -1
    while code != 0:
        process = subprocess.Popen(
            [sys.executable, __file__, str(tmp_path / "killed.db"), str(seed)],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        lines = rng.randrange(1, len(events) // KILLS // 4)
        while killed < KILLS and lines and process.stdout.readline():
            lines -= 1
            process.stdin.write(b"\n")
            process.stdin.flush()
        if killed < KILLS and not lines:
            # Anywhere in the next transaction.
            time.sleep(rng.random() * 0.01)
            process.kill()
            killed += 1
        process.stdin.close()
        process.stdout.read()
        code = process.wait(60)
    assert killed == KILLS
    assert told(tmp_path / "killed.db") == expected


if __name__ == "__main__":
    child(Path(sys.argv[1]), int(sys.argv[2]))
