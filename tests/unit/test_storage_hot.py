"""Hot files: what is visible, what a restart adopts, and when a file may go."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from storage.batch import ReadingBatch, stable_order
from storage.fast import IS_COMPILED
from storage.hot import DROP_SLACK_S, LISTED_S, HotTier, hot_dir, list_hot
from storage.hotlist import HotList
from storage.schema import META_RULES, READINGS, to_arrow
from tests.storage_rows import HOUR, T0, S, batch


def written(root: Path, count: int = 3) -> HotTier:
    """Ranges 0-9, 10-19 …, two main rows each and in every range but the first one late row."""
    hot = HotTier(root, "rules-1")
    for k in range(count):
        late = batch(k * 10, [(0, T0 - S, 9.0)] if k else [], first_row=100)
        hot.write(k * 10, k * 10 + 9, batch(k * 10, [(1, T0 + k * S, 1.0), (0, T0 + k * S, 2.0)]), late)
    return hot


def names(root: Path, late: bool) -> list[tuple[int, int]]:
    return [(f.first, f.last) for f in list_hot(root, late)]


def test_a_range_without_rows_writes_nothing(tmp_path: Path) -> None:
    HotTier(tmp_path).write(0, 9, batch(0, []), batch(0, []))
    assert names(tmp_path, late=False) == []


def test_a_range_with_only_late_rows_still_gets_its_main_file_as_mark_of_completion(tmp_path: Path) -> None:
    hot = HotTier(tmp_path)
    hot.write(0, 9, batch(0, []), batch(0, [(0, T0, 1.0)]))
    (main,) = list_hot(tmp_path, late=False)
    assert pq.read_metadata(main.path).num_rows == 0
    assert main.hour_min > main.hour_max
    assert HotTier(tmp_path).recover(-1, -1) == 9


def test_names_carry_the_hours_of_their_rows_even_before_1970(tmp_path: Path) -> None:
    hot = HotTier(tmp_path)
    hot.write(0, 9, batch(0, [(0, -1, 1.0), (1, 2 * HOUR, 1.0)]), batch(0, []))
    (main,) = list_hot(tmp_path, late=False)
    assert (main.hour_min, main.hour_max) == (-1, 2)


def test_rows_are_sorted_by_point_and_say_which_rules_judged_them(tmp_path: Path) -> None:
    written(tmp_path, 1)
    file = pq.ParquetFile(list_hot(tmp_path, late=False)[0].path)
    assert file.read()["point"].to_pylist() == [0, 1]
    assert file.metadata.metadata[META_RULES] == b"rules-1"


def test_missing_values_become_null_and_scores_are_rounded_to_a_32nd() -> None:
    rows = batch(0, [(0, T0, float("nan")), (1, T0, 1.5), (2, T0, 2.5)])
    rows.score = np.array([0.49, 0.51, np.nan], np.float32)
    rows.received_at[2] = T0 + 30 * 24 * HOUR
    table = to_arrow(rows, late=False)
    assert table.schema == READINGS
    assert table["value"].to_pylist() == [None, 1.5, 2.5]
    assert table["score"].to_pylist() == [None, 0.5, None]
    assert table["lag_ms"].to_pylist() == [500, 500, None], "a lag beyond int32 milliseconds is not clipped"


def test_late_rows_keep_their_position_in_the_order_of_receipt() -> None:
    assert to_arrow(batch(3, [(0, T0, 1.0)], first_row=7), late=True)["pos"].to_pylist() == [(3 << 24) + 7]


def test_a_restart_adopts_whole_files_and_goes_on_after_them(tmp_path: Path) -> None:
    written(tmp_path)
    again = HotTier(tmp_path)
    assert again.recover(-1, -1) == 29
    assert [(f.first, f.late, f.rows) for f in again.pending(-1)] == [
        (0, False, 2), (10, False, 2), (10, True, 1), (20, False, 2), (20, True, 1),
    ]  # fmt: skip


def test_without_files_the_watermark_is_what_is_covered(tmp_path: Path) -> None:
    assert HotTier(tmp_path).recover(41, 40) == 41


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("keep", [0, 100, -1], ids=["empty", "head", "all but a byte"])
def test_a_torn_file_takes_its_range_and_all_after_it_along(tmp_path: Path, late: bool, keep: int) -> None:
    written(tmp_path)
    torn = list_hot(tmp_path, late)[0 if late else 1]
    torn.path.write_bytes(torn.path.read_bytes()[:keep])
    assert HotTier(tmp_path).recover(-1, -1) == 9
    assert names(tmp_path, late=False) == [(0, 9)]
    assert names(tmp_path, late=True) == []


def test_a_footer_over_damaged_pages_does_not_pass_as_whole(tmp_path: Path) -> None:
    written(tmp_path)
    torn = list_hot(tmp_path, late=False)[2].path
    content = bytearray(torn.read_bytes())
    content[40:44] = b"\0\0\0\0"
    torn.write_bytes(bytes(content))
    assert HotTier(tmp_path).recover(-1, -1) == 19


def test_a_main_file_whose_late_file_is_lost_is_not_adopted(tmp_path: Path) -> None:
    """A power cut may keep the later rename and lose the earlier: the late rows would be gone for ever."""
    written(tmp_path)
    list_hot(tmp_path, late=True)[1].path.unlink()
    assert HotTier(tmp_path).recover(-1, -1) == 19


def test_a_main_file_whose_late_rows_are_sealed_needs_no_late_file(tmp_path: Path) -> None:
    written(tmp_path)
    for file in list_hot(tmp_path, late=True):
        file.path.unlink()
    assert HotTier(tmp_path).recover(-1, 29) == 29


def test_late_files_beyond_the_last_whole_main_file_are_removed(tmp_path: Path) -> None:
    written(tmp_path)
    list_hot(tmp_path, late=False)[2].path.unlink()
    assert HotTier(tmp_path).recover(-1, -1) == 19
    assert names(tmp_path, late=True) == [(10, 19)]


def test_unfinished_files_stand_where_no_glob_sees_them_and_go_at_the_next_start(tmp_path: Path) -> None:
    written(tmp_path, 1)
    leftover = hot_dir(tmp_path, late=False).parent / "tmp" / "main-x.parquet"
    leftover.write_bytes(b"half")
    assert not list(hot_dir(tmp_path, late=False).glob("*x.parquet"))
    HotTier(tmp_path).recover(-1, -1)
    assert not leftover.exists()


def test_sealed_files_are_dropped_only_a_grace_after_they_were_sealed(tmp_path: Path) -> None:
    hot = written(tmp_path)
    hot.sync()
    assert hot.drop(9, -1, grace_s=100, now=0.0) == 0
    assert hot.drop(19, 19, grace_s=100, now=100.0) == 0
    assert hot.drop(19, 19, grace_s=100, now=101.0 + DROP_SLACK_S) == 1
    assert names(tmp_path, late=False) == [(10, 19), (20, 29)]
    assert hot.drop(19, 19, grace_s=100, now=201.0 + DROP_SLACK_S) == 2
    assert names(tmp_path, late=False) == [(20, 29)]
    assert names(tmp_path, late=True) == [(20, 29)]
    assert [f.first for f in hot.pending(-1)] == [20, 20]
    hot.sync()


def listed(root: Path) -> dict[str, Any]:
    """lake/hot/list.json, its names as first seqs."""
    said: dict[str, Any] = json.loads((root / "lake" / "hot" / "list.json").read_text())
    return said | {key: sorted(int(name[:20]) for name in said[key]) for key in ("main", "late")}


def test_the_list_for_readers_names_what_is_written_and_a_minute_longer_than_it_is_sealed(
    tmp_path: Path,
) -> None:
    hot = written(tmp_path, 4)
    expected = {"format": 1, "sealed_main": -1, "sealed_late": -1, "last": 39}
    assert listed(tmp_path) == expected | {"main": [0, 10, 20, 30], "late": [10, 20, 30]}
    hot.drop(19, 19, grace_s=7200, now=0.0)
    assert listed(tmp_path)["main"] == [0, 10, 20, 30], "a reader may have read the log before the seal"
    hot.drop(29, 19, grace_s=7200, now=LISTED_S + 1)
    left = expected | {"sealed_main": 19, "sealed_late": 19, "main": [20, 30], "late": [20, 30]}
    assert listed(tmp_path) == left
    assert names(tmp_path, late=False) == [(0, 9), (10, 19), (20, 29), (30, 39)], (
        "the files stay for the grace"
    )
    hot.write(40, 49, batch(40, [(1, T0, 1.0)]), batch(40, []))
    assert listed(tmp_path) == left | {"last": 49, "main": [20, 30, 40]}


def test_a_restart_lists_what_it_adopted_and_nothing_torn(tmp_path: Path) -> None:
    written(tmp_path, 4)
    (tmp_path / "lake" / "hot" / "list.json").write_bytes(b"{")
    list_hot(tmp_path, late=False)[3].path.write_bytes(b"torn")
    assert HotTier(tmp_path).recover(9, -1) == 29
    said = listed(tmp_path)
    assert (said["main"], said["late"], said["last"]) == ([10, 20], [10, 20], 29)
    assert (said["sealed_main"], said["sealed_late"]) == (9, -1)


def test_a_range_whose_list_cannot_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hot = written(tmp_path, 1)

    def full(self: HotList) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(HotList, "save", full)
        with pytest.raises(OSError, match="No space"):
            hot.write(10, 19, batch(10, [(1, T0, 1.0)]), batch(10, [(0, T0, 1.0)]))
        hot.drop(9, 9, grace_s=0, now=0.0)
        assert hot.drop(9, 9, grace_s=0, now=1000.0) == 0, "no file goes that the list still names"
    assert names(tmp_path, late=False) == [(0, 9)]
    assert names(tmp_path, late=True) == []
    assert listed(tmp_path)["last"] == 9
    hot.write(10, 29, batch(10, [(1, T0, 1.0)]), batch(10, []))
    assert (listed(tmp_path)["main"], listed(tmp_path)["sealed_main"]) == ([10], 9)
    assert hot.drop(9, 9, grace_s=0, now=2000.0) == 1


@pytest.mark.skipif(not IS_COMPILED, reason="no numba on this machine: there is one way only")
@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 10_000])
def test_the_compiled_way_into_a_file_gives_the_same_rows_to_the_last_bit(n: int) -> None:
    from storage.arrange import arranged

    rng = np.random.default_rng(n)
    print(f"seed {n}")
    time = rng.integers(-(10**15), 10**15, n)
    lag = rng.integers(-(10**6), 10**6, n) * rng.choice([1, 1_000, 10**9], n)
    value = rng.choice([np.nan, -0.0, 0.1, 1e300, -np.inf], n)
    score = rng.choice(np.array([np.nan, 0.0, 0.499999, 0.5, 0.515625, 1.0, 7.3e30], np.float32), n)
    rows = ReadingBatch(
        rng.integers(0, 50, n).astype(np.int32), time, time + lag, value,
        rng.integers(0, 10, n).astype(np.uint8), rng.integers(0, 10, n).astype(np.uint8),
        rng.integers(0, 1 << 32, n).astype(np.uint32), score, np.arange(n),
    )  # fmt: skip
    order = stable_order(rows.point)
    for column in (rows.value, rows.point):
        column.setflags(write=False)  # as views of the journal are
    fast, plain = arranged(rows, order), to_arrow(rows.take(order), late=False)
    fast.validate(full=True)
    assert fast.equals(plain)
    assert [fast[c].null_count for c in fast.column_names] == [
        plain[c].null_count for c in plain.column_names
    ]
    zeros = fast["value"].to_numpy() == 0
    assert bool(np.signbit(fast["value"].to_numpy()[zeros]).all())
