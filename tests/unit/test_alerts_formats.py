"""Other systems' words: each format's golden body, its rules, and texts that try to break out of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import jsonschema
import pytest

from anomaly.alerts import formats
from anomaly.alerts.cap import NAMESPACE, cap
from anomaly.alerts.formats import (
    FIELDS,
    WECOM_BYTES_MAX,
    Body,
    alertmanager,
    dingtalk,
    feishu,
    template,
    wecom,
)
from anomaly.alerts.signature import dingtalk_url, feishu_fields
from ingest.configfaults import ConfigFaults
from ingest.configfile import load

SCHEMAS = Path(__file__).parents[2] / "configs" / "schemas"
KINDS = ("alert.firing", "alert.updated", "alert.resolved", "heartbeat", "test")
EVIL = (
    '"}],"x":"<a href=1> [链](http://evil) @所有人 <at user_id="all"></at> ${link} $$ `rm` *粗* '
    "\n\r\x00\x1f &amp; ]]>"
)


def example(kind: str) -> Body:
    found: Body = json.loads((SCHEMAS / f"webhook-v1.example.{kind}.json").read_text("utf-8"))
    return found


def evil(kind: str = "alert.updated") -> Any:
    body: Any = json.loads(json.dumps(example(kind)))
    body["data"]["summary"] = {"zh": EVIL, "en": EVIL}
    body["data"]["point"] = {"id": EVIL, "name": EVIL}
    body["data"]["place"]["district"] = EVIL
    body["data"]["kind"] = body["data"]["rule"] = EVIL
    for row in body["data"]["group"]["top"]:
        row["summary"] = {"zh": EVIL, "en": EVIL}
        row["district"] = EVIL
    return body


@pytest.mark.parametrize("name", ["alertmanager", "wecom", "dingtalk", "feishu", "cap"])
@pytest.mark.parametrize("kind", ["alert.firing", "alert.updated", "alert.resolved"])
def test_the_example_of_each_format_is_what_is_sent(name: str, kind: str) -> None:
    """A failure prints what the file should hold."""
    render = formats.renderer(name, None, "flood.city.example")
    assert render is not None
    sent = render(example(kind)).decode()
    file = SCHEMAS / f"{name}.example.{kind}.{'xml' if name == 'cap' else 'json'}"
    shown = sent if name == "cap" else json.dumps(json.loads(sent), ensure_ascii=False, indent=2) + "\n"
    assert file.read_text("utf-8") == shown, shown


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["alertmanager", "wecom", "dingtalk", "feishu"])
def test_every_body_of_a_format_is_valid_against_its_schema(name: str, kind: str) -> None:
    schema = json.loads((SCHEMAS / f"{name}.json").read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    render = formats.renderer(name, None, "s")
    assert render is not None
    for body in (example(kind), *([evil(kind)] if kind.startswith("alert.") else [])):
        jsonschema.validate(json.loads(render(body)), schema, jsonschema.Draft202012Validator)


def test_alertmanager_lists_the_members_and_says_how_many_it_left_out() -> None:
    sent = json.loads(alertmanager(example("alert.updated")))
    assert (sent["version"], sent["status"], sent["truncatedAlerts"]) == ("4", "firing", 1)
    assert [a["endsAt"] for a in sent["alerts"]] == ["0001-01-01T00:00:00Z"]
    over = json.loads(alertmanager(example("alert.resolved")))
    assert over["status"] == "resolved"
    assert {a["status"] for a in over["alerts"]} == {"resolved"}
    assert sent["groupKey"] == over["groupKey"]


@pytest.mark.parametrize("render", [wecom, dingtalk, feishu])
def test_a_robot_calls_nobody_and_follows_no_link_because_a_name_says_so(render: formats.Render) -> None:
    sent = json.loads(render(evil()))
    text = (
        json.dumps(sent, ensure_ascii=False).replace('<font color=\\"warning\\">', "").replace("</font>", "")
    )
    for part in ("<a", "<at", "[链](", "@", "`"):
        assert part not in text
    assert sent.get("at", {"isAtAll": False}) == {"isAtAll": False}


def test_a_message_to_wecom_stays_below_its_limit() -> None:
    body = evil()
    body["data"]["summary"]["zh"] = "水" * 5000
    body["data"]["group"]["top"] = [{**body["data"]["group"]["top"][0], "summary": {"zh": "涨" * 120}}] * 10
    content = json.loads(wecom(body))["markdown"]["content"]
    assert len(content.encode()) <= WECOM_BYTES_MAX
    assert content.endswith("https://map.example/alert/0000000000000000"), "the link is kept"


def test_a_template_is_filled_text_by_text_and_nothing_breaks_out_of_it() -> None:
    render = template(
        '{"text": "${summary_zh} / ${name}", "n": 1, "in": [{"k": "$severity_en $$5"}], "f": true}'
    )
    sent = json.loads(render(evil()))
    assert sent == {"text": f"{EVIL} / {EVIL}", "n": 1, "in": [{"k": "Orange $5"}], "f": True}


def test_a_template_may_name_every_field_and_empty_ones_are_empty() -> None:
    render = template(json.dumps({name: f"${{{name}}}" for name in FIELDS}))
    for kind in KINDS:
        sent = json.loads(render(example(kind)))
        assert set(sent) == set(FIELDS)
        assert sent["summary_zh"]
    assert json.loads(render(example("heartbeat")))["district"] == ""


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "not JSON"),
        ('{"a": "${password}"}', "no field named password"),
        ('{"a": "${name} ${value}"}', "a drill would look real"),
        ('{"a": "5 $ each"}', "lone \\$"),
        ('{"a": "${x.__class__}"}', "lone \\$"),
    ],
)
def test_a_bad_template_is_refused_when_the_config_is_read(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        template(text)
    (tmp_path / "t.json").write_text(text)
    hook = (
        '[[webhook]]\nname = "a"\nurl = "http://127.0.0.1/"\nformat = "template"\ntemplate_file = "t.json"\n'
    )
    (tmp_path / "y.toml").write_text(hook)
    with pytest.raises(ConfigFaults) as refused:
        load(tmp_path / "y.toml", env={})
    assert [one.path for one in refused.value.faults] == ["$.webhook[0].template_file"]


CAP_ORDER = [
    "identifier",
    "sender",
    "sent",
    "status",
    "msgType",
    "source",
    "scope",
    "restriction",
    "addresses",
    "code",
    "note",
    "references",
    "incidents",
    "info",
]
INFO_ORDER = [
    "language",
    "category",
    "event",
    "responseType",
    "urgency",
    "severity",
    "certainty",
    "audience",
    "eventCode",
    "effective",
    "onset",
    "expires",
    "senderName",
    "headline",
    "description",
    "instruction",
    "web",
    "contact",
    "parameter",
    "resource",
    "area",
]
ENUMS = {
    "status": "Actual Exercise System Test Draft",
    "msgType": "Alert Update Cancel Ack Error",
    "scope": "Public Restricted Private",
    "category": "Geo Met Safety Security Rescue Fire Health Env Transport Infra CBRNE Other",
    "responseType": "Shelter Evacuate Prepare Execute Avoid Monitor Assess AllClear None",
    "urgency": "Immediate Expected Future Past Unknown",
    "severity": "Extreme Severe Moderate Minor Unknown",
    "certainty": "Observed Likely Possible Unlikely Unknown",
}


def ordered(element: ET.Element, order: list[str]) -> None:
    """Children only of these names, in this order (CAP 1.2 is a sequence)."""
    names = [child.tag.removeprefix(f"{{{NAMESPACE}}}") for child in element]
    assert names == sorted(names, key=order.index)
    for child in element:
        name = child.tag.removeprefix(f"{{{NAMESPACE}}}")
        if name in ENUMS:
            assert child.text in ENUMS[name].split(), name
        if name in ("sent", "onset"):
            assert child.text is not None
            assert len(child.text) == 25
            assert child.text.endswith("-00:00")
        assert child.text or len(child), f"{name} is empty"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["live", "drill", "replay"])
@pytest.mark.parametrize("hostile", [False, True])
def test_a_cap_message_has_the_elements_of_1_2_in_their_order(kind: str, mode: str, hostile: bool) -> None:
    body = evil(kind) if hostile and kind.startswith("alert.") else json.loads(json.dumps(example(kind)))
    body["data"]["mode"] = mode
    root = ET.fromstring(cap(body, "flood city, <x>&"))
    assert root.tag == f"{{{NAMESPACE}}}alert"
    ordered(root, CAP_ORDER)
    ns = {"c": NAMESPACE}
    for text in ("identifier", "sender"):
        assert not set(root.findtext(f"c:{text}", "", ns)) & set(" ,<&")
    status = root.findtext("c:status", "", ns)
    assert status == ("Test" if not kind.startswith("alert.") else "Actual" if mode == "live" else "Exercise")
    if root.findtext("c:msgType", "", ns) != "Alert":
        sender, identifier, sent = root.findtext("c:references", "", ns).split(",")
        assert sender == root.findtext("c:sender", "", ns)
        assert identifier.startswith("0000000000000000.")
        assert sent.endswith("-00:00")
    for info in root.findall("c:info", ns):
        ordered(info, INFO_ORDER)
        assert info.find("c:area/c:areaDesc", ns) is not None
        where, radius = (info.findtext("c:area/c:circle", "", ns)).split()
        assert [float(x) for x in where.split(",")] == pytest.approx([30.7, 104.0], abs=0.02)
        assert float(radius) >= 0


def test_robots_are_signed_as_their_makers_describe() -> None:
    """Computed by the makers' published recipes with the standard library, once, by hand."""
    assert dingtalk_url("https://oapi.example/robot/send?access_token=T", "SECabc", 1_767_225_600_000) == (
        "https://oapi.example/robot/send?access_token=T&timestamp=1767225600000"
        "&sign=Tns%2Bq9xy3ZrHUPnf0YouCf2mHINUhrfNLY8ohhAIgfw%3D"
    )
    assert feishu_fields("s3cret", 1_767_225_600) == {
        "timestamp": "1767225600",
        "sign": "vbf9+G/gNwrYXCunelAMRWzPjMXB3EDWy6ozHkfI8Q0=",
    }
