"""The registry is read by a process that ends; what stays alive loads nothing it does not need."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ingest.config import Config
from ingest.points import read_registry
from ingest.registering import Registering, RegistryUnread
from ingest.registryfaults import RegistryFaults
from storage.pointmap import backup_file

HEADER = "point_id,name,source,kind,topic,unit\n"
CONFIG = Config.model_validate({"source": [{"name": "flood"}], "kinds": {"rain_gauge": {"unit": "mm"}}})


def registry(tmp_path: Path, *rows: str) -> Path:
    path = tmp_path / "points.csv"
    path.write_text(HEADER + "".join(row + "\n" for row in rows))
    return path


def test_another_process_reads_and_numbers_what_this_one_gets(tmp_path: Path) -> None:
    path = registry(tmp_path, "b,乙,flood,rain_gauge,t/b,", "a,甲,flood,rain_gauge,t/a,cm")
    points = Registering(tmp_path, path, CONFIG).points()
    assert points.point_id == ["a", "b"]
    assert list(points.unit) == ["cm", "mm"], "the config's kinds went along"
    assert points.name[points.number_of()["b"]] == "乙"


def test_a_registry_the_map_was_made_of_is_not_read_again(tmp_path: Path) -> None:
    """A restart must not wait for it. One byte more, another config, a lost copy of the map: it is read."""
    path = registry(tmp_path, "b,乙,flood,rain_gauge,t/b,", "a,甲,flood,rain_gauge,t/a,cm")
    first = Registering(tmp_path, path, CONFIG)
    made = first.points()
    again = Registering(tmp_path, path, CONFIG)
    assert (first.pid is None, again.pid) == (False, None)
    known = again.points()
    assert (known.point_id, list(known.unit)) == (made.point_id, list(made.unit))

    other = Config.model_validate({"source": [{"name": "flood"}], "kinds": {"rain_gauge": {"unit": "cm"}}})
    assert is_read(tmp_path, path, other)
    text = path.read_text()
    path.write_text(text + "c,丙,flood,rain_gauge,t/c,\n")
    assert is_read(tmp_path, path, CONFIG)
    path.write_text(text)
    assert not is_read(tmp_path, path, CONFIG)
    backup_file(tmp_path).write_bytes(b"")
    assert is_read(tmp_path, path, CONFIG)


def is_read(root: Path, path: Path, config: Config) -> bool:
    """Whether a process reads this registry; it is not waited for."""
    reading = Registering(root, path, config)
    reading.close()
    return reading.pid is not None


def test_its_faults_are_told_as_if_they_had_been_found_here(tmp_path: Path) -> None:
    path = registry(tmp_path, "a,甲,nobody,rain_gauge,t/a,", "a,甲,flood,rain_gauge,t/+,")
    with pytest.raises(RegistryFaults) as told:
        Registering(tmp_path, path, CONFIG).points()
    here = read_registry(path, CONFIG)
    assert told.value.registry.report() == here.report()
    assert told.value.registry.faults_count == here.faults_count >= 2
    assert not (tmp_path / "lake").exists(), "the map is as it was"


def test_where_it_dies_or_finds_no_room_for_the_map_the_reason_is_told(tmp_path: Path) -> None:
    path = registry(tmp_path, "a,甲,flood,rain_gauge,t/a,")
    killed = Registering(tmp_path, path, CONFIG)
    assert killed.pid is not None
    os.kill(killed.pid, signal.SIGKILL)
    with pytest.raises(RegistryUnread, match=r"points\.csv: the process that reads it ended"):
        killed.points()
    (tmp_path / "lake").write_text("no folder")
    with pytest.raises(RegistryUnread, match="lake"):
        Registering(tmp_path, path, CONFIG).points()


@pytest.mark.parametrize(
    ("process", "without"),
    [
        ("ingest.app", "polars duckdb pandas pyarrow.dataset"),
        ("ingest.sealing", "polars duckdb pandas pyarrow.dataset asyncio numba"),
        ("ingest.delivering", "numpy pyarrow polars duckdb"),
    ],
)
def test_processes_that_live_long_load_only_what_they_need(process: str, without: str) -> None:
    """Each of these is 10 to 30 MB for good."""
    program = (
        f"import sys, {process}\nfound = set(sys.modules) & set({without.split()!r})\nassert not found, found"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
