"""F2, F3, F4: kill -9 at random, at every durable step, and between a commit and its acknowledgement.

Also the proof, by the kernel's own account, that no PUBACK leaves before its fdatasync.
"""

from __future__ import annotations

import itertools
import re
import shutil
import time
from collections import Counter
from pathlib import Path

from tests.brokers import Broker, Mosquitto, Nats
from tests.crash.webhooks import compare, delivered, nothing_open
from tests.engines import START_S_MAX, until
from tests.faults_judge import Findings
from tests.faults_load import Load
from tests.faults_trial import COMPACTED, FAST, Faults, Impossible, Trial, steady
from tests.faults_webhook import WELL, Targets
from tests.talk import Talker

UP_S = (0.3, 2.5)
"""How long an engine lives after it was ready: from its first hot files to well behind its first seal."""
STEP_S_MAX = 15.0
"""A step that does not come in this time did not come: seals and snapshots are due every second or two."""
ALONE_S = 3.0
ONLY_CHILD = 0.3
"""Share of the kills in sealer and delivery that leave the engine alive: it must make them anew."""
REDELIVERY_S_MAX = 30.0


def passing(faults: Faults) -> Load:
    """The common load, with hours that pass in seconds."""
    return steady(faults.rng.randrange(1 << 30), **FAST)


def random_kills(faults: Faults) -> None:
    """F2: kill -9 at random moments under load; a few more behind each broker."""
    with Targets([WELL]) as targets:
        trial = Trial(faults, loads=[passing(faults)], extra=COMPACTED + targets.config()).start()
        trial.watch()
        for number in range(faults.count):
            time.sleep(faults.rng.uniform(*UP_S))  # the moment is what is random, not a wait for something
            trial.engine.kill()
            trial.start()
            if number % 10 == 9:
                faults.say(f"{number + 1} kills, {trial.acked} acknowledged")
        found = judged_with(faults, trial, targets)
    faults.result.trials += faults.count
    faults.expect(found.looks > faults.count // 2, "the analyst looked less often than every other life")


def judged_with(faults: Faults, trial: Trial, targets: Targets) -> Findings:
    """The verdict, with what a webhook heard in it."""
    trial.hush()
    until(lambda: nothing_open(trial), "everything delivered")
    told = delivered(trial)
    found = trial.judge()
    compare(faults, found, told, targets)
    faults.say(f"{sum(targets.calls.values())} calls; {found}")
    faults.findings.__iadd__(found)
    return found


def broker_kills(faults: Faults) -> None:
    """F2 behind brokers: mosquitto, and NATS with JetStream."""
    for kind in (Mosquitto, Nats):
        if kind.binary() is None:
            faults.result.notes.append(f"{kind.__name__} is not installed: its kills were skipped")
            faults.say(faults.result.notes[-1])
            continue
        with kind(faults.home()) as broker:
            trial = behind(faults, broker, rate=800.0)
            start_behind(trial, broker)
            for _ in range(faults.count):
                until(lambda trial=trial, was=trial.acked: trial.acked > was, "a broker that answers")
                time.sleep(faults.rng.uniform(*UP_S))
                trial.engine.kill()
                trial.start()
            found = trial.judge(alerts=kind.in_order, settle_s=REDELIVERY_S_MAX)
            faults.say(f"{kind.__name__}: {found}")
        faults.findings.__iadd__(found)
        faults.result.trials += faults.count


def behind(faults: Faults, broker: Broker, rate: float) -> Trial:
    """An engine that subscribes to a broker, and gateways that publish to it."""
    subscriber = (
        f'[[subscriber]]\nname = "b"\nurl = "{broker.url}"\nfilters = ["t/#"]\nqos = 1\nreconnect_s_max = 0.5\n'
        + (f'protocol = "{broker.protocol}"\n' if broker.protocol else "")
    )
    # A revision that overtakes what it revises is not the engine's to put right.
    revised = 0.1 if broker.in_order else 0.0
    load = steady(faults.rng.randrange(1 << 30), rate, port=broker.port, revised=revised)
    return Trial(faults, loads=[load], extra=subscriber)


def start_behind(trial: Trial, broker: Broker, topic: str = "t/g1") -> None:
    """The gateways begin once the broker hands on what it is given: what it drops before is not the engine's."""
    trial.engine.start()
    with Talker(broker.port) as talker:

        def handed_on() -> bool:
            talker.say(topic, b"nothing")
            return bool(trial.engine.vitals()["quarantined"])

        until(handed_on, "the broker hands on what is published")
    trial.speak()


def steps_of(faults: Faults, targets: Targets, seconds: float = 5.0) -> tuple[Counter[str], Counter[str]]:
    """The durable steps an engine takes in its first life on a folder, and in its second, under load."""
    lives = []
    trial = Trial(faults, loads=[passing(faults)], extra=COMPACTED + targets.config())
    for _ in range(2):
        record = faults.ledger() / "steps"
        trial.order({"record": str(record)})
        trial.start()
        time.sleep(seconds)  # a span to be observed
        trial.engine.kill()
        lives.append(Counter(record.read_text().splitlines()))
    for one in trial.gateways:
        one.give_up()
    trial.forget()
    return lives[0], lives[1]


def step_kills(faults: Faults) -> None:
    """F3: die before or after the n-th step of a kind: each kind in turn, n by chance."""
    with Targets([WELL]) as targets:
        _step_kills(faults, targets)


def _step_kills(faults: Faults, targets: Targets) -> None:
    first, second = steps_of(faults, targets)
    only_first = sorted(first.keys() - second.keys())
    again = sorted(second)
    faults.say(f"{len(again)} kinds of steps, {len(only_first)} more in a new folder, {first.total()} in 5 s")
    for kinds in (again, only_first):
        faults.rng.shuffle(kinds)
    fresh = min(len(only_first), max(1, faults.count // 10))
    hit: Counter[str] = Counter()
    for step in only_first[:fresh]:
        hit[step] += kill_in_new_folder(faults, step, faults.rng.randint(1, first[step]))
    targets.heard[WELL].clear()
    trial = Trial(faults, loads=[passing(faults)], extra=COMPACTED + targets.config()).start()
    trial.watch()
    trial.engine.kill()
    missed: list[str] = []
    for step in itertools.islice(itertools.cycle(again), 2 * faults.count):
        order = {"step": step, "nth": faults.rng.randint(1, max(1, min(second[step] // 2, 40)))}
        if not step.startswith("engine") and faults.rng.random() < ONLY_CHILD:
            order["only"] = "child"
        trial.order({**order, "after": faults.rng.random() < 0.5})
        trial.engine.start(wait=False)
        met = died(trial, ALONE_S if "only" in order else STEP_S_MAX)
        if not met:
            trial.engine.kill()
        if met or "only" in order:
            hit[step] += 1
        else:
            missed.append(step)
        if hit.total() >= faults.count:
            break
        if hit.total() % 20 == 0:
            faults.say(f"{hit.total()} kills, {len(missed)} steps not met")
    trial.order(None)
    trial.start()
    faults.say(f"{hit.total()} kills at {len(hit)} kinds; not met {sorted(set(missed))}")
    judged_with(faults, trial, targets)
    faults.result.trials += hit.total()
    faults.result.notes.append(f"killed at {len(hit)} of {len(again) + len(only_first)} kinds of steps")
    faults.expect(
        hit.total() >= faults.count, f"only {hit.total()} of {faults.count} steps met: {missed[:5]}"
    )


def kill_in_new_folder(faults: Faults, step: str, nth: int) -> bool:
    """A step that is taken only when a data folder is made: die there, start again, count."""
    trial = Trial(faults, orders={"step": step, "nth": nth, "after": faults.rng.random() < 0.5})
    trial.engine.start(wait=False)
    met = died(trial, ALONE_S)
    if not met:
        trial.engine.kill()
    trial.order(None)
    trial.start()
    until(lambda: trial.acked, "gateways that are acknowledged")
    found = trial.judge()
    faults.findings.__iadd__(found)
    faults.expect(found.clean, f"after a kill at {step} {nth}: {found}")
    return met


def died(trial: Trial, timeout_s: float) -> bool:
    """Whether the engine ended by itself within this time; while it starts it has longer."""
    end = time.monotonic() + timeout_s + START_S_MAX
    ready = False
    while time.monotonic() < end:
        if not trial.engine.running:
            return True
        if not ready and trial.engine.get("/readyz") == 200:
            ready, end = True, time.monotonic() + timeout_s
        time.sleep(0.02)
    return False


def kills_before_ack(faults: Faults) -> None:
    """F4: committed, and dead before the acknowledgement left; all of it comes again."""
    trial = Trial(faults).start()
    trial.watch()
    trial.engine.kill()
    for _ in range(faults.count):
        trial.order({"step": "engine ack", "nth": faults.rng.randint(5, 120), "after": False})
        trial.engine.start(wait=False)
        faults.expect(died(trial, 30), "the engine never acknowledged")
    trial.order(None)
    trial.start()
    resent = sum(one.resent for one in trial.gateways)
    found = trial.judge()
    faults.say(f"{resent} messages sent again; {found}")
    faults.expect(resent, "nothing was sent again: the kill did not fall before an acknowledgement")
    faults.findings.__iadd__(found)
    faults.result.trials += faults.count


# -- the kernel's account ------------------------------------------------------------------------------

CALL = re.compile(
    r"^(?P<tid>\d+)\s+(?P<at>\d+\.\d+) (?:(?P<name>pwritev2?|fdatasync|sendto|write)\((?P<args>.*)"
    r"|<\.\.\. (?P<resumed>\w+) resumed>(?P<rest>.*))$"
)


def ack_order(faults: Faults) -> None:
    """F3b: in strace's account each PUBACK's send comes after an fdatasync that began after its bytes were written."""
    if shutil.which("strace") is None:
        raise Impossible("strace is not installed")
    trace = faults.ledger() / "trace"
    # -D: the engine stays our child, strace is its grandchild.
    strace = ["strace", "-D", "-f", "-ttt", "-s", "4000", "-xx", "-e", "trace=pwritev,pwritev2,fdatasync,sendto",
              "--seccomp-bpf", "-o", str(trace)]  # fmt: skip
    load = Load("g1", ["a", "b"], rate=0)
    trial = Trial(faults, loads=[load], before=strace)
    try:
        trial.engine.start()
    except AssertionError as refused:
        raise Impossible(f"strace cannot trace here: {refused}") from None
    marks = {}
    now_ms = time.time_ns() // 1_000_000
    with Talker(trial.engine.port) as talker:
        for number in range(faults.count):
            value = f"{faults.rng.uniform(1, 1000):.9f}"
            pid = talker.publish("t/g1/a", b'{"ts":%d,"v":%s}' % (now_ms + number, value.encode()))
            talker.hear([pid])
            marks[pid] = float(value)
    trial.engine.stop()
    early = early_acks(trace, marks)
    faults.expect(not early, f"acknowledged before on disk: {early[:3]}")
    faults.result.trials += len(marks)
    faults.say(f"{len(marks)} acknowledgements, each after the fdatasync of its bytes")


def early_acks(trace: Path, marks: dict[int, float]) -> list[str]:
    """What was acknowledged in the trace without an fdatasync, ended, that began after its value was written."""
    import struct

    events: list[tuple[str, str]] = []
    unfinished: dict[str, str] = {}
    for line in trace.read_text(errors="replace").splitlines():
        found = CALL.match(line)
        if not found:
            continue
        tid = found["tid"]
        if found["name"]:
            events.append((f"{found['name']}-begins", found["args"]))
            if found["args"].endswith("<unfinished ...>"):
                unfinished[tid] = found["name"]
            else:
                events.append((f"{found['name']}-ends", found["args"]))
        elif found["resumed"] == unfinished.get(tid):
            events.append((f"{unfinished.pop(tid)}-ends", found["rest"]))
    early = []
    for pid, value in marks.items():
        needle = "".join(f"\\x{byte:02x}" for byte in struct.pack("<d", value))
        ack = "".join(f"\\x{byte:02x}" for byte in (0x40, 2, pid >> 8, pid & 255))
        written = next(
            (i for i, (what, args) in enumerate(events) if needle in args and "pwritev" in what), None
        )
        if written is None:
            early.append(f"packet {pid}: its bytes are not in the trace")
            continue
        begun = next((i for i, (w, _) in enumerate(events) if i > written and w == "fdatasync-begins"), None)
        ended = next(
            (i for i, (w, _) in enumerate(events) if begun and i > begun and w == "fdatasync-ends"), None
        )
        sent = next((i for i, (w, a) in enumerate(events) if w == "sendto-begins" and ack in a), None)
        if sent is None or ended is None or sent < ended:
            early.append(f"packet {pid}: written {written}, on disk {ended}, acknowledged {sent}")
    return early
