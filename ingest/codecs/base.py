"""What a codec is: bytes of one message to readings in the source's own words.

Owns the shape of what a codec returns. A codec is pure: it holds no socket and asks no clock and no registry; whose a
reading is, in what unit, and whether it may be stored is ingest.codecs.binding. It may keep what a source said before
(aliases). Codecs are found by name in ingest.codecs.table.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol, runtime_checkable
from zoneinfo import ZoneInfo

from ingest.decode.refused import Refused

if TYPE_CHECKING:
    # Not at run time: a config is read, and help is shown, without Arrow.
    from ingest.config import SourceSettings
    from storage.records import Event

Key = tuple[str, str]
"""(device, quantity) in the source's own words; quantity "" where a device has one only."""


class Ask(NamedTuple):
    """A message for who sent one: a request that only it can fulfil."""

    topic: str
    payload: bytes


@dataclass(slots=True)
class Parsed:
    """One message as its codec understood it, before anyone asked whose it is.

    The first four are parallel, one entry a reading.

    keys      (device, quantity)
    times     µs since 1970 UTC; None: the reading brings no time
    values    as sent; NaN where missing
    flags     the device's own flag (storage.flags.DEVICE_FLAGS), DEVICE_SILENT where it said nothing
    refusals  parts of the message, or the whole, that could not be read; ``raw`` holds the part's bytes
    events    what happened, beside what was measured
    answers   what the device expects to hear once the message is on disk
    offline   devices that said they leave
    gateways  gateways, in the registry's words, that said it for all behind them
    online    devices that say they are there (again)
    asks      messages to be published where this one came from
    offsets   row to µs from the moment of receipt, where the time is told so; ``times`` has None there
    """

    keys: list[Key] = field(default_factory=list)
    times: list[int | None] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    flags: list[int] = field(default_factory=list)
    refusals: list[Refused] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    answers: list[bytes] = field(default_factory=list)
    offline: list[str] = field(default_factory=list)
    gateways: list[str] = field(default_factory=list)
    online: list[str] = field(default_factory=list)
    asks: list[Ask] = field(default_factory=list)
    offsets: dict[int, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.keys)

    def add(self, key: Key, time_us: int | None, value: float, flag: int = 0) -> None:
        """One reading."""
        self.keys.append(key)
        self.times.append(time_us)
        self.values.append(value)
        self.flags.append(flag)


class Common(NamedTuple):
    """A message as nearly all are: good readings of one moment, and nothing else to say.

    keys     as in Parsed; the same list each time the same comes again
    time_us  of all readings
    values   as sent, one a key; may be infinite
    flags    one a key; b"" where the device says nothing of any
    answer   what the device expects to hear once the message is on disk; b"" for nothing
    """

    keys: list[Key]
    time_us: int
    values: list[float]
    flags: bytes
    answer: bytes


class Codec(Protocol):
    """Bytes of one message to Parsed. Made from its source's settings: ``Codec(settings, zone)``.

    ``parse`` refuses a whole message by raising Refused and raises nothing else, whatever the bytes. The limits of the
    source (``readings_per_message_max``, ``depth_max``) are the codec's to hold; ``message_bytes_max`` was checked.
    """

    name: ClassVar[str]

    def __init__(self, settings: SourceSettings, zone: ZoneInfo) -> None:
        """``zone``: that of times without an offset."""

    def parse(self, topic: str, payload: bytes) -> Parsed:
        """What one message says. Raises Refused for a message of which nothing can be read."""
        ...


@runtime_checkable
class CommonCodec(Protocol):
    """A codec that knows what nearly all its messages look like, and reads those at less cost."""

    def common(self, payload: bytes) -> Common | None:
        """What ``parse`` would find, for a message it would find nothing else in; None for any other.

        Raises nothing and remembers nothing of the payload.
        """
        ...


@runtime_checkable
class SpokenCodec(Protocol):
    """A codec whose common messages a kernel reads once it heard what the names in them mean (ingest.kernels.packs)."""

    def spoken(self, payload: bytes) -> list[tuple[bytes, Key]]:
        """The names of a message that ``parse`` read without a refusal, as its kernel puts them together, and keys.

        Raises nothing: [] for a message that has none.
        """
        ...


@runtime_checkable
class StreamCodec(Protocol):
    """A codec that runs on plain TCP too: it finds the frames in a stream of bytes."""

    def split(self, buffer: bytes) -> tuple[list[bytes | Refused], int]:
        """Whole frames from the start of ``buffer``, and how many bytes of it they used.

        A bad start is skipped up to the next possible frame and stands among the frames as a Refused with its bytes.
        """
        ...
