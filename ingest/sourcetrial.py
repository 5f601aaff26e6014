"""One captured message through a source's file, as the engine would take it: readings, refusals, what was left over.

Owns the trial. Connects to nothing, writes nothing that stays. Points that no registry knows are taken as known where
there is no registry, so that a mapping can be tried before anything else exists.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from ingest.codecs.base import StreamCodec
from ingest.codecs.paths import Every, spelled_path
from ingest.codecs.paths import Path as Steps
from ingest.codecs.plan import paths_of
from ingest.config import Config, SourceSettings
from ingest.decode.columns import Columns
from ingest.decode.json_readings import JsonReadings
from ingest.decode.message import Message
from ingest.decode.reasons import REASONS
from ingest.decode.refused import Refused
from ingest.points import SCHEMA, read_registry
from ingest.routes import Route, Routes
from ingest.simulate.encoders.base import topic_of
from ingest.sourceproposal import leaves
from storage import pointmap
from storage.records import Event, Refusal

LEFT_OVER_MAX: Final = 20
"""Fields named that no path takes."""


@dataclass(slots=True)
class TriedReading:
    """One reading as it would be stored. ``in_window`` is by the clock now: a captured message may be old."""

    point_id: str
    time_us: int
    value: float
    flag: int
    unit: str
    in_window: bool


@dataclass(slots=True)
class Trial:
    """What came of a message.

    registry   whether a registry was asked whose the points are
    left_over  fields of a JSON message that no path takes
    """

    topic: str
    readings: list[TriedReading] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)
    registry: bool = True

    def advice(self, refusal: Refusal) -> str:
        """What a person does about a refusal."""
        return REASONS[refusal.reason].advice if refusal.reason in REASONS else ""


def try_message(config: Config, settings: SourceSettings, topic: str | None, payload: bytes) -> Trial:
    """Put a message through ``settings``, one of the config's sources.

    topic  None: the source's own door, or a topic of its first filter
    """
    with tempfile.TemporaryDirectory() as folder:
        registry = read_registry(Path(config.points.file), config)
        known = registry.table
        has_registry = Path(config.points.file).is_file() or bool(len(known))
        points = pointmap.merge(Path(folder), known.to_arrow(), 0)
        trial = _tried(config, settings, topic, payload, Routes(points, config))
        if has_registry:
            return trial
        ids = sorted({r.point_id for r in trial.refusals if r.reason == "unknown_point" and r.point_id})
        rows = known.clear().vstack(_made_up(ids, settings))
        made = pointmap.merge(Path(folder), rows.to_arrow(), 0)
        trial = _tried(config, settings, topic, payload, Routes(made, config))
        trial.registry = False
        return trial


def _made_up(ids: list[str], settings: SourceSettings) -> Any:
    """Registry rows for points that the source names."""
    import polars as pl

    units = {how.as_ or name: how.unit for name, how in settings.quantities.items()}
    rows: list[dict[str, Any]] = [
        {name: None if dtype == pl.Float64 else "" for name, dtype in SCHEMA.items()}
        | {
            "point_id": point_id, "source": settings.name, "kind": "unknown", "time_from": settings.time_from,
            "upstream": None, "interval_s": 0.0,
            "unit": next((unit for name, unit in units.items() if point_id.endswith(name)), ""),
        }
        for point_id in ids
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=SCHEMA)


def _tried(
    config: Config, settings: SourceSettings, topic: str | None, payload: bytes, routes: Routes
) -> Trial:
    now = time.time_ns() // 1000
    routes.set_window(now, open_ended=True)
    source = routes.sources[settings.name]
    oldest, newest = now - round(settings.age_s_max * 1e6), now + round(settings.ahead_s_max * 1e6)
    own_door = topic is None and not settings.topics
    said = topic or topic_of(settings, "x", "x")
    trial = Trial("" if own_door else said)
    decoder = JsonReadings(routes.points, routes.number_of)
    for part in _frames(source.codec, payload, own_door):
        into = Columns()
        route = (
            routes.of_source(settings.name)
            if own_door
            else routes.table(None, lambda *_: True)[said.encode()]
        )
        if isinstance(part, Refused):
            trial.refusals.append(Refusal(now, settings.name, said, part.reason, part.detail, part.raw))
            continue
        outcome = decoder.decode(_of(route, settings), Message(said.encode(), part, None, now), into)
        trial.refusals += outcome.refusals
        trial.events += outcome.events
        batch = into.take(now)
        for point, at, value, flag in zip(
            batch.point.tolist(),
            batch.time.tolist(),
            batch.value.tolist(),
            batch.device_flag.tolist(),
            strict=True,
        ):
            names = (routes.points.point_id[point], routes.points.unit[point])
            trial.readings.append(TriedReading(names[0], at, value, flag, names[1], oldest <= at <= newest))
    if settings.codec == "json" and settings.mapped and settings.event is None:
        trial.left_over = left_over(settings, payload)
    return trial


def _of(route: Route, settings: SourceSettings) -> Route:
    """The route, or a refusal where the topic leads to another source."""
    if route.refusal or route.source.name == settings.name:
        return route
    return Route(-1, -1, route.source, "unknown_topic")


def _frames(codec: object, payload: bytes, own_door: bool) -> list[bytes | Refused]:
    """The messages in what was captured: a stream of a TCP source may hold several."""
    if own_door and isinstance(codec, StreamCodec):
        frames, _ = codec.split(payload)
        return frames or [payload]
    return [payload]


def left_over(settings: SourceSettings, payload: bytes) -> list[str]:
    """Fields of a JSON message that the mapping takes nothing from; one of an array's elements stands for all."""
    try:
        body = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return []
    taken = list(paths_of(settings).values())
    if isinstance(body, list) and not any(path[:1] == (Every.ELEMENT,) for path in taken):
        body = body[0] if body else {}
    wanted = settings.quantities
    try:
        every = list(leaves(body, ()))
    except RecursionError:
        return []
    found = (leaf.path for leaf in every if not any(_takes(path, leaf.path, wanted) for path in taken))
    return [spelled_path(path) for path in found][:LEFT_OVER_MAX]


def _takes(path: Steps, leaf: Steps, wanted: Mapping[str, object]) -> bool:
    """Whether a path of the mapping ends at or above a leaf; ``wanted``: entries that "*" stands for, all if empty."""
    if len(path) > len(leaf):
        return False
    for said, step in zip(path, leaf, strict=False):
        if said is Every.ENTRY:
            if not isinstance(step, str) or (wanted and step not in wanted):
                return False
        elif said != step and not (isinstance(said, int) and step is Every.ELEMENT):
            return False
    return True
