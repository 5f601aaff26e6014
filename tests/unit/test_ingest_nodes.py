"""What nodes say beside readings: who left, who came back in the same breath, and how often one is asked."""

from __future__ import annotations

from ingest.config import Config
from ingest.decode.messages import Chunk, Messages
from ingest.routes import Routes
from ingest.simulate.encoders.base import Sent
from ingest.simulate.encoders.sparkplug import Encoder
from ingest.sourcesettings import SourceSettings
from storage.points import PointTable
from storage.records import LEFT, Control
from tests.codecs import SHANGHAI, T0
from tests.tables import point_table

SETTINGS = SourceSettings.model_validate({"name": "plant", "codec": "sparkplug", **Encoder.SOURCE})
DEVICES = ("s1", "s2")


class Site:
    """A decoder that knows two devices of node n1, and what it would publish."""

    def __init__(self, gateway: str = "") -> None:
        table: PointTable = point_table(2, source="plant")
        table.point_id = [f"{device}-x" for device in DEVICES]
        table.gateways[int(table.gateway[0])] = gateway
        self.points = table
        routes = Routes(table, Config(source=[SETTINGS]))
        routes.set_window(T0)
        self.decoder = Messages(routes, 1000)
        self._table = routes.table(None, lambda _name, _topic: True)
        self.published: list[str] = []
        self.node = Encoder(SETTINGS, SHANGHAI)

    def hear(self, *messages: tuple[str, bytes], at: float = 0.0) -> None:
        chunk = Chunk(
            [t.encode() for t, _ in messages], [p for _, p in messages], [0x30] * len(messages), "c"
        )
        self.decoder.feed(self._table, chunk, T0)
        self.decoder.nodes.ask(self._publish, at)

    def _publish(self, topic: str, _payload: bytes) -> bool:
        self.published.append(topic)
        return True

    def readings(self, *devices: str) -> list[tuple[str, bytes]]:
        return self.node.messages([Sent(device, "x", T0, 1.0) for device in devices])

    def left(self) -> Control | None:
        return self.decoder.nodes.take_left(self.points, T0)


def test_a_will_names_the_points_that_were_heard_and_those_of_the_registrys_gateway() -> None:
    site = Site()
    site.hear(*site.readings("s1"))
    site.hear(site.node.death())
    assert site.left() == Control(LEFT, {"at": T0, "points": ["s1-x"]})
    assert site.left() is None
    # A will that is all an engine has heard of a node: the registry knows who is behind it.
    fresh = Site(gateway="n1")
    fresh.hear(fresh.node.death())
    left = fresh.left()
    assert left is not None
    assert "s1-x" in left.body["points"]


def test_a_node_that_dies_and_is_born_within_one_poll_was_not_missed() -> None:
    site = Site()
    site.hear(*site.readings("s1", "s2"))
    will = site.node.death()
    site.hear(will, *site.readings("s1"))
    left = site.left()
    assert left is not None
    assert left.body["points"] == ["s2-x"]


def test_a_node_is_asked_for_its_birth_at_most_once_in_a_while() -> None:
    site = Site()
    births = site.readings("s1")
    data = site.readings("s1")
    for second in range(25):
        site.hear(*data, at=float(second))
    assert site.published == ["spBv1.0/plant/NCMD/n1"] * 3
    assert site.decoder.nodes.counts == {"nodes_asked": 3, "nodes_asks_held": 22}
    site.hear(*births, at=60.0)
    site.hear(*site.readings("s1"), at=90.0)
    assert len(site.published) == 4, "the sequence began anew while data went on: one gap"
