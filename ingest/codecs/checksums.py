"""Checksums of the field protocols: that of HJ 212, and CRC-16/Modbus for SL 651.

Owns the arithmetic. No library has HJ 212's: it is not CRC-16/Modbus, though both use the polynomial 0xA001.
"""

from __future__ import annotations

from typing import Final

_POLYNOMIAL: Final = 0xA001


def _table() -> list[int]:
    """Eight shifts of each byte by the polynomial."""
    table = []
    for byte in range(256):
        register = byte
        for _ in range(8):
            register = register >> 1 ^ (_POLYNOMIAL if register & 1 else 0)
        table.append(register)
    return table


_TABLE: Final = _table()
_STEP: Final = [register >> 8 for register in _TABLE]
_FOLDS: Final = tuple((bits, (1 << bits) - 1) for bits in (65_536, 32_768, 16_384, 8_192))
_WORDS: Final = tuple((1 << bits) - 1 for bits in (4_096, 2_048, 1_024, 512, 256, 128, 64))


def crc_hj212(segment: bytes) -> int:
    """The checksum of an HJ 212 data segment (HJ 212-2017, annex A).

    The register is shifted right by eight and then xor-ed with the byte, so only its upper half ever counts: eight bits
    go from byte to byte, by a linear step that is the identity after eight of them. Bytes at the same place modulo
    eight may therefore be xor-ed first, as one large number folded in halves; only eight bytes go through the table.
    At most 16 KiB.

    >>> s = b"QN=20160801085857223;ST=32;CN=1062;PW=100000;MN=010000A8900016F000169DC0;Flag=5;CP=&&RtdInterval=30&&"
    >>> f"{crc_hj212(s):04X}"
    '1C80'
    """
    if not segment:
        return 0xFFFF
    # The register begins with ones: the same as the first byte inverted.
    folded = int.from_bytes(segment, "big") ^ 0xFF << 8 * (len(segment) - 1)
    if len(segment) > 1024:  # longer than the standard of 2017 has them
        for bits, mask in _FOLDS:
            folded = folded >> bits ^ folded & mask
    m0, m1, m2, m3, m4, m5, m6 = _WORDS
    if len(segment) > 128:
        folded = folded >> 4_096 ^ folded & m0
        folded = folded >> 2_048 ^ folded & m1
        folded = folded >> 1_024 ^ folded & m2
    folded = folded >> 512 ^ folded & m3
    folded = folded >> 256 ^ folded & m4
    folded = folded >> 128 ^ folded & m5
    folded = folded >> 64 ^ folded & m6
    a, b, c, d, e, f, g, h = folded.to_bytes(8, "big")
    step = _STEP
    return _TABLE[step[step[step[step[step[step[step[a] ^ b] ^ c] ^ d] ^ e] ^ f] ^ g] ^ h]


def crc_modbus(frame: bytes) -> int:
    """CRC-16/Modbus of ``frame``; SL 651 sends its upper byte first.

    >>> f"{crc_modbus(b'123456789'):04X}"
    '4B37'
    """
    table = _TABLE
    register = 0xFFFF
    for byte in frame:
        register = register >> 8 ^ table[register & 0xFF ^ byte]
    return register
