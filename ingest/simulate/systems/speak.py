"""The whole city speaking: each system over its own connections, in its own form, and a ledger of what it said.

Owns when a device speaks, the connections (one MQTT client a system through aiomqtt, a few TCP connections where
devices call by plain TCP) and the ledger. What bytes a reading becomes is the codec's encoder. Says what the lake must
hold, taken before encoding.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import aiomqtt
import numpy as np
import polars as pl

from ingest.config import Config, SourceSettings
from ingest.configfile import load
from ingest.simulate.city_kinds import load_kinds
from ingest.simulate.encoders.base import Encoder, Sent, encoder_class
from ingest.simulate.events import Spoken, city_events
from ingest.simulate.projects import places_of, projects_of
from ingest.simulate.systems.table import Archetype, System, devices_of, load_archetype, load_systems
from ingest.simulate.systems.values import SystemValues
from storage.batch import F64, I64, US_PER_S
from storage.fsync import replace_durably

TCP_CONNECTIONS: Final = 8
"""Of one system: its devices share them, as behind a concentrator."""
IN_FLIGHT: Final = 500
"""Messages of one system that wait for their PUBACK."""
ANSWER_S_MAX: Final = 20.0
"""How long the end waits for what devices expect to hear."""
PACE: Final = 0.0005
"""Lives of events in times their length: a fortnight passes in ten minutes, so a short run shows whole lives."""
SITES: Final = 200
"""Places of the registry at which events happen."""
STARTS: Final = {"hj212": b"##", "sl651": b"\x7e\x7e"}
"""What an answer begins with, in the codecs that answer."""


@dataclass(slots=True)
class Said:
    """What was said. Readings and event steps are counted once each; ``answers`` of ``frames`` were heard over TCP."""

    systems: int = 0
    readings: int = 0
    messages: int = 0
    frames: int = 0
    answers: int = 0
    event_messages: int = 0
    event_steps: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0
    lag_s_max: float = 0.0


@dataclass(slots=True)
class Ledger:
    """Rows of what the lake must hold: parts of (system, device, quantity, second, value), and event steps."""

    readings: list[tuple[str, I64, I64, F64]] = field(default_factory=list)
    steps: list[tuple[str, str, str, int]] = field(default_factory=list)


class Voice:
    """One system of devices. ``due`` gives what is said in a second; nothing is sent here."""

    def __init__(
        self, system: System, archetype: Archetype, source: SourceSettings, scale: float, seed: int
    ) -> None:
        self.system = system
        self.source = source
        self.archetype = archetype
        self.devices = [archetype.device.format(n=n + 1) for n in range(devices_of(system, archetype, scale))]
        self.interval_s = max(1, round(source.interval_s))
        self.words = list(archetype.quantities)
        self._seed = seed

    def ready(self, city_dir: Path, zone: ZoneInfo) -> None:
        """Make the encoder and the values."""
        made = encoder_class(self.source.codec)
        assert made is not None, self.source.codec
        zone = ZoneInfo(self.source.time_zone) if self.source.time_zone else zone
        self.encoder: Encoder = made(self.source, zone)
        # Of another one: whoever asks for its will begins another life.
        will = getattr(made(self.source, zone), "death", None)
        self.death: tuple[str, bytes] | None = will() if will else None
        decimals = min(self.encoder.DECIMALS, 6)
        kinds = load_kinds(city_dir)
        self.values = SystemValues(
            self.system, self.archetype, kinds, len(self.devices), self._seed, decimals
        )

    def due(self, second: int, ledger: Ledger) -> Iterator[tuple[str, bytes]]:
        """(topic, payload) of the devices whose turn it is, noted in the ledger before they are encoded.

        A system's devices are spread over its interval, as clocks that were never set together are.
        """
        turn = np.arange((second % self.interval_s), len(self.devices), self.interval_s)
        if not len(turn):
            return
        sent = self.values.sent(second, turn)
        ledger.readings.append((self.system.id, turn, np.full(len(turn), second), self.values.stored(sent)))
        chunk = max(1, self.archetype.together)
        for begin in range(0, len(turn), chunk):
            rows = turn[begin : begin + chunk]
            yield from self.encoder.messages(list(self._sent(rows, sent[begin : begin + chunk], second)))

    def _sent(self, rows: I64, sent: F64, second: int) -> Iterator[Sent]:
        for device, values in zip(rows.tolist(), sent.tolist(), strict=True):
            for word, value in zip(self.words, values, strict=True):
                yield Sent(self.devices[device], word, second * US_PER_S, value, self.encoder.FLAG)


def voices(folder: Path, city_dir: Path, config: Config, scale: float, seed: int) -> list[Voice]:
    """All systems that measure, ready to speak."""
    sources = {source.name: source for source in config.source}
    zone = ZoneInfo(config.city.time_zone)
    found = []
    for system in load_systems(city_dir):
        if not system.has_events:
            archetype = load_archetype(city_dir, system.archetype)
            voice = Voice(system, archetype, sources[system.id], scale, seed)
            voice.ready(city_dir, zone)
            found.append(voice)
    return found


async def speak(
    folder: Path, city_dir: Path, *, seconds: int, scale: float, seed: int, port: int, events: float = 1.0
) -> Said:
    """Be the city for so many seconds; returns when all is acknowledged and the ledger is written.

    folder  of ``make``; scale and seed as there
    port    of the engine's listener on this machine
    events  cases a day, in times the city's own
    Raises OSError, aiomqtt.MqttError where the engine is not there or goes away.
    """
    config = load(folder / "yuzui.toml")
    ledger, said = Ledger(), Said()
    speakers = voices(folder, city_dir, config, scale, seed)
    said.systems = len(speakers)
    begin = int(time.time()) + 2
    told = _events(folder, seed, begin, begin + seconds, events)
    cpu = time.process_time()
    async with asyncio.TaskGroup() as city:
        for voice in speakers:
            if voice.source.port is None:
                city.create_task(_over_mqtt(voice, begin, seconds, port, ledger, said))
            else:
                city.create_task(_over_tcp(voice, begin, seconds, ledger, said))
        city.create_task(_tell_events(told, port, ledger, said))
    said.seconds, said.cpu_s = float(seconds), time.process_time() - cpu
    said.readings = sum(values.size for _, _, _, values in ledger.readings)
    said.event_steps = len(ledger.steps)
    _write(folder, speakers, ledger)
    return said


async def _seconds(begin: int, seconds: int, said: Said) -> Any:
    for second in range(begin, begin + seconds):
        await asyncio.sleep(max(0.0, second - time.time()))
        said.lag_s_max = max(said.lag_s_max, time.time() - second)
        yield second


async def _over_mqtt(voice: Voice, begin: int, seconds: int, port: int, ledger: Ledger, said: Said) -> None:
    will = None if voice.death is None else aiomqtt.Will(*voice.death, qos=1)
    async with aiomqtt.Client(
        "127.0.0.1", port, identifier=voice.system.id, will=will, max_inflight_messages=IN_FLIGHT,
        max_concurrent_outgoing_calls=2 * IN_FLIGHT,
    ) as client:  # fmt: skip
        async for second in _seconds(begin, seconds, said):
            sent = list(voice.due(second, ledger))
            said.messages += len(sent)
            for at in range(0, len(sent), IN_FLIGHT):
                calls = (
                    client.publish(topic, payload, qos=1) for topic, payload in sent[at : at + IN_FLIGHT]
                )
                await asyncio.gather(*calls)


async def _over_tcp(voice: Voice, begin: int, seconds: int, ledger: Ledger, said: Said) -> None:
    count = min(TCP_CONNECTIONS, len(voice.devices))
    lines = [await asyncio.open_connection("127.0.0.1", voice.source.port) for _ in range(count)]
    heard = [0] * count
    start = STARTS[voice.source.codec]

    async def listen(number: int) -> None:
        rest = b""
        while data := await lines[number][0].read(65_536):
            rest += data
            heard[number] += rest.count(start)
            rest = rest[-1:] if rest.endswith(start[:1]) and not rest.endswith(start) else b""

    listeners = [asyncio.create_task(listen(number)) for number in range(count)]
    frames = 0
    async for second in _seconds(begin, seconds, said):
        for _, frame in voice.due(second, ledger):
            lines[frames % count][1].write(frame)
            frames += 1
        await asyncio.gather(*(writer.drain() for _, writer in lines))
    end = time.monotonic() + ANSWER_S_MAX
    while sum(heard) < frames and time.monotonic() < end:  # noqa: ASYNC110 - the end of a run, not a path of work
        await asyncio.sleep(0.05)
    said.frames += frames
    said.answers += sum(heard)
    for (_, writer), listener in zip(lines, listeners, strict=True):
        writer.close()
        listener.cancel()


def _events(folder: Path, seed: int, begin: int, end: int, scale: float) -> list[Spoken]:
    columns = ["point_id", "device_id", "district", "lon", "lat", "kind"]
    table = pl.read_parquet(folder / "points.parquet", columns=columns)
    sites = places_of(table, seed, SITES)
    cameras = table.filter(pl.col("kind") == "video")["point_id"].head(SITES).to_list()
    projects = projects_of(table, begin * US_PER_S, seed)
    span = begin * US_PER_S, end * US_PER_S
    return list(city_events(seed, *span, sites, cameras=cameras, scale=scale, pace=PACE, projects=projects))


async def _tell_events(told: Sequence[Spoken], port: int, ledger: Ledger, said: Said) -> None:
    async with aiomqtt.Client("127.0.0.1", port, identifier="city-events") as client:
        for one in told:
            await asyncio.sleep(max(0.0, one.at_us / US_PER_S - time.time()))
            ledger.steps += [(one.source, step.id, step.state, step.at_us) for step in one.steps]
            said.event_messages += 1
            await client.publish(one.topic, one.payload, qos=1)


def _write(folder: Path, speakers: Sequence[Voice], ledger: Ledger) -> None:
    """ledger/readings.parquet (point_id, time, value) and ledger/steps.parquet."""
    out = folder / "ledger"
    out.mkdir(exist_ok=True)
    ids = {}
    for voice in speakers:
        names = [
            voice.archetype.body.get("quantities", {}).get(word, {}).get("as", word) for word in voice.words
        ]
        ids[voice.system.id] = [
            [f"{voice.system.id}-{device}-{name}" for name in names] for device in voice.devices
        ]
    rows: dict[str, list[Any]] = {"point_id": [], "time": [], "value": []}
    for system, devices, seconds, values in ledger.readings:
        for device in devices.tolist():
            rows["point_id"] += ids[system][device]
        rows["time"].append(np.repeat(seconds, values.shape[1]) * US_PER_S)
        rows["value"].append(values.reshape(-1))
    readings = pl.DataFrame(
        {
            "point_id": rows["point_id"],
            "time": np.concatenate(rows["time"]),
            "value": np.concatenate(rows["value"]),
        }
    ).with_columns(pl.col("time").cast(pl.Datetime("us", "UTC")))
    steps = pl.DataFrame(ledger.steps, schema=["source", "id", "state", "time"], orient="row")
    for name, table in (("readings", readings), ("steps", steps)):
        table.write_parquet(out / f".{name}.tmp")
        replace_durably(out / f".{name}.tmp", out / f"{name}.parquet")


def report(said: Said) -> dict[str, Any]:
    """As JSON has it."""
    return asdict(said)
