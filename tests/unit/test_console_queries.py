"""Query files: what one may say, what is wrong with others, what is bound for a parameter."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import orjson
import pytest

from console.asking import BOM, TRIED_MAX, Tried, spreadsheet
from console.queries import FILES_MAX, Library, shipped, told
from console.queryfiles import GROUPS, QueryFault, moment, read

ZONE = ZoneInfo("Asia/Shanghai")
NOW = datetime(2026, 7, 11, 21, 4, 9, tzinfo=ZONE)
WHOLE = """-- zh = "水位"
-- en = "Water"
-- group = "flood"
-- chart = { form = "bars", x = "district", y = ["highest"] }
-- [parameters.kind]
-- zh = "类型"
-- en = "Kind"
-- type = "text"
-- default = "waterlogging"
-- choices = ["waterlogging", { value = "river_level", zh = "河道", en = "river" }]
-- [parameters.since]
-- zh = "起"
-- en = "From"
-- type = "time"
-- default = "today+8h"
-- [parameters.most]
-- zh = "条数"
-- en = "Rows"
-- type = "integer"
-- default = 5
-- min = 1
-- max = 10
SELECT '$text of $nobody', "$q" -- $comment
FROM latest WHERE kind = $kind AND time > $since LIMIT $most;
"""


def test_a_file_says_title_parameters_and_chart_and_its_statement_stays_as_it_is() -> None:
    query = read("water", WHOLE)
    assert (query.head.zh, query.head.group) == ("水位", "flood")
    assert query.sql.startswith("SELECT '$text")
    assert query.sql.endswith("LIMIT $most")
    listed = told(query)
    assert [one["name"] for one in listed["parameters"]] == ["kind", "since", "most"]
    assert listed["parameters"][0]["choices"][0] == {
        "value": "waterlogging",
        "zh": "waterlogging",
        "en": "waterlogging",
    }
    assert listed["chart"] == {"form": "bars", "x": "district", "y": ["highest"], "by": ""}
    assert orjson.dumps(listed)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (('-- zh = "水位"\n', ""), "zh: Field required"),
        (("-- group", "-- grope"), "grope: Extra inputs are not permitted"),
        (('group = "flood"', 'group = "water"'), "group: Input should be"),
        (('form = "bars"', 'form = "pie"'), "chart.form"),
        (("default = 5", 'default = "five"'), "a number is wanted"),
        (("default = 5", "default = 50"), "must be 1 to 10"),
        (("default = 5", "default = 5.5"), "whole number"),
        (('default = "today+8h"', 'default = "yesterday"'), "a moment is"),
        (('default = "waterlogging"', 'default = "pm25"'), "none of the choices"),
        (('type = "time"', 'type = "date"'), "parameters.since.type"),
        (("[parameters.most]", "[parameters.format]"), "no name of a parameter: format"),
        (("[parameters.most]", "[parameters.Most]"), "no name of a parameter: Most"),
        ((" LIMIT $most", ""), "[parameters.most] is not in the statement"),
        (("LIMIT $most", "LIMIT $most + $more"), "$more, of which [parameters.more] says nothing"),
        (('-- en = "Water"', '-- en = "Water'), "not TOML"),
        (("-- zh", "\n-- zh"), "must begin with a comment"),
        ((WHOLE[WHOLE.index("SELECT") :], ""), "no statement"),
        (('default = "today+8h"', 'default = "now"\n-- min = 1'), "min and max are for numbers"),
    ],
    ids=lambda p: p if isinstance(p, str) else None,
)
def test_what_is_wrong_is_said(change: tuple[str, str], why: str) -> None:
    assert change[0] in WHOLE
    with pytest.raises(QueryFault) as caught:
        read("water", WHOLE.replace(*change, 1))
    assert why in str(caught.value)


@pytest.mark.parametrize("name", ["Water", "../x", "", "x" * 65, "wa ter", "水"])
def test_a_name_is_a_plain_word(name: str) -> None:
    with pytest.raises(QueryFault, match="name"):
        read(name, WHOLE)


def test_parameters_are_bound_as_values_and_wrong_ones_are_named() -> None:
    query = read("water", WHOLE)
    bound = query.arguments({}, NOW)
    assert bound == {"kind": "waterlogging", "since": datetime(2026, 7, 11, 8, tzinfo=ZONE), "most": 5}
    assert query.arguments({"most": "7"}, NOW)["most"] == 7
    wrong = {
        "kind": "x' OR 1=1 --", "most": "1e99", "since": "2026-13-01", "nobody": "1", "most ": "1",
    }  # fmt: skip
    for name, value in wrong.items():
        with pytest.raises(ValueError, match=name):
            query.arguments({name: value}, NOW)
    for value in ("nan", "inf", "-1", "0", "11", "7.5", ""):
        with pytest.raises(ValueError, match="most"):
            query.arguments({"most": value}, NOW)


@pytest.mark.parametrize(
    ("said", "at"),
    [
        ("now", NOW), ("now-24h", NOW - timedelta(hours=24)), ("now-1d+90m", NOW - timedelta(hours=22, minutes=30)),
        ("today", datetime(2026, 7, 11, tzinfo=ZONE)), ("month-365d", datetime(2025, 7, 1, tzinfo=ZONE)),
        ("2026-07-01", datetime(2026, 7, 1, tzinfo=ZONE)), ("2026-07-01T08:00", datetime(2026, 7, 1, 8, tzinfo=ZONE)),
        ("2026-07-01T00:00:00Z", datetime(2026, 7, 1, 8, tzinfo=ZONE)),
        ("1790000000", datetime.fromtimestamp(1.79e9, ZONE)),
    ],
)  # fmt: skip
def test_moments_are_of_the_citys_clock(said: str, at: datetime) -> None:
    assert moment(said, NOW) == at


@pytest.mark.parametrize(
    "said", ["", "never", "now-", "now-1w", "today 8h", "1e99", "-5", "nan", "now-999999d"]
)
def test_other_words_are_no_moment(said: str) -> None:
    with pytest.raises(ValueError, match="time"):
        moment(said, NOW)


def test_own_files_count_before_those_that_come_along_and_broken_ones_stop_no_other(tmp_path: Path) -> None:
    library = Library(tmp_path)
    library.look()
    come = set(library.queries)
    assert come == {path.stem for path in shipped().glob("*.sql")}
    assert library.broken == []
    assert [GROUPS.index(q.head.group) for q in library.queries.values()] == sorted(
        GROUPS.index(q.head.group) for q in library.queries.values()
    )
    (tmp_path / "water-now.sql").write_text(WHOLE)
    (tmp_path / "bad.sql").write_text("SELECT 1")
    (tmp_path / "latin.sql").write_bytes(b"-- zh = \xff")
    (tmp_path / "long.sql").write_text("--" + "x" * 70_000)
    (tmp_path / ".hidden.sql").write_text("x")
    library.look()
    assert library.queries["water-now"].head.en == "Water"
    assert {one.file: one.fault[:8] for one in library.broken} == {
        "bad.sql": "it must ", "latin.sql": "not UTF-", "long.sql": "longer t",
    }  # fmt: skip
    (tmp_path / "water-now.sql").write_text(WHOLE.replace('"Water"', '"Water, again"'))
    (tmp_path / "bad.sql").unlink()
    library.look()
    assert library.queries["water-now"].head.en == "Water, again"
    assert len(library.broken) == 2
    gone = Library(tmp_path / "nowhere")
    gone.look()
    assert set(gone.queries) == come
    assert gone.broken[0].fault == "there is no such folder"


def test_a_spreadsheet_computes_nothing_of_a_name_from_outside() -> None:
    answer = {
        "columns": [{"name": "n"}, {"name": "v"}],
        "rows": [["=cmd|'x'!A1", -5], ["@a", None], ['积水\n"', [1]]],
    }
    assert (
        spreadsheet(orjson.dumps(answer)).decode()
        == BOM + "n,v\r\n'=cmd|'x'!A1,-5\r\n'@a,\r\n\"积水\n\"\"\",[1]\r\n"
    )


def test_what_was_tried_is_remembered_of_as_many_as_can_be_listed_and_not_of_every_edit() -> None:
    tried = Tried()
    for number in range(TRIED_MAX + 100):
        tried.note(f"SELECT {number}", "" if number % 2 else f"no {number}")
    assert len(tried) == TRIED_MAX >= 2 * FILES_MAX
    assert "SELECT 99" not in tried
    assert "SELECT 100" in tried
    assert (tried.fault("SELECT 100"), tried.fault("SELECT 101"), tried.fault("SELECT 0")) == (
        "no 100",
        "",
        "",
    )
