"""The one exception of decoding: a reading, or a whole message, that cannot be stored, and why.

Owns its shape. The words of ``reason`` are ingest.decode.reasons.
"""

from __future__ import annotations

DETAIL_CHARS_MAX = 200
"""Of a refusal's explanation: one line on a terminal."""


class Refused(Exception):  # noqa: N818 - says what happened
    """A reading, or a whole message, that cannot be stored.

    reason    a name of ingest.decode.reasons.REASONS
    detail    what was found, for a person
    point_id  whose reading it was, where that is known
    raw       the bytes of the part that was refused; b"" stands for the whole message
    """

    def __init__(self, reason: str, detail: str = "", point_id: str | None = None, raw: bytes = b"") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail[:DETAIL_CHARS_MAX]
        self.point_id = point_id
        self.raw = raw
