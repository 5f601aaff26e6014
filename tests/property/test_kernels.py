"""Kernels and plain Python say the same of 20,000 generated and mutated messages; and without numba all goes on.

The seed is printed; scripts/fuzz kernels goes on for a million and more.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from random import SystemRandom
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("numba")

from ingest import sourcestats
from ingest.decode.messages import Messages
from ingest.kernels.scan import DONE, ODD, STOP
from ingest.mqtt.arena import Arena
from ingest.mqtt.codec import encode
from ingest.mqtt.packets import Publish
from ingest.mqtt.properties import Prop, Properties
from ingest.routes import Routes
from storage.batch import RawBatch
from tests.fuzz_kernels import NOW, Decoders, fuzz_decode, fuzz_scan, number_cases
from tests.fuzz_mapped import mapped_cases, routes_of_mapped
from tests.fuzz_packs import pack_cases, routes_of_packs

SUITE = Path(__file__).resolve().parents[3] / "shared" / "data" / "json-suite"


@pytest.fixture(scope="module")
def decoders() -> Decoders:
    return Decoders()


def test_16000_messages_become_the_same_rows_and_the_same_refusals(decoders: Decoders) -> None:
    seed = SystemRandom().randrange(1 << 30)
    print(f"seed {seed}")
    told = fuzz_decode(seed, 16_000, decoders)
    # Not a comparison of nothing with nothing: many messages are readings, and of those the kernel takes its part.
    assert told.readable > 4_000
    assert told.taken > told.readable // 3


def test_4000_numbers_are_the_same_to_the_last_bit(decoders: Decoders) -> None:
    seed = SystemRandom().randrange(1 << 30)
    print(f"seed {seed}")
    told = fuzz_decode(seed, 4_000, decoders, number_cases)
    assert told.taken > 3 * told.readable // 4 > 2_000


@pytest.fixture(scope="module")
def packs() -> Decoders:
    return Decoders(routes_of_packs())


def test_4000_packs_become_the_same_rows_and_the_same_refusals(packs: Decoders) -> None:
    seed = SystemRandom().randrange(1 << 30)
    print(f"seed {seed}")
    told = fuzz_decode(seed, 4_000, packs, pack_cases)
    assert told.readable > 2_000
    assert told.taken > told.readable // 5


@pytest.fixture(scope="module")
def mapped() -> Decoders:
    return Decoders(routes_of_mapped())


def test_4000_bodies_of_mapped_sources_become_the_same_rows_and_the_same_refusals(mapped: Decoders) -> None:
    seed = SystemRandom().randrange(1 << 30)
    print(f"seed {seed}")
    told = fuzz_decode(seed, 4_000, mapped, mapped_cases)
    assert told.readable > 4_000
    assert told.taken > told.readable // 2


HEAD = b'{"bn":"d1:","bt":1789999990,"n":"x","v":1.5}'
ATTACKS = {
    "the same name and time twice": b"[%s,%s]" % (HEAD, HEAD),
    "a label twice": b'[{"bn":"d1:","bt":1789999990,"n":"x","v":1,"v":2}]',
    "a base name and no name": b'[{"bn":"d1:x","bt":1789999990,"v":1}]',
    "a base name and an empty one": b'[{"bn":"d1:x","bt":1789999990,"n":"","v":1}]',
    "no name at all": b'[{"bt":1789999990,"v":1}]',
    "a huge exponent": b'[%s,{"n":"w","v":1e308},{"n":"x","v":1e309}]' % HEAD,
    "an exponent of many digits": b'[%s,{"n":"x","v":1e99999999999999999999}]' % HEAD,
    "NaN": b'[%s,{"n":"x","v":NaN}]' % HEAD,
    "infinity": b'[%s,{"n":"x","v":-Infinity}]' % HEAD,
    "zero with a sign": b'[%s,{"n":"x","v":-0.0},{"n":"w","v":-0}]' % HEAD,
    "a label in escapes": b'[%s,{"\\u006e":"x","v":1}]' % HEAD,
    "a name in escapes": b'[%s,{"n":"\\u0078","v":1}]' % HEAD,
    "half a character": b'[%s,{"n":"x\xe9\x9b","v":1}]' % HEAD,
    "a lone surrogate": b'[%s,{"u":"\xed\xa0\x80","n":"x","v":1}]' % HEAD,
    "a text, which is no number": b'[%s,{"n":"x","vs":"1"}]' % HEAD,
    "two values": b'[%s,{"n":"x","v":1,"vb":true}]' % HEAD,
    "a sum": b'[%s,{"n":"x","s":1}]' % HEAD,
    "a base value for all behind it": b'[%s,{"bv":5,"n":"x","v":1},{"n":"w","v":1}]' % HEAD,
    "what must be understood": b'[%s,{"n":"x","v":1,"x_":1}]' % HEAD,
    "a version of tomorrow": b'[{"bver":11,"bn":"d1:","bt":1789999990,"n":"x","v":1}]',
    "nested a thousand deep": b"[%s,%s%s]" % (HEAD, b'{"n":' * 1000 + b"1" + b"}" * 1000, b""),
    "brackets that never close": b"[" * 100_000,
    "a comma too many": b"[%s,]" % HEAD,
    "a pack and more behind it": b"[%s] [%s]" % (HEAD, HEAD),
    "nothing": b"",
    "an empty pack": b"[]",
    "empty records": b"[{},{}]",
    "base fields only": b'[{"bn":"d1:","bt":1789999990}]',
    "base fields of all kinds": b'[{"bn":"d1:"},{"bt":1789999990},%s,{"bn":"d2:"},{"n":"x","v":3}]' % HEAD,
    "a time as text": b'[{"bn":"d1:","bt":"1789999990","n":"x","v":1}]',
    "a time beyond any calendar": b'[{"bn":"d1:","bt":1e18,"n":"x","v":1}]',
    "a time of a thousand digits": b'[{"bn":"d1:","bt":%s,"n":"x","v":1}]' % (b"1" * 1000),
    "relative to now, and at the border": b'[{"bn":"d1:","n":"x","v":1,"t":-5},{"n":"x","t":268435455.5,"v":2}]',
    "a megabyte": b"[%s]" % b",".join([HEAD] * 22_000),
    "ten thousand and one records": b"[%s]" % b",".join([HEAD] * 10_001),
    "ten thousand records": b"[%s]" % b",".join([HEAD] * 10_000),
    "a megabyte of one name": b'[{"bn":"%s","n":"x","v":1}]' % (b"d" * 1_000_000),
}


def test_each_attack_is_readings_or_quarantine_once_as_the_codec_says_and_again_when_its_names_are_known(
    packs: Decoders,
) -> None:
    for topic in ("plain/d1/up", "topic/d1/up"):
        packs.check([(topic, b"[%s]" % HEAD, 0x32)])
        for payload in ATTACKS.values():
            for _ in range(2):
                packs.check([(topic, payload, 0x32)])


BODY = b'{"dev":"d1","ts":1790000000000,"metrics":{"x":1.5}}'
BODIES = {
    "an entry twice": b'{"dev":"d1","ts":1790000000000,"metrics":{"x":1,"x":2}}',
    "an object of entries twice": b'{"dev":"d1","ts":1790000000000,"metrics":{"x":1},"metrics":{"x":2}}',
    "the same in two bodies": b"[%s,%s]" % (BODY, BODY),
    "entries before what they are of": b'{"metrics":{"x":1},"ts":1790000000000,"dev":"d1"}',
    "no device": b'{"ts":1790000000000,"metrics":{"x":1}}',
    "no time": b'{"dev":"d1","metrics":{"x":1}}',
    "no entries": b'{"dev":"d1","ts":1790000000000}',
    "an empty object of entries": b'{"dev":"d1","ts":1790000000000,"metrics":{}}',
    "an entry that is an object": b'{"dev":"d1","ts":1790000000000,"metrics":{"x":{"v":1}}}',
    "an array for an object": b'{"dev":"d1","ts":1790000000000,"metrics":[1]}',
    "a key in escapes": b'{"dev":"d1","ts":1790000000000,"metrics":{"\\u0078":1,"x":2}}',
    "text in escapes beside": b'{"dev":"d1","name":"\\u7ad9","ts":1790000000000,"metrics":{"x":2}}',
    "a device in quotes and as number": b'[{"dev":"7","ts":1790000000000,"metrics":{"x":2}},{"dev":7,"metrics":{}}]',
    "a whole number no double is": b'{"dev":"d1","ts":1790000000000,"metrics":{"x":9007199254740993}}',
    "zero with a sign": b'{"dev":"d1","ts":1790000000000,"metrics":{"x":-0.0}}',
    "nested beside, ten thousand deep": b'{"dev":"d1","a":%s,"ts":1790000000000,"metrics":{"x":2}}'
    % (b"[" * 10_000 + b"]" * 10_000),
    "nested beside, to the limit": b'{"dev":"d1","a":%s,"ts":1790000000000,"metrics":{"x":2}}'
    % (b"[" * 15 + b"]" * 15),
    "nested beside, one beyond": b'{"dev":"d1","a":%s,"ts":1790000000000,"metrics":{"x":2}}'
    % (b"[" * 16 + b"]" * 16),
    "brackets that never close": b'{"dev":' * 50_000,
    "a bracket of the other kind": b'{"dev":"d1","ts":1790000000000,"metrics":{"x":1]}',
    "a megabyte": b"[%s]" % b",".join([BODY] * 19_000),
    "a device of a megabyte": b'{"dev":"%s","ts":1790000000000,"metrics":{"x":1}}' % (b"d" * 1_000_000),
    "a bare number": b"1.5",
    "nothing": b"",
}


def test_each_attack_on_a_mapping_is_readings_or_quarantine_once_as_the_codec_says(mapped: Decoders) -> None:
    for topic in ("metrics/d1/up", "units/d1/up"):
        mapped.check([(topic, BODY, 0x32)])
        for payload in BODIES.values():
            for _ in range(2):
                mapped.check([(topic, payload, 0x32)])
    deep = (
        b'{"head":{"at":1790000000000000000,"who":{"dev":"d1"}},"x":["\xe9\x9b\xa8",{"a":null}],'
        b'"data":{"items":[{"code":"x","val":{"num":1.25},"st":"odd"},{"st":null,"val":{"num":null},"code":"y.z"}]}}'
    )
    assert mapped.check([("deep/d1/up", deep, 0x32)] * 2).readable == 4
    assert mapped.check([("deep/d1/up", deep, 0x32)]).taken == 2
    mapped.check([("deep/d1/up", deep[:size], 0x32) for size in range(len(deep) + 1)])


def test_a_pack_cut_anywhere_is_refused_as_by_the_codec(packs: Decoders) -> None:
    pack = b' [ {"bn":"d1:","bt":1789999990.25,"bver":10, "n":"x","u":"m","v":-1.5e1} ,{"n":"w","t":-1,"vb":true}]'
    told = packs.check([("plain/d1/up", pack, 0x32)] * 2)
    assert told.readable == 4
    assert packs.check([("plain/d1/up", pack, 0x32)]).taken == 2
    packs.check([("plain/d1/up", pack[:size], 0x32) for size in range(len(pack) + 1)])


def _poll(
    messages: Messages, routes: Routes, topic: str, payload: bytes, who: str | None = None
) -> tuple[int, Any]:
    """One message, of which only "friend" and nobody may say anything: rows by kernel, and values or reasons."""
    arena: Arena[Any] = Arena(4096)
    frame = encode(Publish(topic, payload, 1, pid=1), False)
    arena.view[: len(frame)] = frame
    arena.segment(SimpleNamespace(client_id="c", credential=who, from_publisher=True), len(frame), False)
    arena.scan(4096)
    refused = messages.feed_arena(arena, lambda name: routes.table(name, lambda one, _: one == "friend"), NOW)
    by_kernel = messages._columns.filled
    return by_kernel, list(refused.values()) or messages.take(NOW)[0].value.tolist()


def test_what_one_credential_may_say_is_not_learned_for_another() -> None:
    """Kernels learn topics from who may use them; whoever may not is refused however often the others spoke."""
    routes = routes_of_packs()
    messages = Messages(routes, 1 << 30)
    messages.set_window(NOW)
    for by_kernel in (0, 1, 1):
        assert _poll(messages, routes, "plain/d1/up", b"[%s]" % HEAD, "friend") == (by_kernel, [1.5])
        assert _poll(messages, routes, "plain/d1/up", b"[%s]" % HEAD, "stranger") == (0, ["not_allowed"])


def test_a_reload_is_heard_of_by_the_kernels_too_and_too_many_topics_are_learned_anew() -> None:
    """What was learned under the old units is forgotten with them."""
    messages = Messages(routes_of_packs(), 1 << 30)
    pack = b'[{"n":"urn:dev:d1:x","t":1789999990,"v":1.5}]'
    for factor in (0.1, 0.5):
        messages.adopt(routes := routes_of_packs({"x": {"factor": factor}}))
        messages.set_window(NOW)
        found = [_poll(messages, routes, "units/up", pack) for _ in range(3)]
        assert found == [(0, [1.5 * factor]), (1, [1.5 * factor]), (1, [1.5 * factor])]
    assert messages._short is not None
    messages._short.packs._topics_max = 1
    topics = ("plain/d1/up", "plain/d2/up") * 3
    assert [_poll(messages, routes, topic, b"[%s]" % HEAD) for topic in topics] == [(0, [0.75])] * 6
    assert [_poll(messages, routes, topics[-1], b"[%s]" % HEAD) for _ in range(2)] == [(1, [0.75])] * 2


def test_mqtt_5_properties_are_passed_over_but_not_a_topic_alias() -> None:
    """A publisher that says how long a message lives costs no more than one that does not."""
    properties: list[Properties] = [
        {},
        {Prop.PAYLOAD_FORMAT: 1},
        {Prop.MESSAGE_EXPIRY: 60, Prop.CONTENT_TYPE: "application/senml+json", Prop.RESPONSE_TOPIC: "答/复"},
        {Prop.CORRELATION_DATA: b"\0\xff", Prop.SUBSCRIPTION_ID: [1, 268_435_455]},
        {Prop.USER_PROPERTY: [("站", "x" * 200), ("站", "")]},
    ]
    arena: Arena[Any] = Arena(1 << 16)
    stream = b"".join(
        encode(Publish("a/b", b"%d" % n, 0, properties=p), True) for n, p in enumerate(properties)
    )
    alias = encode(Publish("a/b", b"9", 0, properties={Prop.TOPIC_ALIAS: 1}), True)
    arena.view[: len(stream + alias)] = stream + alias
    arena.segment(None, len(stream + alias), True)
    arena.scan(1 << 16)
    assert [arena.payload(m) for m in range(arena.count)] == [b"%d" % n for n in range(len(properties))]
    assert int(arena.segments[0, DONE]) == len(stream)
    assert int(arena.segments[0, STOP]) == ODD


def test_2000_streams_are_the_same_frames_wherever_the_kernel_stops() -> None:
    seed = SystemRandom().randrange(1 << 30)
    print(f"seed {seed}")
    told = fuzz_scan(seed, 2_000)
    assert told.readable > 2_000


@pytest.mark.shared
@pytest.mark.skipif(not SUITE.exists(), reason="the JSON suite is not here")
def test_the_json_suite_is_told_apart_as_by_the_general_decoder(decoders: Decoders) -> None:
    wholes = [path.read_bytes() for path in sorted(SUITE.glob("*.json"))]
    assert len(wholes) > 300
    in_place = [b'{"ts":1790000000000,"v":%s}' % whole for whole in wholes]
    beside = [b'{"ts":1790000000000,"v":1,"x":%s}' % whole for whole in wholes]
    named = [b'{"ts":1790000000000,"v":1,%s:2}' % whole for whole in wholes]
    for payloads in (wholes, in_place, beside, named):
        decoders.check([("cd/g0/p0", payload, 0x32) for payload in payloads])


def test_every_beginning_of_a_message_is_refused_as_by_the_general_decoder(decoders: Decoders) -> None:
    for payload in (
        b'{"ts":1790000000000,"v":-12.5e-1,"q":3,"id":"p0","x":"\xe9\x9b\xa8","y":null}',
        b' [ {"ts":"2026-09-21T14:13:20.125+08:00","v":1} , {"v":2,"ts":1790000000001} ] ',
        b"-12.5e+1 ",
    ):
        decoders.check([("cd/g0/p0", payload[:size], 0x32) for size in range(len(payload) + 1)])


def test_lateness_by_source_is_added_up_as_columns_do(monkeypatch: pytest.MonkeyPatch) -> None:
    seed = SystemRandom().randrange(1 << 30)
    print(f"seed {seed}")
    rng = np.random.default_rng(seed)
    for n in (1, 2, 100, 5_000):
        point = rng.integers(0, 50, n).astype(np.int32)
        time, late = rng.integers(-(10**15), 10**15, n), rng.integers(-(10**9), 10**9, n)
        rows = RawBatch(point, time, time + late, np.zeros(n), np.zeros(n, np.uint8))
        for column in (rows.point, rows.received_at):
            column.setflags(write=False)
        source = rng.integers(0, 4, 50).astype(np.int32)
        said = []
        for compiled in (True, False):
            monkeypatch.setattr(sourcestats, "IS_COMPILED", compiled)
            counted, lateness, least = np.zeros(5, np.int64), np.zeros(5), np.full(5, np.inf)
            sourcestats._add_up(rows, source, counted, lateness, least)
            said.append((counted.tolist(), lateness.tolist(), least.tolist()))
        assert said[0] == said[1]
        assert sum(said[0][0]) == n


def test_without_numba_the_engine_decodes_polls_and_acknowledges_all_the_same(tmp_path: Path) -> None:
    """The same tests as with it, in processes that cannot import numba, engines among them."""
    (tmp_path / "numba.py").write_text('raise ImportError("numba is not installed")\n')
    tests = [
        "tests/unit/test_decode_json.py",
        "tests/unit/test_mqtt_receipts.py",
        "tests/integration/test_mqtt_poller_listener.py",
        "tests/integration/test_engine_river.py::test_a_reading_by_each_qos_and_version_is_stored_with_its_time_and_value",
    ]
    blocked = "import sys; from ingest.kernels.compiling import IS_COMPILED; sys.exit(IS_COMPILED)"
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    for command in (["-c", blocked], ["-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]):
        done = subprocess.run(
            [sys.executable, *command],
            cwd=Path(__file__).resolve().parents[2],
            env=environment,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert " passed" in done.stdout
