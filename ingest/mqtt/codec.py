"""MQTT packets, 3.1.1 and 5, from bytes and to bytes.

Owns how every control packet lies on the wire and what is malformed about it. Holds no socket, clock
or task and no state between packets. The hot path does not come here: ingest.frames scans PUBLISH.
"""

from __future__ import annotations

from collections.abc import Callable

from ingest.mqtt.fields import (
    VARINT_MAX,
    MalformedPacket,
    Reader,
    Reason,
    encode_binary,
    encode_text,
    encode_varint,
    malformed,
    protocol_error,
    varint_at,
)
from ingest.mqtt.packets import (
    FLAGS,
    LEVEL_5,
    LEVEL_311,
    Ack,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Filter,
    Kind,
    Packet,
    Pingreq,
    Pingresp,
    Publish,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    UnsupportedVersion,
    Will,
)
from ingest.mqtt.properties import In, Prop, Properties, decode_properties, encode_properties
from ingest.mqtt.topics import check_filter, check_topic


def frame_at(buffer: bytes, start: int, bytes_max: int = VARINT_MAX) -> tuple[int, int]:
    """(first byte of the body, end) of the packet at ``start``, which may end behind the buffer.

    (0, 0) while its length is not whole. Raises MalformedPacket when its length is no length, or above
    ``bytes_max`` in all.
    """
    length, body = varint_at(buffer, start + 1, len(buffer))
    if length < 0:
        return 0, 0
    end = body + length
    if end - start > bytes_max:
        raise MalformedPacket(Reason.PACKET_TOO_LARGE, f"packet of {end - start} bytes, {bytes_max} allowed")
    return body, end


def decode(head: int, body: bytes, v5: bool) -> Packet:
    """The packet whose first byte is ``head`` and whose body is ``body``.

    ``v5`` is the version of the connection (a CONNECT says its own). Raises MalformedPacket.
    """
    kind = head >> 4
    if kind == Kind.PUBLISH:
        return _decode_publish(head, Reader(body), v5)
    if kind not in _DECODERS:
        raise malformed(f"packet type {kind}")
    if head & 0x0F != FLAGS[Kind(kind)]:
        raise malformed(f"reserved bits 0x{head & 15:x} in {Kind(kind).name}")
    reader = Reader(body)
    packet = _DECODERS[Kind(kind)](reader, v5)
    reader.finish()
    return packet


def _decode_ack(kind: Kind) -> Callable[[Reader, bool], Packet]:
    """The decoder of PUBACK, PUBREC, PUBREL or PUBCOMP, which share one shape."""

    def decoder(reader: Reader, v5: bool) -> Packet:
        pid = reader.packet_id()
        code = reader.integer(1) if v5 and reader.more() else 0
        return Ack(kind, pid, code, decode_properties(reader, In.ACK) if v5 and reader.more() else {})

    return decoder


def _decode_connect(reader: Reader, _v5: bool) -> Packet:
    name, level = reader.binary(), reader.integer(1)
    if (name, level) not in ((b"MQTT", LEVEL_311), (b"MQTT", LEVEL_5)):
        if name not in (b"MQTT", b"MQIsdp"):
            raise malformed(f"protocol name {name[:20]!r}")
        raise UnsupportedVersion(level)
    flags, keepalive_s = reader.integer(1), reader.integer(2)
    has_will, qos, has_user, has_password = flags & 4, flags >> 3 & 3, flags & 0x80, flags & 0x40
    if flags & 1 or qos == 3 or (not has_will and flags & 0x38):
        raise malformed(f"CONNECT flags 0x{flags:02x}")
    if level == LEVEL_311 and has_password and not has_user:
        raise malformed("a password without a user in MQTT 3.1.1")
    properties = decode_properties(reader, In.CONNECT) if level == LEVEL_5 else {}
    if Prop.AUTHENTICATION_DATA in properties and Prop.AUTHENTICATION_METHOD not in properties:
        raise protocol_error("authentication data without a method")
    packet = Connect(reader.text(), bool(flags & 2), keepalive_s, level, properties=properties)
    if has_will:
        will_properties = decode_properties(reader, In.WILL) if level == LEVEL_5 else {}
        topic = check_topic(reader.text())
        packet.will = Will(topic, reader.binary(), qos, bool(flags & 0x20), will_properties)
    packet.user = reader.text() if has_user else None
    packet.password = reader.binary() if has_password else None
    return packet


def _decode_connack(reader: Reader, v5: bool) -> Packet:
    flags, code = reader.integer(1), reader.integer(1)
    if flags & 0xFE:
        raise malformed(f"CONNACK flags 0x{flags:02x}")
    if flags and code:
        raise protocol_error("session present in a refusal")
    # A server that knows only 3.1.1 answers an MQTT 5 CONNECT in the old form: two bytes, no properties.
    return Connack(bool(flags), code, decode_properties(reader, In.CONNACK) if v5 and reader.more() else {})


def _decode_publish(head: int, reader: Reader, v5: bool) -> Packet:
    qos, dup = head >> 1 & 3, bool(head & 8)
    if qos == 3 or (dup and not qos):
        raise malformed(f"PUBLISH flags 0x{head & 15:x}")
    topic = reader.text()
    pid = reader.packet_id() if qos else 0
    properties = decode_properties(reader, In.PUBLISH) if v5 else {}
    if topic or Prop.TOPIC_ALIAS not in properties:
        check_topic(topic)
    return Publish(topic, reader.rest(), qos, bool(head & 1), dup, pid, properties)


def _decode_subscribe(reader: Reader, v5: bool) -> Packet:
    packet = Subscribe(reader.packet_id(), [], decode_properties(reader, In.SUBSCRIBE) if v5 else {})
    while reader.more():
        pattern, options = check_filter(reader.text()), reader.integer(1)
        if options & (0xC0 if v5 else 0xFC) or options & 3 == 3 or options >> 4 & 3 == 3:
            raise malformed(f"subscription options 0x{options:02x}")
        if options & 4 and pattern.startswith("$share/"):
            raise protocol_error("No Local on a shared subscription")
        packet.filters.append(
            Filter(pattern, options & 3, bool(options & 4), bool(options & 8), options >> 4 & 3)
        )
    if not packet.filters:
        raise protocol_error("SUBSCRIBE without a filter")
    return packet


def _decode_suback(reader: Reader, v5: bool) -> Packet:
    packet = Suback(reader.packet_id(), [], decode_properties(reader, In.SUBACK) if v5 else {})
    packet.codes = list(reader.rest())
    if not packet.codes or any(2 < code < 0x80 for code in packet.codes):
        raise malformed(f"SUBACK codes {packet.codes[:8]}")
    return packet


def _decode_unsubscribe(reader: Reader, v5: bool) -> Packet:
    packet = Unsubscribe(reader.packet_id(), [], decode_properties(reader, In.UNSUBSCRIBE) if v5 else {})
    while reader.more():
        packet.patterns.append(check_filter(reader.text()))
    if not packet.patterns:
        raise protocol_error("UNSUBSCRIBE without a filter")
    return packet


def _decode_unsuback(reader: Reader, v5: bool) -> Packet:
    pid = reader.packet_id()
    if not v5:
        return Unsuback(pid)
    properties, codes = decode_properties(reader, In.UNSUBACK), list(reader.rest())
    if not codes:
        raise malformed("UNSUBACK without a code")
    return Unsuback(pid, codes, properties)


def _decode_disconnect(reader: Reader, v5: bool) -> Packet:
    if not v5 or not reader.more():
        return Disconnect()
    code = reader.integer(1)
    return Disconnect(code, decode_properties(reader, In.DISCONNECT) if reader.more() else {})


def _decode_auth(reader: Reader, v5: bool) -> Packet:
    if not v5:
        raise malformed("AUTH in MQTT 3.1.1")
    if not reader.more():
        return Auth()
    code = reader.integer(1)
    return Auth(code, decode_properties(reader, In.AUTH) if reader.more() else {})


_DECODERS: dict[Kind, Callable[[Reader, bool], Packet]] = {
    Kind.CONNECT: _decode_connect,
    Kind.CONNACK: _decode_connack,
    Kind.PUBACK: _decode_ack(Kind.PUBACK),
    Kind.PUBREC: _decode_ack(Kind.PUBREC),
    Kind.PUBREL: _decode_ack(Kind.PUBREL),
    Kind.PUBCOMP: _decode_ack(Kind.PUBCOMP),
    Kind.SUBSCRIBE: _decode_subscribe,
    Kind.SUBACK: _decode_suback,
    Kind.UNSUBSCRIBE: _decode_unsubscribe,
    Kind.UNSUBACK: _decode_unsuback,
    Kind.PINGREQ: lambda _reader, _v5: Pingreq(),
    Kind.PINGRESP: lambda _reader, _v5: Pingresp(),
    Kind.DISCONNECT: _decode_disconnect,
    Kind.AUTH: _decode_auth,
}


def frame(head: int, body: bytes) -> bytes:
    """A whole packet: first byte, length, body."""
    return bytes([head]) + encode_varint(len(body)) + body


def encode(packet: Packet, v5: bool) -> bytes:
    """The bytes of ``packet`` in the version of the connection (a CONNECT goes by its own level).

    Raises ValueError for what cannot be said: a field too long, a property out of place, packet id 0.
    """
    match packet:
        case Connect():
            return frame(Kind.CONNECT << 4, _connect_body(packet))
        case Connack():
            properties = encode_properties(packet.properties, In.CONNACK) if v5 else b""
            return frame(Kind.CONNACK << 4, bytes([packet.session_present, packet.code]) + properties)
        case Publish():
            head = Kind.PUBLISH << 4 | packet.dup << 3 | packet.qos << 1 | packet.retain
            return frame(head, _publish_body(packet, v5))
        case Ack():
            body = _pid(packet.pid) + _code(packet.code, packet.properties, In.ACK, v5)
            return frame(packet.kind << 4 | FLAGS[packet.kind], body)
        case Subscribe():
            body = b"".join(encode_text(one.pattern) + bytes([_options(one)]) for one in packet.filters)
            return frame(Kind.SUBSCRIBE << 4 | 2, _listed(packet, In.SUBSCRIBE, v5) + body)
        case Suback():
            return frame(Kind.SUBACK << 4, _listed(packet, In.SUBACK, v5) + bytes(packet.codes))
        case Unsubscribe():
            body = b"".join(map(encode_text, packet.patterns))
            return frame(Kind.UNSUBSCRIBE << 4 | 2, _listed(packet, In.UNSUBSCRIBE, v5) + body)
        case Unsuback():
            codes = bytes(packet.codes) if v5 else b""
            return frame(Kind.UNSUBACK << 4, _listed(packet, In.UNSUBACK, v5) + codes)
        case Pingreq():
            return PINGREQ
        case Pingresp():
            return PINGRESP
        case Disconnect():
            return frame(Kind.DISCONNECT << 4, _code(packet.code, packet.properties, In.DISCONNECT, v5))
        case Auth():
            return frame(Kind.AUTH << 4, _code(packet.code, packet.properties, In.AUTH, v5))


PINGREQ = frame(Kind.PINGREQ << 4, b"")
PINGRESP = frame(Kind.PINGRESP << 4, b"")


def _pid(pid: int) -> bytes:
    if not 1 <= pid <= 0xFFFF:
        raise ValueError(f"packet id out of range: {pid}")
    return pid.to_bytes(2, "big")


def _options(one: Filter) -> int:
    return one.qos | one.no_local << 2 | one.retain_as_published << 3 | one.retain_handling << 4


def _code(code: int, properties: Properties, place: In, v5: bool) -> bytes:
    """Reason code and properties, left out where MQTT 5 lets them be and where 3.1.1 has none."""
    if not v5 or not (code or properties):
        return b""
    return bytes([code]) + (encode_properties(properties, place) if properties else b"")


def _listed(packet: Subscribe | Suback | Unsubscribe | Unsuback, place: In, v5: bool) -> bytes:
    return _pid(packet.pid) + (encode_properties(packet.properties, place) if v5 else b"")


def _connect_body(packet: Connect) -> bytes:
    v5, will = packet.level == LEVEL_5, packet.will
    flags = packet.clean << 1 | (packet.password is not None) << 6 | (packet.user is not None) << 7
    if will:
        flags |= 4 | will.qos << 3 | will.retain << 5
    out = b"\x00\x04MQTT" + bytes([packet.level, flags]) + packet.keepalive_s.to_bytes(2, "big")
    out += (encode_properties(packet.properties, In.CONNECT) if v5 else b"") + encode_text(packet.client_id)
    if will:
        out += encode_properties(will.properties, In.WILL) if v5 else b""
        out += encode_text(will.topic) + encode_binary(will.payload)
    if packet.user is not None:
        out += encode_text(packet.user)
    return out + (encode_binary(packet.password) if packet.password is not None else b"")


def _publish_body(packet: Publish, v5: bool) -> bytes:
    out = encode_text(packet.topic) + (_pid(packet.pid) if packet.qos else b"")
    return out + (encode_properties(packet.properties, In.PUBLISH) if v5 else b"") + packet.payload
