"""One engine start over a data folder damaged in ten places: each is named, set aside, and no reading is lost."""

from __future__ import annotations

import os
import time
from pathlib import Path

from storage.deltastate import read_log
from storage.hot import list_hot
from storage.segment import list_segments
from storage.snapshot import list_snapshots
from tests.engines import EngineProcess, run_yuzui, site_config, until
from tests.lake_folder import flip_at
from tests.talk import Talker

POINTS = [f"p{n}" for n in range(50)]
ROUNDS = 6
MORE = (
    "[sealed]\nseal_s = 1\ngrace_s = 60\n[snapshot]\nevery_s = 1\n[journal]\nsegment_bytes = 1048576\n"
    "reserve_bytes = 1048576\n"
)
START_S_MAX = 100.0
"""Four on a quiet machine; tests share two cores with others."""


def speak(engine: EngineProcess, base_ms: int, rounds: range) -> list[tuple[str, int, float]]:
    """Every point speaks once a round, acknowledged; what was sent. The seventh point's times go backwards."""
    sent = []
    with Talker(engine.port) as talker:
        for k in rounds:
            rows = [
                (p, base_ms + k * 1000 * (-1 if p == "p7" else 1) + n, 0.5 * k + n)
                for n, p in enumerate(POINTS)
            ]
            talker.say_all([(f"t/g0/{p}", b'{"ts":%d,"v":%f}' % (t, v)) for p, t, v in rows])
            sent += rows
            time.sleep(0.5)  # rounds in several hot files, seals and snapshots: the spread is what is wanted
    return sent


def damage_everything(data: Path) -> list[str]:
    """Flip a bit in, or cut, one file of every kind; the names that must be set aside."""
    lake = data / "lake"
    newest_hot = [f.path for f in list_hot(data, late=False)][-1]
    unsealed_late = [f.path for f in list_hot(data, late=True)][-1]
    for path in (newest_hot, unsealed_late):
        flip_at(path, path.stat().st_size // 2)
    newest_snapshot = list_snapshots(data / "snapshot")[-1][1]
    flip_at(newest_snapshot, 100)
    flip_at(lake / "points.parquet", 200)
    flip_at(lake / "empty" / "late.parquet", 30)
    flip_at(data / "lake.sql", 500)
    (data / "engine.json").write_bytes(b"\0{rubbish")
    entry = sorted((lake / "readings" / "_delta_log").glob("*.json"))[1]
    os.truncate(entry, 40)
    (lake / "late" / "_delta_log" / "_last_checkpoint").write_bytes(b"{")
    outbox = data / "outbox.db"
    outbox.write_bytes(b"rubbish" * 1000)
    # A small one stands whole in its write-ahead log, from which SQLite would bring it back.
    (data / "outbox.db-wal").unlink(missing_ok=True)
    (lake / "hot" / "tmp" / "leftover").write_bytes(b"half")
    (data / "snapshot" / "00000000000000000099.tmp").write_bytes(b"half")
    return [newest_hot.name, "points.parquet", entry.name, "outbox.db"]


def test_an_engine_starts_over_damage_of_every_kind_names_it_and_has_every_reading(tmp_path: Path) -> None:
    engine = EngineProcess(tmp_path, site_config(tmp_path, {"g0": POINTS}, more=MORE)).start()
    base_ms = (int(time.time()) - 600) * 1000
    sent = speak(engine, base_ms, range(ROUNDS))
    until(lambda: engine.vitals()["seals"] >= 2, "two seals")
    assert engine.stop() == 0
    # From here on nothing is sealed: what is damaged stands in hot files only.
    engine.config.write_text(engine.config.read_text().replace("seal_s = 1\n", "seal_s = 3600\n"))
    engine.start()
    sent += speak(engine, base_ms, range(ROUNDS, ROUNDS + 2))
    until(lambda: engine.lake("SELECT count(*) FROM readings") == [(len(sent),)], "all in the lake")
    until(lambda: len(list_snapshots(engine.data / "snapshot")) >= 2, "snapshots")
    engine.kill()
    assert list_segments(engine.data / "journal")
    watermark = read_log(engine.data / "lake" / "readings").txns["yuzui"]
    assert list_hot(engine.data, late=False)[-1].last > watermark, "the newest hot rows are not sealed"
    named = damage_everything(engine.data)
    began = time.monotonic()
    engine.start()
    took = time.monotonic() - began
    print(f"started over the damage in {took:.1f} s")
    rows = sorted((p, t, v) for p, t, v in sent)
    engine.until_lake("SELECT point_id, epoch_ms(time), value FROM readings ORDER BY ALL", rows)
    said = engine.log.read_text()
    assert [name for name in named if f"{name}.bad" not in said] == []
    assert "presumes rows that must be derived again" in said
    assert took < START_S_MAX
    again = speak(engine, base_ms, range(ROUNDS + 2, ROUNDS + 3))
    rows = sorted([*rows, *again])
    engine.until_lake("SELECT point_id, epoch_ms(time), value FROM readings ORDER BY ALL", rows)
    assert engine.vitals()["conservation_gap"] == 0
    beside = run_yuzui("scrub", "--data", str(engine.data), "--json")
    assert beside.returncode == 0, beside.stdout
    assert engine.stop() == 0
    assert run_yuzui("scrub", "--data", str(engine.data)).returncode == 0
