"""Notifications against real HTTP servers on loopback: whatever the receiver does, every alert arrives or is
a dead letter, in order, and no target holds up another."""
# ruff: noqa: SIM117 - the receiver stands around the deliverer, and nesting shows it

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from anomaly.alerts.event import RESOLVED, UPDATED
from anomaly.alerts.outbox import Outbox
from anomaly.settings import AlertSettings, WebhookSettings
from tests.alerts_receiving import delivering, ok, receiving, states, until, webhook
from tests.anomaly_events import event


async def test_a_notification_is_signed_so_that_a_standard_webhooks_receiver_accepts_it(
    tmp_path: Path,
) -> None:
    key = b"k" * 24
    secret = "whsec_" + base64.b64encode(key).decode()
    async with (
        receiving(ok) as receiver,
        delivering(tmp_path / "o.db", [webhook(receiver, secret=secret)]) as (
            deliverer,
            outbox,
        ),
    ):
        outbox.record([event()], 5)
        deliverer.wake()
        await until(lambda: deliverer.counters["webhooks_delivered"] == 1)
    headers = receiver.headers[0]
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + receiver.raw[0]
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert headers["content-type"] == "application/json"
    assert receiver.bodies[0]["data"]["link"] == "https://map.example/alert/0000000000000000"


async def test_while_rotating_every_secret_of_the_file_signs(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("new secret\nold secret\n")
    async with receiving(ok) as receiver:
        hook = webhook(receiver, secret_file=str(tmp_path / "secret"))
        async with delivering(tmp_path / "o.db", [hook]) as (deliverer, outbox):
            outbox.record([event()], 1)
            deliverer.wake()
            await until(lambda: bool(receiver.bodies))
    assert len(receiver.headers[0]["webhook-signature"].split(" ")) == 2


async def test_a_500_is_retried_with_the_same_id_and_body_until_it_arrives(tmp_path: Path) -> None:
    async def third_time(_: web.Request, n: int) -> web.StreamResponse:
        return web.Response(status=500 if n < 3 else 200)

    async with receiving(third_time) as receiver:
        async with delivering(tmp_path / "o.db", [webhook(receiver)]) as (deliverer, outbox):
            outbox.record([event()], 1)
            deliverer.wake()
            await until(lambda: deliverer.counters["webhooks_delivered"] == 1)
            assert deliverer.counters["webhooks_failed_status_500"] == 2
    assert len({h["webhook-id"] for h in receiver.headers}) == 1
    assert len(receiver.raw) == 3
    assert len(set(receiver.raw)) == 1


async def test_retry_after_pauses_the_whole_target(tmp_path: Path) -> None:
    """During the pause nothing is sent, though the retry schedule alone would have."""
    times: list[float] = []

    async def busy_once(_: web.Request, n: int) -> web.StreamResponse:
        times.append(asyncio.get_running_loop().time())
        return web.Response(status=429 if n == 1 else 200, headers={"Retry-After": "1"})

    async with receiving(busy_once) as receiver:
        async with delivering(tmp_path / "o.db", [webhook(receiver, concurrency_max=1)]) as (
            deliverer,
            outbox,
        ):
            outbox.record([event(1), event(2)], 1)
            deliverer.wake()
            await until(lambda: deliverer.counters["webhooks_delivered"] == 2)
    assert times[1] - times[0] >= 0.95


async def test_a_target_that_hangs_does_not_delay_another(tmp_path: Path) -> None:
    release = asyncio.Event()

    async def hang(_: web.Request, __: int) -> web.StreamResponse:
        await release.wait()
        return web.Response()

    async with receiving(hang) as slow, receiving(ok) as quick:
        hooks = [webhook(slow, "slow", timeout_s=0.2), webhook(quick, "quick")]
        async with delivering(tmp_path / "o.db", hooks) as (deliverer, outbox):
            outbox.record([event(n) for n in range(50)], 1)
            deliverer.wake()
            await until(lambda: len(quick.bodies) == 50)
            assert deliverer.waiting >= 50
            await until(lambda: deliverer.counters["webhooks_failed_timeout"] > 0)
            release.set()
            await until(lambda: deliverer.waiting == 0)
            assert deliverer.counters["webhooks_delivered"] == 100


async def test_an_answer_that_drips_or_is_huge_is_a_success_all_the_same(tmp_path: Path) -> None:
    """2xx has decided; a body of 64 MiB is not read, one without an end is not waited for."""
    sent = 0

    async def endless(request: web.Request, n: int) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            for _ in range(1024):
                await response.write(b"x" * (1 if n == 1 else 64 * 1024))
                sent += 1
                await asyncio.sleep(1 if n == 1 else 0)
        except ConnectionError:
            return response
        return response

    async with receiving(endless) as receiver:
        async with delivering(tmp_path / "o.db", [webhook(receiver)]) as (deliverer, outbox):
            outbox.record([event(1), event(2)], 1)
            deliverer.wake()
            await until(lambda: deliverer.counters["webhooks_delivered"] == 2)
            assert sent < 1024


async def test_a_redirect_is_not_followed(tmp_path: Path) -> None:
    async with receiving(ok) as inside:

        async def elsewhere(_: web.Request, n: int) -> web.StreamResponse:
            raise web.HTTPTemporaryRedirect(inside.url)

        async with receiving(elsewhere) as receiver:
            async with delivering(tmp_path / "o.db", [webhook(receiver, give_up_s=0.3)]) as (
                deliverer,
                outbox,
            ):
                outbox.record([event()], 1)
                deliverer.wake()
                await until(lambda: deliverer.counters["webhooks_dead"] == 1)
        assert deliverer.counters["webhooks_failed_redirect"] >= 1
        assert inside.bodies == []


async def test_nobody_listening_becomes_a_dead_letter_that_can_be_sent_again(tmp_path: Path) -> None:
    async with receiving(ok) as gone:
        pass
    hook = webhook(gone, give_up_s=0.3)
    async with delivering(tmp_path / "o.db", [hook]) as (deliverer, outbox):
        outbox.record([event()], 1)
        deliverer.wake()
        await until(lambda: states(outbox) == ["dead"])
        letter = outbox.deliveries("dead")[0]
        assert letter["last_error"] == "refused"
    async with receiving(ok) as back:
        hook = webhook(back)
        async with delivering(tmp_path / "o.db", [hook]) as (deliverer, outbox):
            operator = Outbox(tmp_path / "o.db")
            assert operator.retry([letter["webhook_id"]]) == 1
            operator.close()
            await until(lambda: len(back.bodies) == 1)
    assert back.headers[0]["webhook-id"] == letter["webhook_id"]


async def test_410_disables_the_target_until_an_operator_retries(tmp_path: Path) -> None:
    async def leave(_: web.Request, n: int) -> web.StreamResponse:
        return web.Response(status=410 if n == 1 else 200)

    path = tmp_path / "o.db"
    async with receiving(leave) as receiver:
        hook = webhook(receiver, concurrency_max=1)
        async with delivering(path, [hook]) as (deliverer, outbox):
            outbox.record([event(1), event(2)], 1)
            deliverer.wake()
            await until(lambda: states(outbox) == ["dead", "dead"])
        async with delivering(path, [hook]) as (deliverer, outbox):
            outbox.record([event(3)], 2)
            deliverer.wake()
            await until(lambda: states(outbox) == ["dead"] * 3)
            assert len(receiver.bodies) == 1, "a restart does not forget the 410"
            assert outbox.retry() == 3
            await until(lambda: states(outbox) == ["sent"] * 3)


async def test_one_alerts_revisions_arrive_in_order_and_the_newest_supersedes_what_did_not_arrive(
    tmp_path: Path,
) -> None:
    """While the target is down only the newest state is worth telling; once up, revisions never go back."""
    up = asyncio.Event()

    async def down_at_first(_: web.Request, __: int) -> web.StreamResponse:
        return web.Response(status=200 if up.is_set() else 503)

    async with receiving(down_at_first) as receiver:
        async with delivering(tmp_path / "o.db", [webhook(receiver)]) as (deliverer, outbox):
            outbox.record([event(1)], 1)
            deliverer.wake()
            await until(lambda: len(receiver.bodies) >= 1)
            outbox.record([event(1, 2, UPDATED, severity=4), event(2)], 2)
            outbox.record([event(1, 3, RESOLVED)], 3)
            deliverer.wake()
            await until(lambda: any(b["type"] == RESOLVED for b in receiver.bodies))
            up.set()
            await until(lambda: deliverer.waiting == 0)
            await until(lambda: "queued" not in states(outbox))
            assert sorted(states(outbox)) == ["sent", "sent", "superseded", "superseded"]
    revisions = [b["data"]["revision"] for b in receiver.bodies if b["data"]["id"] == event(1).id]
    assert revisions == sorted(revisions)
    assert revisions[-1] == 3


async def test_a_newer_revision_waits_for_the_older_that_is_in_the_air(tmp_path: Path) -> None:
    release, overlap, in_air = asyncio.Event(), False, 0

    async def one_at_a_time(_: web.Request, __: int) -> web.StreamResponse:
        nonlocal overlap, in_air
        in_air += 1
        overlap |= in_air > 1
        await release.wait()
        in_air -= 1
        return web.Response()

    async with receiving(one_at_a_time) as receiver:
        async with delivering(tmp_path / "o.db", [webhook(receiver)]) as (deliverer, outbox):
            outbox.record([event(1)], 1)
            deliverer.wake()
            await until(lambda: len(receiver.bodies) == 1)
            outbox.record([event(1, 2, UPDATED, severity=4)], 2)
            deliverer.wake()
            await until(lambda: deliverer.waiting == 2)
            release.set()
            await until(lambda: len(receiver.bodies) == 2)
            await until(lambda: states(outbox) == ["sent", "sent"])
    assert not overlap


async def test_what_was_queued_before_a_restart_is_delivered_after_it(tmp_path: Path) -> None:
    async with receiving(ok) as receiver:
        hook = webhook(receiver)
        outbox = Outbox(tmp_path / "o.db", [hook])
        outbox.record([event(n) for n in range(3)], 9)
        outbox.record([event(n) for n in range(3)], 9)
        outbox.close()
        async with delivering(tmp_path / "o.db", [hook]) as (deliverer, _):
            await until(lambda: deliverer.counters["webhooks_delivered"] == 3)
    assert len(receiver.bodies) == 3, "recording the same revisions twice queues them once"


async def test_a_name_that_resolves_to_an_address_behind_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look-up is replaced; the check and the refusal to connect are the real ones."""
    monkeypatch.setattr("anomaly.alerts.addresses._look_up", lambda *_: [(2, 6, "169.254.169.254")])
    hook = WebhookSettings.model_validate({"name": "trap", "url": "http://meta.example/x", "give_up_s": 0.2})
    async with delivering(tmp_path / "o.db", [hook]) as (deliverer, outbox):
        outbox.record([event()], 1)
        deliverer.wake()
        await until(lambda: states(outbox) == ["dead"])
        assert outbox.deliveries()[0]["last_error"] == "address_refused"


async def test_no_log_line_and_no_error_shows_a_secret_or_a_url(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with receiving(ok) as gone:
        pass
    hook = webhook(gone, secret="very secret words", give_up_s=0.2)
    caplog.set_level("DEBUG")
    async with delivering(tmp_path / "o.db", [hook]) as (deliverer, outbox):
        outbox.record([event()], 1)
        deliverer.wake()
        await until(lambda: states(outbox) == ["dead"])
        told = caplog.text + str(outbox.deliveries()) + repr(deliverer.counters)
    assert "very secret" not in told
    assert "s3cret-in-url" not in told


async def test_heartbeats_and_tests_go_the_same_way(tmp_path: Path) -> None:
    async with receiving(ok) as receiver:
        hook = webhook(receiver, severity_min=4)
        alerts = AlertSettings.model_validate({"heartbeat_s": 1})
        async with delivering(tmp_path / "o.db", [hook], alerts=alerts) as (deliverer, outbox):
            outbox.send_test(["room"])
            deliverer.wake()
            await until(lambda: {b["type"] for b in receiver.bodies} == {"test", "heartbeat"})
            outbox.record([replace(event(), severity=3)], 1)
            queued = [d for d in outbox.deliveries("queued") if d["type"].startswith("alert")]
            assert queued == [], "below severity_min nothing is queued"
