"""A made-up city that speaks the map's wire format, for working on the page and testing it without an engine.

    python tests/browser_city.py --points 116200 --port 9182 --storm

Owns a synthetic state and the server's answers as console/FORMAT.md words them. It judges nothing and stores nothing.
The page must look the same in front of the real server; what differs there is a fault of this file.
"""

# ruff: noqa: E501
# fmt: off

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import math
import re
import struct
import time
import tomllib
import zlib
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from aiohttp import WSMsgType, web

from console.squeeze import squeeze

ROOT = Path(__file__).resolve().parents[1]
STATIC = ROOT / "console/static"
FRAME = {"lon0": 102.9, "lat0": 30.0, "lon1": 104.95, "lat1": 31.5, "crs": "WGS84"}
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
GROUPS = (
    ("chengdu-flood", ("rain_gauge", "rain_1h", "river_level", "waterlogging", "pump_level", "pump_current", "drain_level")),
    ("chengdu-env", ("pm25", "pm10", "so2", "no2", "co", "o3", "temperature", "humidity", "wind_speed", "pressure", "ph",
                     "dissolved_oxygen", "codmn", "nh3n", "tp", "noise", "soil_moisture", "soil_temperature")),
    ("chengdu-urban", ("manhole_level", "manhole_tilt", "bridge_strain", "bridge_vibration", "bridge_deflection", "lamp_power",
                       "bin_fill", "dust_pm10", "site_noise")),
    ("chengdu-emergency", ("gas_leak", "hydrant_pressure", "slope_displacement", "slope_tilt")),
    ("chengdu-food", ("cold_chain_temp", "fridge_temp", "kitchen_fume")),
    ("chengdu-traffic", ("traffic_flow", "traffic_speed", "parking_free")),
)  # fmt: skip
FLOOD = ("rain_1h", "river_level", "waterlogging", "pump_level")
ROADS = (
    "人民路",
    "蜀汉路",
    "天府大道",
    "成洛大道",
    "剑南大道",
    "金沙路",
    "沙湾路",
    "双楠路",
    "玉双路",
    "驿都大道",
)
SITES = ("下穿隧道", "雨量站", "水位站", "泵站", "微站", "路口", "小区", "排口", "工地", "监测点")
BEFORE = 20
"""Seconds the city has lived before anybody looks."""
HOSTILE = (
    "<img src=x onerror=alert(1)>", "<script>alert('x')</script>", "‮gnp.exe‬ 右到左", "مرحبا سد ‏المدينة",
    "nul\x00bell\x07esc\x1b[31m tab\there", "长" * 500, "\"' onmouseover='alert(2)' x=\"", "&lt;b&gt; &amp; {{7*7}} ${7*7}",
)  # fmt: skip


def morton(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Interleaved bits of two uint16 columns, uint32."""

    def spread(v: np.ndarray) -> np.ndarray:
        v = v.astype(np.uint32)
        for shift, mask in ((8, 0x00FF00FF), (4, 0x0F0F0F0F), (2, 0x33333333), (1, 0x55555555)):
            v = (v | (v << shift)) & np.uint32(mask)
        return v

    return spread(x) | (spread(y) << np.uint32(1))


def zigzag_planes(v: np.ndarray) -> list[bytes]:
    """Low and high bytes of the zigzag coded differences of a uint16 column."""
    d = np.diff(v.astype(np.int32), prepend=0)
    d = (d + 32768) % 65536 - 32768
    z = ((d << 1) ^ (d >> 15)) & 0xFFFF
    return [(z & 255).astype(np.uint8).tobytes(), (z >> 8).astype(np.uint8).tobytes()]


@dataclass
class City:
    """n points with states that a seed and a tick's number decide. ``hostile``: the first points have names to fear."""

    n: int
    seed: int = 7
    storm: bool = True
    hostile: bool = False
    change: float = 0.3
    seq: int = 0
    began: float = field(default_factory=time.time)
    acks: dict[str, dict[str, Any]] = field(default_factory=dict)
    silences: list[dict[str, Any]] = field(default_factory=list)
    alerts_version: int = 0

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        rows = [
            r.split(",")
            for r in (ROOT / "configs/chengdu/districts.csv").read_text().splitlines()
            if r[0] != "#"
        ][1:]
        self.districts = [r[0] for r in rows]
        self.codes = [r[1] for r in rows]
        titles = tomllib.loads((ROOT / "configs/chengdu/yuzui.d/kinds.toml").read_text())["kinds"]
        videos = self.n > 116_200
        self.kinds = [
            {"id": k, "zh": titles[k]["title_zh"], "en": titles[k]["title_en"], "unit": titles[k]["unit"], "group": g, "class": "sensor"}
            for g, names in GROUPS for k in names
        ]  # fmt: skip
        self.levels = [
            [titles[k["id"]].get(f"level_{c}") for c in ("blue", "yellow", "orange", "red")]
            for k in self.kinds
        ]
        if videos:
            self.kinds.append({"id": "video", "zh": "视频通道", "en": "video channels", "unit": "", "group": "chengdu-video", "class": "video"})  # fmt: skip
            self.levels.append([None] * 4)
        weight = np.array([float(r[5]) for r in rows])
        rng = self.rng
        district = rng.choice(len(rows), self.n, p=weight / weight.sum()).astype(np.uint8)
        spread = np.array([float(r[4]) for r in rows])[district] / 111.0
        lon = np.array([float(r[2]) for r in rows])[district] + rng.normal(0, 0.55, self.n) * spread
        lat = np.array([float(r[3]) for r in rows])[district] + rng.normal(0, 0.48, self.n) * spread
        x = ((lon - FRAME["lon0"]) / (FRAME["lon1"] - FRAME["lon0"]) * 65534).clip(0, 65534).astype(np.uint16)
        y = ((lat - FRAME["lat0"]) / (FRAME["lat1"] - FRAME["lat0"]) * 65534).clip(0, 65534).astype(np.uint16)
        order = np.argsort(morton(x, y), kind="stable")
        self.x, self.y, self.district = x[order], y[order], district[order]
        share = rng.gamma(1.2, 1.0, len(self.kinds))
        if videos:
            share[-1] = share[:-1].sum() * 97_200 / 116_200
        self.kind = rng.choice(len(self.kinds), self.n, p=share / share.sum()).astype(np.uint8)
        self.is_video = np.array([k["class"] == "video" for k in self.kinds])[self.kind]
        self.luck = rng.random(self.n)
        self.floods = np.isin(self.kind, [i for i, k in enumerate(self.kinds) if k["id"] in FLOOD])
        self.level = rng.integers(1, 256, self.n).astype(np.uint8)
        self.state = np.zeros(self.n, np.uint8)
        self.before = (self.level.copy(), self.state.copy())
        self.kpis: list[dict[str, Any]] = []
        self.groups: list[dict[str, Any]] = []
        for _ in range(BEFORE):
            self.tick(quick=True)

    # ---------------------------------------------------------------- the city's course
    def tick(self, quick: bool = False) -> None:
        """One second on: levels and states change, the KPIs are taken, the alerts renewed."""
        self.before = (self.level.copy(), self.state.copy())
        self.seq += 1
        moved = self.rng.random(self.n) < self.change
        self.level[moved] += (self.rng.integers(-2, 3, moved.sum()) * 2).astype(np.uint8)
        # The storm goes to and fro about its height and is never over, however long somebody looks.
        wave = 0.03 + 0.01 * math.sin(self.seq / 40)
        severity = np.zeros(self.n, np.uint8)
        if self.storm:
            cx, cy = 65534 * (0.535 + 0.005 * math.sin(self.seq / 90)), 65534 * 0.46
            near = np.exp(-(((self.x - cx) / 7000.0) ** 2 + ((self.y - cy) / 9000.0) ** 2))
            wet = self.luck + 0.62 * near + wave
            for step, line in enumerate((1.18, 1.34, 1.47, 1.555), start=1):
                severity[(wet > line) & self.floods] = step
        few = (self.luck * 9973) % 1
        severity[(few < 0.0009) & ~self.floods & ~self.is_video] = 1
        severity[(few < 0.0003) & ~self.floods & ~self.is_video] = 2
        offline = ((self.luck * 7919 + 0.00002 * self.seq) % 1) < np.where(self.is_video, 0.021, 0.004)
        doubtful = ((self.luck * 6007) % 1) < 0.003
        taken = ((self.luck * 331) % 1) < 0.25
        self.state = (
            severity | (offline & (severity == 0)) << 3 | doubtful << 4 | (taken & (severity > 0)) << 5
        ).astype(np.uint8)
        if not quick or self.seq == BEFORE:
            self.alert_groups()
        self.kpis = [*self.kpis[-119:], self.kpi()]

    def kpi(self) -> dict[str, Any]:
        severity, off = self.state & 7, (self.state & 8) > 0
        sensors = ~self.is_video
        surge = 1 + 0.02 * math.sin(self.seq / 7) + 0.01 * self.rng.random()
        return {
            "t": "kpi", "time": self.now(), "seq": self.seq, "pos": 55_000 + 40 * self.seq,
            "online": [int((~off & sensors).sum()), int(sensors.sum())],
            "video": [int((~off & self.is_video).sum()), int(self.is_video.sum())],
            "rate": round(116_200 * surge), "latency_ms": round(70 + 30 * self.rng.random() + 20 * math.sin(self.seq / 11)),
            "alerts": [int((severity == s).sum()) for s in (1, 2, 3, 4)], "faults": 31,
            "unacked": sum(1 for g in self.groups if not g["acked"] and g["told"]), "groups": len(self.groups), "stored_s": 1.1,
        }  # fmt: skip

    def now(self) -> float:
        return time.time()

    def alert_groups(self) -> None:
        """A group for each district and flood kind that has severe points."""
        found, now = [], self.now()
        severity = self.state & 7
        for d, name in enumerate(self.districts):
            for k in sorted(set(self.kind[(self.district == d) & (severity > 0)])):
                mine = np.flatnonzero((self.district == d) & (self.kind == k) & (severity > 0))
                worst = int(severity[mine].max())
                if worst < 2 and len(mine) < 4:
                    continue
                ident = f"{d:02x}{int(k):02x}f00d{self.seed:04x}"
                onset = self.began - 60 - (d * 977 + int(k) * 331) % 5400
                ack = self.acks.get(ident)
                kind, limit = self.kinds[k], self.levels[k][worst - 1] or 10
                worst_first = mine[np.argsort(-severity[mine].astype(int), kind="stable")][:20]
                zh = f"{'蓝黄橙红'[worst - 1]}色 | {name} {self.name(int(worst_first[0]))} {kind['zh']} {limit * 1.1:.4g} {kind['unit']}(限 {limit:g}) | 5 分钟 +{worst * 2} {kind['unit']} | 同组共 {len(mine)} 处"  # fmt: skip
                en = f"{('Blue', 'Yellow', 'Orange', 'Red')[worst - 1]} | {self.name(int(worst_first[0]))}: {kind['en']} {limit * 1.1:.4g} {kind['unit']} (limit {limit:g}) | +{worst * 2} {kind['unit']} in 5 min | {len(mine)} points"  # fmt: skip
                silence = next(
                    (s for s in self.silences if s["until"] > now and self.covers(s, name, kind["id"], mine)),
                    None,
                )
                found.append({
                    "id": ident, "group": ident, "severity": worst, "worst": worst, "class": "event", "rule": "level",
                    "kind": kind["id"], "district": name, "scope": "storm", "onset": onset, "first_at": onset + 0.2, "updated_at": now,
                    "summary_zh": zh, "summary_en": en, "members": len(mine) + 2, "open": len(mine), "points": [int(p) for p in worst_first],
                    "value": limit * 1.1, "limit": limit, "unit": kind["unit"], "ack": ack, "acked": ack is not None,
                    "answer": {"by": ("值班员", "值班长", "分管领导", "市长")[worst - 1], "due": onset + 300 + (0 if worst < 3 else 5400), "step": int(worst == 4)} if worst >= 2 else None,
                    "silenced": silence and {k: silence[k] for k in ("id", "until", "by", "why")}, "held": "", "told": True,
                    "flapping": False, "mode": "live",
                })  # fmt: skip
        dead = np.flatnonzero((self.state & 8) > 0)
        for d, name in enumerate(self.districts[:14]):
            mine = dead[self.district[dead] == d]
            if len(mine):
                found.append({
                    "id": f"dead{d:02x}", "group": f"dead{d:02x}", "severity": 1, "worst": 1, "class": "fault", "rule": "dead", "kind": "",
                    "district": name, "scope": "district", "onset": self.began - 3000 - d * 60, "first_at": self.began - 3000, "updated_at": now,
                    "summary_zh": f"蓝色 | {name} {len(mine)} 个测点失联", "summary_en": f"Blue | {len(mine)} points without data in {name}",
                    "members": len(mine), "open": len(mine), "points": [int(p) for p in mine[:20]], "value": None, "limit": None, "unit": "",
                    "ack": None, "acked": False, "answer": None, "silenced": None, "held": "", "told": True, "flapping": False, "mode": "live",
                })  # fmt: skip
        self.groups = sorted(found, key=lambda g: (-g["severity"], g["onset"]))
        self.alerts_version += 1

    def covers(self, s: dict[str, Any], district: str, kind: str, mine: np.ndarray) -> bool:
        if s["point_id"]:
            return len(mine) == 1 and s["point_id"] == self.ident(int(mine[0]))
        return all(
            not a or a == b for a, b in ((s["district"], district), (s["kind"], kind), (s["rule"], "level"))
        )

    # ---------------------------------------------------------------- answers
    def name(self, i: int) -> str:
        if self.hostile and i % 997 < len(HOSTILE):
            return HOSTILE[i % 997]
        road = ROADS[(i * 7) % len(ROADS)]
        return f"{road}{i % 89 + 1}号{SITES[(i * 13) % len(SITES)]}"

    def ident(self, i: int) -> str:
        return f"cd-{self.codes[self.district[i]]}-{self.kinds[self.kind[i]]['id'][:2]}-{i:06d}"

    def registry(self) -> bytes:
        about = {
            "version": 1, "n": self.n, "city": "成都(示范)", "time_zone": "Asia/Shanghai", "frame": FRAME,
            "kinds": [{**k, "n": int((self.kind == i).sum())} for i, k in enumerate(self.kinds)],
            "districts": [{"id": d, "zh": d, "en": c.capitalize(), "n": int((self.district == i).sum())} for i, (d, c) in enumerate(zip(self.districts, self.codes, strict=True))],
            "sources": [{"id": g, "n": 0} for g, _ in GROUPS],
        }  # fmt: skip
        text = json.dumps(about, ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        source = np.zeros(self.n, np.uint8)
        planes = [
            *zigzag_planes(self.x),
            *zigzag_planes(self.y),
            self.kind.tobytes(),
            self.district.tobytes(),
            source.tobytes(),
            source.tobytes(),
        ]
        return b"YZR1" + struct.pack("<III", 1, self.n, len(text)) + text + b"".join(planes)

    def frame(self, key: bool) -> bytes:
        level, state = self.level, self.state
        if not key:
            level, state = level - self.before[0], state ^ self.before[1]
        squeeze = zlib.compressobj(1, zlib.DEFLATED, -15)
        body = squeeze.compress(level.tobytes() + state.tobytes()) + squeeze.flush()
        now = int(self.now() * 1e6)
        return (
            struct.pack("<BBHIqQII", 1 if key else 2, 1, 0, self.seq, now, 55_000 + 40 * self.seq, 1, self.n)
            + body
        )

    def point(self, i: int) -> dict[str, Any]:
        kind, now, s = self.kinds[self.kind[i]], self.now(), int(self.state[i])
        near = [
            j for j in range(max(0, i - 40), min(self.n, i + 40)) if j != i and self.kind[j] == self.kind[i]
        ][:6]
        levels = self.levels[self.kind[i]]
        lon = FRAME["lon0"] + self.x[i] / 65534 * (FRAME["lon1"] - FRAME["lon0"])
        lat = FRAME["lat0"] + self.y[i] / 65534 * (FRAME["lat1"] - FRAME["lat0"])
        return {
            "index": i, "id": self.ident(i), "name": self.name(i), "kind": kind["id"], "kind_zh": kind["zh"], "kind_en": kind["en"],
            "district": self.districts[self.district[i]], "source": kind["group"], "gateway": f"gw{i % 1202:04d}", "device": f"dev{i // 2}",
            "lon": float(lon), "lat": float(lat), "unit": kind["unit"], "pos": 1, "value": self.value(i, now), "time": now - 1, "received_at": now - 0.9,
            "age_s": 1.0, "interval_s": 1.0, "flag": "good", "device_flag": "good", "state": s, "severity": s & 7, "offline": bool(s & 8),
            "range": [0, 500], "levels": levels, "falling": False, "typical": [0.0, 2.5 + (levels[0] or 10) * 0.4], "typical_hour": 1.1,
            "alerts": [{"id": g["id"], "rule": g["rule"], "class": "event", "severity": g["severity"], "onset": g["onset"]} for g in self.groups if i in g["points"]],
            "neighbours": [{"index": j, "id": self.ident(j), "name": self.name(j), "value": self.value(j, now), "unit": kind["unit"], "time": now,
                            "severity": int(self.state[j]) & 7, "offline": bool(self.state[j] & 8), "km": 0.1 * abs(i - j)} for j in near],
        }  # fmt: skip

    def value(self, i: int, at: float) -> float:
        levels = [v for v in self.levels[self.kind[i]] if v is not None] or [20]
        severity = int(self.state[i]) & 7
        top = levels[min(severity, len(levels)) - 1] * 1.06 if severity else levels[0] * 0.4
        rise = 1 / (1 + math.exp(-(at - self.now() + 1500) / 300)) if severity else 1
        return round(
            top * (0.12 + 0.88 * rise)
            + top * 0.03 * math.sin(at / 37 + i)
            + top * 0.015 * math.sin(at * 7.7 + i),
            2,
        )

    def history(self, i: int, span_s: float, step: float) -> dict[str, Any]:
        until, n = self.now(), int(span_s / step)
        t = [until - span_s + step * k for k in range(n)]
        mean = [self.value(i, at) for at in t]
        past: dict[str, Any] = {
            "id": self.ident(i), "unit": self.kinds[self.kind[i]]["unit"], "since": until - span_s, "until": until, "step_s": step, "t": t,
            "min": [round(v * 0.93, 2) for v in mean], "max": [round(v * 1.07, 2) for v in mean], "mean": mean, "count": [int(step)] * n, "bad": [0.0] * n,
            "limits": self.levels[self.kind[i]], "range": [0, 500], "forecasts": [], "alerts": [],
        }  # fmt: skip
        if self.state[i] & 7 and span_s <= 3600:
            limit = max((v for v in self.levels[self.kind[i]] if v is not None), default=20.0)
            past["forecasts"] = [
                {
                    "made_at": until,
                    "at": until + 480,
                    "value": limit,
                    "method": "trend",
                    "limit": limit,
                    "eta_s": 480,
                }
            ]
            past["alerts"] = [
                {
                    "id": "a",
                    "rule": "level",
                    "severity": int(self.state[i]) & 7,
                    "onset": until - 1400,
                    "ended_at": None,
                    "summary_zh": "",
                    "summary_en": "",
                }
            ]
        return past


SPANS_S = {"1h": 3600, "24h": 86_400, "7d": 604_800, "30d": 2_592_000}
USERS = {"wang": ("wang", "operate"), "li": ("li", "view")}


class Server:
    """The routes of FORMAT.md before a City. ``paused``: no frames, as an engine that does not judge."""

    def __init__(self, city: City, anonymous: bool = False) -> None:
        self.city, self.anonymous, self.paused = city, anonymous, False
        self.sockets: set[web.WebSocketResponse] = set()
        self.sessions: dict[str, tuple[str, str]] = {}
        self.gzipped: dict[Path, bytes] = {}
        app = self.app = web.Application(middlewares=[self.guard])
        app.router.add_get("/", self.static)
        app.router.add_get("/static/{path:.+}", self.static)
        app.router.add_get("/ws", self.ws)
        app.router.add_get("/api/registry", self.registry)
        app.router.add_get("/api/me", self.me)
        app.router.add_post("/api/login", self.login)
        app.router.add_post("/api/logout", self.logout)
        app.router.add_get("/api/point/{id}", self.point)
        app.router.add_get("/api/history/{id}", self.history)
        app.router.add_get("/api/search", self.search)
        app.router.add_post("/api/alerts/{id}/ack", self.ack)
        app.router.add_get("/api/silences", self.silences)
        app.router.add_post("/api/silences", self.silence)
        app.router.add_delete("/api/silences/{n}", self.unsilence)

    @web.middleware
    async def guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        user = self.user(request)
        needs = request.path.startswith(("/api/", "/ws")) and request.path not in ("/api/login",)
        if needs and user is None:
            return web.json_response({"error": "log in"}, status=401)
        if (
            request.method in ("POST", "DELETE")
            and request.path not in ("/api/login", "/api/logout")
            and user[1] != "operate"
        ):
            return web.json_response({"error": "your role may only look"}, status=403)
        answer = await handler(request)
        if not answer.prepared:
            answer.headers["Content-Security-Policy"] = CSP
            answer.headers["X-Content-Type-Options"] = "nosniff"
        return answer

    def user(self, request: web.Request) -> tuple[str, str] | None:
        found = self.sessions.get(request.cookies.get("yuzui_session", ""))
        return found or (("", "view") if self.anonymous else None)

    async def static(self, request: web.Request) -> web.Response:
        path = STATIC / request.match_info.get("path", "index.html")
        if not path.is_file() or STATIC not in path.resolve().parents:
            return web.Response(status=404)
        kinds = {
            ".html": "text/html",
            ".js": "text/javascript",
            ".css": "text/css",
            ".svg": "image/svg+xml",
            ".json": "application/json",
        }
        raw = path.read_bytes()
        if path.parent == STATIC:
            raw = squeeze(raw.decode(), path.suffix).encode()
        body = gzip.compress(raw, 6)
        return web.Response(body=body, headers={"Content-Encoding": "gzip", "Content-Type": f"{kinds.get(path.suffix, 'text/plain')}; charset=utf-8", "Cache-Control": "no-cache"})  # fmt: skip

    async def registry(self, request: web.Request) -> web.Response:
        if not hasattr(self, "packed"):
            self.packed = gzip.compress(self.city.registry(), 6)
        return web.Response(
            body=self.packed, headers={"Content-Encoding": "gzip", "Content-Type": "application/octet-stream"}
        )

    async def me(self, request: web.Request) -> web.Response:
        name, role = self.user(request)
        return web.json_response({"name": name, "role": role, "anonymous": not name, "expires_at": None})

    async def login(self, request: web.Request) -> web.Response:
        asked = await request.json()
        found = USERS["wang"] if asked.get("token") == "once" else USERS.get(asked.get("name", ""))
        if found is None or (asked.get("password") != "river" and "token" not in asked):
            return web.json_response({"error": "wrong name or password"}, status=401)
        key = f"s{len(self.sessions)}-{time.time()}"
        self.sessions[key] = found
        answer = web.json_response({"name": found[0], "role": found[1], "expires_at": None})
        answer.set_cookie("yuzui_session", key, httponly=True, samesite="Strict", path="/")
        return answer

    async def logout(self, request: web.Request) -> web.Response:
        self.sessions.pop(request.cookies.get("yuzui_session", ""), None)
        return web.Response(status=204)

    def index(self, request: web.Request) -> int:
        ident = request.match_info["id"]
        found = re.fullmatch(r"@(\d+)", ident) or re.fullmatch(r".*-(\d{6})", ident)
        if not found or int(found[1]) >= self.city.n:
            raise web.HTTPNotFound(text='{"error": "no such point"}', content_type="application/json")
        return int(found[1])

    async def point(self, request: web.Request) -> web.Response:
        return web.json_response(self.city.point(self.index(request)))

    async def history(self, request: web.Request) -> web.Response:
        span = SPANS_S[request.query.get("span", "1h")]
        return web.json_response(
            self.city.history(self.index(request), span, float(request.query.get("step") or span / 360))
        )

    async def search(self, request: web.Request) -> web.Response:
        words, c, found = request.query["q"].lower().split(), self.city, []
        for i in range(c.n):
            if len(found) == 20:
                break
            text = f"{c.name(i)} {c.ident(i)}".lower()
            if all(w in text for w in words):
                found.append(
                    {
                        "index": i,
                        "id": c.ident(i),
                        "name": c.name(i),
                        "kind": c.kinds[c.kind[i]]["id"],
                        "district": c.districts[c.district[i]],
                        "state": int(c.state[i]),
                    }
                )
        return web.json_response({"found": found, "more": len(found) == 20})

    async def ack(self, request: web.Request) -> web.Response:
        asked, ident = await request.json(), request.match_info["id"]
        if ident not in {g["id"] for g in self.city.groups}:
            return web.json_response({"error": "no such alert"}, status=404)
        self.city.acks[ident] = {
            "by": self.user(request)[0],
            "note": asked.get("note", ""),
            "at": time.time(),
            "severity": 4,
        }
        await self.alerts()
        return web.json_response({"id": ident, "severity": 4, "took_s": 12.0})

    async def silences(self, request: web.Request) -> web.Response:
        return web.json_response(
            {"silences": [{**s, "ends": s["until"], "who": s["by"]} for s in self.city.silences]}
        )

    async def silence(self, request: web.Request) -> web.Response:
        asked = await request.json()
        if not asked.get("until") or not asked.get("why"):
            return web.json_response({"error": "until and why are needed"}, status=400)
        until = asked["until"]
        if isinstance(until, str):
            until = datetime.fromisoformat(until).replace(tzinfo=ZoneInfo("Asia/Shanghai")).timestamp()
        number = len(self.city.silences) + 1
        scope = {
            "point_id": asked.get("point", ""),
            **{k: asked.get(k, "") for k in ("district", "kind", "rule")},
            "gateway_id": "",
        }
        self.city.silences.append(
            {
                "id": number,
                **scope,
                "severity_max": asked.get("severity_max", 3),
                "until": until,
                "by": self.user(request)[0],
                "why": asked["why"],
                "begins": time.time(),
            }
        )
        await self.alerts()
        return web.json_response({"id": number}, status=201)

    async def unsilence(self, request: web.Request) -> web.Response:
        if not (await request.json()).get("why"):
            return web.json_response({"error": "say why"}, status=404)
        self.city.silences = [s for s in self.city.silences if s["id"] != int(request.match_info["n"])]
        await self.alerts()
        return web.Response(status=204)

    def alerts_text(self) -> str:
        return json.dumps(
            {
                "t": "alerts",
                "version": self.city.alerts_version,
                "full": True,
                "changed": self.city.groups,
                "gone": [],
                "more": 0,
            },
            ensure_ascii=False,
        )

    async def alerts(self) -> None:
        self.city.alert_groups()
        await self.send_all(self.alerts_text())

    async def send_all(self, *messages: bytes | str) -> None:
        """To everybody; who has just gone does not keep the others from it."""
        for ws in list(self.sockets):
            try:
                for message in messages:
                    await (ws.send_bytes(message) if isinstance(message, bytes) else ws.send_str(message))
            except ConnectionError:
                self.sockets.discard(ws)

    async def ws(self, request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(compress=False)
        await ws.prepare(request)
        name, role = self.user(request)
        hello = {"t": "hello", "registry": 1, "now": self.city.now(), "engine_version": "0", "mode": "live",
                 "user": {"name": name, "role": role, "anonymous": not name}, "history": {"step_s": 1, "kpi": self.city.kpis}}  # fmt: skip
        await ws.send_str(json.dumps(hello))
        await ws.send_bytes(self.city.frame(key=True))
        await ws.send_str(self.alerts_text())
        self.sockets.add(ws)
        try:
            async for message in ws:
                if message.type is WSMsgType.ERROR:
                    break
        finally:
            self.sockets.discard(ws)
        return ws

    async def beat(self) -> None:
        """A frame a second to everybody."""
        while True:
            await asyncio.sleep(1)
            if self.paused:
                continue
            self.city.tick()
            full = [self.alerts_text()] if self.city.seq % 10 == 0 else []
            await self.send_all(self.city.frame(key=False), json.dumps(self.city.kpis[-1]), *full)


async def serve(server: Server, port: int) -> tuple[web.AppRunner, int, asyncio.Task[None]]:
    """Listening on loopback; the runner, the port (0: any free) and the task that beats."""
    runner = web.AppRunner(server.app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    return runner, runner.addresses[0][1], asyncio.create_task(server.beat())


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--points", type=int, default=116_200)
    parser.add_argument("--port", type=int, default=9182)
    parser.add_argument("--calm", action="store_true", help="no storm")
    parser.add_argument("--hostile", action="store_true", help="names to fear")
    parser.add_argument("--anonymous", action="store_true", help="anybody may look")
    asked = parser.parse_args()
    city = City(asked.points, storm=not asked.calm, hostile=asked.hostile)
    _, port, _ = await serve(Server(city, asked.anonymous), asked.port)
    print(f"http://127.0.0.1:{port}/#token=once  (or wang / river, li / river)", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
