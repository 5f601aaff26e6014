"""docs/alerts.md names every format, field and step there is, and its config and template are good."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import get_args

import pytest

from anomaly.alerts.formats import FIELDS, template
from anomaly.alerts.logbook import STEPS
from anomaly.settings import AlertSettings, Format, InhibitSettings, RouteSettings

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "alerts.md").read_text("utf-8")


@pytest.mark.parametrize("words", [FIELDS, STEPS, get_args(Format)], ids=["fields", "steps", "formats"])
def test_every_word_stands_in_the_docs(words: tuple[str, ...]) -> None:
    assert [word for word in words if f"`{word}`" not in TEXT] == []


def test_the_examples_are_good() -> None:
    blocks = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    tables = tomllib.loads("\n".join(blocks))
    assert [RouteSettings.model_validate(one).answer_s for one in tables["route"]] == [300]
    assert [InhibitSettings.model_validate(one).same for one in tables["inhibit"]] == ["members"]
    [example] = re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)
    template(example)


def test_the_numbers_in_the_text_are_the_defaults() -> None:
    alerts = AlertSettings()
    assert (alerts.group_km, alerts.group_s, alerts.repeat_s) == (3, 1800, 1800)
    assert (alerts.fault_groups_max, alerts.flap_max, alerts.flap_s, alerts.flap_quiet_s) == (4, 3, 1800, 600)
