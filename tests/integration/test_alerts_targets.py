"""Every way out, against real receivers: the public Standard Webhooks library, robots that refuse, brokers that die,
files; and what F11 asks of all: nothing lost, in order, whatever the other side does."""
# ruff: noqa: SIM117 - the receiver stands around the deliverer, and nesting shows it

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs
from xml.etree import ElementTree as ET

import aiomqtt
import orjson
import pytest
from aiohttp import web
from standardwebhooks import Webhook, WebhookVerificationError

from anomaly.alerts.broker import topic_of
from anomaly.alerts.delivery import Deliverer
from anomaly.alerts.event import RESOLVED, UPDATED
from anomaly.alerts.lane import Answer, Lane, Notice
from anomaly.alerts.outbox import Outbox
from anomaly.settings import FileTargetSettings, MqttTargetSettings, WebhookSettings
from storage.batch import US_PER_S
from tests.alerts_receiving import delivering, ok, receiving, states, until, webhook
from tests.anomaly_events import event
from tests.brokers import Mosquitto, needs_mosquitto

SECRET = "whsec_" + base64.b64encode(b"k" * 24).decode()


async def test_the_public_receiver_library_accepts_what_is_signed_and_nothing_else(tmp_path: Path) -> None:
    async with receiving(ok) as receiver:
        hook = webhook(receiver, secret=SECRET)
        async with delivering(tmp_path / "o.db", [hook]) as (deliverer, outbox):
            outbox.record([event(1), event(2)], 1)
            deliverer.wake()
            await until(lambda: len(receiver.raw) == 2)
    for raw, headers in zip(receiver.raw, receiver.headers, strict=True):
        assert Webhook(SECRET).verify(raw, headers) == json.loads(raw)
        other = "whsec_" + base64.b64encode(b"x" * 24).decode()
        for key, body in ((SECRET, raw.replace(b"cm", b"mm")), (other, raw)):
            with pytest.raises(WebhookVerificationError):
                Webhook(key).verify(body, headers)
        with pytest.raises(WebhookVerificationError):
            Webhook(SECRET).verify(raw, {**headers, "webhook-id": "another"})


@pytest.mark.parametrize(
    ("name", "field"), [("wecom", "errcode"), ("dingtalk", "errcode"), ("feishu", "code")]
)
async def test_a_robot_that_answers_200_with_an_error_was_not_told(
    tmp_path: Path, name: str, field: str
) -> None:
    async def third_time(_: web.Request, n: int) -> web.StreamResponse:
        return web.json_response({field: 0 if n == 3 else 19021, "msg": "?"})

    async with receiving(third_time) as receiver:
        async with delivering(tmp_path / "o.db", [webhook(receiver, format=name)]) as (deliverer, outbox):
            outbox.record([event()], 1)
            deliverer.wake()
            await until(lambda: deliverer.counters["webhooks_delivered"] == 1)
            assert deliverer.counters["webhooks_failed_robot_19021"] == 2
    assert len(receiver.bodies) == 3


async def test_a_robot_that_has_had_too_many_is_left_alone_for_a_while(tmp_path: Path) -> None:
    async def full(_: web.Request, __: int) -> web.StreamResponse:
        return web.json_response({"errcode": 45009, "errmsg": "api freq out of limit"})

    async with receiving(full) as receiver:
        async with delivering(tmp_path / "o.db", [webhook(receiver, format="wecom")]) as (deliverer, outbox):
            outbox.record([event(1)], 1)
            deliverer.wake()
            await until(lambda: deliverer.counters["webhooks_failed_robot_45009"] == 1)
            outbox.record([event(2)], 2)
            deliverer.wake()
            await until(lambda: deliverer.waiting == 2)
            await asyncio.sleep(0.3)  # QUICK would have tried six times
    assert len(receiver.bodies) == 1


@pytest.mark.parametrize("name", ["dingtalk", "feishu"])
async def test_a_robots_signature_verifies_at_its_end(tmp_path: Path, name: str) -> None:
    queries: list[dict[str, list[str]]] = []

    async def answer(request: web.Request, _: int) -> web.StreamResponse:
        queries.append(parse_qs(request.rel_url.raw_query_string))
        return web.json_response({"errcode": 0, "code": 0})

    async with receiving(answer) as receiver:
        hook = webhook(receiver, format=name, secret="SEC+/=secret")
        async with delivering(tmp_path / "o.db", [hook]) as (deliverer, outbox):
            outbox.record([event(n) for n in range(8)], 1)
            deliverer.wake()
            await until(lambda: deliverer.counters["webhooks_delivered"] == 8)
    for query, body, headers in zip(queries, receiver.bodies, receiver.headers, strict=True):
        said: Any = body if name == "feishu" else {key: query[key][0] for key in ("timestamp", "sign")}
        text = f"{said['timestamp']}\nSEC+/=secret".encode()
        key, message = (text, b"") if name == "feishu" else (b"SEC+/=secret", text)
        assert base64.b64decode(said["sign"]) == hmac.new(key, message, hashlib.sha256).digest()
        assert "webhook-signature" not in headers, "our secret with them is theirs, not Standard Webhooks'"


def test_a_target_is_called_no_more_often_a_minute_than_it_bears_and_hears_the_newest_then() -> None:
    lane = Lane(8, 3_600 * US_PER_S, lambda: 0.5, per_minute_max=2)
    for rowid, (alert, revision) in enumerate((("a", 1), ("b", 1), ("c", 1), ("c", 2)), 1):
        lane.add(Notice(rowid, f"{alert}.{revision}", alert, revision, 0, 0, 0, b""), 0)
    first, second = lane.take(0), lane.take(1 * US_PER_S)
    assert first is not None
    assert second is not None
    for notice in (first, second):
        lane.land(notice, Answer(), 2 * US_PER_S)
    assert lane.take(59 * US_PER_S) is None
    assert lane.wakes_at(2 * US_PER_S) == 60 * US_PER_S
    third = lane.take(60 * US_PER_S)
    assert third is not None
    assert (third.alert_id, third.revision) == ("c", 2)


def mqtt_target(broker: Mosquitto, **values: Any) -> MqttTargetSettings:
    return MqttTargetSettings.model_validate({"name": "broker", "url": broker.url, "timeout_s": 10, **values})


async def heard(
    port: int, topics: str, count: int, subscribed: asyncio.Event | None = None
) -> list[aiomqtt.Message]:
    """The first ``count`` messages of a subscriber that comes now."""
    found: list[aiomqtt.Message] = []
    async with (
        asyncio.timeout(60),
        aiomqtt.Client("127.0.0.1", port, protocol=aiomqtt.ProtocolVersion.V5) as client,
    ):
        await client.subscribe(topics, qos=1)
        if subscribed is not None:
            subscribed.set()
        async for message in client.messages:
            found.append(message)
            if len(found) == count:
                return found
    raise AssertionError(f"{len(found)} of {count}")


@needs_mosquitto
@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_a_broker_is_told_in_order_and_keeps_what_is_open_and_nothing_else(
    tmp_path: Path, protocol: str
) -> None:
    with Mosquitto(tmp_path / "mq") as broker:
        target = mqtt_target(broker, retain=True, topic="a/{severity}/{district}/{id}", protocol=protocol)
        subscribed = asyncio.Event()
        listening = asyncio.create_task(heard(broker.port, "a/#", 5, subscribed))
        await subscribed.wait()
        async with delivering(tmp_path / "o.db", [target]) as (deliverer, outbox):
            outbox.record([event(1), event(2)], 1)
            deliverer.wake()
            await until(lambda: deliverer.counters["webhooks_delivered"] == 2)
            outbox.record([event(1, 2, RESOLVED)], 2)
            deliverer.wake()
            await until(lambda: deliverer.counters["webhooks_delivered"] == 3)
            outbox.send_heartbeat(["broker"])
            deliverer.wake()
            messages = await listening
        kept = await heard(broker.port, "a/#", 1)
    assert [str(m.topic) for m in kept] == ["a/3/金牛区/0000000000000002"]
    bodies = [json.loads(m.payload) for m in messages if m.payload]
    assert [b["type"] for b in bodies if b["data"]["id"] == event(1).id] == ["alert.firing", "alert.resolved"]
    if protocol == "5":
        user = dict(messages[0].properties.json()["UserProperty"])  # type: ignore[union-attr]
        assert user["webhook-id"].endswith(".1.broker")


@needs_mosquitto
async def test_what_a_broker_misses_while_it_is_dead_arrives_when_it_is_back(tmp_path: Path) -> None:
    with Mosquitto(tmp_path / "mq") as broker:
        async with delivering(tmp_path / "o.db", [mqtt_target(broker, topic="a/{id}")]) as (
            deliverer,
            outbox,
        ):
            outbox.record([event(1)], 1)
            deliverer.wake()
            await until(lambda: deliverer.counters["webhooks_delivered"] == 1)
            broker.kill()
            outbox.record([event(1, 2, UPDATED, severity=4), event(2)], 2)
            deliverer.wake()
            await until(lambda: deliverer.counters["webhooks_failed"] >= 2)
            assert deliverer.waiting == 2
            broker.start()
            await until(lambda: deliverer.waiting == 0)
            await until(lambda: sorted(states(outbox)) == ["sent"] * 3)


def test_a_name_in_a_topic_adds_no_level_and_no_wildcard() -> None:
    body = {
        "type": "alert.firing",
        "timestamp": "",
        "data": {"id": "1", "severity": 2, "kind": "a/b+#\0", "summary": {"zh": "", "en": ""}},
    }
    assert topic_of("x/{kind}/{district}/{id}", body) == "x/a_b___/_/1"
    assert topic_of("x/{id}", {**body, "type": "heartbeat"}) == "x/heartbeat"


async def test_files_are_whole_cap_messages_named_after_their_notification(tmp_path: Path) -> None:
    target = FileTargetSettings.model_validate(
        {"name": "files", "dir": str(tmp_path / "cap"), "format": "cap"}
    )
    async with delivering(tmp_path / "o.db", [target]) as (deliverer, outbox):
        outbox.record([event(1)], 1)
        deliverer.wake()
        await until(lambda: deliverer.counters["webhooks_delivered"] == 1)
        outbox.record([event(1, 2, RESOLVED)], 2)
        deliverer.wake()
        await until(lambda: deliverer.counters["webhooks_delivered"] == 2)
    names = sorted(path.name for path in (tmp_path / "cap").iterdir())
    assert names == ["0000000000000001.1.files.xml", "0000000000000001.2.files.xml"]
    kinds = [ET.parse(tmp_path / "cap" / name).getroot()[4].text for name in names]
    assert kinds == ["Alert", "Cancel"]


async def test_a_target_that_is_down_holds_up_no_other_kind_of_target(tmp_path: Path) -> None:
    dead = MqttTargetSettings.model_validate({"name": "dead", "url": "mqtt://127.0.0.1:1", "give_up_s": 0.5})
    files = FileTargetSettings.model_validate({"name": "files", "dir": str(tmp_path / "out")})
    async with receiving(ok) as receiver:
        async with delivering(tmp_path / "o.db", [dead, files, webhook(receiver)]) as (deliverer, outbox):
            outbox.record([event(n) for n in range(20)], 1)
            deliverer.wake()
            await until(
                lambda: len(receiver.bodies) == 20 and len(list((tmp_path / "out").glob("*.json"))) == 20
            )
            await until(lambda: states(outbox).count("dead") == 20)
    log = outbox_steps(tmp_path / "o.db")
    assert (log["sent"], log["dead"], log["called"]) == (40, 20, 20)


def outbox_steps(path: Path) -> dict[str, int]:
    with closing(sqlite3.connect(path)) as db:
        return dict(db.execute("SELECT step, count(*) FROM alert_log GROUP BY 1"))


async def test_what_cannot_be_put_into_one_targets_words_holds_up_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def poisoned(body: Mapping[str, Any]) -> bytes:
        if body["data"]["id"] == event(1).id:
            raise KeyError("a mistake of ours")
        return orjson.dumps(body)

    async with receiving(ok) as receiver, receiving(ok) as other:
        targets = [webhook(receiver, give_up_s=0.3), webhook(other, "other")]
        async with delivering(tmp_path / "o.db", targets) as (deliverer, outbox):
            outbox.record([event(0)], 1)
            deliverer.wake()
            await until(lambda: (len(receiver.bodies), len(other.bodies)) == (1, 1))
            deliverer._targets["room"].carrier._render = poisoned  # type: ignore[attr-defined]
            outbox.record([event(1), event(2)], 2)
            deliverer.wake()
            await until(lambda: (len(receiver.bodies), len(other.bodies)) == (2, 3))
            await until(lambda: states(outbox).count("dead") == 1)
    assert "a mistake of ours" in caplog.text


async def test_rounds_that_fail_hold_up_no_call(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with receiving(ok) as receiver:
        async with delivering(tmp_path / "o.db", [webhook(receiver)]) as (deliverer, outbox):
            deliverer._rounds._is_calm = None  # type: ignore[assignment, method-assign]
            outbox.record([event(0)], 1)
            with outbox.writing() as db:
                db.execute("UPDATE alert_group SET flapping = 1")
            await until(lambda: deliverer.counters["alerts_rounds_failed"] > 0)
            outbox.record([event(1)], 2)
            deliverer.wake()
            await until(lambda: len(receiver.bodies) == 2)


@pytest.mark.parametrize("broken", ["books", "close"])
async def test_a_delivery_that_ends_by_itself_says_so_and_keeps_nobody_waiting(
    tmp_path: Path, broken: str
) -> None:
    async with receiving(ok) as receiver:
        deliverer = Deliverer(tmp_path / "o.db", [webhook(receiver)])
        outbox = Outbox(tmp_path / "o.db", [webhook(receiver)])

        def fails(*_: object) -> None:
            raise RuntimeError("by mistake")

        if broken == "books":
            deliverer._letters.settle = fails  # type: ignore[method-assign]
        else:
            deliverer._letters.new = deliverer._letters.close = fails  # type: ignore[assignment, method-assign]
        task = asyncio.create_task(deliverer.run())
        outbox.record([event(0)], 1)
        deliverer.wake()
        await until(task.done)
        await asyncio.wait_for(deliverer.stop(), 60)
        with pytest.raises(RuntimeError, match="by mistake"):
            await task
        outbox.close()


@pytest.mark.parametrize("hours", [-1, 1, 24 * 365 * 74], ids=["back", "an hour ahead", "to 2100"])
async def test_a_clock_that_is_set_delays_no_retry_and_makes_no_dead_letter(
    tmp_path: Path, hours: int
) -> None:
    jump_us = [0]

    async def fails_twice(_: web.Request, n: int) -> web.StreamResponse:
        # Set while the call is in the air; the one after it comes when the new time is all there is.
        jump_us[0] = hours * 3_600 * US_PER_S
        return web.Response(status=500 if n < 3 else 200)

    def clock() -> int:
        return time.time_ns() // 1000 + jump_us[0]

    async with receiving(fails_twice) as receiver:
        hook = webhook(receiver, give_up_s=1_800)
        async with delivering(tmp_path / "o.db", [hook], retry_s=(0.2,), now_us=clock) as (deliverer, outbox):
            outbox.record([event(0)], 1)
            deliverer.wake()
            await until(lambda: states(outbox) in (["sent"], ["dead"]))
            assert states(outbox) == ["sent"]
            assert deliverer.counters["webhooks_failed"] == 2


@pytest.mark.parametrize(
    "hours", [-48, 24 * 365 * 74, -24 * 365 * 56], ids=["two days", "to 2100", "to 1970"]
)
async def test_letters_of_a_clock_that_was_wrong_before_a_restart_are_tried_as_others_are(
    tmp_path: Path, hours: int
) -> None:
    """They look like letters of the future, which wait for ever, or like old ones, which die of one failed call."""
    path = tmp_path / "o.db"

    async def third_time(_: web.Request, n: int) -> web.StreamResponse:
        return web.Response(status=200 if n == 3 else 500)

    async with receiving(third_time) as receiver:
        hook = webhook(receiver)
        wrong: dict[str, Any] = {"now_us": lambda: time.time_ns() // 1000 + hours * 3_600 * US_PER_S}
        record_at(path, hook, wrong["now_us"])
        async with delivering(path, [hook], retry_s=(60.0,), **wrong) as (_, outbox):
            await until(lambda: outbox.deliveries()[0]["attempts"] == 1)
        async with delivering(path, [hook], retry_s=(0.2,)) as (_, outbox):
            await until(lambda: states(outbox) in (["sent"], ["dead"]))
            assert states(outbox) == ["sent"]


def record_at(path: Path, hook: WebhookSettings, now_us: Callable[[], int]) -> None:
    """One alert, recorded by an engine whose clock says ``now_us``."""
    outbox = Outbox(path, [hook], now_us=now_us)
    outbox.record([event(0)], 1)
    outbox.close()
