"""Ingest beside open maps, small: a real engine, maps that read and maps that never do, and every reading counted."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from bench.load.maps import MapsOptions
from bench.map_ingest import run, table

GOOD, STALLED = 12, 3


def test_beside_maps_that_do_not_read_nothing_is_lost_and_the_others_get_every_frame(tmp_path: Path) -> None:
    found = run(2000, 1, {"flat out": 1.0, "city": 3.0}, tmp_path, print, MapsOptions("", GOOD, STALLED), 0.0)
    assert [(one.load, one.maps is not None) for one in found.turns] == [
        ("flat out", False), ("flat out", True), ("city", False), ("city", True),
    ]  # fmt: skip
    assert (found.lost, found.surplus, found.wrong) == (0, 0, 0)
    assert found.stored == sum(one.sent for one in found.turns) > 10_000
    for turn in found.turns:
        assert turn.lost == 0
        assert turn.cpu_us > 0
        assert turn.faults == []
        assert (turn.ack_p99_ms is not None) == (turn.load == "city")
        if turn.maps is not None:
            assert turn.maps["console_clients"] == GOOD + STALLED
            # A machine that stands still for a second makes the engine leave out a tick: then to all alike.
            assert turn.maps["gaps"] % GOOD == 0
            assert turn.maps["frames_min"] >= 2
            assert turn.maps["bytes"] > 0
    assert found.slower is not None
    text = table(asdict(found))
    assert f"{GOOD + STALLED}, {STALLED} never read" in text
    assert "**0 lost**" in text
