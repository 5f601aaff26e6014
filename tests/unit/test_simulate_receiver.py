"""Claims about the webhook receiver and the refusal of strange targets."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
from pathlib import Path

import pytest

from ingest.simulate.receiver import Receiver, signed, signing_key
from ingest.simulate.run import TargetRefusedError, parse_target

NOW = 1_763_876_543.0


def firing(alert: str, revision: int = 1, kind: str = "alert.firing") -> dict[str, object]:
    return {
        "version": 1,
        "type": kind,
        "timestamp": "2025-11-23T05:42:23Z",
        "data": {
            "id": alert,
            "revision": revision,
            "at": "2025-11-23T05:42:22.750+00:00",
            "point": {"id": "p1"},
        },
    }


def test_latency_is_from_the_events_time_to_arrival_of_what_fires(tmp_path: Path) -> None:
    receiver = Receiver(tmp_path / "log" / "calls.jsonl", None)
    receiver.note(NOW, firing("a"))
    receiver.note(NOW + 1, firing("b"))
    receiver.note(NOW + 9, firing("a", 2, "alert.resolved"))
    receiver.close()
    report = receiver.report()
    assert (report.calls, report.alerts, report.repeated) == (3, 2, 0)
    assert report.by_type == {"alert.firing": 2, "alert.resolved": 1}
    assert report.max_s == pytest.approx(1.25)
    lines = [json.loads(line) for line in (tmp_path / "log" / "calls.jsonl").read_text().splitlines()]
    assert [(line["id"], line["revision"], line["point"]) for line in lines] == [
        ("a", 1, "p1"),
        ("b", 1, "p1"),
        ("a", 2, "p1"),
    ]


def test_a_repeated_call_is_counted_and_does_not_count_as_late(tmp_path: Path) -> None:
    receiver = Receiver(tmp_path / "calls.jsonl", None)
    receiver.note(NOW, firing("a"))
    receiver.note(NOW + 60, firing("a"))
    assert receiver.report().repeated == 1
    assert receiver.report().max_s == pytest.approx(0.25)
    receiver.close()


def test_nothing_received_has_no_latency(tmp_path: Path) -> None:
    receiver = Receiver(tmp_path / "calls.jsonl", None)
    receiver.close()
    assert math.isnan(receiver.report().p99_s)


@pytest.mark.parametrize("secret", ["plain text", "whsec_" + base64.b64encode(b"key").decode()])
def test_a_signature_holds_for_its_body_and_time_alone(secret: str) -> None:
    key = signing_key(secret)
    body = b'{"type":"test"}'
    digest = base64.b64encode(hmac.new(key, b"id1." + b"%d." % NOW + body, hashlib.sha256).digest()).decode()
    headers = {
        "webhook-id": "id1",
        "webhook-timestamp": str(int(NOW)),
        "webhook-signature": f"v1,b2xk v1,{digest}",
    }
    assert signed(key, headers, body, NOW + 2)
    assert not signed(key, headers, body + b" ", NOW)
    assert not signed(b"other", headers, body, NOW)
    assert not signed(key, headers, body, NOW + 3600)
    assert not signed(key, {**headers, "webhook-id": "id2"}, body, NOW)
    assert not signed(key, {k: v for k, v in headers.items() if k != "webhook-signature"}, body, NOW)


@pytest.mark.parametrize("target", ["mqtt://127.0.0.1", "mqtt://localhost:1884", "mqtt://[::1]:1"])
def test_this_machine_is_a_target(target: str) -> None:
    assert parse_target(target, drill=False)[1] in (1883, 1884, 1)


def test_another_machine_is_a_target_only_in_a_drill() -> None:
    with pytest.raises(TargetRefusedError, match="--drill"):
        parse_target("mqtt://192.0.2.7:1883", drill=False)
    assert parse_target("mqtt://192.0.2.7:1883", drill=True) == ("192.0.2.7", 1883)


@pytest.mark.parametrize("target", ["127.0.0.1:1883", "http://127.0.0.1", "mqtt://"])
def test_what_is_no_address_is_refused(target: str) -> None:
    with pytest.raises(ValueError, match="mqtt://"):
        parse_target(target, drill=True)
