"""Sparkplug B 3.0: births, data and deaths of edge nodes and their devices.

Owns what nodes said before: aliases, sequence numbers, which birth a death belongs to. Readings come from BIRTH and
DATA; a DEATH names who left. Where a BIRTH is needed and has not come, the node is asked for it (``asks``); how often
is not known here. Knows nothing of the registry.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import ClassVar, Final
from zoneinfo import ZoneInfo

from google.protobuf.message import DecodeError

from ingest.codecs.base import Ask, Parsed
from ingest.codecs.naming import Ignored, device_in_topic
from ingest.codecs.sparkplug_pb2 import Metric, Payload
from ingest.codecs.sparkplug_values import number_of, quality_of
from ingest.decode.refused import Refused
from ingest.sourcesettings import SourceSettings
from storage.flags import DEVICE_SILENT, MISSING

NAMESPACE: Final = "spBv1.0"
BD_SEQ: Final = b"bdSeq"
REBIRTH: Final = "Node Control/Rebirth"
SEQ_COUNT: Final = 256
BOOLEAN: Final = 11
NODES_KEPT_MAX: Final = 10_000
"""Nodes of one source; a peer that invents them must not fill memory."""
ALIASES_MAX: Final = 100_000
"""Of one node."""
DEVICES_MAX: Final = 10_000
"""Of one node; a DEATH of the node is one of all its points whether they are known by device or not."""
TOLD_MAX: Final = 1_000_000
"""Names of metrics known of all nodes of a source, some 200 MB; beyond it all nodes are asked for their BIRTH anew."""
TIME_MS_MAX: Final = 1 << 52
"""Beyond any calendar; keeps µs inside int64."""
NAN: Final = float("nan")


@dataclass(frozen=True, slots=True)
class Alias:
    """What a BIRTH said an alias stands for. ``device`` "" is the node itself."""

    device: str
    name: str
    datatype: int


@dataclass(slots=True)
class Node:
    """An edge node as heard so far. ``seq`` -1: none heard; ``bd_seq`` -1: its BIRTH had none."""

    born: bool = False
    seq: int = -1
    bd_seq: int = -1
    aliases: dict[int, Alias] = field(default_factory=dict)
    types: dict[tuple[str, str], int] = field(default_factory=dict)
    devices: set[str] = field(default_factory=set)


class Sparkplug:
    """See ingest.codecs.base.Codec.

    counts  births, deaths, deaths_stale (of an earlier birth), seq_gaps, data_before_birth, historical
    """

    name: ClassVar[str] = "sparkplug"

    def __init__(self, settings: SourceSettings, zone: ZoneInfo) -> None:
        options = settings.sparkplug
        self._readings_max = settings.readings_per_message_max
        self._template = options.device
        self._in_topic = device_in_topic(settings)
        self._ignored = Ignored(options.ignore)
        self._asks = options.rebirth
        self._nodes: dict[tuple[str, str], Node] = {}
        self._told = 0
        self.counts: Counter[str] = Counter()

    def parse(self, topic: str, payload: bytes) -> Parsed:
        """What one message says."""
        levels = topic.split("/")
        if levels[0] != NAMESPACE or len(levels) < 3:
            raise Refused("bad_topic", f'"{topic[:80]}" is not {NAMESPACE}/group/type/node/device')
        if levels[1] == "STATE":
            return Parsed()
        if len(levels) not in (4, 5) or not all(levels):
            raise Refused("bad_topic", f'"{topic[:80]}" is not {NAMESPACE}/group/type/node/device')
        group, kind, name = levels[1:4]
        device = levels[4] if len(levels) == 5 else ""
        if kind in ("NCMD", "DCMD"):
            # Of a host to its nodes; only one that subscribes too widely hears it.
            return Parsed()
        if kind not in _KINDS or (kind[0] == "D") != bool(device):
            raise Refused("bad_topic", f'"{kind[:20]}" with {len(levels)} levels is no message of a node')
        message = _payload(payload)
        if len(message.metrics) > self._readings_max:
            raise Refused(
                "too_many_readings", f"{len(message.metrics)} metrics, at most {self._readings_max}"
            )
        parsed = Parsed()
        node = self._node(group, name)
        whose = Whose(group, name, device)
        if kind == "NDEATH":
            self._node_died(node, whose, message, parsed)
        elif kind == "DDEATH":
            self._follows(node, message, whose, parsed)
            node.devices.discard(device)
            self._forget(node, device)
            parsed.offline.append(self._named(whose))
            self.counts["deaths"] += 1
        else:
            if kind.endswith("BIRTH"):
                node = self._make_room(node, whose, len(message.metrics))
                parsed.online.append(self._named(whose))
                self.counts["births"] += 1
            if kind == "NBIRTH":
                _born(node, message)
            else:
                self._follows(node, message, whose, parsed)
            if kind == "DBIRTH":
                if len(node.devices) < DEVICES_MAX:
                    node.devices.add(device)
                self._forget(node, device)
            self._metrics(node, whose, message, parsed, learns=kind.endswith("BIRTH"))
        return parsed

    def _node(self, group: str, name: str) -> Node:
        node = self._nodes.get((group, name))
        if node is None:
            if len(self._nodes) >= NODES_KEPT_MAX:
                self._nodes.clear()
            node = self._nodes[group, name] = Node()
        return node

    def _make_room(self, node: Node, whose: Whose, metrics: int) -> Node:
        """For the names of a BIRTH; the node, a new one where all were forgotten."""
        self._told += metrics
        if self._told > TOLD_MAX:
            # Births come again: what is really known decides.
            self._told = metrics + sum(len(one.types) for one in self._nodes.values())
            if self._told > TOLD_MAX:
                self._nodes.clear()
                self._told = metrics
                return self._node(whose.group, whose.node)
        return node

    def _device(self, whose: Whose) -> str:
        """The device of a reading, in the source's words; "" where the topic says it."""
        return "" if self._in_topic else self._named(whose)

    def _named(self, whose: Whose) -> str:
        """What a device or a node is called."""
        if self._in_topic:
            return whose.device or whose.node
        template = self._template
        if not whose.device:
            template = template.replace("/{device}", "").replace("{device}/", "")
        return (
            template.replace("{group}", whose.group)
            .replace("{node}", whose.node)
            .replace("{device}", whose.device)
        )

    def _node_died(self, node: Node, whose: Whose, message: Payload, parsed: Parsed) -> None:
        """A will. One of an earlier birth, which a broker may send late, says nothing of now."""
        bd_seq = _bd_seq(message)
        if node.born and node.bd_seq >= 0 and bd_seq != node.bd_seq:
            self.counts["deaths_stale"] += 1
            return
        self.counts["deaths"] += 1
        parsed.offline.append(self._named(Whose(whose.group, whose.node, "")))
        parsed.offline += [self._named(Whose(whose.group, whose.node, one)) for one in sorted(node.devices)]
        parsed.gateways += [whose.node, f"{whose.group}/{whose.node}"]
        node.born, node.seq = False, -1
        node.devices.clear()

    def _follows(self, node: Node, message: Payload, whose: Whose, parsed: Parsed) -> None:
        """Keep count of sequence numbers; ask for a BIRTH where one is missing."""
        seq = message.seq if message.HasField("seq") else -1
        if not node.born:
            self.counts["data_before_birth"] += 1
            self._ask(whose, parsed)
        elif seq != (node.seq + 1) % SEQ_COUNT:
            self.counts["seq_gaps"] += 1
            self._ask(whose, parsed)
        node.seq = seq

    def _ask(self, whose: Whose, parsed: Parsed) -> None:
        if self._asks and not parsed.asks:
            parsed.asks.append(Ask(f"{NAMESPACE}/{whose.group}/NCMD/{whose.node}", rebirth_command()))

    @staticmethod
    def _forget(node: Node, device: str) -> None:
        """What an earlier BIRTH of a device said."""
        for alias in [number for number, known in node.aliases.items() if known.device == device]:
            del node.aliases[alias]
        for known in [known for known in node.types if known[0] == device]:
            del node.types[known]

    def _metrics(self, node: Node, whose: Whose, message: Payload, parsed: Parsed, *, learns: bool) -> None:
        device = self._device(whose)
        sent_ms = message.timestamp if message.HasField("timestamp") else None
        for metric in message.metrics:
            try:
                name, datatype = (
                    _learn(node, whose.device, metric) if learns else _recall(node, whose, metric)
                )
                if name in self._ignored:
                    continue
                time_us = _time(metric, sent_ms)
                flag = quality_of(metric.properties) if metric.HasField("properties") else DEVICE_SILENT
                value = NAN if metric.is_null else number_of(metric, datatype)
            except Refused as refused:
                if refused.reason == "no_birth":
                    self._ask(whose, parsed)
                parsed.refusals.append(refused)
                continue
            self.counts["historical"] += metric.is_historical
            parsed.add((device, name), time_us, value, flag or (MISSING if value != value else DEVICE_SILENT))


@dataclass(frozen=True, slots=True)
class Whose:
    """What a topic says."""

    group: str
    node: str
    device: str


_KINDS: Final = frozenset({"NBIRTH", "NDATA", "NDEATH", "DBIRTH", "DDATA", "DDEATH"})


def _payload(payload: bytes) -> Payload:
    message = Payload()
    try:
        message.ParseFromString(payload)
    except DecodeError as fault:
        raise Refused("bad_protobuf", str(fault)) from None
    if message.uuid.startswith(b"SPBV1.0_COMPRESSED"):
        raise Refused("wrong_shape", "compressed payloads are not read: switch compression off at the node")
    return message


def _born(node: Node, message: Payload) -> None:
    """A new session of the node: nothing of the one before holds."""
    node.born = True
    node.seq = message.seq if message.HasField("seq") else 0
    node.bd_seq = _bd_seq(message)
    node.aliases.clear()
    node.types.clear()
    node.devices.clear()


def _bd_seq(message: Payload) -> int:
    for metric in message.metrics:
        if metric.name == BD_SEQ:
            form = metric.WhichOneof("value")
            return (
                metric.int_value if form == "int_value" else metric.long_value if form == "long_value" else -1
            )
    return -1


def _text(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise Refused("bad_name", "the metric's name is not UTF-8") from None


def _learn(node: Node, device: str, metric: Metric) -> tuple[str, int]:
    """Name and datatype of a metric in a BIRTH, remembered. Raises Refused."""
    if not metric.name:
        raise Refused("bad_name", "a metric of a BIRTH has no name")
    name = _text(metric.name)
    if len(node.types) < ALIASES_MAX:
        node.types[device, name] = metric.datatype
        if metric.HasField("alias") and len(node.aliases) < ALIASES_MAX:
            node.aliases[metric.alias] = Alias(device, name, metric.datatype)
    return name, metric.datatype


def _recall(node: Node, whose: Whose, metric: Metric) -> tuple[str, int]:
    """Name and datatype of a metric in DATA, from itself or its BIRTH. Raises Refused."""
    if metric.name:
        name = _text(metric.name)
        return name, metric.datatype or node.types.get((whose.device, name), 0)
    if not metric.HasField("alias"):
        raise Refused("bad_name", "a metric has neither name nor alias")
    known = node.aliases.get(metric.alias)
    if known is None or known.device != whose.device:
        raise Refused("no_birth", f"alias {metric.alias} is not of a BIRTH heard here; the node was asked")
    return known.name, metric.datatype or known.datatype


def _time(metric: Metric, sent_ms: int | None) -> int | None:
    """µs of a metric: its own time, else its payload's."""
    ms = metric.timestamp if metric.HasField("timestamp") else sent_ms
    if ms is None:
        return None
    if ms > TIME_MS_MAX:
        raise Refused("bad_time", f"{ms} ms is no time")
    return ms * 1000


def rebirth_command() -> bytes:
    """The payload of an NCMD that asks a node for its BIRTH (Sparkplug 3.0, 6.4.22)."""
    command = Payload()
    metric = command.metrics.add()
    metric.name, metric.datatype, metric.boolean_value = REBIRTH.encode(), BOOLEAN, True
    return command.SerializeToString()
