"""What the engine says of itself, in every place it says it, and the page that says what to do about it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.engines import ROOT, EngineProcess, yuzui_here

RUNBOOK = ROOT / "docs" / "runbook.md"
RULES = ROOT / "configs" / "prometheus-rules.yml"
DASHBOARD = ROOT / "configs" / "grafana-dashboard.json"
METRIC = re.compile(r"\byuzui_[a-z0-9_]+\b")
_SAMPLE = re.compile(r"^(\w+(?:\{.*\})?) (\S+)$", re.MULTILINE)


def sections() -> dict[str, str]:
    """Text of the runbook's entries, by heading."""
    found: dict[str, str] = {}
    for part in re.split(r"^### ", RUNBOOK.read_text("utf-8"), flags=re.MULTILINE)[1:]:
        head, _, body = part.partition("\n")
        found[head.strip().strip("`")] = body.partition("\n## ")[0]
    return found


def reasons_told() -> list[str]:
    """Headings of the reasons of /readyz, in the page's order."""
    text = RUNBOOK.read_text("utf-8").partition("## Reasons of /readyz")[2].partition("\n## ")[0]
    return re.findall(r"^### `(\w+)`$", text, re.MULTILINE)


def named_in(text: str) -> set[str]:
    """Metrics a text names, without the file's own names."""
    return set(METRIC.findall(text))


def rules() -> list[dict[str, Any]]:
    """The alerting rules of the shipped file."""
    groups: list[dict[str, Any]] = yaml.safe_load(RULES.read_text("utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard_expressions() -> list[str]:
    """Every expression of the shipped dashboard."""
    panels = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", ())]


@dataclass
class Said:
    """All of it at one moment.

    code, line  of `yuzui status`
    ready       lines of /readyz
    metrics     name with labels → value; families: names, also of those without a value yet
    """

    code: int
    line: str
    ready: list[str]
    metrics: dict[str, float]
    families: set[str]

    def reason(self, name: str) -> float:
        """0 or 1: whether this reason holds, by the metrics."""
        return self.metrics[f'yuzui_not_ready_by_reason{{reason="{name}"}}']


def said(engine: EngineProcess) -> Said:
    """Ask a running engine everywhere."""
    status = yuzui_here("status", "-c", str(engine.config))
    text = engine.page("/metrics")
    return Said(
        status.returncode,
        status.stdout.strip(),
        _readyz(engine).splitlines(),
        {name: float(value) for name, value in _SAMPLE.findall(text)},
        set(re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE)),
    )


def _readyz(engine: EngineProcess) -> str:
    import urllib.error

    try:
        return engine.page("/readyz")
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.read().decode()


def agrees(told: Said, *names: str) -> None:
    """/readyz, status and metrics name exactly these reasons, and the runbook has an entry for each."""
    from ingest.readiness import REASONS

    assert {name for name in REASONS if told.reason(name)} == set(names), told.line
    assert told.code == (1 if names else 0), told.line
    assert told.line.startswith("NOT READY: " if names else "ok"), told.line
    if not names:
        assert told.ready == ["ready"]
    for name in names:
        assert f"what to do: docs/runbook.md#{name}" in told.ready, told.ready
        assert f"docs/runbook.md#{name}" in told.line, told.line
        entry = sections()[name]
        assert named_in(entry) <= told.families, named_in(entry) - told.families


def quoted(entry: str) -> str:
    """The sentence a runbook entry says status shows, up to its figures."""
    found = re.search(r"status `(?:NOT READY: )?(.+?)(?: ±?N\b| NAME|…|`)", entry)
    assert found is not None, entry
    return found[1].strip()


def path_of(anchor: str) -> Path:
    """The page a rule's runbook annotation points to."""
    return ROOT / anchor.partition("#")[0]
