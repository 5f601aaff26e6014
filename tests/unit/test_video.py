"""Cameras that only say that they live: offline by word or by silence, one alert a pole, no flapping."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np

from anomaly.alerts.event import FIRING, RESOLVED, AlertEvent
from anomaly.engine import Engine
from anomaly.rules.settings import RuleSettings
from storage.batch import RawBatch
from storage.points import PointTable
from tests.anomaly_city import T0, S, check_settings, kind_settings, point_table, positions

OFFLINE, BAD, WELL = 0.0, 1.0, 2.0


def poles(cameras: int, on_pole: int, **columns: Any) -> PointTable:
    """Cameras at 60 s intervals, so many on a pole, all behind one gateway."""
    return point_table(
        cameras, kind="video", interval_s=np.full(cameras, 60.0),
        device_id=[f"pole-{n // on_pole}" for n in range(cameras)], range_min=np.full(cameras, np.nan),
        range_max=np.full(cameras, np.nan), level=np.full((4, cameras), np.nan), **columns,
    )  # fmt: skip


class Cameras:
    """An engine over cameras, minute by minute."""

    def __init__(self, table: PointTable, fault: float = 1.0) -> None:
        self.table = table
        self.rules = RuleSettings.model_validate({"video": {"kinds": {"video": fault}}}).model_dump()
        self.engine = self.new()
        self.events: list[AlertEvent] = []

    def new(self) -> Engine:
        kinds = {"video": kind_settings(confirm_readings=3)}
        return Engine(self.table, kinds, check_settings(), rules=self.rules)

    def minute(self, minute: int, says: dict[int, float]) -> None:
        at = T0 + minute * 60 * S
        point = np.array(sorted(says), np.int32)
        time_us = np.full(len(point), at, np.int64)
        value = np.array([says[p] for p in sorted(says)])
        raw = RawBatch(point, time_us, time_us, value, np.zeros(len(point), np.uint8))
        self.events += self.engine.judge(raw, positions(0, len(point))).events
        for second in range(1, 60, 6):
            self.events += self.engine.tick(at + second * S)

    def told(self) -> list[tuple[str, str, str]]:
        return [(e.rule, e.type, e.subject.point_id or e.subject.name) for e in self.events]


def well(n: int, **but: float) -> dict[int, float]:
    return dict.fromkeys(range(n), WELL) | {int(name[1:]): value for name, value in but.items()}


def test_a_camera_its_platform_calls_offline_is_dead_like_one_that_is_silent() -> None:
    city = Cameras(poles(8, 1))
    for minute in range(30):
        says = well(8, _2=OFFLINE if 3 <= minute < 20 else WELL)
        if minute >= 3:
            del says[5]
        city.minute(minute, says)
    dead = [(e.subject.point_id, e.type, (e.onset - T0) // (60 * S)) for e in city.events]
    assert dead == [("P00002", FIRING, 2), ("P00005", FIRING, 2), ("P00002", RESOLVED, 2)]
    assert city.events[0].alert_class == "fault"
    back = (city.events[-1].at - T0) / (60 * S)
    assert 22 <= back < 23, "it must stay for back_s"


def test_one_that_comes_and_goes_is_one_alert() -> None:
    city = Cameras(poles(8, 1))
    for minute in range(60):
        flaps = OFFLINE if 3 <= minute < 45 and minute % 9 != 8 else WELL
        city.minute(minute, well(8, _2=flaps))
    assert [e.type for e in city.events] == [FIRING, RESOLVED]


def test_a_pole_is_one_alert_that_names_its_cameras_and_no_camera_is_called() -> None:
    city = Cameras(poles(40, 4))
    for minute in range(30):
        says = well(40)
        for camera in (8, 9, 10, 11):
            if 3 <= minute < 18:
                says[camera] = OFFLINE
        city.minute(minute, says)
    assert city.told() == [("device_outage", FIRING, "pole-2"), ("device_outage", RESOLVED, "pole-2")]
    fired = city.events[0]
    assert fired.members == ("P00008", "P00009", "P00010", "P00011")
    assert (fired.value, fired.severity, fired.subject.kind, fired.subject.gateway_id) == (
        4.0,
        1,
        "video",
        "G000",
    )
    assert fired.id == city.events[1].id


def test_a_switch_takes_its_poles_with_it() -> None:
    """A gateway of twelve cameras on three poles: one outage, no pole and no camera."""
    table = poles(24, 4, gateways=2)
    table.gateway[:] = np.arange(24) // 12
    city = Cameras(table)
    for minute in range(20):
        city.minute(minute, dict.fromkeys(range(24 if minute < 3 else 12), WELL))
    assert [(e.rule, e.subject.gateway_id) for e in city.events] == [("outage", "G001")]


def test_a_camera_that_stays_out_when_its_pole_is_back_is_then_called() -> None:
    city = Cameras(poles(40, 5))
    for minute in range(40):
        says = well(40)
        for camera in range(10, 15):
            if minute >= 3 and (minute < 15 or camera == 12):
                says[camera] = OFFLINE
        city.minute(minute, says)
    assert city.told() == [
        ("device_outage", FIRING, "pole-2"), ("device_outage", RESOLVED, "pole-2"), ("dead", FIRING, "P00012"),
    ]  # fmt: skip


def test_a_bad_picture_is_a_fault_of_its_own_by_state_or_frame_rate() -> None:
    for fault, bad, good in ((1.0, BAD, WELL), (5.0, 3.0, 25.0)):
        city = Cameras(poles(4, 1), fault)
        for minute in range(20):
            says = dict.fromkeys(range(4), good)
            says[1] = bad if 3 <= minute < 12 else good
            says[2] = bad if minute in (5, 7) else good
            city.minute(minute, says)
        assert city.told() == [("video", FIRING, "P00001"), ("video", RESOLVED, "P00001")]
        assert city.events[0].alert_class == "fault"


def test_how_many_are_online_is_counted_by_source_and_district() -> None:
    table = poles(8, 1)
    table.districts[:] = ["金牛区", "武侯区"]
    table.district[4:] = 1
    city = Cameras(table)
    city.minute(0, well(8, _1=OFFLINE, _5=BAD))
    assert city.engine.video_online() == {("flood", "金牛区"): (3, 4), ("flood", "武侯区"): (4, 4)}
    for minute in range(1, 9):
        city.minute(minute, dict.fromkeys(range(6), WELL))
    assert city.engine.video_online() == {("flood", "金牛区"): (4, 4), ("flood", "武侯区"): (2, 4)}
    assert Engine(point_table(3), {}, check_settings()).video_online() == {}


def test_a_restart_in_an_outage_changes_nothing() -> None:
    whole, cut = Cameras(poles(40, 4)), Cameras(poles(40, 4))
    for minute in range(30):
        says = well(40, _30=OFFLINE if minute > 5 else WELL)
        says |= {camera: OFFLINE for camera in (8, 9, 10, 11) if 3 <= minute < 18}
        for city in (whole, cut):
            city.minute(minute, says)
        if minute in (7, 10, 20):
            arrays, meta = cut.engine.snapshot()
            cut.engine = cut.new()
            cut.engine.restore(arrays, json.loads(json.dumps(meta)))
    assert len(whole.events) == 3
    assert [(e.id, e.revision, e.at) for e in cut.events] == [(e.id, e.revision, e.at) for e in whole.events]


def test_the_citys_channels_cost_next_to_nothing() -> None:
    """97,200 channels at a minute's interval: a second of them and a TICK, against the same without the rule."""
    n = 97_200
    spent = {}
    for kind in ("video", "lamp"):
        table = poles(n, 4, gateways=100)
        table.kinds[:] = [kind]
        city = Cameras(table)
        rng = np.random.default_rng(1)
        for second in range(80):
            if second == 60:
                began = time.process_time()
            point = np.arange(second % 60, n, 60, dtype=np.int32)
            at = np.full(len(point), T0 + second * S, np.int64)
            value = np.where(rng.random(len(point)) < 0.01, OFFLINE, WELL)
            raw = RawBatch(point, at, at, value, np.zeros(len(point), np.uint8))
            city.engine.judge(raw, positions(second << 24, len(point)))
            city.engine.tick(T0 + second * S)
        spent[kind] = (time.process_time() - began) / 20
    print({kind: f"{s * 1000:.1f} ms CPU a second" for kind, s in spent.items()})
    assert spent["video"] < 3 * spent["lamp"] + 0.02
