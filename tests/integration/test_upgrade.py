"""This version opens the data folder of each release before it, and refuses one of a later, with a sentence."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import struct
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from crc32c import crc32c

from anomaly.alerts.outboxfile import SCHEMA_VERSION
from ingest.replayspool import Spooled, spool
from storage import hashes, snapshot
from storage.formats import FolderNewer, refuse_newer_files
from storage.hashes import FORMAT_NAME, Sum, keep_sums
from storage.hot import list_hot
from storage.journal import Journal
from storage.schema import META_FORMAT
from storage.segment import RECORD_HEAD, SEGMENT_HEAD, JournalNewer, list_segments
from storage.settings import JournalSettings
from tests.engines import until, yuzui_here
from tests.golden_folder import (
    ALERTS,
    HOUR_MS,
    READINGS,
    REFUSALS,
    STEPS,
    engine_on,
    facts_of,
    releases,
    unpack,
)
from tests.talk import Talker
from tests.webhook_ids import Receiver

NEWEST = releases()[-1]


@pytest.mark.parametrize("release", releases())
def test_the_data_folder_of_a_release_is_opened_with_rows_alerts_state_and_the_journals_tail(
    release: str, tmp_path: Path
) -> None:
    facts = facts_of(release)
    with Receiver() as room, Receiver() as gone:
        engine = engine_on(tmp_path, room.server_port, gone.server_port)
        data = unpack(release, tmp_path)
        main = [file.last for file in list_hot(data, late=False)]
        assert max(main, default=0) <= facts["snapshot_seq"], "the newest rows stand in the journal alone"
        try:
            engine.start()
            expected = [tuple(row) for row in facts["readings"]]
            engine.until_lake("SELECT count(*) FROM readings", [(len(expected),)])
            assert [row[:3] for row in engine.lake(READINGS)] == expected
            assert {row[3] for row in engine.lake(READINGS)} <= {1, 2, 3, 4, 9}
            assert [row[2:] for row in engine.lake(REFUSALS)] == [("bad_json", 1), ("unknown_topic", 1)]
            steps = [(row[1], row[2]) for row in engine.lake(STEPS)]
            assert steps == [("1", "accepted"), ("1", "closed"), ("2", "accepted")]
            now = engine.vitals()
            assert (now["files_set_aside"], now["rows_lost_to_damage"], now["conservation_gap"]) == (0, 0, 0)
            # The hour that was compacted: its rollups answer, equal to what its rows say.
            hour = min(row[1] for row in expected) // HOUR_MS + 1
            sql = f"SELECT sum(count) FROM rollup_1h WHERE epoch_ms(time) = {hour * HOUR_MS}"
            assert engine.lake(sql) == [(sum(row[1] // HOUR_MS == hour for row in expected),)]
            _state_goes_on(engine, facts, room, gone)
        finally:
            engine.stop()
        assert engine.code == 0
        log = engine.log.read_text()
        assert "set aside" not in log, log[-2000:]
        assert "ERROR" not in log, log[-2000:]


def _state_goes_on(engine, facts, room, gone) -> None:  # type: ignore[no-untyped-def]
    """What is said again is a repeat, what stands ends under its own id, and who was called is not called again."""
    alerts = engine.lake(ALERTS)
    ended = [row for row in alerts if row[1] == "l0"]
    [[open_id, *_, state, severity, _]] = [row for row in alerts if row[1] == "l1"]
    assert [row[2] for row in ended] == ["resolved"]
    assert (state, severity) == ("firing", 4), "the last step of it stood in the journal's tail"
    until(lambda: gone.heard, "what waited for the other receiver goes out")
    assert set(room.heard).isdisjoint(facts["heard"])
    point, time_ms, value = max((row for row in facts["readings"] if row[0] == "p2"), key=lambda row: row[1])
    before = engine.vitals()["repeats"]
    with Talker(engine.port) as gateway:
        gateway.say(f"t/g0/{point}", json.dumps({"ts": time_ms, "v": value}).encode())
        newest = max(row[1] for row in facts["readings"] if row[0] == "l1")
        for step in range(1, 4):
            gateway.say("t/g0/l1", json.dumps({"ts": newest + step, "v": 1.0}).encode())
    until(lambda: engine.vitals()["repeats"] == before + 1, "the last reading of the tail is known")
    engine.until_lake(f"SELECT state FROM alerts WHERE id = '{open_id}'", [("resolved",)])


# -- a later version's files -----------------------------------------------------------------------


def _head(path: Path, at: int = 6) -> None:
    """Format 9, with the checksum right: whole, and of another time."""
    whole = bytearray(path.read_bytes())
    whole[at : at + 2] = struct.pack("<H", 9)
    if whole[:6] == snapshot.MAGIC:
        whole[-4:] = struct.pack("<I", crc32c(bytes(whole[:-4])))
    else:
        end = SEGMENT_HEAD.size
        whole[end - 4 : end] = struct.pack("<I", crc32c(bytes(whole[: end - 4])))
    path.write_bytes(whole)


def _parquet(path: Path) -> None:
    table = pq.read_table(path, partitioning=None)
    words = {**(table.schema.metadata or {}), META_FORMAT: b"9"}
    pq.write_table(table.replace_schema_metadata(words), path)


def _segment(data: Path) -> Path:
    path = list_segments(data / "journal")[-1][1]
    _head(path)
    return path


def _snapshot(data: Path) -> Path:
    path = snapshot.list_snapshots(data / "snapshot")[-1][1]
    _head(path)
    return path


def _outbox(data: Path) -> Path:
    with closing(sqlite3.connect(data / "outbox.db")) as db:
        db.execute("PRAGMA user_version = 9")
    return data / "outbox.db"


def _newest(pattern: str) -> Callable[[Path], Path]:
    def change(data: Path) -> Path:
        path = sorted(data.glob(pattern))[-1]
        _parquet(path)
        return path

    return change


def _hot(data: Path) -> Path:
    source = sorted(data.glob("lake/readings/*/*/*.parquet"))[-1]
    path = data / "lake/hot/main" / f"{99:020d}-{99:020d}-1-0.parquet"
    shutil.copy(source, path)
    _parquet(path)
    return path


def _hot_list(data: Path) -> Path:
    path = data / "lake" / "hot" / "list.json"
    path.write_text(json.dumps({"format": 9}))
    return path


def _hashes(data: Path) -> Path:
    path = hashes.hashes_dir(data) / hashes.LIST_NAME
    path.unlink()
    keep_sums(data, [(FORMAT_NAME, Sum(9, ""))])
    # A line of our own format stands first: a later version writes its own there.
    lines = path.read_bytes().splitlines(keepends=True)
    body = lines[0][9:].rstrip().replace(b'["#format",1,""],', b"")
    path.write_bytes(f"{crc32c(body):08x} ".encode() + body + b"\n")
    return path


def _replay(data: Path) -> Path:
    path = spool(data, [Spooled([1], 1, "s", "t", None, b"raw")])
    with pa.OSFile(str(path)) as file, pa.ipc.open_file(file) as reader:
        table = reader.read_all().replace_schema_metadata({META_FORMAT: b"9"})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    return path


KINDS: dict[str, Callable[[Path], Path]] = {
    "journal segment": _segment,
    "snapshot": _snapshot,
    "outbox": _outbox,
    "points": _newest("lake/points.parquet"),
    "hot file": _hot,
    "list of hot files": _hot_list,
    "sealed file": _newest("lake/readings/*/*/*.parquet"),
    "sealed late file": _newest("lake/late/*/*/*.parquet"),
    "quarantine": _newest("lake/quarantine/*.parquet"),
    "events": _newest("lake/events/*.parquet"),
    "alerts": _newest("lake/alerts/*.parquet"),
    "rollups": _newest("lake/rollup_1h/*.parquet"),
    "latest": _newest("lake/latest/*.parquet"),
    "list of hashes": _hashes,
    "refused messages to be sent again": _replay,
}


def test_a_later_format_is_refused_with_a_sentence_for_each_kind_of_file_and_nothing_is_changed(
    tmp_path: Path,
) -> None:
    for kind, change in KINDS.items():
        data = unpack(NEWEST, tmp_path)
        refuse_newer_files(data, SCHEMA_VERSION)
        path = change(data)
        with pytest.raises(FolderNewer) as refused:
            refuse_newer_files(data, SCHEMA_VERSION)
        said = str(refused.value)
        assert said.startswith(f"{path} has format 9; this version of Yuzui reads "), kind
        assert said.endswith("Run the version that wrote it, or a later one"), kind
        assert said.count("\n") == 0, f"{kind}: {said}"
    print(f"{len(KINDS)} kinds of file refused")
    # And as a person meets it, all kinds at once.
    data = unpack(NEWEST, tmp_path)
    paths = [change(data) for change in KINDS.values()]
    before = contents(data)
    engine = engine_on(tmp_path, 1, 1).start(wait=False)
    until(lambda: not engine.running, "the engine ended")
    assert engine.code == 2
    log = engine.log.read_text()
    assert [str(path) for path in paths if str(path) not in log] == []
    assert "Traceback" not in log
    assert contents(data) == before


def contents(data: Path) -> dict[Path, bytes]:
    """Every file but the lock, and what SQLite lays beside a database to read it."""
    paths = (path for path in data.rglob("*") if path.is_file() and path.name != "LOCK")
    return {path: path.read_bytes() for path in paths if not path.name.startswith("outbox.db-")}


def test_a_record_of_a_later_version_in_an_old_tail_is_neither_cut_nor_skipped(tmp_path: Path) -> None:
    data = unpack(NEWEST, tmp_path)
    first, path = list_segments(data / "journal")[-1]
    whole = bytearray(path.read_bytes())
    salt = SEGMENT_HEAD.unpack_from(whole)[4]
    at = SEGMENT_HEAD.size
    length = RECORD_HEAD.unpack_from(whole, at)[0]
    end = at + RECORD_HEAD.size + length
    whole[at + 9] = 9  # format of the record
    whole[at + 4 : at + 8] = struct.pack("<I", crc32c(bytes(whole[at + 8 : end]), salt))
    path.write_bytes(whole)
    with pytest.raises(JournalNewer, match=f"record {first} is of type [0-9]+, version 9: not known here"):
        Journal.open(data / "journal", JournalSettings(reserve_bytes=0))
    assert path.read_bytes() == whole
    engine = engine_on(tmp_path, 1, 1).start(wait=False)
    until(lambda: not engine.running, "the engine ended")
    assert engine.code == 2
    assert "version 9: not known here" in engine.log.read_text()
    assert "Traceback" not in engine.log.read_text()


def test_a_format_before_the_first_is_refused_and_not_misread(tmp_path: Path) -> None:
    data = unpack(NEWEST, tmp_path)
    segment = list_segments(data / "journal")[-1][1]
    kept = snapshot.list_snapshots(data / "snapshot")[-1][1]
    for path in (segment, kept):
        _head(path)
        whole = bytearray(path.read_bytes())
        whole[6:8] = b"\0\0"
        end = len(whole) if path is kept else SEGMENT_HEAD.size
        whole[end - 4 : end] = struct.pack("<I", crc32c(bytes(whole[: end - 4])))
        path.write_bytes(whole)
    with pytest.raises(snapshot.SnapshotNewer, match="has format 0; this version reads 1"):
        snapshot.load(kept)
    with pytest.raises(JournalNewer, match="has format 0; this version reads 1"):
        Journal.open(data / "journal", JournalSettings(reserve_bytes=0))


def test_the_golden_folder_is_small_and_there_is_one_of_each_release() -> None:
    from importlib.metadata import version

    assert all((Path(__file__).parents[1] / "golden" / f"{r}.json").is_file() for r in releases())
    sizes = {r: os.stat(Path(__file__).parents[1] / "golden" / f"{r}.tar.xz").st_size for r in releases()}
    print(sizes)
    assert max(sizes.values()) <= 300_000
    assert version("yuzui") in releases(), "make it with scripts/golden before the release"


def test_the_folder_of_a_release_is_backed_up_verified_and_restored(tmp_path: Path) -> None:
    engine_on(tmp_path, 1, 1)
    data = unpack(NEWEST, tmp_path)
    for words in (
        ("backup", str(tmp_path / "b"), "-c", str(tmp_path / "yuzui.toml"), "--full-speed"),
        ("verify", str(tmp_path / "b")),
        ("restore", str(tmp_path / "b"), "--to", str(tmp_path / "again")),
    ):
        done = yuzui_here(*words)
        assert done.returncode == 0, done.stdout + done.stderr
    again = tmp_path / "again"
    paths = [*(again / "lake" / "readings").rglob("*.parquet"), *(again / "snapshot").iterdir()]
    assert len(paths) > 5
    assert all(path.read_bytes() == (data / path.relative_to(again)).read_bytes() for path in paths)
