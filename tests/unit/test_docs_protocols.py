"""The examples in docs/protocols.md make the readings that stand below them."""

from __future__ import annotations

import re
import tomllib
from datetime import datetime
from pathlib import Path

import pytest

from tests.codecs import SHANGHAI, T0, codec_of

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "protocols.md").read_text()
EXAMPLES = re.findall(
    r"```toml\n(.*?)```\n```(json|text|hex)(?: (\S+))?\n(.*?)\n```\n```readings\n(.*?)```", TEXT, re.DOTALL
)


@pytest.mark.parametrize(
    "example", EXAMPLES, ids=[e[0].split('"')[1] + str(i) for i, e in enumerate(EXAMPLES)]
)
def test_an_example_makes_its_readings(example: tuple[str, ...]) -> None:
    settings, form, topic, message, expected = example
    source = tomllib.loads(settings)
    codec = codec_of(source.pop("codec"), **source)
    raw = bytes.fromhex(message) if form == "hex" else message.encode()
    parsed = codec.parse(topic or source["topics"][0], raw)
    said = []
    for row, (key, time_us, value) in enumerate(zip(parsed.keys, parsed.times, parsed.values, strict=True)):
        us = T0 + parsed.offsets.get(row, 0) if time_us is None else time_us
        said.append(f"{key[0]} {key[1]} {datetime.fromtimestamp(us / 1e6, SHANGHAI).isoformat()} {value:g}")
    assert sorted(said) == sorted(expected.splitlines())
    assert not parsed.refusals


def test_each_format_of_this_page_has_an_example() -> None:
    assert len(EXAMPLES) == TEXT.count("```readings") >= 6
