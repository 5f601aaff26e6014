"""One file a source: every fault at once with its file, points from its devices, defaults for registry rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest.config import Config
from ingest.configfile import ConfigFaults, load
from ingest.points import read_registry

MAIN = '[listener]\nenabled = true\n[points]\nfile = "points.csv"\n'


def write(folder: Path, main: str = MAIN, **sources: str) -> Path:
    """A config with files in sources.d."""
    (folder / "sources.d").mkdir(exist_ok=True)
    for name, text in sources.items():
        (folder / "sources.d" / f"{name}.toml").write_text(text)
    path = folder / "yuzui.toml"
    path.write_text(main)
    return path


def faults(path: Path) -> list[str]:
    with pytest.raises(ConfigFaults) as caught:
        load(path, env={})
    return [str(fault) for fault in caught.value.faults]


def test_a_file_is_a_source_named_by_it(tmp_path: Path) -> None:
    config = load(
        write(tmp_path, env='topics = ["env/#"]', zz='name = "flood"\ntopics = ["flood/#"]'), env={}
    )
    assert [s.name for s in config.source] == ["env", "flood"]
    assert config.source[0].mapped


def test_the_folder_may_be_elsewhere_and_values_come_from_the_environment(tmp_path: Path) -> None:
    (tmp_path / "systems").mkdir()
    (tmp_path / "systems" / "a.toml").write_text('owner = "${WHO}"\ntopics = ["a/#"]')
    (tmp_path / "yuzui.toml").write_text('[sources]\ndir = "systems"\n')
    assert load(tmp_path / "yuzui.toml", env={"WHO": "水务局"}).source[0].owner == "水务局"


def test_every_fault_of_every_file_is_told_at_once_with_its_file(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        MAIN + "[[source]]\nname = 'main'\ntopics = ['dup/+']\n",
        a='topics = ["dup/{device}"]\ncodec = "jsom"',
        b='topic = ["x"]',
        c="topics = [",
        d='[[source]]\nname = "d"',
        e='value = "a..b"\ntime = "x[].t"\nflags = { bad = 7 }\npoint_id = "all-{site}"\ntime_format = "%H:%M"',
        f='topics = ["a/#/b", "{device}/{device}", "{site}/x", "$share/g/x"]\nport = 9000',
        g='value = "*"\n[quantities.x]\nfactor = 0.0\n[quantities.y]\nas = "x"\n[devices.d]\nlon = 3.0\n'
        'quantities = ["q"]',
        h='device = "topic:x"\ntime = "topic:1"\nvalue = "m.*"\nreadings = "r["',
        k='value = "a[].v"\ntime = "b[].t"',
        m='credential = "bureau"\ntopics = ["m"]',
    )
    told = faults(path)
    expected = [
        'sources.d/a.toml: $.codec: expected "json"',
        'sources.d/b.toml: $.topic: unknown key (did you mean "topics"?)',
        "sources.d/c.toml: $: not TOML",
        "sources.d/d.toml: $.source: the file is the body of one source",
        'sources.d/e.toml: $.value: "a..b": a name is missing',
        "sources.d/e.toml: $.flags.bad: expected a QARTOD flag",
        "sources.d/e.toml: $.point_id: expected {device}",
        "sources.d/e.toml: $.time_format: expected year",
        "sources.d/f.toml: $.topics[0]: ",
        "sources.d/f.toml: $.topics[1]: {device} stands twice",
        "sources.d/f.toml: $.topics[2]: {device} and {quantity} stand for one whole level",
        "sources.d/f.toml: $.topics[3]: $share/ is",
        "sources.d/f.toml: $.port: json has no frames",
        "sources.d/g.toml: $.quantities.x.factor: 0 would",
        'sources.d/g.toml: $.quantities.y.as: "x" is what x is called already',
        "sources.d/g.toml: $.devices.d: lon, lat",
        'sources.d/g.toml: $.devices.d.quantities[0]: "q" is not',
        'sources.d/h.toml: $.device: expected "topic:" and a number',
        "sources.d/h.toml: $.time: only device and quantity",
        'sources.d/h.toml: $.readings: "r["',
        "sources.d/k.toml: $.time: ",
        "sources.d/m.toml: $.credential: the listener takes anyone",
        "sources.d/a.toml: $.topics[0]: dup/+ belongs to source main already",
    ]
    for one in expected:
        assert any(one in line for line in told), (one, told)
    with pytest.raises(ConfigFaults) as caught:
        load(path, env={})
    assert any(fault.file == "sources.d/c.toml" for fault in caught.value.faults)


def test_a_star_that_would_take_every_field_wants_names(tmp_path: Path) -> None:
    told = faults(write(tmp_path, a='value = "*"'))
    assert told == [
        'sources.d/a.toml: $.value: "*" would take every field for a reading: name the right ones in quantities'
    ]


DEVICES = """
topics = ["env/{device}"]
value = "*"
kind = "air"
interval_s = 60.0
time_from = "receive"
[quantities.pm25]
unit = "µg/m³"
kind = "pm25"
[quantities.T]
as = "temperature"
[devices.s1]
name = "一号站"
district = "武侯区"
lon = 104.0
lat = 30.5
[devices.s2]
quantities = ["T"]
"""


def points(config: Config) -> list[dict[str, object]]:
    registry = read_registry(Path(config.points.file), config)
    assert registry.report() == []
    return registry.table.to_dicts()


def test_devices_are_points_without_a_registry_file(tmp_path: Path) -> None:
    found = {p["point_id"]: p for p in points(load(write(tmp_path, env=DEVICES), env={}))}
    assert list(found) == ["s1-pm25", "s1-temperature", "s2-temperature"]
    one = found["s1-pm25"]
    assert (one["kind"], one["unit"], one["district"], one["lon"], one["source"], one["topic"]) == (
        "pm25", "µg/m³", "武侯区", 104.0, "env", "",
    )  # fmt: skip
    assert (one["interval_s"], one["time_from"], one["name"]) == (60.0, "receive", "一号站 pm25")
    assert found["s2-temperature"]["kind"] == "air"


def test_a_row_of_the_registry_stands_before_what_a_device_makes(tmp_path: Path) -> None:
    path = write(tmp_path, env=DEVICES)
    (tmp_path / "points.csv").write_text(
        "point_id,source,unit,range_max,expected_interval_s\ns1-pm25,env,mg,500,5\nextra,env,x,,\n"
    )
    found = {p["point_id"]: p for p in points(load(path, env={}))}
    assert len(found) == 4
    assert (found["s1-pm25"]["unit"], found["s1-pm25"]["range_max"], found["s1-pm25"]["kind"]) == (
        "mg",
        500.0,
        "air",
    )
    assert (found["s1-pm25"]["interval_s"], found["extra"]["interval_s"]) == (5.0, 60.0)


def test_a_row_needs_a_topic_where_its_source_has_none(tmp_path: Path) -> None:
    path = write(tmp_path, env=DEVICES, plain="")
    (tmp_path / "points.csv").write_text("point_id,source,kind\nx,plain,k\n")
    config = load(path, env={})
    assert read_registry(Path(config.points.file), config).report() == [
        "points.csv: line 2: topic: required, but empty"
    ]


def test_a_device_whose_points_make_no_sense_is_told_with_its_source(tmp_path: Path) -> None:
    text = DEVICES.replace("[devices.s2]", '[devices."#s2"]')
    config = load(write(tmp_path, env=text), env={})
    told = read_registry(Path(config.points.file), config).report()
    assert told == ['points.csv: source env, device #s2: point_id: begins with #: "#s2-temperature"']


def test_three_hundred_and_sixty_five_files_are_read_and_checked(tmp_path: Path) -> None:
    for number in range(365):
        text = (
            DEVICES.replace("env/", f"s{number}/").replace("s1", f"d{number}a").replace("s2", f"d{number}b")
        )
        write(tmp_path, **{f"system-{number:03}": text})
    config = load(tmp_path / "yuzui.toml", env={})
    assert len(config.source) == 365
    assert len(points(config)) == 3 * 365
