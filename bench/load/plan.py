"""What a load is, and what is said of it afterwards. Both go between processes as one line of JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Literal

from bench.load.streams import FormName

PACKET_IDS = 65_535


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """Everything the generator needs.

    points_file    registry; ``city_dir``: folder of the kinds' values
    leave_out      point ids that begin with one of these, comma-separated, are left to others; "" leaves none
    rate           readings a second; 0 is as fast as they are taken
    connections    sockets; the points are dealt evenly to them, gateway by gateway
    batch          readings a message; 1 is one on the point's own topic
    inflight_max   QoS 1 messages unacknowledged on one connection (MQTT 5: the server's Receive Maximum if less)
    ahead_ms       added to every time: negative for a past hour
    counts_file    where the counts by reading are written; "" nowhere
    """

    host: str
    port: int
    points_file: str
    city_dir: str
    seconds: float
    rate: float = 0.0
    connections: int = 16
    qos: int = 0
    batch: int = 1
    form: FormName = "plain"
    mqtt5_share: float = 0.5
    inflight_max: int = PACKET_IDS
    leave_out: str = ""
    counts_file: str = ""
    ahead_ms: int = 0
    rounds_max: int = 0
    drain_s_max: float = 120.0
    gateway_topic: str = "cd/{gateway}/batch"
    client_prefix: str = "load"

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(line: str) -> LoadPlan:
        """The plan written by to_json."""
        return LoadPlan(**json.loads(line))


@dataclass(slots=True)
class LoadReport:
    """What the generator did. Counts are readings unless they say otherwise.

    sent, acked   readings whose message was handed to the kernel whole; acknowledged (QoS 1)
    refused       messages acknowledged with a reason that refuses; strange: acknowledgements of nothing in flight
    begun_at, ended_at  seconds since 1970: first byte; last byte taken by the kernel
    cpu_s         of this process between the two, of it system_s in the kernel
    busy_share    CPU of the whole time: near 1 the generator itself is the limit
    lag_s_max     how far a paced load fell behind its pace
    ack_p50_ms, ack_p99_ms  from handing a run of messages to the kernel until its last acknowledgement (QoS 1)
    """

    sent: int = 0
    acked: int = 0
    refused: int = 0
    strange: int = 0
    messages: int = 0
    bytes_sent: int = 0
    connections: int = 0
    seconds: float = 0.0
    begun_at: float = 0.0
    ended_at: float = 0.0
    cpu_s: float = 0.0
    system_s: float = 0.0
    busy_share: float = 0.0
    cpu_us_per_message: float = 0.0
    lag_s_max: float = 0.0
    ack_p50_ms: float | None = None
    ack_p99_ms: float | None = None
    faults: list[str] = field(default_factory=list)


Through = Literal["listener", "mosquitto"]
