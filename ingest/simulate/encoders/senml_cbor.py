"""SenML in CBOR: the packs of ``ingest.simulate.encoders.senml`` with numbers for labels (RFC 8428, 6)."""

from __future__ import annotations

from typing import Any

import cbor2

from ingest.codecs.senml import CBOR_LABELS
from ingest.simulate.encoders import senml

_NUMBER_OF = {name: label for label, name in CBOR_LABELS.items()}


class Encoder(senml.Encoder):
    """See ingest.simulate.encoders.base.Encoder."""

    @staticmethod
    def _bytes(pack: list[dict[str, Any]]) -> bytes:
        return cbor2.dumps([{_NUMBER_OF[label]: value for label, value in record.items()} for record in pack])
