"""F14, F15, F18: names that want to be paths, a flood of unknown points, SQL, flipped bits.

Each engine goes on for everybody else meanwhile: good gateways speak, and all they were acknowledged stands.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import orjson

from storage.scrub import scrub
from tests.engines import free_port, until
from tests.faults_judge import accounted
from tests.faults_trial import Faults, Trial
from tests.lake_folder import flip, flip_at
from tests.sql_attacks import ATTACKS, aimed
from tests.talk import Talker

BATCH = 250
"""Below the 65,535 packet ids of MQTT by far: acknowledgements of a batch are forgotten before the next."""
MARK = "yuzui-evil"
"""In every crafted name, so that it is recognised wherever it turns up."""
NAMES = [
    "../{m}", "../../{m}", "../../../../../../tmp/{m}", "/{m}", "//{m}", "/tmp/{m}", "..\\{m}", "C:\\{m}", "~/{m}",
    "./{m}", "{m}/../../{m}", "{m}/..", "....//{m}", "%2e%2e%2f{m}", "..%2f{m}", "..%c0%af{m}", "%00{m}",
    "{m}.parquet", "date=2026-01-01/hour=00/{m}.parquet", "_delta_log/{m}.json", "{m}/_delta_log", "lake.sql/{m}",
    "journal/{m}", "{m}\n", "{m}\r\n{m}", "\x1b[2J{m}", "{m}\x7f", "{m}\t", "'{m}", "\"{m}",
    "{m}'; DROP VIEW readings; --", "${m}", "$(touch {m})", "`touch {m}`", "|touch {m}", "{m};touch {m}", "*{m}*",
    "?{m}", "[{m}]", "{{{m}}}", "\u202e{m}", "\u2215{m}", "\uff0e\uff0e\uff0f{m}", "\ufeff{m}", "e\u0301{m}",
    "con.{m}", "nul.{m}", " {m} ", "{m}" + "x" * 5_000, "-rf {m}", "file:///{m}", "\\\\host\\{m}",
]  # fmt: skip
RSS_MB_MAX = 80.0
"""What 100,000 unknown points may cost in memory: their kept refusals, and nothing for each name."""


def crafted() -> list[str]:
    """Names that want to leave the folder, run, or be SQL."""
    return [name.replace("{m}", MARK) for name in NAMES]


def names_below(folder: Path) -> set[str]:
    """Every path below a folder, relative."""
    return {
        os.path.relpath(os.path.join(parent, name), folder)
        for parent, folders, files in os.walk(folder)
        for name in (*folders, *files)
    }


def paths_and_floods(faults: Faults) -> None:
    """F14: ``count`` unknown points, and crafted names as topic, gateway and id: none becomes a path or a point."""
    trial = Trial(faults, rate=1_000.0).start()
    trial.watch()
    until(lambda: trial.acked > 500, "gateways that are acknowledged")
    beside = set(os.listdir(trial.home.parent))
    points = trial.engine.vitals()["points"]
    rss = trial.engine.vitals()["rss_bytes"]
    now = time.time_ns() // 1_000_000
    sent = 0
    with Talker(trial.engine.port, v5=True) as talker:
        for name in crafted():
            topics = [f"t/{name}", f"t/g1/{name}", name, f"t/{name}/g1-p0"]
            messages = [
                (topic, b'{"ts":%d,"v":1}' % now)
                for topic in topics
                if not set(topic) & set("+#\0") and len(topic) < 60_000
            ]
            messages += [("t/g1", orjson.dumps([{"id": name, "ts": now, "v": 1}]))]
            messages += [("t/g1/g1-p0", orjson.dumps({"id": name, "ts": now, "v": 1}))]
            codes = talker.say_all(messages)
            faults.expect(all(code >= 0x80 for code in codes), f"{name!r} was taken: {codes}")
            sent += len(messages)
        crafted_sent = sent
        unknown = faults.count
        for first in range(0, unknown, BATCH):
            some = range(first, min(first + BATCH, unknown))
            talker.acks.clear()
            talker.say_all(
                [
                    (f"t/g1/n{n}", b"1") if n % 2 else ("t/g1", b'[{"id":"n%d","ts":%d,"v":1}]' % (n, now))
                    for n in some
                ]
            )
            sent += len(some)
    trial.hush()
    trial.engine.quiet(60)
    vitals = trial.engine.vitals()
    faults.expect(vitals["quarantined"] == sent, f"{sent} sent, {vitals['quarantined']} quarantined")
    faults.expect(accounted(vitals) == 0, f"{accounted(vitals)} readings unaccounted for")
    faults.expect(vitals["points"] == points, f"{points} points became {vitals['points']}")
    kept = trial.engine.lake("SELECT count(*) FROM quarantine")[0][0]
    reasons = len(trial.engine.lake("SELECT DISTINCT source, reason FROM quarantine"))
    bound = 1_000 * reasons * (2 + int(time.time() - now / 1000) // 60)
    faults.expect(kept <= bound < sent or sent < bound, f"{kept} of {sent} refusals kept, {bound} allowed")
    grown = (vitals["rss_bytes"] - rss) / 1e6
    faults.expect(grown < RSS_MB_MAX, f"memory grew by {grown:.0f} MB")
    inside = [name for name in names_below(trial.home) if MARK in name or ".." in name]
    faults.expect(not inside, f"names became paths: {inside[:3]}")
    faults.expect(set(os.listdir(trial.home.parent)) == beside, "something stands beside")
    faults.expect(not list(Path("/tmp").glob(f"*{MARK}*")), "something stands in /tmp")
    faults.expect(not Path(f"/{MARK}").exists(), "something stands at the root")
    faults.result.notes.append(
        f"{len(NAMES)} crafted names in {crafted_sent} places, {unknown:,} unknown points: {kept:,} refusals kept, "
        f"memory {grown:+.0f} MB"
    )
    found = trial.judge()
    faults.say(f"{faults.result.notes[-1]}; {found}")
    faults.findings.__iadd__(found)
    faults.result.trials += sent


API = (
    "/api/search?q={}", "/api/point/{}", "/api/history/{}?since=2026-01-01T00:00:00Z&until=2026-01-02T00:00:00Z",
    "/api/history/g1-p0?since={}&until=2026-01-02T00:00:00Z", "/api/alerts/{}", "/api/alerts?state={}",
)  # fmt: skip
INJECTED = (
    "' OR '1'='1", "'; DROP VIEW readings; --", "') UNION SELECT * FROM read_text('/etc/passwd') --", "\" OR \"\"=\"",
    "1; ATTACH '/tmp/yuzui-attack.db' AS a", "x' || (SELECT getenv('YUZUI_SEEDED')) || '", "%' ESCAPE '", "\\'; --",
    "$$; COPY (SELECT 1) TO '/tmp/yuzui-attack.csv'; $$", "g1-p0' AND sleep(5) --", "\x00", "𝟙' OR 1=1",
)  # fmt: skip
SEEDED = "seeded-secret-4711"


def fetch(url: str, body: bytes | None = None) -> tuple[int, bytes]:
    """Status and body of a GET, or a POST of ``body``."""
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "text/plain"} if body else {})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read()


def sql_attacks(faults: Faults) -> None:
    """F15: statements at the SQL door, and SQL in every parameter of the console's API, while readings come in."""
    sql, console = free_port(), free_port()
    extra = (
        f"[sql]\nenabled = true\nport = {sql}\ntime_s_max = 2.0\n"
        f"[console]\nenabled = true\nanonymous_view = true\nport = {console}\n"
    )
    trial = Trial(faults, rate=1_000.0, extra=extra, env={"YUZUI_SEEDED": SEEDED}).start()
    trial.watch()
    until(lambda: trial.acked > 500, "gateways that are acknowledged")
    door = f"http://127.0.0.1:{sql}/sql"

    def opened() -> bool:
        with contextlib.suppress(OSError):
            return fetch(door, b"SELECT count(*) FROM points")[0] == 200
        return False

    until(opened, "the SQL door opens")
    lake = trial.engine.data / "lake.sql"
    written = lake.read_bytes()
    done = 0
    for attack in ATTACKS:
        status, told = fetch(door, aimed(attack, trial.engine.data).encode())
        faults.expect(status >= 400, f"{attack[:60]!r} was answered: {told[:80]!r}")
        faults.expect(SEEDED.encode() not in told and b"root:" not in told, f"{attack[:60]!r} told too much")
        done += 1
    for path in API:
        for text in INJECTED:
            status, told = fetch(
                f"http://127.0.0.1:{console}{path.format(urllib.parse.quote(text, safe=''))}"
            )
            faults.expect(status < 500, f"{path} with {text!r}: {status} {told[:80]!r}")
            faults.expect(
                SEEDED.encode() not in told and b"root:" not in told, f"{path}, {text!r} told too much"
            )
            done += 1
    until(opened, "the SQL door goes on")
    faults.expect(lake.read_bytes() == written, "lake.sql was changed")
    faults.expect(not list(Path("/tmp").glob("yuzui-attack*")), "a file was written")
    faults.result.notes.append(f"{len(ATTACKS)} statements, {len(API) * len(INJECTED)} parameters")
    found = trial.judge()
    faults.say(f"{faults.result.notes[-1]}; {found}")
    faults.findings.__iadd__(found)
    faults.result.trials += done


NOT_LASTING = {"LOCK", "lock", "list.json", "engine.json", "ops.sock"}
"""Locks and what is written anew at a start; the list of hot files is replaced every second."""


def lasting(root: Path) -> Iterator[Path]:
    """Every file with a byte in it that is still there after a restart. SQLite knows damage of structure only."""
    for path in sorted(root.rglob("*")):
        of_sqlite = path.name.startswith("outbox.db")
        if path.is_file() and path.stat().st_size and path.name not in NOT_LASTING and not of_sqlite:
            yield path


def bit_flips(faults: Faults) -> None:
    """F18: a real engine's folder, one bit flipped at a time, each in another file: `scrub` finds and names each."""
    trial = Trial(faults, rate=2_000.0).start()
    until(lambda: trial.acked > 6_000 and trial.engine.vitals()["seals"] >= 2, "sealed files stand")
    trial.hush()
    trial.engine.quiet(60)
    faults.findings.acked += trial.acked
    faults.findings.stored += trial.acked
    faults.expect(trial.engine.stop() == 0, f"the engine did not stop cleanly: {trial.tail()}")
    root = trial.engine.data
    clean = scrub(root)
    faults.expect(not clean.findings, f"findings before any flip: {[f.path for f in clean.findings][:3]}")
    files = list(lasting(root))
    seen: Counter[str] = Counter()
    for number in range(faults.count):
        path = files[number % len(files)]
        before = path.read_bytes()
        at, bit = flip(path, faults.rng)
        name = path.relative_to(root).as_posix()
        found = [finding.path for finding in scrub(root).findings]
        faults.expect(name in found, f"byte {at}, bit {bit} of {name} ({len(before)} bytes): {found[:3]}")
        flip_at(path, at, bit)
        if path.read_bytes() != before:
            path.write_bytes(before)  # the scrub has mended it
        seen[name.rsplit("/", 1)[0].split("/date=")[0]] += 1
        faults.result.trials += 1
    faults.expect(not scrub(root).findings, "findings after every flip was taken back")
    faults.result.notes.append(f"{faults.count} bits in {len(files)} files: {json.dumps(dict(seen))}")
    faults.say(faults.result.notes[-1])
    trial.forget()
