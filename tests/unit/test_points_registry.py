"""The registry file: what is read, what is refused and where, and that an edit is whole or nothing."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ingest.config import Config
from ingest.points import (
    FAULTS_SHOWN_MAX,
    SCHEMA,
    RegistryFaults,
    Seen,
    add_points,
    propose,
    read_registry,
    retire_points,
)
from storage.schema import REGISTRY

CONFIG = Config.model_validate(
    {
        "source": [{"name": "s", "gateway_topic": "g/{gateway}/batch"}, {"name": "t"}],
        "kinds": {
            "rain": {"unit": "mm", "range_min": 0.0, "range_max": 9.0, "level_blue": 5.0, "level_gap": 0.5}
        },
    }
)
HEAD = "point_id,source,kind,topic"


def registry_of(tmp_path: Path, text: str, config: Config = CONFIG) -> Any:
    """What read_registry makes of a CSV."""
    path = tmp_path / "points.csv"
    path.write_text(text, encoding="utf-8")
    return read_registry(path, config)


def faults(tmp_path: Path, text: str) -> list[str]:
    """The faults of a CSV as "place: message"."""
    return [str(fault) for fault in registry_of(tmp_path, text).faults]


def test_the_table_has_the_columns_that_the_map_of_points_merges(tmp_path: Path) -> None:
    table = registry_of(tmp_path, f"{HEAD}\na,s,rain,t/a\n").table
    assert table.columns == REGISTRY.names
    assert dict(table.schema) == {name: dtype() for name, dtype in SCHEMA.items()}
    table.to_arrow().cast(REGISTRY)


def test_what_is_left_out_is_filled_from_the_kind_or_stays_empty(tmp_path: Path) -> None:
    text = f"{HEAD},range_max,level_red,lon,lat\na,s,rain,t/a,7,8.5,104.1,30.6\nb,s,other,t/b,,,,\n"
    a, b = registry_of(tmp_path, text).table.rows(named=True)
    assert (a["unit"], a["range_min"], a["range_max"], a["level_gap"]) == ("mm", 0.0, 7.0, 0.5)
    assert (a["level_blue"], a["level_yellow"], a["level_red"]) == (5.0, None, 8.5)
    assert (a["lon"], a["lat"], a["interval_s"], a["time_from"], a["name"]) == (
        104.1,
        30.6,
        0.0,
        "device",
        "",
    )
    assert (b["unit"], b["range_max"], b["lon"], b["upstream"]) == ("", None, None, None)


@pytest.mark.parametrize(
    ("columns", "row", "fault"),
    [
        ("", ",s,k,t/x", "point_id: required, but empty"),
        ("", "x,s,,t/x", "kind: required, but empty"),
        ("", "x,s,k,", "topic: required, but empty"),
        ("", "x,q,k,t/x", 'source: "q" is not a [[source]] of the config'),
        ("", "x,s,k,t/+/x", 'topic: + and # are wildcards: "t/+/x"'),
        ("", "x,s,k,#", 'topic: + and # are wildcards: "#"'),
        ("", "x,s,k,$SYS/x", 'topic: one that begins with $ belongs to the broker: "$SYS/x"'),
        ("", " x,s,k,t/x", 'point_id: spaces around " x"'),
        ("", '"x\ty",s,k,t/x', 'point_id: control characters in "x\N{REPLACEMENT CHARACTER}y"'),
        ("", f"{'x' * 201},s,k,t/x", "point_id: longer than 200 characters"),
        ("", "x,s,k," + "t" * 1025, "topic: longer than 1024 bytes"),
        ("", "ok,s,k,t/x", 'point_id: "ok" stands already at line 2'),
        ("", "x,s,k,t/ok", 'topic: "t/ok" stands already at line 2'),
        ("gateway_id", "x,s,k,g/w/batch,w", 'topic: "g/w/batch" is a gateway\'s topic'),
        ("lon,lat", "x,s,k,t/x,181,0", "lon: expected -180 to 180, got 181.0"),
        ("lon,lat", "x,s,k,t/x,0,-91", "lat: expected -90 to 90, got -91.0"),
        ("lon,lat", "x,s,k,t/x,104,", "lon, lat: one without the other"),
        ("lon,lat", "x,s,k,t/x,nan,30", 'lon: expected a number, got "nan"'),
        ("expected_interval_s", "x,s,k,t/x,inf", 'expected_interval_s: expected a number, got "inf"'),
        ("expected_interval_s", "x,s,k,t/x,1e999", 'expected_interval_s: expected a number, got "1e999"'),
        ("expected_interval_s", "x,s,k,t/x,-1", "expected_interval_s: expected 0 or more, got -1.0"),
        ("range_min,range_max", "x,s,k,t/x,2,1", "range_min: 2.0 is above range_max 1.0"),
        ("range_min", "x,s,rain,t/x,10", "range_min: 10.0 is above range_max 9.0"),
        ("level_gap", "x,s,k,t/x,-0.5", "level_gap: expected 0 or more, got -0.5"),
        (
            "level_blue,level_yellow,level_red",
            "x,s,k,t/x,1,3,2",
            "level_blue … level_red: must rise or fall, got 1.0 3.0 - 2.0",
        ),
        ("level_red", "x,s,k,t/x,abc", 'level_red: expected a number, got "abc"'),
        ("time_from", "x,s,k,t/x,gateway", 'time_from: expected device or receive, got "gateway"'),
        ("upstream", "x,s,k,t/x,nobody", 'upstream: no point "nobody"'),
        ("upstream", "x,s,k,t/x,x", 'upstream: "x" leads round in a circle'),
        ("retired", "x,s,k,t/x,perhaps", 'retired: expected true or false, got "perhaps"'),
        ("", "x,s,k,t/x,more", "5 cells, the header has 4"),
        ("", 'x,s,k,"t/x', "a quote is not closed"),
    ],
)
def test_a_bad_row_is_named_with_its_line_and_the_good_one_is_kept(
    tmp_path: Path, columns: str, row: str, fault: str
) -> None:
    head = f"{HEAD},{columns}" if columns else HEAD
    commas = "," * (columns.count(",") + 1 if columns else 0)
    text = f"{head}\nok,s,k,t/ok{commas}\n{row}\n"
    registry = registry_of(tmp_path, text)
    assert [str(told) for told in registry.faults] == [f"line 3: {fault}"]
    assert registry.table["point_id"].to_list() == ["ok"]
    assert (registry.rows, registry.faults_count) == (2, 1)


@pytest.mark.parametrize("levels", ["1,2,3,4", "4,3,2,1", "1,,,4", ",,,", ",2,,", "4,,3,"])
def test_levels_may_rise_or_fall_with_some_left_out(tmp_path: Path, levels: str) -> None:
    head = f"{HEAD},level_blue,level_yellow,level_orange,level_red"
    assert faults(tmp_path, f"{head}\na,s,k,t/a,{levels}\n") == []


def test_lines_count_comments_blank_lines_and_quoted_line_ends(tmp_path: Path) -> None:
    text = f'# made by "hand\n{HEAD},name\n\na,s,k,t/a,"two, cells"\n# b\r\nb,s,k,t/b,"x\ny"\nc,q,k,t/c\n'
    assert [fault.partition(": ")[0] for fault in faults(tmp_path, text)] == ["line 6", "line 8"]


def test_a_row_that_ends_early_is_empty_in_the_rest(tmp_path: Path) -> None:
    registry = registry_of(tmp_path, f"{HEAD},unit,district\na,s,k,t/a\nb,s,k,t/b,m\n")
    assert registry.faults == []
    assert registry.table["unit"].to_list() == ["", "m"]


def test_a_good_row_may_lean_on_a_bad_or_retired_upstream_point_but_then_has_none(tmp_path: Path) -> None:
    text = f"{HEAD},upstream,retired\nbad,q,k,t/1,,\nold,s,k,t/2,,TRUE\n"
    text += "a,s,k,t/3,bad,\nb,s,k,t/4,old,false\nc,s,k,t/5,b,0\n"
    registry = registry_of(tmp_path, text)
    assert registry.table.select("point_id", "upstream").rows() == [("a", None), ("b", None), ("c", "b")]
    assert registry.retired == ["old"]


def test_a_long_course_of_upstream_points_is_no_circle_and_a_long_circle_is(tmp_path: Path) -> None:
    rows = [f"p{i},s,k,t/{i},{f'p{i - 1}' if i else ''}" for i in range(300)]
    assert faults(tmp_path, "\n".join([f"{HEAD},upstream", *rows])) == []
    rows[0] += "p299"
    assert registry_of(tmp_path, "\n".join([f"{HEAD},upstream", *rows])).faults_count == 300


def test_a_successor_may_take_the_topic_of_a_retired_point(tmp_path: Path) -> None:
    assert faults(tmp_path, f"{HEAD},retired\nold,s,k,t/a,true\nnew,s,k,t/a,\n") == []


def test_a_gateway_of_two_sources_is_refused_where_they_share_its_topic(tmp_path: Path) -> None:
    config = Config.model_validate({"source": [{"name": n, "gateway_topic": "g/{gateway}"} for n in "st"]})
    text = f"{HEAD},gateway_id\na,s,k,t/a,w\nb,t,k,t/b,w\nc,t,k,t/c,v\n"
    registry = registry_of(tmp_path, text, config)
    assert [str(fault) for fault in registry.faults] == [
        f'line {line}: gateway_id: "w" serves two sources at one topic' for line in (2, 3)
    ]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "empty: expected a header line"),
        (b"point_id,kind,topic,sorce\n", 'unknown column "sorce" (did you mean "source"?)'),
        (b"point_id,point_id,source,kind,topic\n", "columns that stand twice: point_id"),
        ("point_id,source,kind,topic\n雨,s,k,t".encode("gbk"), "not UTF-8 (byte 27)"),
    ],
)
def test_a_file_that_is_no_registry_is_one_fault_not_thousands(
    tmp_path: Path, content: bytes, fault: str
) -> None:
    path = tmp_path / "p.csv"
    path.write_bytes(content)
    registry = read_registry(path, CONFIG)
    assert registry.faults[0].message.startswith(fault)
    assert registry.table.is_empty()


def test_a_missing_file_is_a_fault(tmp_path: Path) -> None:
    for name in ("none.csv", "none.parquet"):
        (line,) = read_registry(tmp_path / name, CONFIG).report()
        assert line.startswith(f"{name}: cannot be read")
    (tmp_path / "text.parquet").write_text("point_id")
    assert read_registry(tmp_path / "text.parquet", CONFIG).faults_count == 1


def test_of_many_faults_the_first_are_shown_and_the_rest_counted(tmp_path: Path) -> None:
    registry = registry_of(tmp_path, HEAD + "\n" + "".join(f"p{i},nowhere,k,t/{i}\n" for i in range(1234)))
    assert registry.faults_count == 1234
    assert [fault.place for fault in registry.faults] == [f"line {2 + i}" for i in range(FAULTS_SHOWN_MAX)]
    assert registry.report()[-1] == "points.csv: … and 1,134 more"


def test_parquet_and_csv_with_a_byte_order_mark_read_alike(tmp_path: Path) -> None:
    text = f"{HEAD},lon,lat,retired,name\na,s,rain,t/a,104.5,30.25,false,成都\nb,q,k,t/b,1,2,true,\n"
    (tmp_path / "p.csv").write_text(text, encoding="utf-8-sig")
    pl.read_csv(tmp_path / "p.csv").write_parquet(tmp_path / "p.parquet")
    one, two = (read_registry(tmp_path / f"p.{end}", CONFIG) for end in ("csv", "parquet"))
    assert one.table.equals(two.table)
    assert one.table["name"].to_list() == ["成都"]
    assert [str(fault)[:14] for fault in (*one.faults, *two.faults)] == ["line 3: source", "row 2: source:"]


def test_a_city_with_a_fault_in_it_is_read_and_checked_in_seconds(tmp_path: Path) -> None:
    """The bound is wide for a busy machine; measured alone it is about 0.4 s, and 1.6 s with the fault."""
    rows = "".join(f"p{i},s,rain,t/{i},104.{i},30.5,60\n" for i in range(116_200))
    begin = time.perf_counter()
    registry = registry_of(tmp_path, f"{HEAD},lon,lat,expected_interval_s\n{rows}p5,s,rain,t/x,1,1,1\n")
    assert time.perf_counter() - begin < 20
    assert registry.report() == ['points.csv: line 116202: point_id: "p5" stands already at line 7']


# ---- edits


def row(point_id: str, **more: str) -> dict[str, str]:
    """A row to add."""
    return {"point_id": point_id, "source": "s", "kind": "rain", "topic": f"t/{point_id}", **more}


@pytest.mark.parametrize("name", ["p.csv", "p.parquet"])
def test_points_are_added_to_a_new_file_and_to_a_standing_one(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    add_points(path, CONFIG, [row("a", lon="104", lat="30")])
    registry = add_points(path, CONFIG, [row("b"), row("c", upstream="a", expected_interval_s="60")])
    assert registry.table["point_id"].to_list() == ["a", "b", "c"]
    assert read_registry(path, CONFIG).table.equals(registry.table)
    assert read_registry(path, CONFIG).table["interval_s"].to_list() == [0.0, 0.0, 60.0]
    assert list(tmp_path.iterdir()) == [path]


def test_adding_keeps_every_line_that_was_there(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text(f"# ours\r\n{HEAD}\r\n\r\nx,s,rain,t/x", encoding="utf-8-sig", newline="")
    add_points(path, CONFIG, [row("a")])
    assert path.read_bytes() == f"\ufeff# ours\r\n{HEAD}\r\n\r\nx,s,rain,t/x\na,s,rain,t/a\n".encode()
    add_points(path, CONFIG, [row("b", unit="m,m")])
    text = path.read_text("utf-8-sig")
    assert text.splitlines()[-3:] == ["x,s,rain,t/x,", "a,s,rain,t/a,", 'b,s,rain,t/b,"m,m"']


@pytest.mark.parametrize("name", ["p.csv", "p.parquet"])
@pytest.mark.parametrize(
    "bad", [{"topic": "t/a"}, {"lon": "east", "lat": "30"}, {"colour": "red"}, {"source": ""}]
)
def test_an_addition_with_a_fault_changes_nothing(tmp_path: Path, name: str, bad: dict[str, str]) -> None:
    path = tmp_path / name
    add_points(path, CONFIG, [row("a", lon="104", lat="30")])
    before = path.read_bytes()
    with pytest.raises(RegistryFaults) as told:
        add_points(path, CONFIG, [row("b") | bad])
    assert str(told.value).startswith(f"{name}: ")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["p.csv", "p.parquet"])
def test_a_retired_point_keeps_its_row_and_leaves_the_table(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    add_points(path, CONFIG, [row("a"), row("b", name='the "old" one'), row("c", upstream="b")])
    registry = retire_points(path, CONFIG, {"b"})
    assert registry.table.select("point_id", "upstream").rows() == [("a", None), ("c", None)]
    assert registry.retired == ["b"]
    assert retire_points(path, CONFIG, ["a", "b"]).retired == ["a", "b"]


def test_retiring_what_is_not_there_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    add_points(path, CONFIG, [row("a")])
    with pytest.raises(RegistryFaults, match='no good row for point "x"'):
        retire_points(path, CONFIG, ["a", "x"])
    assert read_registry(path, CONFIG).retired == []


# ---- proposals


def test_a_proposal_can_be_read_as_a_registry_and_names_the_busiest_first(tmp_path: Path) -> None:
    seen = [
        Seen("t", "t/new", None, 3, b'{"v":1}'),
        Seen("s", "g/w7/batch", "cd-9", 40, b'[{"id":"cd-9"}]'),
        Seen("s", "g/w7/batch", "cd-9", 2, b"x"),
        Seen("unknown", "else/where", None, 1, b"\xff\n#\r"),
        Seen("s", "bad/\n", None, 1, b""),
        Seen("s", "x/+", None, 1, b""),
    ]
    text = propose(seen, CONFIG)
    assert text.startswith("# Proposed")
    assert "# g/w7/batch: 42 refused, for example" in text
    assert text.count("# no row:") == 2
    config = CONFIG.model_copy(
        update={"source": [*CONFIG.source, CONFIG.source[0].model_copy(update={"name": "unknown"})]}
    )
    registry = registry_of(tmp_path, text, config)
    assert registry.faults == []
    columns = ("point_id", "source", "gateway_id", "topic", "kind", "interval_s")
    assert registry.table.select(columns).rows() == [
        ("cd-9", "s", "w7", "g/w7/cd-9", "unknown", 0.0),
        ("t-new", "t", "", "t/new", "unknown", 0.0),
        ("else-where", "unknown", "", "else/where", "unknown", 0.0),
    ]


def test_with_one_source_an_unknown_topic_is_proposed_for_it(tmp_path: Path) -> None:
    config = Config.model_validate({"source": [{"name": "only"}]})
    text = propose([Seen("unknown", "a/b", None, 1, b"1")], config)
    assert registry_of(tmp_path, text, config).table["source"].to_list() == ["only"]
