"""The rule tables as Markdown, for docs/rules.md: made from the data the rules read, so the page cannot drift.

Owns the layout of those tables. Knows no rule's logic.
"""

from __future__ import annotations

from collections.abc import Iterator

from anomaly.rules.rain import GRADES_ZH
from anomaly.rules.tables import Entry, entries

SEVERITY = ("", "蓝 blue", "黄 yellow", "橙 orange", "红 red")


def _row(*cells: object) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _head(*cells: str) -> str:
    return _row(*cells) + "\n" + "|---" * len(cells) + "|"


def _source(entry: Entry) -> str:
    return entry.source + (" **(verify 待核实)**" if entry.verify else "")


def _numbers(numbers: list[float]) -> str:
    return " / ".join(f"{number:g}" for number in numbers)


def tables() -> Iterator[str]:
    """Every table, a line at a time."""
    yield "#### 暴雨标准 Rainstorm steps\n"
    yield _head("级别 step", "毫米 mm", "小时 h", "来源 source")
    for entry in entries("rain", "signal"):
        yield _row(SEVERITY[entry["severity"]], f"≥ {entry['mm']:g}", entry["hours"], _source(entry))
    yield "\n#### 山洪 Flash floods\n"
    yield _head("表 table", "小时 h", "蓝/黄/橙/红 毫米 mm", "来源 source")
    for entry in entries("rain", "flash"):
        for hours, mm in zip(entry["hours"], entry["mm"], strict=True):
            yield _row(entry["name"], hours, _numbers(mm), _source(entry))
    yield "\n#### 雨量等级 Words for rain\n"
    yield _head("小时 h", "毫米 mm " + "/".join(GRADES_ZH), "来源 source")
    for entry in entries("rain", "grade"):
        yield _row(entry["hours"], _numbers(entry["lower_mm"]), _source(entry))
    yield "\n#### 积水深度 Standing water\n"
    yield _head("厘米 cm", "通常做法 what is usually done", "来源 source")
    for entry in entries("flood", "waterlogging"):
        yield _row(_numbers(entry["cm"]), " / ".join(entry["zh"]), _source(entry))
    yield "\n#### 空气 Air: IAQI 0/50/100/150/200/300/400/500\n"
    yield _head("污染物 pollutant", "小时 h", "浓度 concentration", "施行 in force", "来源 source")
    for entry in entries("air", "iaqi"):
        dates = f"{entry.effective_from or ''} – {entry.effective_to or ''}"
        yield _row(entry["pollutant"], entry["hours"], _numbers(entry["knots"]), dates, _source(entry))
    yield "\n#### 地表水 Surface water: I/II/III/IV/V, mg/L\n"
    yield _head("指标 indicator", "限值 bounds", "来源 source")
    for entry in entries("water", "indicator"):
        words = {"lower": "≥ ", "upper": "≤ ", "range": ""}
        (form,) = words.keys() & entry.numbers.keys()
        bounds = (
            f"{entry['range'][0]:g} – {entry['range'][1]:g}" if form == "range" else _numbers(entry[form])
        )
        yield _row(f"{entry['zh']} {entry['name']}", words[form] + bounds, _source(entry))
    yield "\n#### 噪声 Noise, dB(A)\n"
    yield _head("功能区 zone", "", "昼 day", "夜 night", "来源 source")
    for entry in entries("noise", "zone"):
        place = f"{entry['zh']} {entry['en']}"
        yield _row(entry["name"], place, f"{entry['day']:g}", f"{entry['night']:g}", _source(entry))
