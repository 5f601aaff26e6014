"""The map of a running engine: what it shows is what a DuckDB query counts at the same place of the journal."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from console.frames import FrameHead
from console.shown import SEVERITY
from tests.console_client import Page, page, users_toml
from tests.engines import EngineProcess, city_config, free_port, run_yuzui, until
from tests.talk import Talker

POINTS = 1500
MOMENTS = 10
SEED = 20260701
CONSOLE = '[console]\nenabled = true\nport = 0\nusers_file = "users.toml"\n'


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EngineProcess]:
    config = city_config(tmp_path, free_port(), points=POINTS, more=CONSOLE)
    (tmp_path / "users.toml").write_text(users_toml(wang="operate", lin="view"))
    made = EngineProcess(tmp_path, config)
    try:
        yield made.start()
    finally:
        if made.running:
            made.kill()


def flooded(folder: Path) -> pl.DataFrame:
    return pl.read_parquet(folder / "points.parquet").filter(pl.col("kind") == "waterlogging")


def said(topic: str, value: float) -> tuple[str, bytes]:
    return topic, b'{"ts":%d,"v":%.1f}' % (time.time_ns() // 1_000_000, value)


async def districts_of(ours: Page) -> tuple[list[str], np.ndarray]:
    """Names of districts, and each display index's."""
    _, body, _ = await ours.ask("GET", "/api/registry")
    n, size = np.frombuffer(body, "<u4", 2, 8).tolist()
    head = json.loads(body[16 : 16 + size])
    planes = np.frombuffer(body, np.uint8, offset=16 + size).reshape(8, n)
    return [one["id"] for one in head["districts"]], planes[5]


def counted(state: np.ndarray, names: list[str], district: np.ndarray) -> Counter[tuple[str, int]]:
    return Counter(
        (names[d], int(s)) for d, s in zip(district.tolist(), (state & SEVERITY).tolist(), strict=True)
    )


def asked(engine: EngineProcess, question: str) -> Counter[tuple[str, int]]:
    return Counter({(district, severity): n for district, severity, n in engine.lake(f"FROM {question}")})


async def storm(talker: Talker, topics: list[str], dice: random.Random, rounds: int) -> None:
    """Values of a third of the points, up and down over all four levels, while the map is looked at."""
    for _ in range(rounds):
        some = dice.sample(topics, len(topics) // 3)
        await asyncio.to_thread(talker.say_all, [said(topic, dice.uniform(0, 45)) for topic in some])


async def test_counts_equal_a_query_at_the_same_journal_position_also_over_a_kill(
    engine: EngineProcess, tmp_path: Path
) -> None:
    print("seed", SEED)
    dice = random.Random(SEED)
    topics = flooded(tmp_path).get_column("topic").to_list()
    assert len(topics) > 10
    seen: list[tuple[FrameHead, Counter[tuple[str, int]]]] = []
    for life in range(2):
        async with page(engine.ports()["console"]) as ours:  # type: ignore[index]
            await ours.login("lin")
            await ours.open()
            await ours.until(lambda: ours.heads, "the first picture")
            names, district = await districts_of(ours)
            with Talker(engine.port) as talker:
                for _ in range(MOMENTS // 2):
                    before = len(ours.heads)
                    await storm(talker, topics, dice, dice.randint(1, 4))
                    await ours.until(lambda before=before: len(ours.heads) > before + 1, "two more frames")
                    assert ours.state is not None
                    seen.append((ours.heads[-1], counted(ours.state, names, district)))
            counts = await ours.get("/api/counts")
            assert sum(counts["severity"]) == POINTS
        if life == 0:
            engine.kill()
            await asyncio.to_thread(engine.start)
    assert len({head.pos for head, _ in seen}) == MOMENTS
    assert len({json.dumps(sorted(map(str, shown.items()))) for _, shown in seen}) > MOMENTS // 2, (
        "the storm moved"
    )
    assert max(s for _, shown in seen for _, s in shown) == 4
    for head, shown in seen:
        found: dict[str, Any] = {}

        def same(head: FrameHead = head, shown: Counter[tuple[str, int]] = shown, found: Any = found) -> bool:
            found["rows"] = asked(engine, f"map_counts({head.pos})")
            return bool(found["rows"] == shown)

        try:
            await asyncio.to_thread(until, same, "the log of alerts reaches the lake")
        except AssertionError:
            raise AssertionError(
                f"at {head.pos}: map {shown - found['rows']}, lake {found['rows'] - shown}"
            ) from None
        assert sum(shown.values()) == POINTS
    assert engine.stop() == 0
    at = f"make_timestamptz({seen[-1][0].time_us})"
    total = sum(asked(engine, f"map_counts_at({at})").values())
    assert total == POINTS


async def test_answers_and_silences_outlive_a_kill_and_a_silence_that_is_over_alerts_again(
    engine: EngineProcess,
    tmp_path: Path,
) -> None:
    points = flooded(tmp_path)
    first, second = points.row(0, named=True), points.row(points.height - 1, named=True)
    async with page(engine.ports()["console"]) as duty:  # type: ignore[index]
        await duty.login("wang")
        status, _, _ = await duty.ask(
            "POST", "/api/silences", {"point": second["point_id"], "for_s": 3600, "why": "泵站检修"}
        )
        assert status == 201
        await duty.open()
        with Talker(engine.port) as talker:
            talker.say_all([said(first["topic"], 28.0), said(second["topic"], 28.0)])
        await duty.until(lambda: sum(g["open"] for g in duty.groups.values()) == 2, "two alerts")
        silent = [g for g in duty.groups.values() if g["silenced"]]
        assert [g["silenced"]["why"] for g in silent] == ["泵站检修"]
        loud = next(g for g in duty.groups.values() if not g["silenced"])
        assert (await duty.ask("POST", f"/api/alerts/{loud['id']}/ack", {"note": "已派人"}))[0] == 200
        # Both alerts are there, however long that took: from here on the silence has little time left.
        soon_over = {"point": second["point_id"], "for_s": 4, "why": "泵站检修"}
        assert (await duty.ask("POST", "/api/silences", soon_over))[0] == 201
        long = silent[0]["silenced"]["id"]
        assert (await duty.ask("DELETE", f"/api/silences/{long}", {"why": "重设"}))[0] == 204
        engine.kill()
    await asyncio.to_thread(engine.start)
    async with page(engine.ports()["console"]) as again:  # type: ignore[index]
        await again.login("lin")
        await again.open()
        await again.until(lambda: loud["id"] in again.groups, "the group after the kill")
        assert again.groups[loud["id"]]["ack"]["by"] == "wang"
        quiet = silent[0]["id"]
        await again.until(
            lambda: again.groups[quiet]["told"] and not again.groups[quiet]["silenced"],
            "the silence is over and it is told",
        )
        found = await again.get(f"/api/point/{first['point_id']}")
        assert (found["value"], found["severity"]) == (28.0, 3)
        assert [one["rule"] for one in found["alerts"] if one["rule"] == "level"] == ["level"]
        past = await again.get(f"/api/history/{first['point_id']}?span=1h&step=0")
        assert past["value"][-1:] == [28.0]
        past = await again.get(f"/api/history/{first['point_id']}?span=1h&step=60")
        assert sum(past["count"]) == 1
        assert past["limits"] == [10.0, 15.0, 25.0, 30.0]
        assert [one["rule"] for one in past["alerts"]] == ["level"]
        status, body, answer = await again.ask("GET", f"/api/history/{first['point_id']}?format=csv")
        assert (status, answer.content_type) == (200, "text/csv")
        assert body.decode().splitlines()[0] == "t,min,max,mean,count,bad"
        assert b"yuzui_console_clients 1.0" in engine.page("/metrics").encode()
    made = run_yuzui("console", "link", "-c", str(engine.config), "--name", "值班", "--role", "operate")
    assert made.returncode == 0, made.stderr
    address, _, token = made.stdout.strip().partition("#token=")
    async with page(address) as linked:
        assert (await linked.ask("POST", "/api/login", {"token": token}))[1]["name"] == "值班"
    log = engine.log.read_text()
    assert token not in log
    assert engine.stop() == 0
