"""One connection's bytes, cut into messages and control packets.

Owns reassembly over any split, and the streaming over packets too large to keep. Holds no socket and
no clock; what a control packet means is its session's business.
"""

from __future__ import annotations

from collections.abc import Callable

from ingest.frames import Frames, Stop, scan
from ingest.mqtt.codec import frame, frame_at
from ingest.mqtt.fields import MalformedPacket, Reason, varint_at

CONTROL_BYTES_MAX = 128 * 1024
"""Largest packet that is no PUBLISH: a CONNECT with a will of 64 KiB still fits. Bounds what a peer
can make us keep before it has shown who it is."""
OVERSIZED_KEPT_BYTES = 70 * 1024
"""Beginning kept of a packet too large: the longest topic (64 KiB) and its surroundings."""
OVERSIZED_PAYLOAD_BYTES = 4096
"""How much of an oversized payload is handed on."""

REST_COPIED_MAX = 16 * 1024
"""Held bytes copied to a poll's buffer again. A large packet in small pieces is gathered here instead, so that
its bytes are copied once and not with every piece."""


class PacketStream:
    """Bytes in, messages out; other packets go to ``on_packet(head, body)`` in their place.

    Until ``publishing`` is set every packet goes to ``on_packet``. While ``halted`` is set bytes are
    kept and nothing is taken from them. ``fault`` is set when the peer broke the protocol: nothing is
    taken any more.

    ``oversized_fault``: an oversized PUBLISH is handed on unacknowledged and then a fault (an MQTT 5
    publisher was told the limit); without it the rest is skipped and it is acknowledged in its place,
    because a peer that may resend for ever must not be given a reason to.
    """

    def __init__(self, on_packet: Callable[[int, bytes], None], bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.v5 = False
        self.publishing = False
        self.oversized_fault = False
        self.halted = False
        self.fault: MalformedPacket | None = None
        self._on_packet = on_packet
        self._rest = bytearray()
        self._need = 0
        self._skip = 0
        self._beginning = b""

    @property
    def plain(self) -> bool:
        """Whether bytes may go past ``feed`` to a kernel's scan, after what ``take_rest`` gives back: nothing but
        messages is expected, and what is held of one is worth copying."""
        return (
            self.publishing
            and not self.halted
            and self.fault is None
            and not self._skip
            and len(self._rest) <= REST_COPIED_MAX
        )

    @property
    def idle(self) -> bool:
        """``plain``, and nothing is held: what comes next begins a packet. Asked of each connection that is read."""
        return self.publishing and not (self.halted or self._rest or self._skip or self.fault)

    def take_rest(self) -> bytearray:
        """What is held of a packet that was not whole; it is held no longer."""
        rest, self._rest, self._need = self._rest, bytearray(), 0
        return rest

    def keep(self, rest: bytes, need: int) -> None:
        """Hold the beginning of a PUBLISH of ``need`` bytes that a kernel's scan came upon."""
        self._rest, self._need = bytearray(rest), need

    @property
    def held_bytes(self) -> int:
        """Bytes kept for a packet that is not whole."""
        return len(self._rest)

    def feed(self, chunk: bytes) -> Frames:
        """Take everything whole from ``chunk`` and what was left before it."""
        frames = Frames()
        if self.fault:
            return frames
        if self._rest or self.halted:
            self._rest += chunk
            # Waiting for the whole packet: a large one in many small pieces is copied once, not each time.
            if len(self._rest) < self._need or self.halted:
                return frames
            chunk = bytes(self._rest)
            self._rest.clear()
        self._need = 0
        try:
            position = self._skip_over(chunk, frames) if self._skip else 0
            position = self._take(chunk, position, frames)
        except MalformedPacket as fault:
            self.fault = fault
            return frames
        if position < len(chunk) and not self.fault:
            self._rest += memoryview(chunk)[position:]
        return frames

    def _take(self, chunk: bytes, position: int, frames: Frames) -> int:
        size = len(chunk)
        while position < size and not self.halted and not self.fault:
            if self.publishing:
                scan(chunk, position, self.v5, self.bytes_max, frames)
                position = frames.end
                if frames.stop is Stop.FAULT:
                    self.fault = frames.fault
                    break
                if frames.stop is Stop.OVERSIZED:
                    after = self._oversized(chunk, position, frames)
                    if after == position:
                        break
                    position = after
                    continue
                if frames.stop is not Stop.OTHER:
                    self._need = frames.need
                    break
            body, end = frame_at(chunk, position, CONTROL_BYTES_MAX)
            if not end or end > size:
                self._need = max(0, end - position)
                break
            self._on_packet(chunk[position], chunk[body:end])
            position = end
        return position

    def _oversized(self, chunk: bytes, position: int, frames: Frames) -> int:
        """Begin to stream over the packet at ``position``; ``position`` itself while too little is here."""
        whole = frames.need
        kept = min(whole, OVERSIZED_KEPT_BYTES)
        if len(chunk) - position < kept:
            self._need = kept
            return position
        _, body = varint_at(chunk, position + 1, len(chunk))
        # A packet with the same head and beginning whose length says that it ends here.
        self._beginning = frame(chunk[position], chunk[body : position + kept])
        self._skip = whole
        if self.oversized_fault:
            self._hand_on(frames)
            raise MalformedPacket(
                Reason.PACKET_TOO_LARGE, f"PUBLISH of {whole} bytes, {self.bytes_max} allowed"
            )
        return self._skip_over(chunk, frames, position)

    def _skip_over(self, chunk: bytes, frames: Frames, position: int = 0) -> int:
        taken = min(self._skip, len(chunk) - position)
        self._skip -= taken
        if not self._skip:
            self._hand_on(frames)
        return position + taken

    def _hand_on(self, frames: Frames) -> None:
        scan(self._beginning, 0, self.v5, frames=frames)
        self._beginning = b""
        if frames.fault:
            raise frames.fault
        frames.oversized.append(len(frames) - 1)
        frames.payloads[-1] = frames.payloads[-1][:OVERSIZED_PAYLOAD_BYTES]
