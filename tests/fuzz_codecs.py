"""`scripts/fuzz`: mangled messages for every codec, through the decoder the engine uses.

Ends with 1 at the first input that is neither readings nor quarantine, and shows it.
"""

from __future__ import annotations

import sys
import time

from ingest.codecs.table import CODECS
from ingest.config import Config
from ingest.decode.messages import Chunk, Messages
from ingest.routes import Routes
from tests.codec_trials import NOON_US, bench, fuzz, trial_points

INPUTS = 200_000


def run(name: str, inputs: int, seed: int) -> tuple[int, int]:
    """(readings, refusals) of one codec. Raises AssertionError for an input that is not accounted for."""
    routes = Routes(trial_points(name), Config(source=[bench(name).settings]))
    routes.set_window(NOON_US)
    decoder = Messages(routes, 1_000_000_000)
    table = routes.table(None, lambda _name, _topic: True)
    readings = quarantined = 0
    for topic, payload in fuzz(name, inputs, seed):
        before = decoder.counts["received"]
        decoder.feed(table, Chunk([topic.encode()], [payload], [0x32], "fuzz"), NOON_US)
        batch, refusals = decoder.take(NOON_US)
        assert decoder.refused_by_reason["trial", "codec_fault"] == 0, (payload, refusals[-1].detail)
        assert decoder.counts["received"] - before == len(batch) + len(refusals), payload
        readings += len(batch)
        quarantined += len(refusals)
        decoder.kept_bytes.clear()
    return readings, quarantined


def main() -> None:
    """Inputs in all and the seed from the command line."""
    inputs = int(sys.argv[1]) if len(sys.argv) > 1 else INPUTS
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else int(time.time())
    print(f"{inputs:,} inputs over {len(CODECS)} codecs, seed {seed}", flush=True)
    for name in sorted(CODECS):
        began = time.monotonic()
        share = inputs // len(CODECS)
        try:
            readings, quarantined = run(name, share, seed)
        except AssertionError as found:
            print(f"{name}: {found}")
            sys.exit(1)
        print(
            f"{name}: {share:,} inputs, {readings:,} readings, {quarantined:,} in quarantine, "
            f"{time.monotonic() - began:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
