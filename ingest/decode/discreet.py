"""What quarantine keeps of messages that may speak of persons: the reason and a hash, never the words.

Owns that reduction. Knows nothing of how a message was refused.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from typing import Any, Final

import orjson

from ingest.codecs.masking import MASK, masked, somebodys_number
from storage.records import Refusal

HASHED_BYTES_MIN: Final = 64
"""A shorter message could be guessed from its hash: a telephone number in ten seconds."""
_NAMES = re.compile(
    r"phone|tel|mobile|cell|fax|contact|caller|card|idno|电话|手机|联系|来电|号码|证", re.IGNORECASE
)
"""Under such a name no number is a device's."""
DEPTH_MAX: Final = 32
"""Of JSON that is masked value by value; deeper is kept without bytes."""


def reason_and_hash(refusal: Refusal, known_point: bool) -> Refusal:
    """A refusal of a source that is about persons: without bytes or quotations. Its sender finds the message by the
    SHA-256 of the bytes that were refused."""
    named = len(refusal.raw) >= HASHED_BYTES_MIN
    return replace(
        refusal,
        topic=masked(refusal.topic, strict=True),
        detail=f"sha256 {hashlib.sha256(refusal.raw).hexdigest()}" if named else "",
        raw=b"",
        point_id=refusal.point_id if known_point else None,
        client=None if refusal.client is None else masked(refusal.client, strict=True),
    )


def masked_refusal(refusal: Refusal) -> Refusal:
    """A refusal of nobody's topic in a city where some source is about persons: it may have been meant for that one."""
    return replace(
        refusal,
        topic=masked(refusal.topic, strict=False),
        detail=masked(refusal.detail, strict=False),
        raw=_masked_bytes(refusal.raw),
        client=None if refusal.client is None else masked(refusal.client, strict=False),
    )


def _masked_bytes(raw: bytes) -> bytes:
    """JSON value by value, for its numbers and escapes; other text as it is written; what is neither is not kept."""
    try:
        body = orjson.loads(raw)
        clean = _masked_value(body, 0, strict=False)
        return raw if clean == body else orjson.dumps(clean)
    except orjson.JSONDecodeError:
        try:
            return masked(raw.decode(), strict=True).encode()
        except UnicodeDecodeError:
            return b""
    except (ValueError, TypeError):
        return b""


def _masked_value(value: Any, depth: int, *, strict: bool) -> Any:
    """Strictly what stands under a name that says so, and what is text; codes of devices are numbers too."""
    if depth > DEPTH_MAX:
        raise ValueError("too deep")
    if isinstance(value, str):
        return masked(value, strict=strict or not value.isascii() or " " in value)
    if isinstance(value, dict):
        return {
            masked(key, strict=False): _masked_value(
                one, depth + 1, strict=strict or bool(_NAMES.search(key))
            )
            for key, one in value.items()
        }
    if isinstance(value, list):
        return [_masked_value(one, depth + 1, strict=strict) for one in value]
    if (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and somebodys_number(value, strict=strict)
    ):
        return MASK
    return value
