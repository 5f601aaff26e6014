"""Prometheus' own tool over what is shipped for it: the alerting rules, and the page of metrics of a running engine."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.engines import EngineProcess, site_config, until
from tests.runbook import RULES, rules
from tests.talk import Talker

CACHED = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "yuzui" / "prometheus"
"""Where scripts/tools.sh unpacks the distribution's package: nothing is installed, no service begins."""
PROMTOOL = shutil.which("promtool") or shutil.which("promtool", path=str(CACHED / "usr" / "bin"))
MINUTES = 120
LOOK_AT = 100
SERIES = re.compile(r"^(yuzui_\w+(?:\{[^}]*\})?) (\S+)$", re.MULTILINE)
SPOILT: dict[str, dict[str, str]] = {
    "YuzuiGone": {"up": "0"},
    "YuzuiNotTold": {"yuzui_outbox_oldest_s": "61"},
    "YuzuiDeadLetters": {"yuzui_webhooks_dead_total": "0x80 1"},
    "YuzuiKilled": {"yuzui_after_kill": "1", "yuzui_uptime_s": "10"},
    "YuzuiDiskDays": {"yuzui_disk_days_left": "13"},
    "YuzuiCertificateRefused": {"yuzui_certificate_faults": "1"},
    "YuzuiCertificateEnds": {"yuzui_certificate_days_left": "13"},
    "YuzuiRefusing": {"yuzui_quarantined_total": "0+6", "yuzui_received_total": "0+100"},
    "YuzuiSourceSilent": {"yuzui_source_online": "0.4"},
    "YuzuiSourceClock": {"yuzui_source_skew_s": "-31"},
    "YuzuiDamage": {"yuzui_files_set_aside_total": "1"},
}
"""What a rule waits for, by metric; those of the reasons of /readyz are made of their expression."""
UNITS = "metric names should not contain abbreviated units"
"""Its one opinion we do not share: names end in `_s` and `_mb`, as in the config and in `yuzui status`."""

pytestmark = pytest.mark.skipif(
    PROMTOOL is None, reason="SKIPPED: no promtool here, rules and metrics were not checked"
)


def promtool(*words: str, given: str = "") -> subprocess.CompletedProcess[str]:
    assert PROMTOOL is not None
    return subprocess.run(
        [PROMTOOL, *words], input=given, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """/metrics of an engine that is well: its only point speaks."""
    folder = tmp_path_factory.mktemp("promtool") / "e"
    engine = EngineProcess(folder, site_config(folder, {"g": ["a"]}, interval_s=60)).start()
    try:
        with Talker(engine.port) as gateway:
            gateway.say("t/g/a", json.dumps({"ts": time.time_ns() // 1_000_000, "v": 1.0}).encode())

            def spoken() -> str:
                said = engine.page("/metrics")
                return said if 'yuzui_source_online{source="site"} 1.0' in said else ""

            found: str = until(spoken, "the source is online")
            return found
    finally:
        engine.stop()


def test_prometheus_takes_the_rules() -> None:
    done = promtool("check", "rules", str(RULES))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules())} rules found" in done.stdout


def test_prometheus_takes_the_metrics_and_minds_only_their_units(page: str) -> None:
    done = promtool("check", "metrics", given=page)
    said = (done.stdout + done.stderr).splitlines()
    assert [line for line in said if not line.endswith(UNITS)] == []
    assert done.returncode in (0, 3)
    assert promtool("check", "metrics", given=page + "yuzui_up up\n").returncode == 1


def test_a_well_engine_fires_no_rule_and_each_rule_fires_for_what_it_names(page: str, tmp_path: Path) -> None:
    """On the series that an engine really has, with their labels: an expression that matches none fires for nothing."""
    well = {name: value for name, value in SERIES.findall(page) if value != "NaN"} | {'up{job="yuzui"}': "1"}
    cases = [case(well, {}, None)]
    for rule in rules():
        reason = re.search(r'reason="(\w+)"', rule["expr"])
        spoilt = (
            {f'yuzui_not_ready_by_reason{{reason="{reason[1]}"}}': "1"} if reason else SPOILT[rule["alert"]]
        )
        cases.append(case(well, spoilt, rule["alert"]))
    asked = tmp_path / "rules.yml"
    asked.write_text(
        yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": cases})
    )
    done = promtool("test", "rules", str(asked))
    assert done.returncode == 0, done.stdout + done.stderr


def case(well: dict[str, str], spoilt: dict[str, str], fires: str | None) -> dict[str, Any]:
    """A test of promtool: two hours of a well engine, but for some series; which alert fires after LOOK_AT minutes."""
    series = dict(well)
    for name, value in spoilt.items():
        found = [one for one in series if one == name or one.partition("{")[0] == name]
        # Disk and certificates have no figure in the first seconds of an engine without TLS.
        series |= dict.fromkeys(found or [name], value)
    wanted = [{"labels": f'{{alertname="{fires}"}}', "value": 1}] if fires else []
    return {
        "name": fires or "well",
        "interval": "1m",
        "input_series": [{"series": name, "values": _lasting(value)} for name, value in series.items()],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"}) > bool 0',
                "eval_time": f"{LOOK_AT}m",
                "exp_samples": wanted,
            }
        ],
    }


def _lasting(value: str) -> str:
    """A value, a growth or a change, in promtool's notation, up to the end."""
    *before, last = value.split(" ")
    return " ".join([*before, f"{last}x{MINUTES}" if "+" in last else f"{last}+0x{MINUTES}"])
