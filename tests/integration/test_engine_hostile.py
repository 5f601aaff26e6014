"""What a hostile or broken gateway can do to the running engine: nothing but to itself.

Every test sends good readings among the bad; all good ones must be stored, every bad message stand in
`quarantine` once, with its reason and its bytes, and the engine stay ready.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from ingest.credentials import hash_password
from ingest.decode.reasons import REASONS
from ingest.mqtt.codec import encode, frame
from ingest.mqtt.packets import Disconnect, Filter, Pingreq, Publish, Subscribe
from storage.records import RAW_BYTES_MAX
from tests.engines import EngineProcess, site_config, until
from tests.talk import Closed, Talker

SUITE = Path(__file__).resolve().parents[3] / "shared" / "data" / "json-suite"
CASES = sorted(SUITE.glob("*.json"))
PACKET_BYTES_MAX = 300_000
PAYLOAD_BYTES_MAX = 280_000
UNKNOWN_KEPT = 50
GATEWAYS = {
    "g0": [f"a{i}" for i in range(20)],
    "g1": [f"b{i}" for i in range(20)],
    "json": [f"case{i}" for i in range(318)],
}
OK, PAYLOAD, FORBIDDEN, NO_TOPIC, TOO_MUCH = 0x00, 0x83, 0x87, 0x90, 0x97
MALFORMED, PROTOCOL_ERROR, WILDCARD, TOO_LARGE = 0x81, 0x82, 0x90, 0x95


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """One engine with two gateways, each allowed its own topics, and one who may all."""
    folder = tmp_path_factory.mktemp("hostile")
    config = site_config(
        folder, GATEWAYS, listener='credentials_file = "credentials.toml"\nanonymous = false\nconnect_s_max = 3.0',
        source=f"message_bytes_max = {PAYLOAD_BYTES_MAX}\ndepth_max = 12\nreadings_per_message_max = 100",
        more=f"[wire]\nmessage_bytes_max = {PACKET_BYTES_MAX}\nunknown_kept_per_minute = {UNKNOWN_KEPT}",
    )  # fmt: skip
    allowed = {"g0": ["t/g0", "t/g0/#"], "g1": ["t/g1", "t/g1/#"], "all": ["#"]}
    (folder / "credentials.toml").write_text(
        "".join(
            f'[[credential]]\nname = "{name}"\npassword = "{hash_password(name)}"\n'
            f"publish = {json.dumps(filters)}\n"
            for name, filters in allowed.items()
        )
    )
    running = EngineProcess(folder, config).start()
    yield running
    assert running.get("/readyz") == 200
    assert running.vitals()["conservation_gap"] == 0
    assert running.stop() == 0
    assert "conservation broken" not in running.log.read_text()


def talker(engine: EngineProcess, name: str = "all", *, v5: bool = False) -> Talker:
    """A gateway with the credential ``name``."""
    return Talker(engine.port, v5=v5, user=name, password=name)


class Good:
    """Good readings of one point, a millisecond apart, and what must be stored of them."""

    def __init__(self, point: str, gateway: str = "g0") -> None:
        self.point = point
        self.topic = f"t/{gateway}/{point}"
        self._next = time.time_ns() // 1_000_000
        self.rows: list[tuple[int, float]] = []

    def payload(self, *, kept: bool = True) -> bytes:
        """The next one; ``kept`` False for one that must not be stored."""
        self._next += 1
        value = len(self.rows) + 0.5
        if kept:
            self.rows.append((self._next, value))
        return b'{"ts":%d,"v":%s}' % (self._next, str(value).encode())

    def all_stored(self, engine: EngineProcess) -> None:
        """Wait until exactly these stand in `readings`."""
        sql = f"SELECT epoch_ms(time), value FROM readings WHERE point_id = '{self.point}' ORDER BY 1"
        engine.until_lake(sql, sorted(self.rows))


def quarantined(engine: EngineProcess, where: str) -> Counter[tuple[str, str, bytes]]:
    """(topic, reason, raw) → how often it stands there."""
    rows = engine.lake(f"SELECT topic, reason, raw FROM quarantine WHERE {where}")
    return Counter((topic, reason, bytes(raw)) for topic, reason, raw in rows)


def stands_once(engine: EngineProcess, where: str, expected: Sequence[tuple[str, str, bytes]]) -> None:
    """Wait until ``quarantine`` holds exactly ``expected``, each once."""
    until(
        lambda: sum(quarantined(engine, where).values()) >= len(expected),
        f"{len(expected)} refusals {where}",
        120,
    )
    assert quarantined(engine, where) == Counter(expected)


@pytest.mark.shared
@pytest.mark.skipif(len(CASES) != 318, reason=f"SKIPPED: no JSON suite at ../shared/data/{SUITE.name}")
@pytest.mark.parametrize("v5", [False, True], ids=["3.1.1", "5"])
def test_318_json_cases_are_told_apart_among_good_readings(engine: EngineProcess, v5: bool) -> None:
    """y_ is never bad_json, n_ always, i_ either; every case is acknowledged and kept with its bytes."""
    good = Good("a10" if v5 else "a11")
    messages = []
    for number, case in enumerate(CASES):
        messages += [(f"t/json/case{number}", case.read_bytes()), (good.topic, good.payload())]
    with talker(engine, v5=v5) as gateway:
        client = gateway.client_id
        codes = gateway.say_all(messages)
    good.all_stored(engine)
    assert set(codes[1::2]) == {OK}
    # Nothing in the suite is a reading, so every case is refused for something; two of them name an "id".
    assert set(codes[0::2]) == ({PAYLOAD, FORBIDDEN} if v5 else {OK})
    own = f"client = '{client}'"
    until(
        lambda: engine.lake(f"SELECT count(DISTINCT topic) FROM quarantine WHERE {own}") == [(318,)],
        "all refused",
        120,
    )
    found: dict[str, list[tuple[str, bytes]]] = {}
    for topic, reason, kept in engine.lake(
        f"SELECT topic, reason, raw FROM quarantine WHERE {own} ORDER BY id"
    ):
        found.setdefault(topic, []).append((reason, bytes(kept)))
    wrong = []
    for number, case in enumerate(CASES):
        refusals, raw = found[f"t/json/case{number}"], case.read_bytes()
        reasons = {reason for reason, _ in refusals}
        if case.name[0] == "n" and reasons != {"bad_json"}:
            wrong.append((case.name, reasons))
        if case.name[0] == "y" and "bad_json" in reasons:
            wrong.append((case.name, reasons))
        elements = json.loads(raw) if case.name[0] == "y" else None
        if isinstance(elements, list) and len(elements) > 1:
            # An array is a message of several readings, each refused with its own bytes.
            assert [json.loads(kept) for _, kept in refusals] == elements, case.name
        elif len(refusals) == 1:
            assert refusals[0][1] == raw[:RAW_BYTES_MAX], case.name
    assert wrong == []


@pytest.mark.parametrize("v5", [False, True], ids=["3.1.1", "5"])
def test_a_good_stream_split_at_every_byte_is_stored_whole(engine: EngineProcess, v5: bool) -> None:
    """Two PUBLISHes cut in two at each byte, a connection for each cut; the second half leaves only after the
    engine has read the first."""
    good = Good("a0" if v5 else "a1")
    cuts: list[tuple[Talker, bytes, list[int]]] = []
    at = 0
    while not cuts or at < len(cuts[0][1]):
        gateway = talker(engine, v5=v5)
        stream = b"".join(gateway.publish_bytes(good.topic, good.payload(), pid=pid) for pid in (7, 8))
        cuts.append((gateway, stream, [at]))
        at += 1
    before = engine.vitals()["bytes_in"]
    for gateway, stream, (cut,) in cuts:
        if cut:
            gateway.send(stream[:cut])
    sent = sum(cut for _, _, (cut,) in cuts)
    until(lambda: engine.vitals()["bytes_in"] >= before + sent, "first halves read")
    for gateway, stream, (cut,) in cuts:
        gateway.send(stream[cut:])
    for gateway, _, _ in cuts:
        assert gateway.hear([7, 8]) == [OK, OK]
        gateway.close()
    good.all_stored(engine)


@pytest.mark.parametrize("v5", [False, True], ids=["3.1.1", "5"])
def test_a_connection_that_sends_byte_by_byte_is_understood(engine: EngineProcess, v5: bool) -> None:
    """From CONNECT on, each byte its own packet on the network (TCP_NODELAY)."""
    good = Good("a2" if v5 else "a3")
    with Talker(engine.port, v5=v5, user="g0", password="g0", connect=False) as gateway:
        stream = gateway.connect_bytes()
        stream += b"".join(gateway.publish_bytes(good.topic, good.payload(), pid=pid) for pid in range(1, 6))
        for byte in stream:
            gateway.send(bytes([byte]))
        gateway.hear_connack()
        assert gateway.hear(range(1, 6)) == [OK] * 5
    good.all_stored(engine)


def malformed(v5: bool) -> dict[str, bytes]:
    """Packets no peer may send behind a CONNECT, by what is wrong with them."""
    properties = b"\x00" if v5 else b""
    bad = {
        "QoS 3": frame(0x36, b"\x00\x01a\x00\x01" + properties),
        "DUP at QoS 0": frame(0x38, b"\x00\x01a" + properties),
        "empty topic": frame(0x30, b"\x00\x00" + properties),
        "wildcard in the topic": frame(0x30, b"\x00\x03a/#" + properties),
        "NUL in the topic": frame(0x30, b"\x00\x03a\x00b" + properties),
        "topic not UTF-8": frame(0x30, b"\x00\x02\xc3\x28" + properties),
        "surrogate in the topic": frame(0x30, b"\x00\x03\xed\xa0\x80" + properties),
        "topic longer than the packet": frame(0x30, b"\x00\x09a" + properties),
        "packet id 0": frame(0x32, b"\x00\x01a\x00\x00" + properties),
        "length of five bytes": b"\x30\xff\xff\xff\xff\x01",
        "packet type 0": b"\x00\x00",
        "CONNACK from a client": frame(0x20, b"\x00\x00" + properties),
        "PINGREQ with a body": b"\xc0\x01\x00",
        "PINGREQ with flags": b"\xc1\x00",
        "SUBSCRIBE with no filter": frame(0x82, b"\x00\x01" + properties),
        "second CONNECT": frame(0x10, b"\x00\x04MQTT\x04\x02\x00\x3c\x00\x01x"),
        "PUBREL with wrong flags": frame(0x60, b"\x00\x01"),
        "PINGRESP from a client": b"\xd0\x00",
    }
    if v5:
        bad |= {
            "a topic alias, none was offered": frame(0x30, b"\x00\x01a\x03\x23\x00\x01"),
            "unknown property": frame(0x30, b"\x00\x01a\x02\x7f\x00"),
            "property that stands twice": frame(0x30, b"\x00\x01a\x04\x01\x00\x01\x00"),
            "properties longer than the packet": frame(0x30, b"\x00\x01a\x7f"),
            "AUTH without a method": b"\xf0\x00",
        }
    else:
        bad["AUTH in 3.1.1"] = b"\xf0\x00"
    return bad


@pytest.mark.parametrize("v5", [False, True], ids=["3.1.1", "5"])
def test_a_malformed_packet_closes_its_own_connection_and_nothing_before_it_is_lost(
    engine: EngineProcess, v5: bool
) -> None:
    """Good readings before it are stored, those behind it are not; a neighbour notices nothing."""
    good, neighbours = Good("a4" if v5 else "a5"), Good("b4" if v5 else "b5", "g1")
    with talker(engine, "g1", v5=v5) as neighbour:
        for what, raw in malformed(v5).items():
            with talker(engine, "g0", v5=v5) as gateway:
                first = gateway.publish_bytes(good.topic, good.payload(), pid=1)
                second = gateway.publish_bytes(good.topic, good.payload(), pid=2)
                behind = gateway.publish_bytes(good.topic, good.payload(kept=False), pid=3)
                gateway.send(first)
                assert gateway.hear([1]) == [OK]
                gateway.send(second + raw + behind)
                gateway.hear_end()
                assert 3 not in gateway.acks, what
                if v5:
                    assert gateway.goodbye is not None, what
                    assert gateway.goodbye.code >= 0x80, what
            assert neighbour.say(neighbours.topic, neighbours.payload()) == OK
    good.all_stored(engine)
    neighbours.all_stored(engine)
    assert engine.get("/readyz") == 200


def test_noise_on_the_port_ends_only_itself(engine: EngineProcess) -> None:
    """HTTP, TLS, zeros, a PUBLISH before CONNECT, silence and hanging up: each closed, a gateway goes on."""
    good = Good("a6")
    noises = (
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xaa" * 64,
        b"\x00" * 1000,
        b"\xff" * 1000,
        encode(Publish("t/g0/a6", b"1"), False),
        encode(Pingreq(), False),
        frame(0x10, b"\x00\x04MQTT\x09\x02\x00\x3c\x00\x00\x01x"),
    )
    with talker(engine, "g0") as gateway:
        for noise in noises:
            # What can be answered at all (a version nobody knows) is answered as MQTT 5.
            with Talker(engine.port, v5=True, connect=False) as stranger:
                stranger.send(noise)
                with pytest.raises((Closed, ConnectionError)):
                    stranger.hear_connack()
            Talker(engine.port, connect=False).close()
            assert gateway.say(good.topic, good.payload()) == OK
        with pytest.raises((ConnectionRefusedError, Closed)):
            Talker(engine.port, user="g0", password="wrong")
        with pytest.raises((ConnectionRefusedError, Closed)):
            Talker(engine.port)
        gateway.send(encode(Subscribe(9, [Filter("#", 1)]), False))
        gateway.ping()
        assert gateway.say(good.topic, good.payload()) == OK
        gateway.send(encode(Disconnect(), False))
    good.all_stored(engine)


@pytest.mark.parametrize("v5", [False, True], ids=["3.1.1", "5"])
def test_two_gateways_that_write_each_others_points_store_only_their_own(
    engine: EngineProcess, v5: bool
) -> None:
    """On the other's topics: not_allowed. The other's points in one's own array, or another id on a point's
    topic: identity_mismatch. 5 is told 0x87 in the PUBACK; 3.1.1 cannot be told."""
    n = 7 if v5 else 8
    ours, theirs = Good(f"a{n}", "g0"), Good(f"b{n}", "g1")
    now = time.time_ns() // 1_000_000
    expected, clients = [], []
    for name, good, other, others_gateway in (("g0", ours, theirs, "g1"), ("g1", theirs, ours, "g0")):
        foreign = {"id": other.point, "ts": now, "v": 666.0}
        own = {"id": good.point, "ts": now - 1000, "v": 1.0}
        plain = b'{"ts":%d,"v":666.0}' % now
        named = json.dumps(foreign).encode()
        array = json.dumps([own, foreign], separators=(",", ":")).encode()
        messages = [
            (good.topic, good.payload()),
            (other.topic, plain),
            (f"t/{others_gateway}", json.dumps([foreign]).encode()),
            (good.topic, good.payload()),
            (good.topic, named),
            (f"t/{name}", array),
            (good.topic, good.payload()),
        ]
        good.rows.append((now - 1000, 1.0))
        with talker(engine, name, v5=v5) as gateway:
            clients.append(gateway.client_id)
            codes = gateway.say_all(messages)
        assert codes == ([OK, FORBIDDEN, FORBIDDEN, OK, FORBIDDEN, FORBIDDEN, OK] if v5 else [OK] * 7)
        expected += [
            (messages[1][0], "not_allowed", messages[1][1]),
            (messages[2][0], "not_allowed", messages[2][1]),
            (good.topic, "identity_mismatch", named),
            (f"t/{name}", "identity_mismatch", json.dumps(foreign, separators=(",", ":")).encode()),
        ]
    ours.all_stored(engine)
    theirs.all_stored(engine)
    stands_once(engine, f"client IN ('{clients[0]}', '{clients[1]}')", expected)
    sources = engine.lake(f"SELECT DISTINCT source FROM quarantine WHERE client = '{clients[0]}'")
    assert sources == [("site",)]


def bad_payloads(now: int) -> list[tuple[str, bytes, str]]:
    """(topic, payload, reason) of one bad message for each reason a payload can be refused for."""
    topic, value = "t/g0/a12", b'{"ts":%d,"v":%%s}' % now
    return [
        (topic, value % b"NaN", "bad_json"),
        (topic, value % b"Infinity", "bad_json"),
        (topic, value % b"-Infinity", "bad_json"),
        (topic, value % b"1e999", "not_finite"),
        (topic, value % b"-1e999", "not_finite"),
        (topic, b'{"ts":%d,"v":1,"x":' % now + b"[" * 20 + b"]" * 20 + b"}", "too_deep"),
        (topic, b"[" * 5000, "bad_json"),
        (topic, b"", "bad_json"),
        (topic, b"\xff\xfe", "bad_json"),
        (topic, b'"text"', "wrong_shape"),
        (topic, b"{}", "no_time"),
        (topic, b'{"ts":%d}' % now, "no_value"),
        (topic, value % b'"1.5"', "wrong_type"),
        (topic, value % b"true", "wrong_type"),
        (topic, b'{"ts":"noon","v":1.0}', "bad_time"),
        (topic, b'{"ts":1e999,"v":1.0}', "not_finite"),
        (topic, b'{"ts":0,"v":1.0}', "time_window"),
        (topic, b'{"ts":%d,"v":1.0}' % (now + 3_600_000), "time_window"),
        (topic, b"4.5", "no_time"),
        ("t/g0", b'[{"ts":%d,"v":1.0}]' % now, "no_id"),
        ("t/g0", b'[{"id":"ghost","ts":%d,"v":1.0}]' % now, "unknown_point"),
        ("t/g0", b"[%s]" % b",".join([b"1"] * 101), "too_many_readings"),
        ("t/ghost", b"1", "unknown_topic"),
        (topic, b'{"ts":%d,"v":1.0,"x":"%s"}' % (now, b"x" * PAYLOAD_BYTES_MAX), "oversized"),
    ]


def test_each_reason_is_told_in_the_puback_and_stands_once_with_its_bytes(engine: EngineProcess) -> None:
    """24 bad payloads among good ones: MQTT 5 hears 0x83, 0x90 or 0x97; the raw bytes are those sent."""
    good = Good("a12")
    bad = bad_payloads(time.time_ns() // 1_000_000)
    messages = []
    for topic, raw, _ in bad:
        messages += [(topic, raw), (good.topic, good.payload())]
    with talker(engine, v5=True) as gateway:
        client = gateway.client_id
        codes = gateway.say_all(messages)
    assert codes[1::2] == [OK] * len(bad)
    assert [(reason, hex(code)) for (_, _, reason), code in zip(bad, codes[0::2], strict=True)] == [
        (reason, hex(REASONS[reason].code)) for _, _, reason in bad
    ]
    assert {PAYLOAD, NO_TOPIC, TOO_MUCH} == set(codes[0::2])
    good.all_stored(engine)
    stands_once(
        engine, f"client = '{client}'", [(topic, reason, raw[:RAW_BYTES_MAX]) for topic, raw, reason in bad]
    )


def test_an_oversized_packet_is_acknowledged_to_3_1_1_and_ends_a_5_connection(engine: EngineProcess) -> None:
    """Its beginning is quarantined. 3.1.1 goes on behind it; 5, which was told the limit, hears 0x95 and may
    come again."""
    good = Good("a13")
    large = b'{"ts":1,"x":"' + b"y" * PACKET_BYTES_MAX + b'"}'
    with talker(engine) as gateway:
        clients = [gateway.client_id]
        assert (
            gateway.say_all([(good.topic, good.payload()), (good.topic, large), (good.topic, good.payload())])
            == [OK] * 3
        )
    with talker(engine, v5=True) as gateway:
        clients.append(gateway.client_id)
        assert gateway.say(good.topic, good.payload()) == OK
        pid = gateway.next_pid()
        try:
            gateway.send(gateway.publish_bytes(good.topic, large, pid=pid))
        except ConnectionError:
            pass  # It hung up before it had heard all: that is what is claimed.
        gateway.hear_end()
        assert pid not in gateway.acks
        assert gateway.goodbye is None or gateway.goodbye.code == TOO_LARGE
    with talker(engine, v5=True) as gateway:
        assert gateway.say(good.topic, good.payload()) == OK
    good.all_stored(engine)
    until(lambda: sum(quarantined(engine, f"client IN {tuple(clients)}").values()) >= 2, "both kept")
    kept = quarantined(engine, f"client IN {tuple(clients)}")
    assert [(t, r, n) for (t, r, _), n in kept.items()] == [(good.topic, "oversized", 2)]
    assert all(len(raw) > 1000 and large.startswith(raw) for _, _, raw in kept)


def test_a_scan_of_topics_is_counted_but_cannot_fill_the_disk(engine: EngineProcess) -> None:
    """300 invented topics, 300 invented points: a bounded number of each is kept a minute, all are counted."""
    good = Good("a14")
    before = engine.vitals()
    now = time.time_ns() // 1_000_000
    messages = []
    for n in range(300):
        messages += [(f"scan/{n}", b"1"), ("t/g0", b'[{"id":"scan%d","ts":%d,"v":1}]' % (n, now))]
        messages += [(good.topic, good.payload())] if n % 10 == 0 else []
    with talker(engine, v5=True) as gateway:
        client = gateway.client_id
        codes = Counter(gateway.say_all(messages))
    assert codes == {NO_TOPIC: 600, OK: 30}
    good.all_stored(engine)
    after = engine.counted(before["received"] + 630)
    not_kept = after["quarantined_not_kept"] - before.get("quarantined_not_kept", 0)
    mine = f"FROM quarantine WHERE client = '{client}'"
    engine.until_lake(f"SELECT count(*) {mine}", [(600 - not_kept,)])
    kept = engine.lake(f"SELECT reason, count(*) {mine} GROUP BY 1 ORDER BY 1")
    assert [reason for reason, _ in kept] == ["unknown_point", "unknown_topic"]
    # A minute that ends in the middle allows the bound once more.
    assert all(n <= 2 * UNKNOWN_KEPT for _, n in kept)
    assert after["quarantined"] - before["quarantined"] == 600


def test_every_refusal_of_this_module_stands_once_also_after_a_kill(engine: EngineProcess) -> None:
    """The journal is read again after a kill -9; what was in quarantine before is not written twice."""
    vitals = engine.vitals()
    count = vitals["quarantined"] - vitals["quarantined_not_kept"]
    # Most come of the JSON cases, which lie beside the checkout or nowhere.
    assert count > (600 if SUITE.exists() else 100)
    engine.until_lake("SELECT count(*), count(DISTINCT id) FROM quarantine", [(count, count)])
    rows = "SELECT count(*), count(DISTINCT id), sum(hash(id, topic, reason, raw, client)) FROM quarantine"
    before = engine.lake(rows)
    engine.kill()
    engine.start()
    with talker(engine) as gateway:
        gateway.say("after/the/kill", b"1")
    # Once a new refusal is seen, the old ones have been written again if they ever are.
    engine.until_lake("SELECT count(*) FROM quarantine", [(count + 1,)])
    assert engine.lake(f"{rows} WHERE topic <> 'after/the/kill'") == before
