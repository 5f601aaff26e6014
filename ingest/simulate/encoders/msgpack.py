"""MessagePack: the bodies of ``ingest.simulate.encoders.json``, packed."""

from __future__ import annotations

from collections.abc import Sequence

import msgpack
import orjson

from ingest.simulate.encoders import json
from ingest.simulate.encoders.base import Sent


class Encoder(json.Encoder):
    """See ingest.simulate.encoders.base.Encoder."""

    def messages(self, readings: Sequence[Sent]) -> list[tuple[str, bytes]]:
        """(topic, payload) of bodies that hold these readings."""
        return [(topic, msgpack.packb(orjson.loads(body))) for topic, body in super().messages(readings)]
