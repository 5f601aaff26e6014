"""F7, F8: brokers that end, hang or are killed; networks that go away and come back, or are slow."""

from __future__ import annotations

import signal
import time
from contextlib import ExitStack

from tests.brokers import Broker, Mosquitto, Nats
from tests.crash.kills import REDELIVERY_S_MAX, behind, start_behind
from tests.engines import until
from tests.faults_disk import run
from tests.faults_trial import Faults, Impossible, Trial, steady

DOWN_S = (1.0, 12.0)
HUNG_S = 4.0
SLOW_S = 3.0
SLOW = ("tbf", "rate", "1mbit", "burst", "32kbit", "latency", "400ms")


def broker_ends(faults: Faults) -> None:
    """F7: a broker is told to end, or killed, and comes back; alternately, and by turns mosquitto and NATS.

    NATS is the one that is killed: what mosquitto had acknowledged and not yet written is lost with it, which
    is its loss and not the engine's.
    """
    kinds: list[tuple[type[Broker], str]] = [(Mosquitto, "SIGTERM"), (Nats, "kill -9")]
    for kind, how in kinds:
        if kind.binary() is None:
            faults.result.notes.append(f"{kind.__name__} is not installed: its {how} was skipped")
            continue
        with kind(faults.home()) as broker:
            trial = behind(faults, broker, rate=400.0)
            start_behind(trial, broker)
            for _ in range(max(1, faults.count // len(kinds))):
                until(lambda trial=trial, was=trial.acked: trial.acked > was, "a broker that answers")
                time.sleep(faults.rng.uniform(0.3, 1.0))  # the moment is what is random
                broker.stop() if how == "SIGTERM" else broker.kill()
                until(
                    lambda trial=trial: trial.engine.get("/readyz") == 503,
                    "the engine says that a link is down",
                )
                broker.start()
                until(
                    lambda trial=trial: trial.engine.get("/readyz") == 200,
                    "the engine is connected again",
                    60,
                )
                faults.result.trials += 1
            found = trial.judge(alerts=kind.in_order, settle_s=REDELIVERY_S_MAX)
            faults.say(f"{kind.__name__} {how}: {found}")
        faults.findings.__iadd__(found)


def links_fail(faults: Faults) -> None:
    """F8, in a network of its own: loopback goes down for 1 s and 12 s, the broker hangs, the link is slow."""
    run("ip", "link", "set", "lo", "up")
    with ExitStack() as stack:
        more, port = "", 0
        if Mosquitto.binary() is not None:
            broker = stack.enter_context(Mosquitto(faults.home()))
            port = broker.port
            more = (
                f'[[subscriber]]\nname = "b"\nurl = "{broker.url}"\nfilters = ["t/g2"]\nqos = 1\n'
                "reconnect_s_max = 0.5\nkeepalive_s = 5\n"
            )
        loads = [steady(faults.rng.randrange(1 << 30), 400.0)]
        if port:
            loads.append(steady(faults.rng.randrange(1 << 30), 200.0, "g2", port=port))
        trial = Trial(faults, loads=loads, extra=more)
        if port:
            start_behind(trial, broker, "t/g2")
        else:
            trial.start()
        for _ in range(faults.count):
            for down_s in DOWN_S:
                until(lambda was=trial.acked: trial.acked > was, "gateways that are acknowledged")
                run("ip", "link", "set", "lo", "down")
                time.sleep(down_s)  # how long the network is gone
                run("ip", "link", "set", "lo", "up")
                faults.result.trials += 1
            if port:
                until(lambda was=trial.acked: trial.acked > was, "gateways that are acknowledged")
                broker.signal(signal.SIGSTOP)
                time.sleep(HUNG_S)  # how long the broker hangs
                broker.signal(signal.SIGCONT)
                faults.result.trials += 1
            if slow():
                time.sleep(SLOW_S)  # how long the link is slow
                run("tc", "qdisc", "del", "dev", "lo", "root")
                faults.result.trials += 1
            else:
                faults.result.notes.append("no tbf in this kernel: the slow link was skipped")
        found = trial.judge(settle_s=REDELIVERY_S_MAX)
        faults.say(f"{[one.connects for one in trial.gateways]} connects; {found}")
    faults.findings.__iadd__(found)


def slow() -> bool:
    """Make loopback a link of 1 Mbit/s; False where that cannot be."""
    try:
        run("tc", "qdisc", "add", "dev", "lo", "root", *SLOW)
    except Impossible:
        return False
    return True
