"""docs/rules.md names every rule, its example is a config without a fault, and its tables are the rules' own."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

from anomaly.rules import row_rules, tick_rules
from anomaly.rules.describe import tables
from anomaly.rules.settings import RuleSettings
from anomaly.rules.tables import entries
from ingest.configfile import load

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "rules.md"


def test_the_page_names_every_rule() -> None:
    named = re.findall(r"^\| `(\w+)` \|", PAGE.read_text("utf-8"), re.MULTILINE)
    assert sorted(named) == sorted([*(rule.name for rule in (*row_rules(), *tick_rules())), "level"])


def test_its_tables_are_those_the_rules_read() -> None:
    """To mend: put the text of anomaly.rules.describe.tables() between the two comments."""
    text = PAGE.read_text("utf-8")
    begin, end = text.index("tested -->\n") + len("tested -->\n"), text.index("<!-- end -->")
    assert text[begin:end].strip() == "\n".join(tables()).strip()


def test_its_example_is_a_config_without_a_fault() -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    settings = RuleSettings.model_validate(tomllib.loads(example)["rules"])
    assert [len(rule.needs) for rule in settings.compound] == [3, 2]


def test_the_demo_city_has_rules_without_a_fault_and_the_plan_is_that_of_its_table() -> None:
    config = load(ROOT / "configs" / "chengdu" / "yuzui.toml", env={})
    (plan,) = entries("rain", "city")
    response, red = (rule for rule in config.rules.compound if rule.name == "防汛响应")
    assert [(rule.needs[0].points, rule.needs[0].mm) for rule in (response, red)] == [
        (plan["gauges"], plan["mm_response"]),
        (plan["gauges"], plan["mm_red"]),
    ]
    known = {"rain_sum", "rising", "level", *(rule.name for rule in row_rules())}
    assert {need.rule for rule in config.rules.compound for need in rule.needs} <= known


def test_a_rule_that_no_table_knows_is_refused_with_its_path() -> None:
    for wrong, says in (
        ({"noise": {"zones": {"noise": "9"}}}, "unknown 9"),
        ({"flash": [{"name": "x", "table": "mars"}]}, 'unknown table "mars"'),
        ({"flash": [{"name": "x", "hours": [2], "mm": [[1.0, 2.0, 3.0, 4.0]]}]}, "windows are"),
        ({"flash": [{"name": "x", "hours": [1], "mm": [[4.0, 2.0, 3.0, 4.0]]}]}, "rising"),
        ({"flash": [{"name": "x"}]}, "names a table"),
        ({"point": {"P": {"flash": "hills"}}}, "no [[rules.flash]]"),
        ({"compound": [{"name": "x", "area": "circle", "severity": 1, "needs": [{}]}]}, "circle"),
        ({"compound": [{"name": "x", "severity": 1, "needs": [{"rule": "rian"}]}]}, "unknown rule"),
    ):
        with pytest.raises(ValidationError, match=re.escape(says)):
            RuleSettings.model_validate(wrong)
