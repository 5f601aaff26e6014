"""Compaction changes where rows stand and never what a query answers: against a dictionary."""

from __future__ import annotations

import math
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import compact, merge, parts
from storage.compact import Compactor, fold_totals
from storage.folds import FoldTotal
from storage.hot import US_PER_HOUR
from storage.query import connect, write_lake_sql
from storage.rollups import hour_dir, list_rollups, minute_dir
from storage.seal_plan import COMPACTED_NAME
from storage.sealed import Sealer, table_dir
from storage.settings import CompactionSettings, SealedSettings
from tests.storage_oracle import Stream, city, finish, late_files, main_files, read_rows, run
from tests.storage_rows import HOUR, T0, Row, S

NOW = CompactionSettings(lateness_s=0, fold_s=0, files_per_hour_max=3, memory_bytes=64 << 20)
SEALED = SealedSettings()
POINTS = 6

reading = st.tuples(
    st.integers(0, POINTS - 1),
    st.one_of(
        st.integers(0, 6).map(lambda k: T0 + k * 600 * S), st.integers(0, 3 * HOUR).map(lambda us: T0 + us)
    ),
    st.sampled_from([1.0, 2.0, 2.5, -0.0, 0.0, math.nan]),
)
step = st.one_of(
    st.lists(reading, min_size=1, max_size=12),
    st.just("seal"),
    st.just("compact"),
    st.just("restart"),
)


def same(found: list[Row], wanted: list[Row]) -> bool:
    """Equal rows, a missing value equal to a missing one."""
    return np.array_equal(np.array(found, float), np.array(wanted, float), equal_nan=True)


@settings(max_examples=20, deadline=None, print_blob=True)
@given(st.lists(step, min_size=1, max_size=25))
def test_any_stream_sealed_and_compacted_anyhow_is_what_was_last_received(steps: list[object]) -> None:
    with TemporaryDirectory() as folder:
        root = Path(folder)
        stream, sealer, compactor = Stream(root), Sealer(root, SEALED), Compactor(root, NOW)
        for what in steps:
            if what == "seal":
                sealer.seal(stream.seq)
            elif what == "compact":
                finish(compactor)
            elif what == "restart":
                sealer, compactor = Sealer(root, SEALED), Compactor(root, NOW)
            elif isinstance(what, list):
                stream.write(what)
        far = T0 + 30 * 24 * HOUR
        stream.write([(POINTS, far, 1.0), (POINTS + 1, far, 2.0)])
        sealer.seal(stream.seq)
        finish(compactor)
        stream.write([(POINTS, far + HOUR * 24 * 30, 1.0)])
        sealer.seal(stream.seq)
        finish(compactor)
        assert late_files(root) == [], "everything is folded"
        assert same(read_rows(main_files(root)), stream.rows())
        (total,) = fold_totals(root)
        assert (total.late_new, total.revised, total.repeats) == (
            stream.late_new,
            stream.revised,
            stream.repeats,
        )
        assert total.rows == len(stream.truth) - 1, "but for the hour that still runs"
        check_rollups(root, stream)


def check_rollups(root: Path, stream: Stream) -> None:
    """Rollups of compacted hours, against plain loops."""
    hours = {int(p.parent.name[5:]) for p in main_files(root)}
    assert hours
    committed = {
        (int(h), Path(p).name) for h, _, p in list_rollups(minute_dir(root))
    }  # fmt: skip
    assert committed
    want: dict[tuple[int, int], list[float]] = {}
    newest = max(time for _, time in stream.truth) // US_PER_HOUR
    for (point, time), value in sorted(stream.truth.items()):
        if time // US_PER_HOUR != newest:
            want.setdefault((point, time // US_PER_HOUR), []).append(value)
    days = {day: path for day, _, path in list_rollups(hour_dir(root))}
    found = {}
    for path in days.values():
        table = pq.ParquetFile(path).read()
        keys = list(zip(table["point"].to_pylist(), table["time"].cast("int64").to_pylist(), strict=True))
        assert keys == sorted(set(keys))
        for row, (point, time) in zip(table.to_pylist(), keys, strict=True):
            found[point, time // US_PER_HOUR] = row
    assert set(found) == set(want)
    for key, values in want.items():
        good, row = [v for v in values if not math.isnan(v)], found[key]
        assert (row["count"], row["good"]) == (len(values), len(good))
        if not good:
            assert [row[n] for n in ("sum", "min", "max", "first", "last")] == [None] * 5
            continue
        assert row["sum"] == pytest.approx(math.fsum(good))
        assert (row["min"], row["max"], row["first"], row["last"]) == (
            min(good),
            max(good),
            good[0],
            good[-1],
        )


def test_an_hour_becomes_one_sorted_file_and_other_engines_read_it_untouched(tmp_path: Path) -> None:
    stream, _ = city(tmp_path)
    done = finish(Compactor(tmp_path, CompactionSettings()))
    assert [(r.kind, r.files_after) for r in done] == [("compact", 1), ("compact", 1)]
    for path in main_files(tmp_path)[:-1]:
        assert COMPACTED_NAME.fullmatch(path.name)
        keys = [row[:2] for row in read_rows([path])]
        table = pq.ParquetFile(path).read()
        assert keys == list(
            zip(table["point"].to_pylist(), table["time"].cast("int64").to_pylist(), strict=True)
        )
    frame = pl.scan_delta(str(table_dir(tmp_path, late=False)))
    mine = frame.select(pl.len(), pl.col("value").sum()).collect().row(0)
    assert mine == (len(stream.truth), pytest.approx(math.fsum(stream.truth.values())))
    write_lake_sql(tmp_path, "Asia/Shanghai", 7200)
    con = connect(tmp_path)
    assert con.execute("SELECT count(*), sum(value) FROM yuzui_readings").fetchone() == pytest.approx(mine)


def test_readers_of_before_keep_their_files_until_the_grace_is_over(tmp_path: Path) -> None:
    city(tmp_path)
    before = [*main_files(tmp_path), *late_files(tmp_path)]
    compactor = Compactor(tmp_path, CompactionSettings())
    finish(compactor)
    replaced = set(before) - set(main_files(tmp_path))
    compactor.tidy(100, now=0)
    compactor.tidy(100, now=160)
    assert all(path.exists() for path in before)
    compactor.tidy(100, now=161)
    assert not any(path.exists() for path in replaced)
    assert all(path.exists() for path in main_files(tmp_path))


def test_a_restart_finds_replaced_files_again(tmp_path: Path) -> None:
    city(tmp_path)
    before = {*main_files(tmp_path), *late_files(tmp_path)}
    finish(Compactor(tmp_path, CompactionSettings()))
    compactor = Compactor(tmp_path, CompactionSettings())
    compactor.tidy(100, now=0)
    compactor.tidy(100, now=161)
    on_disk = set(tmp_path.glob("lake/readings/date=*/*/*.parquet")) | set(
        tmp_path.glob("lake/late/date=*/*/*.parquet")
    )
    assert on_disk == set(main_files(tmp_path)), sorted(before & on_disk)


def test_what_is_sealed_while_an_hour_is_compacted_is_neither_lost_nor_folded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merge, "PIECE_ROWS_MIN", 64)
    monkeypatch.setattr(merge, "ROW_BYTES", 1 << 20)
    stream, sealer = city(tmp_path)
    compactor = Compactor(tmp_path, CompactionSettings(fold_s=0))
    (job, _) = compactor.look(0)
    sealed = 0
    for _ in compactor.run(job):
        if sealed < 25:
            sealed += 1
            stream.write([(7, T0 + 30 * S + sealed, 5.0), (8, T0 + HOUR, float(sealed))])
            sealer.seal(stream.seq)
    assert sealed > 10
    assert len([p for p in late_files(tmp_path) if p.parent.name == "hour=05"]) == sealed
    finish(compactor)
    stream.write([(0, T0 + 10 * HOUR, 0.0)])
    sealer.seal(stream.seq)
    finish(compactor)
    assert late_files(tmp_path) == []
    assert read_rows(main_files(tmp_path)) == stream.rows()


def test_a_damaged_file_is_named_its_hour_set_aside_and_the_others_go_on(tmp_path: Path) -> None:
    stream, _ = city(tmp_path)
    victim = main_files(tmp_path)[2]
    content = bytearray(victim.read_bytes())
    content[len(content) // 3] ^= 4
    victim.write_bytes(bytes(content))
    compactor = Compactor(tmp_path, NOW)
    (first, *_) = compactor.look(0)
    before = sorted(tmp_path.rglob("*.parquet"))
    with pytest.raises(merge.InputDamaged, match=victim.name):
        run(compactor, first)
    assert sorted(tmp_path.rglob("*.parquet")) == before, "nothing is left of the attempt"
    compactor.set_aside(first.hour, now=0)
    assert {job.hour for job in compactor.look(1)} == {first.hour + 1}
    finish(compactor, now=1)
    assert first.hour in {job.hour for job in compactor.look(compact.ASIDE_S + 1)}
    hour_two = [row for row in stream.rows() if T0 + HOUR <= row[1] < T0 + 2 * HOUR]
    assert read_rows([p for p in main_files(tmp_path) if p.name.startswith("c")]) == hour_two


def test_a_full_disk_is_left_to_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    city(tmp_path)
    compactor = Compactor(tmp_path, NOW)
    monkeypatch.setattr(compact, "ROOM_SHARE_MAX", 0.0)
    with pytest.raises(OSError, match="No space left"):
        run(compactor, compactor.look(0)[0])


def test_large_hours_are_cut_into_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "FILE_ROWS_MAX", 1000)
    monkeypatch.setattr(parts, "ROW_GROUP_SEALED", 500)
    stream, _ = city(tmp_path)
    finish(Compactor(tmp_path, CompactionSettings()))
    sizes = [pq.read_metadata(p).num_rows for p in main_files(tmp_path)]
    assert max(sizes) == 1000
    assert len(sizes) > 7
    assert read_rows(main_files(tmp_path)) == stream.rows()


def test_gathered_files_are_sealed_files_and_change_no_answer(tmp_path: Path) -> None:
    stream, _ = city(tmp_path)
    few = CompactionSettings(files_per_hour_max=3, lateness_s=7 * 86_400)
    reports = finish(Compactor(tmp_path, few))
    assert {r.kind for r in reports} == {"gather"}
    assert sorted(p.name.rpartition("-")[2] for p in main_files(tmp_path)) == [
        "0.parquet",
        "1.parquet",
        "1.parquet",
    ]
    assert len(late_files(tmp_path)) == 2
    late = read_rows(late_files(tmp_path))
    assert len(late) == stream.late_new + stream.revised + stream.repeats
    Sealer(tmp_path, SEALED)
    assert read_rows(late_files(tmp_path)) == late
    finish(Compactor(tmp_path, NOW))
    assert read_rows(main_files(tmp_path)) == stream.rows()
    assert late_files(tmp_path) == []


def test_a_source_that_takes_back_what_it_said_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stream, _ = city(tmp_path)
    finish(Compactor(tmp_path, CompactionSettings()))
    (total,) = fold_totals(tmp_path)
    assert total == FoldTotal("water", len(stream.truth) - 1, stream.late_new, stream.revised, stream.repeats)
    assert total.suspicious
    assert "source water revised" in caplog.text
