"""Sparkplug B: births teach aliases, gaps and strangers are asked for a BIRTH, deaths name who left."""

from __future__ import annotations

import math
from typing import Any

import pytest

from ingest.codecs import sparkplug
from ingest.codecs.base import Parsed
from ingest.codecs.sparkplug import Sparkplug
from ingest.codecs.sparkplug_pb2 import Payload
from ingest.decode.refused import Refused
from tests.codecs import T0, codec_of, reasons, rows

MS = T0 // 1000
TYPES = {"int_value": 3, "long_value": 4, "float_value": 9, "double_value": 10, "boolean_value": 11}


def payload(*metrics: dict[str, Any], seq: int | None = 0, timestamp: int | None = MS) -> bytes:
    """A payload; each metric by its fields."""
    made = Payload()
    if seq is not None:
        made.seq = seq
    if timestamp is not None:
        made.timestamp = timestamp
    for fields in metrics:
        metric = made.metrics.add()
        for name, value in fields.items():
            setattr(metric, name, value)
    return made.SerializeToString()


def metric(
    name: str = "", alias: int | None = None, datatype: int | None = None, **value: Any
) -> dict[str, Any]:
    fields: dict[str, Any] = {"name": name.encode()} if name else {}
    if alias is not None:
        fields["alias"] = alias
    if datatype is not None:
        fields["datatype"] = datatype
    return fields | value


def speaker(**settings: Any) -> Sparkplug:
    codec = codec_of("sparkplug", topics=["spBv1.0/g/#"], **settings)
    assert isinstance(codec, Sparkplug)
    return codec


def say(codec: Sparkplug, kind: str, raw: bytes, device: str = "") -> Parsed:
    return codec.parse("/".join(["spBv1.0", "g", kind, "n1", *([device] if device else [])]), raw)


def bd_seq(number: int) -> dict[str, Any]:
    return metric("bdSeq", datatype=8, long_value=number)


def born(codec: Sparkplug, number: int = 3) -> None:
    """Node n1 with device d1: aliases 1 (node), 2 and 3 (device)."""
    say(codec, "NBIRTH", payload(bd_seq(number), metric("load", 1, 10, double_value=0.5)))
    births = [metric("temp", 2, 9, float_value=21.3), metric("count", 3, 5, int_value=7)]
    parsed = say(codec, "DBIRTH", payload(*births, seq=1), "d1")
    assert rows(parsed) == [(("n1/d1", "temp"), T0, 21.3), (("n1/d1", "count"), T0, 7.0)]
    assert not parsed.asks


def test_aliases_come_from_the_birth_and_times_from_metric_or_payload() -> None:
    codec = speaker()
    born(codec)
    data = [metric(alias=2, float_value=0.1, timestamp=MS - 5), metric(alias=3, int_value=200)]
    parsed = say(codec, "DDATA", payload(*data, seq=2), "d1")
    assert rows(parsed) == [(("n1/d1", "temp"), T0 - 5000, 0.1), (("n1/d1", "count"), T0, 200.0)]
    assert rows(say(codec, "NDATA", payload(metric(alias=1, double_value=0.75), seq=3))) == [
        (("n1", "load"), T0, 0.75)
    ]
    assert codec.counts["seq_gaps"] == 0


def test_data_before_its_birth_asks_for_one_and_named_metrics_are_read_all_the_same() -> None:
    codec = speaker()
    parsed = say(
        codec, "NDATA", payload(metric(alias=1, int_value=1), metric("x", datatype=3, int_value=2), seq=9)
    )
    assert rows(parsed) == [(("n1", "x"), T0, 2.0)]
    assert reasons(parsed) == ["no_birth"]
    (ask,) = parsed.asks
    assert ask.topic == "spBv1.0/g/NCMD/n1"
    command = Payload.FromString(ask.payload)
    assert [(m.name, m.boolean_value) for m in command.metrics] == [(b"Node Control/Rebirth", True)]
    assert not say(speaker(sparkplug={"rebirth": False}), "NDATA", payload(seq=9)).asks


def test_sequence_numbers_go_round_and_a_gap_is_counted_and_asks() -> None:
    codec = speaker()
    born(codec)
    for seq in [*range(2, 256), 0, 1]:
        assert not say(codec, "NDATA", payload(metric(alias=1, double_value=1), seq=seq)).asks
    gap = say(codec, "NDATA", payload(metric(alias=1, double_value=1), seq=3))
    assert (len(gap), len(gap.asks), codec.counts["seq_gaps"]) == (1, 1, 1)
    assert not say(codec, "NDATA", payload(metric(alias=1, double_value=1), seq=4)).asks
    assert len(say(codec, "NDATA", payload(metric(alias=1, double_value=1), seq=None)).asks) == 1


def test_a_death_names_the_node_and_its_devices_and_one_of_an_earlier_birth_nobody() -> None:
    codec = speaker()
    born(codec, 3)
    assert say(codec, "NDEATH", payload(bd_seq(2), seq=None)).offline == []
    assert codec.counts["deaths_stale"] == 1
    dead = say(codec, "NDEATH", payload(bd_seq(3), seq=None))
    assert (dead.offline, dead.gateways) == (["n1", "n1/d1"], ["n1", "g/n1"])
    assert len(say(codec, "NDATA", payload(metric(alias=1, double_value=1), seq=2)).asks) == 1
    born(codec, 4)
    gone = say(codec, "DDEATH", payload(seq=2), "d1")
    assert (gone.offline, gone.gateways, gone.asks) == (["n1/d1"], [], [])
    assert reasons(say(codec, "DDATA", payload(metric(alias=2, float_value=1), seq=3), "d1")) == ["no_birth"]


def test_a_new_birth_forgets_the_aliases_of_the_one_before() -> None:
    codec = speaker()
    born(codec)
    say(codec, "NBIRTH", payload(bd_seq(4), metric("other", 2, 3, int_value=1)))
    assert rows(say(codec, "NDATA", payload(metric(alias=2, int_value=5), seq=1))) == [
        (("n1", "other"), T0, 5.0)
    ]
    assert reasons(say(codec, "NDATA", payload(metric(alias=1, int_value=5), seq=2))) == ["no_birth"]
    # An alias of another device is nobody's here.
    assert reasons(say(codec, "DDATA", payload(metric(alias=2, int_value=5), seq=3), "d1")) == ["no_birth"]


@pytest.mark.parametrize(
    ("datatype", "value", "means"),
    [
        (1, {"int_value": 0xFF}, -1.0),
        (1, {"int_value": 0xFFFF_FF80}, -128.0),
        (1, {"int_value": 127}, 127.0),
        (2, {"int_value": 0x8000}, -32768.0),
        (3, {"int_value": 0xFFFF_FFFE}, -2.0),
        (4, {"long_value": 2**64 - 5}, -5.0),
        (4, {"int_value": 5}, 5.0),
        (5, {"int_value": 255}, 255.0),
        (7, {"int_value": 2**32 - 1}, 4294967295.0),
        (7, {"long_value": 2**32 - 1}, 4294967295.0),
        (8, {"long_value": 2**64 - 1}, 1.8446744073709552e19),
        (9, {"float_value": 16777216.0}, 16777216.0),
        (9, {"float_value": 3.4028234663852886e38}, 3.4028234663852886e38),
        (10, {"double_value": 1 / 3}, 1 / 3),
        (11, {"boolean_value": True}, 1.0),
        (11, {"int_value": 0}, 0.0),
        (13, {"long_value": MS}, float(MS)),
    ],
)  # fmt: skip
def test_every_datatype_of_numbers(datatype: int, value: dict[str, Any], means: float) -> None:
    parsed = say(speaker(), "NBIRTH", payload(metric("x", datatype=datatype, **value)))
    assert rows(parsed) == [(("n1", "x"), T0, pytest.approx(means, rel=1e-7))]
    assert not parsed.refusals


@pytest.mark.parametrize(
    ("datatype", "value", "reason"),
    [
        (1, {"int_value": 300}, "wrong_type"),
        (5, {"int_value": 256}, "wrong_type"),
        (11, {"int_value": 2}, "wrong_type"),
        (99, {"int_value": 2}, "wrong_type"),
        (12, {"string_value": b"on"}, "wrong_type"),
        (16, {"dataset_value": b""}, "wrong_type"),
        (19, {"template_value": b""}, "wrong_type"),
        (24, {"bytes_value": b"\1\0\0\0"}, "wrong_type"),
        (3, {}, "no_value"),
        (3, {"int_value": 1, "timestamp": 2**60}, "bad_time"),
        (3, {"int_value": 1, "name": b"\xff"}, "bad_name"),
    ],
)
def test_one_metric_that_is_no_number_is_refused_and_the_others_stay(
    datatype: int, value: dict[str, Any], reason: str
) -> None:
    bad = metric("x", datatype=datatype) | value
    parsed = say(speaker(), "NBIRTH", payload(bad, metric("y", datatype=3, int_value=1)))
    assert reasons(parsed) == [reason]
    assert rows(parsed) == [(("n1", "y"), T0, 1.0)]


def test_null_historical_and_quality() -> None:
    raw = Payload.FromString(
        payload(metric("a", datatype=3, is_null=True), metric("b", datatype=3, int_value=1))
    )
    raw.metrics[1].is_historical = True
    raw.metrics[1].timestamp = MS - 60_000
    raw.metrics[1].properties.keys.append(b"Quality")
    raw.metrics[1].properties.values.add().int_value = 500
    codec = speaker()
    parsed = say(codec, "NBIRTH", raw.SerializeToString())
    assert math.isnan(parsed.values[0])
    assert (parsed.flags, parsed.times) == ([9, 3], [T0, T0 - 60_000_000])
    assert codec.counts["historical"] == 1


@pytest.mark.parametrize(
    ("topic", "raw", "reason"),
    [
        ("spBv1.0/g/NDATA/n1", b"\xff\xff", "bad_protobuf"),
        ("spBv1.0/g/NDATA/n1", Payload(uuid=b"SPBV1.0_COMPRESSED").SerializeToString(), "wrong_shape"),
        ("spAv1.0/g/NDATA/n1", b"", "bad_topic"),
        ("spBv1.0/g/NDATA/n1/d1", b"", "bad_topic"),
        ("spBv1.0/g/DDATA/n1", b"", "bad_topic"),
        ("spBv1.0/g/WHAT/n1", b"", "bad_topic"),
        ("spBv1.0/g/DDATA/n1/d1/x", b"", "bad_topic"),
        ("spBv1.0/g", b"", "bad_topic"),
    ],
)
def test_what_is_no_message_of_a_node_is_refused_whole(topic: str, raw: bytes, reason: str) -> None:
    with pytest.raises(Refused) as refused:
        speaker().parse(topic, raw)
    assert refused.value.reason == reason


def test_commands_and_states_of_hosts_say_nothing() -> None:
    for topic in ("spBv1.0/g/NCMD/n1", "spBv1.0/g/DCMD/n1/d1", "spBv1.0/STATE/host"):
        parsed = speaker().parse(topic, b"\xff")
        assert (len(parsed), parsed.refusals, parsed.asks) == (0, [], [])


def test_births_that_invent_names_are_not_remembered_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparkplug, "ALIASES_MAX", 20)
    monkeypatch.setattr(sparkplug, "DEVICES_MAX", 5)
    monkeypatch.setattr(sparkplug, "TOLD_MAX", 60)
    codec = speaker()
    say(codec, "NBIRTH", payload(bd_seq(1)))
    for number in range(200):
        names = [metric(f"m{number}-{n}", datatype=9, float_value=1.0) for n in range(3)]
        say(codec, "DBIRTH", payload(*names, seq=number + 1), f"d{number}")
        (node,) = codec._nodes.values()
        assert len(node.types) <= 20
        assert len(node.devices) <= 5
    for number in range(200):
        codec.parse(f"spBv1.0/g/NBIRTH/n{number}", payload(metric("a", 1, 9, float_value=1.0)))
        assert sum(len(node.types) for node in codec._nodes.values()) <= 61
    assert say(codec, "NBIRTH", payload(metric("a", 1, 9, float_value=1.0))).keys == [("n1", "a")]
