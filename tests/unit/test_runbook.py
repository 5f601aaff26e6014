"""The runbook has an entry for every reason the engine can give, and what it names exists."""

from __future__ import annotations

import re

from ingest.ops import COUNTERS, GAUGES, LABELLED, LABELLED_GAUGES, OF_SOURCE
from ingest.readiness import REASONS
from tests.runbook import (
    RUNBOOK,
    dashboard_expressions,
    named_in,
    path_of,
    reasons_told,
    rules,
    sections,
)

FAMILIES = {
    *(f"yuzui_{key}_total" for key in (*COUNTERS, *LABELLED)),
    *(f"yuzui_{key}" for key in (*GAUGES, *LABELLED_GAUGES)),
    *(f"yuzui_source_{key}{'_total' * grows}" for key, (_, grows) in OF_SOURCE.items()),
}


def test_every_reason_of_readyz_has_an_entry_and_every_entry_a_reason() -> None:
    assert reasons_told() == list(REASONS)


def test_every_entry_says_what_is_seen_what_to_do_and_what_not() -> None:
    for name in REASONS:
        entry = sections()[name]
        for part in ("You see", "What happens", "Do", "Not"):
            assert f"**{part}**" in entry, (name, part)
        assert named_in(entry), f"{name} names no metric"
        assert re.search("[\u4e00-\u9fff]", entry), f"{name} has no Chinese"


def test_every_metric_the_runbook_the_rules_and_the_dashboard_name_exists() -> None:
    text = (
        RUNBOOK.read_text("utf-8")
        + " ".join(str(rule) for rule in rules())
        + " ".join(dashboard_expressions())
    )
    assert len(named_in(text)) > 40
    assert named_in(text) - FAMILIES == set()


def test_every_rule_points_to_an_entry_and_every_reason_has_a_rule() -> None:
    anchors = {re.sub(r"[^\w\- ]", "", head).lower().replace(" ", "-") for head in sections()}
    for rule in rules():
        told = rule["annotations"]
        assert path_of(told["runbook"]) == RUNBOOK
        assert told["runbook"].partition("#")[2] in anchors, told["runbook"]
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
    for name in REASONS:
        assert any(f'reason="{name}"' in rule["expr"] for rule in rules()), name


def test_expressions_are_whole() -> None:
    """No promtool on every machine: brackets pair, and every word is a metric, a label or PromQL's own."""
    known = {
        "sum", "by", "rate", "increase", "topk", "bottomk", "and", "or", "up", "job", "reason", "source", "district",
    }  # fmt: skip
    for expression in (*(rule["expr"] for rule in rules()), *dashboard_expressions()):
        for left, right in ("()", "{}", "[]"):
            assert expression.count(left) == expression.count(right), expression
        words = re.findall(r"[A-Za-z_]\w*", re.sub(r'"[^"]*"', "", re.sub(r"\[\d+[smhd]\]", "", expression)))
        assert {word for word in words if not word.startswith("yuzui_")} <= known, expression
