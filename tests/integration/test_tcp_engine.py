"""HJ 212 and SL 651 stations on plain TCP against a real engine: stored, answered, nothing lost, nothing twice."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from ingest.codecs.hj212 import framed
from ingest.simulate.encoders.base import Sent
from ingest.simulate.encoders.hj212 import Encoder as Hj212Encoder
from ingest.simulate.encoders.sl651 import Encoder as Sl651Encoder
from ingest.sourcesettings import SourceSettings
from storage.flags import FAIL, GOOD
from tests.engines import ROOT, EngineProcess, free_port, run_yuzui, until

SHANGHAI = ZoneInfo("Asia/Shanghai")
STATIONS = 60
AT_ONCE = 40
EPB, WATER = "epb", "water"


@dataclass
class Site:
    """An engine with one HJ 212 and one SL 651 source, each on a port of its own."""

    engine: EngineProcess
    ports: dict[str, int] = field(default_factory=dict)

    def connect(self, source: str) -> socket.socket:
        """A station at its source's port."""
        peer = socket.create_connection(("127.0.0.1", self.ports[source]), timeout=60)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return peer


def mn(number: int) -> str:
    return f"510100A8900016F000{number:06d}"


def station_id(number: int) -> str:
    return f"{6_080_000_000 + number}"


def config_of(folder: Path, ports: dict[str, int]) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    rows = ["point_id,name,gateway_id,source,kind,unit,topic,expected_interval_s,time_from"]
    for number in range(STATIONS):
        rows += [
            f"{mn(number)}-{q},空气 {number},,{EPB},pm,ug/m3,,0,device" for q in ("a34004-Rtd", "a34002-Rtd")
        ]
        rows += [
            f"{station_id(number)}-{q},水文 {number},,{WATER},water,m,,0,device" for q in ("39", "26", "F4")
        ]
    (folder / "points.csv").write_text("\n".join(rows) + "\n")
    return (
        '[city]\ntime_zone = "Asia/Shanghai"\n[data]\ndir = "data"\n[points]\nfile = "points.csv"\n'
        '[ops]\nport = 0\n[log]\nformat = "text"\n[kinds.pm]\n[kinds.water]\n'
        f'[[source]]\nname = "{EPB}"\ncodec = "hj212"\nport = {ports[EPB]}\n'
        f'[[source]]\nname = "{WATER}"\ncodec = "sl651"\nport = {ports[WATER]}\n'
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One engine for all of the page; each test has stations of its own."""
    folder = tmp_path_factory.mktemp("tcp")
    ports = {EPB: free_port(), WATER: free_port()}
    running = Site(EngineProcess(folder, config_of(folder, ports)).start(), ports)
    yield running
    if running.engine.running:
        assert running.engine.stop() == 0


def hj212_frames(number: int, begin_us: int, n: int) -> list[bytes]:
    """``n`` real-time reports of one monitor, a second apart."""
    encoder = Hj212Encoder(SourceSettings(name=EPB, codec="hj212"), SHANGHAI)
    return [
        frame
        for step in range(n)
        for _, frame in encoder.messages(
            [
                Sent(mn(number), "a34004-Rtd", begin_us + step * 1_000_000, number + step / 100, GOOD),
                Sent(
                    mn(number),
                    "a34002-Rtd",
                    begin_us + step * 1_000_000,
                    number + 0.5,
                    FAIL if step % 2 else GOOD,
                ),
            ]
        )
    ]


def sl651_frames(number: int, begin_us: int, n: int) -> list[bytes]:
    """``n`` timed reports of one hydrological station, a second apart."""
    encoder = Sl651Encoder(SourceSettings(name=WATER, codec="sl651"), SHANGHAI)
    return [
        frame
        for step in range(n)
        for _, frame in encoder.messages(
            [
                Sent(station_id(number), "39", begin_us + step * 1_000_000, number + step / 1000),
                Sent(station_id(number), "26", begin_us + step * 1_000_000, float(step)),
            ]
        )
    ]


def converse(
    site: Site,
    source: str,
    frames: list[bytes],
    answers: list[bytes],
    heard: Callable[[], object] = lambda: None,
) -> None:
    """Send each frame and wait for its answer, as a station does; ``heard`` is called after each."""
    with site.connect(source) as peer:
        for frame in frames:
            peer.sendall(frame)
            answer = b""
            end, size = (b"\r\n", 0) if source == EPB else (b"", 25)
            while not (answer.endswith(end) if end else len(answer) >= size):
                got = peer.recv(4096)
                assert got, "the engine hung up"
                answer += got
            answers.append(answer)
            heard()


def second_us(ago: int = 60) -> int:
    """A whole second in the recent past, in µs; not a whole minute's worth of them apart."""
    return (int(time.time()) - ago) * 1_000_000


def test_many_stations_at_once_are_stored_and_answered(site: Site) -> None:
    begin, n = second_us(), 20
    heard: dict[tuple[str, int], list[bytes]] = {}
    threads = []
    for number in range(AT_ONCE):
        for source, made in ((EPB, hj212_frames), (WATER, sl651_frames)):
            answers = heard[source, number] = []
            frames = made(number, begin, n)
            threads.append(threading.Thread(target=converse, args=(site, source, frames, answers)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    for (source, number), answers in heard.items():
        assert len(answers) == n
        if source == EPB:
            assert all(b"ST=91;CN=9014;" in a and mn(number).encode() in a for a in answers)
        else:
            assert all(a[2:7].hex() == station_id(number) and a[10] == 0x32 for a in answers)
            assert [int.from_bytes(a[14:16], "big") for a in answers] == list(range(1, n + 1))
    vitals = site.engine.counted(AT_ONCE * n * 4)
    assert vitals["quarantined"] == 0
    assert vitals["station_answers"] == AT_ONCE * n * 2
    site.engine.until_lake(
        "SELECT source, count(*), count(DISTINCT (point_id, time)) FROM readings GROUP BY 1 ORDER BY 1",
        [(EPB, AT_ONCE * n * 2, AT_ONCE * n * 2), (WATER, AT_ONCE * n * 2, AT_ONCE * n * 2)],
    )
    one = f"point_id = '{mn(7)}-a34002-Rtd' AND epoch_us(time) = {begin + 1_000_000}"
    assert site.engine.lake(f"SELECT value, device_flag FROM readings WHERE {one}") == [(7.5, FAIL)]


def test_an_hour_of_rain_becomes_twelve_readings(site: Site) -> None:
    encoder = Sl651Encoder(SourceSettings(name=WATER, codec="sl651"), SHANGHAI)
    last = second_us() // 60_000_000 * 60_000_000
    rain = [0.0, 0.1, 2.5, float("nan"), *[0.2] * 8]
    converse(site, WATER, [encoder.hour(station_id(40), "F4", last, rain)], [])
    site.engine.until_lake(
        f"SELECT value, flag FROM readings WHERE point_id = '{station_id(40)}-F4' ORDER BY time",
        [(None, 9) if v != v else (v, 1) for v in rain],
    )


def test_garbage_strangers_and_wrong_checksums_end_in_quarantine_and_stop_nobody(site: Site) -> None:
    begin = second_us()
    good = hj212_frames(41, begin, 1)[0]
    wrong = good[:-6] + b"FFFF\r\n"
    stranger = framed(
        b"QN=20260801085857223;ST=22;CN=2011;PW=1;MN=NOBODY;Flag=5;CP=&&DataTime="
        + good.split(b"DataTime=")[1][:14]
        + b";a34004-Rtd=1,a34004-Flag=N&&"
    )
    half = site.connect(EPB)
    half.sendall(good[:50])
    loris = [site.connect(EPB) for _ in range(50)]
    for number, one in enumerate(loris):
        one.sendall(b"##0"[: number % 4])
    with site.connect(EPB) as peer:
        peer.sendall(bytes(range(128, 256)) * 500 + b"\r\n")
        peer.sendall(wrong + stranger + good)
        answer = b""
        while answer.count(b"\r\n") < 2:
            got = peer.recv(4096)
            assert got
            answer += got
    # The stranger is answered too: what it said is on disk, in quarantine. The wrong checksum is not.
    assert answer.count(b"CN=9014") == 2
    half.close()
    site.engine.until_lake(
        "SELECT reason, count(*) > 0 FROM quarantine GROUP BY 1 ORDER BY 1",
        [("bad_crc", True), ("bad_frame", True), ("unknown_point", True)],
    )
    assert site.engine.lake("SELECT raw FROM quarantine WHERE reason = 'bad_crc'") == [(wrong[:-2],)]
    site.engine.until_lake("SELECT raw FROM quarantine WHERE detail LIKE '%closed_by_peer%'", [(good[:50],)])
    site.engine.until_lake(f"SELECT count(*) FROM readings WHERE point_id LIKE '{mn(41)}%'", [(2,)])
    vitals = site.engine.vitals()
    assert vitals["conservation_gap"] == 0
    until(lambda: site.engine.vitals()["stations_open"][EPB] == len(loris), "the others are gone")
    for one in loris:
        one.close()


def test_what_was_answered_survives_a_kill_and_what_is_sent_again_is_not_there_twice(site: Site) -> None:
    """kill -9 while stations speak; then every one of them sends all of it again, answered or not."""
    begin, n = second_us(200), 30
    frames = {number: hj212_frames(number, begin, n) for number in range(50, 58)}
    answers: dict[int, list[bytes]] = {number: [] for number in frames}

    def enough() -> None:
        """By a station itself: whoever watches them may be late, and find that all was said."""
        if sum(map(len, answers.values())) >= 2 * len(frames):
            site.engine.signal(signal.SIGKILL)

    def speak(number: int) -> None:
        with contextlib.suppress(OSError, AssertionError):
            converse(site, EPB, frames[number], answers[number], enough)

    threads = [threading.Thread(target=speak, args=(number,)) for number in frames]
    for thread in threads:
        thread.start()
    until(lambda: not site.engine.running, "some answers, and the kill")
    for thread in threads:
        thread.join(60)
    answered = sum(map(len, answers.values()))
    assert answered < n * len(frames), "killed too late to show anything"
    site.engine.start()
    per_point = "SELECT point_id, count(*) FROM readings WHERE point_id LIKE '%a34004-Rtd' GROUP BY 1"

    def all_there() -> bool:
        stored = dict(site.engine.lake(per_point))
        return all(stored.get(f"{mn(number)}-a34004-Rtd", 0) >= len(a) for number, a in answers.items())

    until(all_there, f"the {answered} reports that were answered")
    for sent in frames.values():
        converse(site, EPB, sent, [])
    whole = 2 * n * len(frames)
    names = f"point_id BETWEEN '{mn(50)}' AND '{mn(58)}'"
    counts = f"SELECT count(*), count(DISTINCT (point_id, time)) FROM readings WHERE {names}"
    site.engine.until_lake(counts, [(whole, whole)])
    assert site.engine.vitals()["conservation_gap"] == 0


def test_peers_that_reset_before_their_answer_harm_nobody(site: Site) -> None:
    begin = second_us()
    for _ in range(30):
        peer = site.connect(EPB)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.sendall(hj212_frames(42, begin, 1)[0])
        peer.close()
    answers: list[bytes] = []
    converse(site, EPB, hj212_frames(42, begin + 1_000_000, 3), answers)
    assert len(answers) == 3


def test_the_file_that_the_page_on_protocols_shows_connects_a_device(site: Site) -> None:
    page = (ROOT / "docs" / "protocols.md").read_text("utf-8")
    [shown] = re.findall(r"```toml source\n(.*?)```", page, re.DOTALL)
    site.ports["epb-air"] = free_port()
    folder = site.engine.folder / "sources.d"
    folder.mkdir()
    (folder / "epb-air.toml").write_text(shown.replace("port = 2120", f"port = {site.ports['epb-air']}"))
    reload(site)
    device = "510100A8900016F000000001"
    encoder = Hj212Encoder(SourceSettings(name="epb-air", codec="hj212"), SHANGHAI)
    begin = second_us()
    [(_, frame)] = encoder.messages([Sent(device, "a34004-Rtd", begin, 35.2, GOOD)])
    answers: list[bytes] = []
    with site.connect("epb-air") as peer:
        peer.sendall(frame)
        answers.append(peer.recv(4096))
    assert b"CN=9014" in answers[0]
    site.engine.until_lake(
        f"SELECT name, kind, unit, value FROM readings WHERE point_id = '{device}-pm25'",
        [("青羊站 pm25", "pm25", "ug/m3", 35.2)],
    )


def test_a_port_appears_with_a_reload_and_its_connections_go_with_its_source(site: Site) -> None:
    port = free_port()
    before = site.engine.config.read_text()
    peer = site.connect(EPB)
    site.engine.config.write_text(before + f'[[source]]\nname = "more"\ncodec = "hj212"\nport = {port}\n')
    reload(site)
    socket.create_connection(("127.0.0.1", port), timeout=10).close()
    peer.sendall(hj212_frames(58, second_us(), 1)[0])
    assert b"9014" in peer.recv(4096)
    site.engine.config.write_text(before.replace(f"port = {site.ports[EPB]}\n", "topics = ['epb/+']\n"))
    reload(site)
    peer.settimeout(60)
    assert peer.recv(10) == b""
    peer.close()


def reload(site: Site) -> None:
    done = run_yuzui("reload", "-c", str(site.engine.config))
    assert done.returncode == 0, done.stdout + done.stderr
