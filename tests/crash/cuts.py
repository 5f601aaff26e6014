"""F5: the power fails under load, on ext4 and on XFS; what was acknowledged must be there afterwards."""

from __future__ import annotations

import time
from typing import Literal

from tests.crash.kills import passing
from tests.engines import until
from tests.faults_disk import LoopDisk
from tests.faults_trial import COMPACTED, Faults, Trial

UP_S = (0.2, 2.0)


def ext4_cuts(faults: Faults) -> None:
    """F5 on ext4."""
    cuts(faults, "ext4")


def xfs_cuts(faults: Faults) -> None:
    """F5 on XFS."""
    cuts(faults, "xfs")


def cuts(faults: Faults, kind: Literal["ext4", "xfs"]) -> None:
    """Cut, kill, mount again, start again; at the end all that was ever acknowledged is counted."""
    home = faults.home()
    with LoopDisk(home, home / "data", kind) as disk:
        trial = Trial(faults, home=home, loads=[passing(faults)], extra=COMPACTED).start()
        for number in range(faults.count):
            until(lambda was=trial.acked: trial.acked > was, "gateways that are acknowledged")
            time.sleep(faults.rng.uniform(*UP_S))  # the moment is what is random
            disk.cut()
            trial.engine.kill()
            disk.remount()
            trial.start()
            if number % 10 == 9:
                faults.say(f"{number + 1} cuts, {trial.acked} acknowledged")
        found = trial.judge()
        faults.say(f"{kind}: {found}")
    faults.findings.__iadd__(found)
    faults.result.trials += faults.count
