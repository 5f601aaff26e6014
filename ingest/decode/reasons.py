"""Why something was refused: every reason, what a person does about it, and what MQTT 5 is told.

Owns the words in ``quarantine.reason``. Knows nothing of how a fault is found.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# MQTT 5 PUBACK/PUBREC reason codes (OASIS MQTT 5.0, table 3-4).
IMPLEMENTATION_SPECIFIC: Final = 0x83
NOT_AUTHORIZED: Final = 0x87
TOPIC_NAME_INVALID: Final = 0x90
QUOTA_EXCEEDED: Final = 0x97


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason; ``code`` is the MQTT 5 reason code, ``advice`` is shown by `yuzui tap --quarantine`."""

    name: str
    code: int
    advice: str


_ALL = (
    Reason(
        "bad_json",
        IMPLEMENTATION_SPECIFIC,
        "the payload is not JSON (RFC 8259); NaN and Infinity are not JSON",
    ),
    Reason("bad_cbor", IMPLEMENTATION_SPECIFIC, "the payload is not one CBOR item (RFC 8949)"),
    Reason("bad_msgpack", IMPLEMENTATION_SPECIFIC, "the payload is not one MessagePack object"),
    Reason("bad_protobuf", IMPLEMENTATION_SPECIFIC, "the payload is not a Sparkplug B protobuf"),
    Reason(
        "bad_csv",
        IMPLEMENTATION_SPECIFIC,
        "no rows can be made of it: check delimiter, quote and encoding in [source.csv]",
    ),
    Reason("bad_line", IMPLEMENTATION_SPECIFIC, "not InfluxDB line protocol: see docs/protocols.md"),
    Reason(
        "bad_name",
        IMPLEMENTATION_SPECIFIC,
        "the name has letters its format forbids, or not the form the source's settings say",
    ),
    Reason("bad_topic", TOPIC_NAME_INVALID, "the topic is not of the form the format asks for"),
    Reason("wrong_version", IMPLEMENTATION_SPECIFIC, "a version of the format that is not read here"),
    Reason(
        "no_birth",
        IMPLEMENTATION_SPECIFIC,
        "an alias of a BIRTH that was not heard: the node is asked for it; `yuzui quarantine replay` afterwards",
    ),
    Reason(
        "bad_frame",
        IMPLEMENTATION_SPECIFIC,
        "no whole frame of the source's codec: cut short, glued together, or another protocol",
    ),
    Reason(
        "bad_crc",
        IMPLEMENTATION_SPECIFIC,
        "the frame's checksum is wrong: noise on the line, or the device counts it otherwise",
    ),
    Reason(
        "unsupported",
        IMPLEMENTATION_SPECIFIC,
        "a part of the protocol that brings no readings: pictures, texts",
    ),
    Reason("not_finite", IMPLEMENTATION_SPECIFIC, "a number is too large for a double"),
    Reason("too_deep", IMPLEMENTATION_SPECIFIC, "nested deeper than the source's depth_max"),
    Reason(
        "wrong_shape", IMPLEMENTATION_SPECIFIC, "expected an object, an array of objects or a bare number"
    ),
    Reason("no_value", IMPLEMENTATION_SPECIFIC, "the source's value_field is absent"),
    Reason(
        "wrong_type",
        IMPLEMENTATION_SPECIFIC,
        "a field has another type than number (value), number or text (time)",
    ),
    Reason(
        "no_time",
        IMPLEMENTATION_SPECIFIC,
        "no time_field; only points with time_from = receive may leave it out",
    ),
    Reason(
        "bad_time", IMPLEMENTATION_SPECIFIC, "the time is neither a number in the source's unit nor ISO 8601"
    ),
    Reason(
        "time_window",
        IMPLEMENTATION_SPECIFIC,
        "older than age_s_max or further ahead than ahead_s_max: check the clock",
    ),
    Reason(
        "no_id", IMPLEMENTATION_SPECIFIC, "nothing says which device this is: the source's id_field or device"
    ),
    Reason(
        "no_state", IMPLEMENTATION_SPECIFIC, "the event names no state: the path `state` of [source.event]"
    ),
    Reason(
        "unknown_state",
        IMPLEMENTATION_SPECIFIC,
        "the word for the event's state is not in `states` of [source.event]: say what it means there",
    ),
    Reason(
        "personal_id",
        IMPLEMENTATION_SPECIFIC,
        "the event's id is a telephone or identity number or an address: map another field as `id`",
    ),
    Reason(
        "codec_fault",
        IMPLEMENTATION_SPECIFIC,
        "the codec fell over these bytes: a mistake of Yuzui's, please report it with them",
    ),
    Reason("unknown_point", TOPIC_NAME_INVALID, "no such point in the registry: `yuzui points propose`"),
    Reason("unknown_topic", TOPIC_NAME_INVALID, "no point or gateway has this topic: `yuzui points propose`"),
    Reason("retired_point", TOPIC_NAME_INVALID, "the point is retired in the registry"),
    Reason(
        "identity_mismatch", NOT_AUTHORIZED, "topic, payload and registry do not agree whose reading this is"
    ),
    Reason("not_allowed", NOT_AUTHORIZED, "the credential may not publish to this topic"),
    Reason("oversized", QUOTA_EXCEEDED, "larger than message_bytes_max; only its head is kept"),
    Reason(
        "rate_limited",
        QUOTA_EXCEEDED,
        "the source sends more than its rate_max_per_s: raise it, or `yuzui quarantine replay` later",
    ),
    Reason(
        "too_many_readings",
        QUOTA_EXCEEDED,
        "more readings than readings_per_message_max: send smaller messages",
    ),
)

REASONS: Final[dict[str, Reason]] = {r.name: r for r in _ALL}


def code_of(reason: str) -> int:
    """The MQTT 5 reason code for a refusal."""
    return REASONS[reason].code
