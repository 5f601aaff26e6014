"""Every codec: what it reads is what was sent; whatever else it is given, it says so and nothing breaks.

Codecs and encoders are found by discovery. The seed is printed; YUZUI_SEED sets it.
"""

from __future__ import annotations

import math
import os
import random
import time
from collections import Counter

import pytest

from ingest.codecs.base import StreamCodec
from ingest.codecs.table import CODECS
from ingest.config import Config
from ingest.decode.messages import Chunk, Messages
from ingest.decode.refused import Refused
from ingest.routes import Routes
from ingest.simulate.encoders.base import Sent, encoder_class
from tests.codec_trials import NOON_US, bench, fuzz, mangled, messages, read, readings, trial_points
from tests.tables import point_table

SEED = int(os.environ.get("YUZUI_SEED") or time.time())
FUZZ_INPUTS = 20_000
"""Over all codecs; scripts/fuzz gives many more."""

every_codec = pytest.mark.parametrize("name", sorted(CODECS))
every_speaker = pytest.mark.parametrize("name", [n for n in sorted(CODECS) if encoder_class(n) is not None])


@pytest.fixture(autouse=True)
def _say_seed() -> None:
    print(f"YUZUI_SEED={SEED}")


def as_read(name: str, sent: list[tuple[str, bytes]]) -> Counter[tuple[object, ...]]:
    """Every reading of the messages by one codec, its topic's words filled in as the binding would."""
    made = bench(name)
    config = Config(source=[made.settings])
    routes = Routes(point_table(source="trial"), config)
    table = routes.table(None, lambda _name, _topic: True)
    found: Counter[tuple[object, ...]] = Counter()
    for topic, payload in sent:
        parsed = read(made.codec, topic, payload)
        assert not isinstance(parsed, Refused), (parsed.reason, parsed.detail, payload)
        assert parsed.refusals == []
        route = table[topic.encode()]
        for (device, quantity), time_us, value, flag in zip(
            parsed.keys, parsed.times, parsed.values, parsed.flags, strict=True
        ):
            shown = "missing" if math.isnan(value) else float(value)
            found[device or route.device, quantity or route.quantity, time_us, shown, flag] += 1
    return found


def as_sent(sent: list[Sent]) -> Counter[tuple[object, ...]]:
    """The same of what was sent."""
    return Counter((s.device, s.quantity, s.time_us, float(s.value), s.flag) for s in sent)


@every_codec
def test_a_codec_bears_the_name_it_is_found_by(name: str) -> None:
    assert bench(name).codec.name == name


@every_speaker
@pytest.mark.parametrize("n", [1, 2, 7, 60])
def test_what_was_sent_is_what_is_read(name: str, n: int) -> None:
    encoder = bench(name).encoder
    assert encoder is not None
    sent = readings(encoder, random.Random(SEED), n)
    assert as_read(name, encoder.messages(sent)) == as_sent(sent)


@every_speaker
def test_a_message_cut_anywhere_is_read_or_refused_and_nothing_else_happens(name: str) -> None:
    made = bench(name)
    for topic, payload in messages(name, random.Random(SEED)):
        for end in range(len(payload)):
            read(made.codec, topic, payload[:end])


@every_speaker
def test_frames_are_the_same_wherever_a_stream_is_split(name: str) -> None:
    made = bench(name)
    if not isinstance(made.codec, StreamCodec):
        pytest.skip(f"{name} does not run on a stream")
    dice = random.Random(SEED)
    whole = b"".join(payload for _, payload in messages(name, dice) + messages(name, dice))
    frames, used = made.codec.split(whole)
    assert used == len(whole)
    assert not any(isinstance(frame, Refused) for frame in frames)
    for cut in range(len(whole) + 1):
        first, taken = made.codec.split(whole[:cut])
        assert taken <= cut
        second, _ = made.codec.split(whole[taken:])
        assert [*first, *second] == frames, f"cut at {cut}"


@every_speaker
def test_a_stream_with_noise_loses_no_good_frame_behind_it_and_every_byte_is_accounted_for(name: str) -> None:
    made = bench(name)
    if not isinstance(made.codec, StreamCodec):
        pytest.skip(f"{name} does not run on a stream")
    dice = random.Random(SEED)
    good = b"".join(payload for _, payload in messages(name, dice))
    frames, _ = made.codec.split(good)
    for _ in range(50):
        noise = bytes(dice.choice(b"xyz 019") for _ in range(dice.randint(1, 40)))
        found, used = made.codec.split(noise + good)
        assert [f for f in found if not isinstance(f, Refused)] == frames
        assert used == len(noise + good)


@every_speaker
def test_more_readings_than_a_message_may_hold_are_refused_whole(name: str) -> None:
    encoder = bench(name).encoder
    assert encoder is not None
    largest = max(
        encoder.messages(readings(encoder, random.Random(SEED), 60)),
        key=lambda one: len(getattr(read(bench(name).codec, *one), "keys", ())),
    )
    codec = bench(name).codec
    n = len(getattr(read(codec, *largest), "keys", ()))
    if n < 2:
        pytest.skip(f"{name} brings one reading a message")
    refused = read(bench(name, readings_per_message_max=n - 1).codec, *largest)
    assert isinstance(refused, Refused)
    assert refused.reason == "too_many_readings"
    assert isinstance(read(bench(name, readings_per_message_max=n).codec, *largest), object)


@every_codec
def test_fuzzed_messages_become_readings_or_quarantine_and_each_is_counted_once(name: str) -> None:
    made = bench(name)
    routes = Routes(trial_points(name), Config(source=[made.settings]))
    routes.set_window(NOON_US)
    decoder = Messages(routes, 1_000_000)
    table = routes.table(None, lambda _name, _topic: True)
    faults = decoder.refused_by_reason
    for topic, payload in fuzz(name, FUZZ_INPUTS // len(CODECS), SEED):
        before = decoder.counts["received"]
        refused = decoder.feed(table, Chunk([topic.encode()], [payload], [0x32], "fuzz"), NOON_US)
        batch, refusals = decoder.take(NOON_US)
        assert faults["trial", "codec_fault"] == 0, (payload, refusals[-1].detail)
        received = decoder.counts["received"] - before
        assert received == len(batch) + len(refusals), payload
        assert bool(refused) == bool(refusals)
    counts = decoder.counts
    assert counts["quarantined"] > 0
    if made.encoder is not None:
        assert counts["received"] > counts["quarantined"] + counts["retained_ignored"]


def test_the_fuzzer_is_the_same_for_a_seed_and_changes_what_it_is_given() -> None:
    assert list(fuzz("json", 50, 1)) == list(fuzz("json", 50, 1))
    dice = random.Random(SEED)
    assert sum(mangled(b'{"a":1}', dice) != b'{"a":1}' for _ in range(200)) > 150
