"""The point map: numbers are given once and for ever."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from storage.pointmap import VALID_FROM_ALWAYS, VALID_TO_ALWAYS, load, merge, point_table, points_file
from tests.storage_rows import registry

NOW = 1_800_000_000_000_000


def changed(table: pa.Table, column: str, row: int, value: object) -> pa.Table:
    values = table[column].to_pylist()
    values[row] = value
    return table.set_column(
        table.column_names.index(column), column, pa.array(values, table.schema.field(column).type)
    )


def rows(root: Path) -> list[dict[str, object]]:
    table = load(root)
    assert table is not None
    for name in ("valid_from", "valid_to"):
        table = table.set_column(table.column_names.index(name), name, table[name].cast(pa.int64()))
    return [dict(row) for row in table.to_pylist()]


def test_no_map_yet_is_none(tmp_path: Path) -> None:
    assert load(tmp_path) is None


def test_the_first_load_is_numbered_by_kind_then_district_then_id(tmp_path: Path) -> None:
    table = registry(4)
    table = changed(changed(table, "kind", 0, "zz"), "district", 1, "Wuhou")
    assert merge(tmp_path, table, NOW).point_id == ["p-00002", "p-00003", "p-00001", "p-00000"]


def test_later_points_are_appended_in_order_and_nobody_moves(tmp_path: Path) -> None:
    merge(tmp_path, registry(6).slice(3, 3), NOW)
    later = merge(tmp_path, registry(6).take(pa.array([5, 1, 4, 0, 3, 2])), NOW)
    assert later.point_id == ["p-00003", "p-00004", "p-00005", "p-00000", "p-00001", "p-00002"]
    assert [row["generation"] for row in rows(tmp_path)] == [0, 0, 0, 1, 1, 1]


def test_a_point_no_longer_named_is_retired_and_keeps_its_number(tmp_path: Path) -> None:
    merge(tmp_path, registry(3), NOW)
    less = merge(tmp_path, registry(3).slice(1), NOW)
    assert less.point_id == ["p-00000", "p-00001", "p-00002"]
    assert less.retired.tolist() == [True, False, False]
    more = merge(tmp_path, registry(4).slice(1), NOW)
    assert more.number_of()["p-00003"] == 3, "a retired number is not given again"
    assert merge(tmp_path, registry(4), NOW).retired.tolist() == [False] * 4


@pytest.mark.parametrize(("column", "value"), [("device_id", "other"), ("lon", 5.5), ("lat", None)])
def test_a_moved_or_replaced_sensor_gets_a_new_row_under_its_number(
    tmp_path: Path, column: str, value: object
) -> None:
    merge(tmp_path, registry(2), NOW)
    merge(tmp_path, changed(registry(2), column, 1, value), NOW + 5)
    old, new = [row for row in rows(tmp_path) if row["point"] == 1]
    assert (old["valid_from"], old["valid_to"]) == (VALID_FROM_ALWAYS, NOW + 5)
    assert (new["valid_from"], new["valid_to"]) == (NOW + 5, VALID_TO_ALWAYS)
    assert new[column] == value
    assert old[column] != value
    assert len(rows(tmp_path)) == 3


def test_a_clock_gone_backwards_still_leaves_every_span_positive(tmp_path: Path) -> None:
    merge(tmp_path, registry(1), NOW)
    merge(tmp_path, changed(registry(1), "device_id", 0, "b"), NOW)
    merge(tmp_path, changed(registry(1), "device_id", 0, "c"), NOW - 10)
    spans = [(row["valid_from"], row["valid_to"]) for row in rows(tmp_path)]
    assert spans == [(VALID_FROM_ALWAYS, NOW), (NOW, NOW + 1), (NOW + 1, VALID_TO_ALWAYS)]


def test_other_changes_overwrite_in_place(tmp_path: Path) -> None:
    merge(tmp_path, registry(2), NOW)
    table = merge(tmp_path, changed(registry(2), "level_red", 1, 77.0), NOW + 5)
    assert table.level[3, 1] == 77.0
    assert len(rows(tmp_path)) == 2


def test_the_same_registry_again_leaves_the_file_alone(tmp_path: Path) -> None:
    merge(tmp_path, registry(5), NOW)
    before = points_file(tmp_path).stat().st_ino
    merge(tmp_path, registry(5), NOW + 99)
    assert points_file(tmp_path).stat().st_ino == before


def test_arrays_are_by_number_with_nan_and_empty_text_for_what_is_missing(tmp_path: Path) -> None:
    table = registry(3)
    table = changed(changed(table, "interval_s", 0, None), "level_blue", 0, None)
    table = changed(changed(table, "upstream", 2, "p-00001"), "upstream", 1, "elsewhere")
    table = changed(changed(table, "time_from", 1, "receive"), "name", 2, None)
    table = changed(changed(table, "level_blue", 1, 9.0), "level_red", 1, 3.0)
    points = merge(tmp_path, table, NOW)
    assert points.interval_s[0] == 0.0
    assert np.isnan(points.level[0, 0])
    assert points.upstream.tolist() == [-1, -1, 1]
    assert points.time_from.tolist() == [0, 1, 0]
    assert points.name[2] == ""
    assert points.falling.tolist() == [False, True, False]
    assert [points.kinds[k] for k in points.kind] == ["river_level"] * 3
    assert points.level.shape == (4, 3)


def test_an_id_named_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"p-00001.*twice"):
        merge(tmp_path, pa.concat_tables([registry(2), registry(2).slice(1)]), NOW)


def test_a_missing_column_that_must_be_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no column kind"):
        merge(tmp_path, registry(2).drop_columns(["kind"]), NOW)


def test_a_damaged_map_is_an_error_and_never_numbered_anew(tmp_path: Path) -> None:
    merge(tmp_path, registry(2), NOW)
    points_file(tmp_path).write_bytes(b"PAR1")
    with pytest.raises(pa.ArrowException):
        merge(tmp_path, registry(2), NOW)


def test_a_map_with_a_hole_is_refused(tmp_path: Path) -> None:
    merge(tmp_path, registry(3), NOW)
    table = load(tmp_path)
    assert table is not None
    with pytest.raises(ValueError, match="hole"):
        point_table(table.slice(1))


def test_an_empty_registry_is_an_empty_map(tmp_path: Path) -> None:
    assert len(merge(tmp_path, registry(0), NOW)) == 0


def test_a_city_loads_in_seconds(tmp_path: Path) -> None:
    """116,200 points, loaded twice: 0.8 and 0.6 s where measured; the bound is for busy machines."""
    city = registry(116_200)
    begin = time.process_time()
    merge(tmp_path, city, NOW)
    assert len(merge(tmp_path, city, NOW)) == 116_200
    assert time.process_time() - begin < 10
