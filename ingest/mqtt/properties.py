"""MQTT 5 properties, from one table.

Owns which property may stand in which packet, its type, its range and whether it may repeat.
Knows nothing of what a session does with a value.
"""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import NamedTuple

from ingest.mqtt.fields import (
    MalformedPacket,
    Reader,
    Reason,
    encode_binary,
    encode_text,
    encode_varint,
    malformed,
    protocol_error,
)

PropertyValue = int | str | bytes | list[tuple[str, str]] | list[int]
Properties = dict[int, PropertyValue]


class Prop(IntEnum):
    """Property identifiers (specification 2.2.2.2)."""

    PAYLOAD_FORMAT = 0x01
    MESSAGE_EXPIRY = 0x02
    CONTENT_TYPE = 0x03
    RESPONSE_TOPIC = 0x08
    CORRELATION_DATA = 0x09
    SUBSCRIPTION_ID = 0x0B
    SESSION_EXPIRY = 0x11
    ASSIGNED_CLIENT_ID = 0x12
    SERVER_KEEP_ALIVE = 0x13
    AUTHENTICATION_METHOD = 0x15
    AUTHENTICATION_DATA = 0x16
    REQUEST_PROBLEM = 0x17
    WILL_DELAY = 0x18
    REQUEST_RESPONSE = 0x19
    RESPONSE_INFORMATION = 0x1A
    SERVER_REFERENCE = 0x1C
    REASON_STRING = 0x1F
    RECEIVE_MAXIMUM = 0x21
    TOPIC_ALIAS_MAXIMUM = 0x22
    TOPIC_ALIAS = 0x23
    MAXIMUM_QOS = 0x24
    RETAIN_AVAILABLE = 0x25
    USER_PROPERTY = 0x26
    MAXIMUM_PACKET_SIZE = 0x27
    WILDCARD_AVAILABLE = 0x28
    SUBSCRIPTION_ID_AVAILABLE = 0x29
    SHARED_AVAILABLE = 0x2A


class In(Enum):
    """Where a property stands: a packet, or the will inside CONNECT."""

    CONNECT = "CONNECT"
    WILL = "will"
    CONNACK = "CONNACK"
    PUBLISH = "PUBLISH"
    ACK = "PUBACK, PUBREC, PUBREL or PUBCOMP"
    SUBSCRIBE = "SUBSCRIBE"
    SUBACK = "SUBACK"
    UNSUBSCRIBE = "UNSUBSCRIBE"
    UNSUBACK = "UNSUBACK"
    DISCONNECT = "DISCONNECT"
    AUTH = "AUTH"


class Form(Enum):
    """How a value lies on the wire; the value is its width in bytes where it is a fixed integer."""

    U8 = 1
    U16 = 2
    U32 = 4
    VARINT = "varint"
    TEXT = "text"
    BINARY = "binary"
    PAIR = "pair"


class Rule(NamedTuple):
    """One row of the table. ``smallest`` and ``largest`` bound an integer."""

    form: Form
    places: frozenset[In]
    smallest: int = 0
    largest: int = 0xFFFF_FFFF


def _rule(form: Form, *places: In, smallest: int = 0, largest: int = 0xFFFF_FFFF) -> Rule:
    return Rule(form, frozenset(places), smallest, largest)


_MESSAGE = (In.PUBLISH, In.WILL)
_REASONED = (In.CONNACK, In.ACK, In.SUBACK, In.UNSUBACK, In.DISCONNECT, In.AUTH)

RULES: dict[int, Rule] = {
    Prop.PAYLOAD_FORMAT: _rule(Form.U8, *_MESSAGE, largest=1),
    Prop.MESSAGE_EXPIRY: _rule(Form.U32, *_MESSAGE),
    Prop.CONTENT_TYPE: _rule(Form.TEXT, *_MESSAGE),
    Prop.RESPONSE_TOPIC: _rule(Form.TEXT, *_MESSAGE),
    Prop.CORRELATION_DATA: _rule(Form.BINARY, *_MESSAGE),
    Prop.SUBSCRIPTION_ID: _rule(Form.VARINT, In.PUBLISH, In.SUBSCRIBE, smallest=1),
    Prop.SESSION_EXPIRY: _rule(Form.U32, In.CONNECT, In.CONNACK, In.DISCONNECT),
    Prop.ASSIGNED_CLIENT_ID: _rule(Form.TEXT, In.CONNACK),
    Prop.SERVER_KEEP_ALIVE: _rule(Form.U16, In.CONNACK),
    Prop.AUTHENTICATION_METHOD: _rule(Form.TEXT, In.CONNECT, In.CONNACK, In.AUTH),
    Prop.AUTHENTICATION_DATA: _rule(Form.BINARY, In.CONNECT, In.CONNACK, In.AUTH),
    Prop.REQUEST_PROBLEM: _rule(Form.U8, In.CONNECT, largest=1),
    Prop.WILL_DELAY: _rule(Form.U32, In.WILL),
    Prop.REQUEST_RESPONSE: _rule(Form.U8, In.CONNECT, largest=1),
    Prop.RESPONSE_INFORMATION: _rule(Form.TEXT, In.CONNACK),
    Prop.SERVER_REFERENCE: _rule(Form.TEXT, In.CONNACK, In.DISCONNECT),
    Prop.REASON_STRING: _rule(Form.TEXT, *_REASONED),
    Prop.RECEIVE_MAXIMUM: _rule(Form.U16, In.CONNECT, In.CONNACK, smallest=1),
    Prop.TOPIC_ALIAS_MAXIMUM: _rule(Form.U16, In.CONNECT, In.CONNACK),
    Prop.TOPIC_ALIAS: _rule(Form.U16, In.PUBLISH),
    Prop.MAXIMUM_QOS: _rule(Form.U8, In.CONNACK, largest=1),
    Prop.RETAIN_AVAILABLE: _rule(Form.U8, In.CONNACK, largest=1),
    Prop.USER_PROPERTY: _rule(Form.PAIR, *In),
    Prop.MAXIMUM_PACKET_SIZE: _rule(Form.U32, In.CONNECT, In.CONNACK, smallest=1),
    Prop.WILDCARD_AVAILABLE: _rule(Form.U8, In.CONNACK, largest=1),
    Prop.SUBSCRIPTION_ID_AVAILABLE: _rule(Form.U8, In.CONNACK, largest=1),
    Prop.SHARED_AVAILABLE: _rule(Form.U8, In.CONNACK, largest=1),
}


def number(properties: Properties, which: Prop, default: int) -> int:
    """An integer property, or ``default`` where it is absent."""
    value = properties.get(which, default)
    return value if isinstance(value, int) else default


def text(properties: Properties, which: Prop) -> str:
    """A string property; empty where it is absent."""
    value = properties.get(which, "")
    return value if isinstance(value, str) else ""


def _encode_value(form: Form, value: PropertyValue) -> bytes:
    if isinstance(value, int):
        return encode_varint(value) if form is Form.VARINT else value.to_bytes(int(form.value), "big")
    if isinstance(value, str):
        return encode_text(value)
    if isinstance(value, bytes):
        return encode_binary(value)
    raise TypeError(f"not one property value: {value!r}")


def encode_properties(properties: Properties, place: In) -> bytes:
    """Length and properties, in the order of the dict.

    USER_PROPERTY is a list of (name, value), SUBSCRIPTION_ID a list of integers.
    Raises ValueError for a property that may not stand in ``place`` or is out of range.
    """
    out = bytearray()
    for which, value in properties.items():
        rule = RULES[which]
        if place not in rule.places:
            raise ValueError(f"property {Prop(which).name} may not stand in {place.value}")
        if not isinstance(value, list):
            if isinstance(value, int) and not rule.smallest <= value <= rule.largest:
                raise ValueError(f"property {Prop(which).name} out of range: {value}")
            out += bytes([which]) + _encode_value(rule.form, value)
            continue
        for one in value:
            body = (
                encode_text(one[0]) + encode_text(one[1])
                if isinstance(one, tuple)
                else _encode_value(rule.form, one)
            )
            out += bytes([which]) + body
    return encode_varint(len(out)) + bytes(out)


def _decode_value(reader: Reader, form: Form) -> int | str | bytes:
    if form is Form.TEXT:
        return reader.text()
    if form is Form.BINARY:
        return reader.binary()
    if form is Form.VARINT:
        return reader.varint()
    return reader.integer(int(form.value))


def decode_properties(reader: Reader, place: In) -> Properties:
    """Properties from their length on; the reader stands behind them afterwards.

    Raises MalformedPacket: unknown or misplaced property, one that may not repeat, a value out of range.
    """
    length = reader.varint()
    end = reader.position + length
    if end > reader.end:
        raise malformed("properties longer than their packet")
    inner = Reader(reader.buffer, reader.position, end)
    found: Properties = {}
    pairs: list[tuple[str, str]] = []
    subscription_ids: list[int] = []
    while inner.more():
        which = inner.varint()
        rule = RULES.get(which)
        if rule is None or place not in rule.places:
            raise malformed(f"property 0x{which:02x} may not stand in {place.value}")
        if rule.form is Form.PAIR:
            pairs.append((inner.text(), inner.text()))
            continue
        value = _decode_value(inner, rule.form)
        if isinstance(value, int):
            _check_range(which, value, rule)
        if which == Prop.SUBSCRIPTION_ID and isinstance(value, int):
            if subscription_ids and place is not In.PUBLISH:
                raise protocol_error("property SUBSCRIPTION_ID stands twice")
            subscription_ids.append(value)
            continue
        if which in found:
            raise protocol_error(f"property {Prop(which).name} stands twice")
        found[which] = value
    if pairs:
        found[Prop.USER_PROPERTY] = pairs
    if subscription_ids:
        found[Prop.SUBSCRIPTION_ID] = subscription_ids
    reader.position = end
    return found


def _check_range(which: int, value: int, rule: Rule) -> None:
    if which == Prop.TOPIC_ALIAS and value == 0:
        raise MalformedPacket(Reason.TOPIC_ALIAS_INVALID, "topic alias 0")
    if not rule.smallest <= value <= rule.largest:
        raise protocol_error(f"property {Prop(which).name} out of range: {value}")
