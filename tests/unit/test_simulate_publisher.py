"""Claims about a simulated gateway as an at-least-once publisher: window, acknowledgement, redelivery."""

from __future__ import annotations

import random

import numpy as np
import pytest

from ingest.simulate.ledger import ABSENT, ACKED, QUEUED, REFUSED, SENT, Chunk
from ingest.simulate.publisher import Parcel, Publisher, RefusedError, receive_maximum

CONNACK_311 = b"\x20\x02\x00\x00"


def chunk(rows: int) -> Chunk:
    return Chunk(np.arange(rows, dtype=np.int32), np.zeros(rows, np.int64), np.zeros(rows))


def packet(packet_id: int, dup: bool = False) -> bytes:
    return bytes([0x3A if dup else 0x32, 6]) + b"\x00\x01t" + packet_id.to_bytes(2, "big") + b"v"


def parcel(publisher: Publisher, messages: int, into: Chunk, row0: int = 0, per_message: int = 1) -> Parcel:
    ids = [(publisher.next_id - 1 + m) % 65_535 + 1 for m in range(messages)]
    return Parcel(
        b"".join(packet(i) for i in ids),
        [8 * m for m in range(messages + 1)],
        ids[0],
        into,
        row0,
        len(into) - row0 if per_message > 1 else messages,
        per_message,
    )


def up(inflight: int = 65_535, backlog: int = 60_000, version: int = 4, qos: int = 1) -> Publisher:
    publisher = Publisher("g", version, qos, inflight, backlog)
    publisher.feed(CONNACK_311 if version == 4 else b"\x20\x03\x00\x00\x00")
    assert publisher.up
    return publisher


def taken(publisher: Publisher, now: int = 7) -> bytes:
    return b"".join(publisher.take(now))


def ack(*ids: int) -> bytes:
    return b"".join(b"\x40\x02" + i.to_bytes(2, "big") for i in ids)


def test_nothing_goes_before_connack() -> None:
    publisher = Publisher("g", 4, 1, 10, 100)
    publisher.accept(parcel(publisher, 2, chunk(2)))
    assert taken(publisher) == b""
    publisher.feed(CONNACK_311)
    assert taken(publisher) == packet(1) + packet(2)


def test_the_window_opens_as_acknowledgements_come() -> None:
    publisher, rows = up(inflight=3), chunk(5)
    publisher.accept(parcel(publisher, 5, rows))
    assert taken(publisher) == packet(1) + packet(2) + packet(3)
    assert taken(publisher) == b""
    publisher.feed(ack(1, 2))
    assert rows.state.tolist() == [ACKED, ACKED, SENT, QUEUED, QUEUED]
    assert taken(publisher) == packet(4) + packet(5)
    publisher.feed(ack(3, 4, 5))
    assert publisher.idle
    assert rows.settled
    assert (publisher.sent, publisher.acked, publisher.kept) == (5, 5, 0)


def test_a_lost_connection_sends_again_with_dup_what_was_not_acknowledged() -> None:
    publisher, rows = up(inflight=4), chunk(6)
    publisher.accept(parcel(publisher, 6, rows))
    taken(publisher, now=7)
    publisher.feed(ack(1))
    publisher.lost()
    assert taken(publisher) == b""
    publisher.feed(CONNACK_311)
    assert taken(publisher, now=9) == packet(2, True) + packet(3, True) + packet(4, True) + packet(5)
    assert publisher.resent == 3
    assert rows.sent_us.tolist() == [7, 7, 7, 7, 9, 0], "a repeat keeps the time of its first sending"
    publisher.feed(ack(2, 3, 4, 5))
    assert taken(publisher) == packet(6)
    publisher.feed(ack(6))
    assert publisher.idle


def test_parcels_in_flight_and_waiting_keep_their_order_over_losses() -> None:
    publisher = up()
    rows = [chunk(2) for _ in range(3)]
    for i in range(2):
        publisher.accept(parcel(publisher, 2, rows[i]))
    taken(publisher)
    publisher.lost()
    publisher.accept(parcel(publisher, 2, rows[2]))
    publisher.lost()
    publisher.feed(CONNACK_311)
    again = [packet(i, True) for i in (1, 2, 3, 4)]
    assert taken(publisher) == b"".join(again) + packet(5) + packet(6)


def test_acknowledgements_out_of_order_are_not_sent_again() -> None:
    publisher, rows = up(), chunk(4)
    publisher.accept(parcel(publisher, 4, rows))
    taken(publisher)
    publisher.feed(ack(3, 1))
    assert rows.state.tolist() == [ACKED, SENT, ACKED, SENT]
    publisher.lost()
    publisher.feed(CONNACK_311)
    assert taken(publisher) == packet(2, True) + packet(4, True)
    publisher.feed(ack(2, 4))
    assert publisher.idle
    assert rows.settled


@pytest.mark.parametrize("seed", range(20))
def test_any_order_and_any_cut_of_acknowledgements_settles_every_row_once(seed: int) -> None:
    rng = random.Random(seed)
    print("seed", seed)
    publisher = up(inflight=rng.choice((3, 40, 65_535)))
    rows = [chunk(rng.randint(1, 9)) for _ in range(12)]
    for one in rows:
        assert publisher.accept(parcel(publisher, len(one), one))
    open_ids: list[int] = []
    for _ in range(2_000):
        sent = taken(publisher)
        open_ids += [int.from_bytes(sent[i + 5 : i + 7], "big") for i in range(0, len(sent), 8)]
        if rng.random() < 0.05:
            publisher.lost()
            publisher.feed(CONNACK_311)
            open_ids.clear()
            continue
        if not open_ids:
            break
        if rng.random() < 0.5:
            rng.shuffle(open_ids)
        count = rng.randint(1, len(open_ids))
        data = ack(*open_ids[:count])
        del open_ids[:count]
        cut = rng.randint(0, len(data))
        publisher.feed(data[:cut])
        publisher.feed(data[cut:])
    assert publisher.idle
    assert all(one.settled and (one.state == ACKED).all() for one in rows)
    assert publisher.kept == 0


def test_a_stream_split_at_every_byte_says_the_same() -> None:
    connack = b"\x20\x08\x00\x00\x05\x21\x00\x02\x24\x01"
    answers = ack(1) + b"\x40\x03\x00\x02\x10" + b"\xd0\x00"
    for cut in range(max(len(connack), len(answers)) + 1):
        publisher, rows = Publisher("g", 5, 1, 100, 100), chunk(3)
        publisher.accept(parcel(publisher, 3, rows))
        publisher.feed(connack[:cut])
        publisher.feed(connack[cut:])
        assert taken(publisher) == packet(1) + packet(2), "the server's Receive Maximum is 2"
        publisher.feed(answers[:cut])
        publisher.feed(answers[cut:])
        assert rows.state.tolist() == [ACKED, ACKED, QUEUED]


def test_a_reason_that_refuses_is_not_an_acknowledgement() -> None:
    publisher, rows = up(version=5), chunk(2)
    publisher.accept(parcel(publisher, 2, rows))
    taken(publisher)
    publisher.feed(b"\x40\x04\x00\x01\x87\x00" + b"\x40\x03\x00\x02\x00")
    assert rows.state.tolist() == [REFUSED, ACKED]
    assert publisher.acked == 1
    assert publisher.idle


def test_a_full_backlog_drops_the_newest_and_counts_its_readings() -> None:
    publisher = Publisher("g", 4, 1, 10, backlog_max=3)
    first, second = chunk(3), chunk(2)
    assert publisher.accept(parcel(publisher, 3, first))
    assert not publisher.accept(parcel(publisher, 2, second))
    assert publisher.not_sent == 2
    assert second.state.tolist() == [ABSENT, ABSENT]
    assert second.settled


def test_packet_ids_continue_over_the_end() -> None:
    publisher = up()
    while publisher.next_id < 65_530:
        n = min(1_000, 65_530 - publisher.next_id)
        first = publisher.next_id
        publisher.accept(parcel(publisher, n, chunk(n)))
        taken(publisher)
        publisher.feed(ack(*range(first, first + n)))
    rows = chunk(12)
    publisher.accept(parcel(publisher, 12, rows))
    taken(publisher)
    assert publisher.next_id == 7
    publisher.feed(ack(*range(65_530, 65_536), *range(1, 7)))
    assert (rows.state == ACKED).all()


def test_one_acknowledgement_of_an_array_settles_all_its_readings() -> None:
    publisher, rows = up(), chunk(10)
    publisher.accept(parcel(publisher, 3, rows, per_message=4))
    taken(publisher)
    publisher.feed(ack(1))
    assert rows.state.tolist() == [ACKED] * 4 + [SENT] * 6
    publisher.feed(ack(2, 3))
    assert rows.settled
    assert publisher.acked == 10


def test_at_qos_0_handing_over_is_the_end() -> None:
    publisher, rows = up(qos=0), chunk(3)
    publisher.accept(parcel(publisher, 3, rows))
    assert len(taken(publisher)) == 24
    assert publisher.idle
    assert rows.settled
    publisher.lost()
    publisher.feed(CONNACK_311)
    assert taken(publisher) == b""


@pytest.mark.parametrize(
    "data", [b"\x20\x02\x00\x05", b"\xe0\x02\x8b\x00", b"\x30\x00", b"\x40\xff\xff\xff\xff\x01"]
)
def test_a_refusal_or_nonsense_ends_the_connection(data: bytes) -> None:
    with pytest.raises(RefusedError):
        Publisher("g", 4, 1, 1, 1).feed(data)


def test_acknowledgements_of_unknown_ids_mean_nothing() -> None:
    publisher, rows = up(), chunk(2)
    publisher.accept(parcel(publisher, 2, rows))
    taken(publisher)
    publisher.feed(ack(900, 1, 901))
    assert rows.state.tolist() == [ACKED, SENT]


def test_receive_maximum_is_found_among_other_properties() -> None:
    text = (
        b"\x12\x00\x03abc"
        + b"\x26\x00\x01k\x00\x02vv"
        + b"\x24\x01"
        + b"\x21\x01\x02"
        + b"\x27\x00\x00\x00\x09"
    )
    assert receive_maximum(bytes([len(text)]) + text) == 258
    assert receive_maximum(b"\x00") == 65_535
    assert receive_maximum(b"") == 65_535


def test_connect_names_a_lasting_session() -> None:
    assert Publisher("gw", 4, 1, 1, 1).connect() == b"\x10\x0e\x00\x04MQTT\x04\x00\x00\x3c\x00\x02gw"
    assert Publisher("gw", 5, 1, 1, 1, "u", "p").connect() == (
        b"\x10\x1a\x00\x04MQTT\x05\xc0\x00\x3c\x05\x11\x00\x00\x0e\x10\x00\x02gw\x00\x01u\x00\x01p"
    )
