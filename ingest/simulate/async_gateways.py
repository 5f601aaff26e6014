"""The aiomqtt speaker: some simulated gateways through an MQTT client that is not ours, in one process.

Owns the part of the city that keeps simulator and engine from agreeing only with each other: payloads
are written by Python's own number formatting and packets by aiomqtt. Slow beside the raw speaker (tens
of µs a message), so it carries one gateway in ten. Run as ``python -m ingest.simulate.async_gateways``
with a plan on the first line of stdin.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import aiomqtt
import numpy as np
import uvloop
from paho.mqtt import client as mqtt

from ingest.openfiles import raise_open_files
from ingest.simulate.async_steps import Gateway, Step
from ingest.simulate.encode import MQTT_5, PACKET_IDS
from ingest.simulate.ledger import ABSENT, Chunk, Ledger
from ingest.simulate.speaker import (
    SLOT_S,
    Plan,
    SpeakerReport,
    cpu_s,
    finished,
    forget_signals,
    note_fault,
    own_part,
    say,
)

GO_S_MAX = 120.0
GOODBYE_S_MAX = 1.0
"""For DISCONNECTs; a publish that still waits for its PUBACK then is given up."""
BACKOFF_S = (0.1, 2.0)
"""First and longest wait before a reconnect; jittered."""
CONNECTS_AT_ONCE = 16
"""aiomqtt connects in a thread each."""


class _SilentLogger(logging.Logger):
    """The client writes two debug lines a message; even asking whether anyone listens costs."""

    def log(self, *_: object, **__: object) -> None:
        """Nothing."""


SILENT = _SilentLogger("mqtt")


class AiomqttSpeaker:
    """Runs a plan to its end; ``run`` returns the report."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._part = own_part(plan)
        self._ledger = Ledger(Path(plan.ledger_dir), plan.speaker)
        self._random = random.Random(plan.seed)
        self._stopped = asyncio.Event()
        self._closing = False
        self._broken: BaseException | None = None
        self._connecting = asyncio.Semaphore(CONNECTS_AT_ONCE)
        self._silence = False
        fleet = self._part.fleet
        self.report = SpeakerReport(plan.speaker, points=len(fleet))
        self._slots: list[list[Gateway]] = []
        self._silent: set[str] = set()
        at = 0
        for codes in self._part.slots:
            slot = []
            for code in codes:
                size = int((fleet.gateway == code).sum())
                per_step = -(-size // (plan.batch or 1))
                backlog = max(per_step, int(per_step * plan.backlog_s_max * plan.hz))
                slot.append(
                    Gateway(fleet.gateways[code], self._part.version[code], slice(at, at + size), backlog)
                )
                at += size
                if self._part.silent[code]:
                    self._silent.add(fleet.gateways[code])
            self._slots.append(slot)
        self._gateways = [gateway for slot in self._slots for gateway in slot]
        self.report.gateways = len(self._gateways)

    def stop(self) -> None:
        """Produce no more; drain and end."""
        self._stopped.set()

    async def run(self) -> SpeakerReport:
        """Connect, wait for the parent's word, publish every step at its time, drain, write the ledger."""
        going = asyncio.Event()
        asyncio.get_running_loop().add_reader(sys.stdin.fileno(), self._hear, going)
        tasks = [asyncio.create_task(self._speak(gateway)) for gateway in self._gateways]
        for task in tasks:
            task.add_done_callback(self._ended)
        await self._until(lambda: all(g.connected for g in self._gateways), self._plan.connect_s_max)
        say(ready=True, points=self.report.points, gateways=self.report.gateways)
        await self._until(going.is_set, GO_S_MAX)
        begun, cpu = time.monotonic(), cpu_s()
        if going.is_set():
            await self._produce(begun)
        await self._until(lambda: not any(g.unsettled for g in self._gateways), self._plan.drain_s_max, True)
        self.report.seconds = time.monotonic() - begun
        self.report.cpu_s = cpu_s() - cpu
        self._closing = True
        for gateway in self._gateways:
            gateway.wake.set()
        await asyncio.wait(tasks, timeout=GOODBYE_S_MAX)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._close()
        if self._broken is not None:
            raise self._broken
        return self.report

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Our own mistake in a gateway ends the run loudly, with the ledger written."""
        if not task.cancelled() and (fault := task.exception()) is not None:
            self._broken = fault
            self.stop()

    async def _until(self, done: Callable[[], bool], seconds_max: float, draining: bool = False) -> None:
        """Wait until ``done()`` or ``seconds_max`` passed; a stop ends it unless ``draining``."""
        limit = time.monotonic() + seconds_max
        # Counters, sockets and a stop are watched together: a look every SLOT_S is simpler than events.
        while not done() and time.monotonic() < limit:
            if self._stopped.is_set() and not draining:
                return
            await asyncio.sleep(SLOT_S)

    def _hear(self, going: asyncio.Event) -> None:
        word = os.read(sys.stdin.fileno(), 64)
        if b"go" in word:
            going.set()
        elif not word:
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
            self.stop()

    async def _produce(self, begun: float) -> None:
        plan = self._plan
        slot_s = 1 / plan.hz / len(self._slots)
        told = begun
        for number in range(plan.steps() * len(self._slots)):
            due = begun + number * slot_s
            step, slot = divmod(number, len(self._slots))
            if not self._slots[slot]:
                continue
            await asyncio.sleep(due - time.monotonic())
            if self._stopped.is_set():
                break
            self.report.lag_s_max = max(self.report.lag_s_max, time.monotonic() - due)
            self._silence = self._part.scenario.silent_now(self._part.scenario.share(step, plan.hz))
            for gateway in self._slots[slot]:
                if self._is_silent(gateway):
                    gateway.wake.set()
                else:
                    self._measure(gateway, step)
            if time.monotonic() - told >= 1:
                told = time.monotonic()
                say(
                    seconds=round(told - begun, 1),
                    sent=self.report.sent,
                    acked=sum(g.acked for g in self._gateways),
                    connected=sum(g.connected for g in self._gateways),
                )
        self._silence = False

    def _measure(self, gateway: Gateway, number: int) -> None:
        """One step of one gateway into the ledger and its queue."""
        part, rows = self._part, gateway.rows
        now_ms = time.time_ns() // 1_000_000
        time_us = np.full(rows.stop - rows.start, now_ms * 1000, np.int64)
        chunk = self._ledger.open_chunk(part.fleet.number[rows], time_us, part.values.at(number, rows))
        self.report.produced += len(chunk)
        step = Step(chunk, now_ms, self._plan.batch or 1)
        if gateway.unsettled + len(step.left) > gateway.backlog_max:
            chunk.settle(0, len(chunk), ABSENT)
            self.report.not_sent += len(chunk)
            return
        gateway.unsettled += len(step.left)
        gateway.waiting.append(step)
        gateway.wake.set()

    def _encoded(self, gateway: Gateway, chunk: Chunk, begin: int, end: int) -> tuple[str, str]:
        """Topic and payload of rows begin … end, from the ledger's own arrays."""
        fleet, at = self._part.fleet, gateway.rows.start
        if not self._plan.batch:
            text = f'{{"ts":{int(chunk.time_us[begin]) // 1000},"v":{float(chunk.value[begin])}}}'
            return fleet.topic[at + begin], text
        elements = (
            f'{{"id":"{fleet.point_id[at + i]}","ts":{int(chunk.time_us[i]) // 1000},"v":{float(chunk.value[i])}}}'
            for i in range(begin, end)
        )
        return self._plan.gateway_topic.replace("{gateway}", gateway.name), f"[{','.join(elements)}]"

    async def _speak(self, gateway: Gateway) -> None:
        """Keep one gateway connected and publishing; what was not acknowledged is published again."""
        tries = 0
        while not self._closing:
            if self._is_silent(gateway):
                await asyncio.sleep(SLOT_S)
                continue
            try:
                async with self._connecting:
                    client = self._client(gateway)
                    self.report.connects += 1
                    await client.__aenter__()
                try:
                    gateway.connected, tries = True, 0
                    await self._publish_waiting(gateway, client)
                finally:
                    gateway.connected = False
                    await client.__aexit__(None, None, None)
            except aiomqtt.MqttError as fault:
                note_fault(self.report, str(fault))
            if not self._closing:
                wait_s = min(BACKOFF_S[0] * 2**tries, BACKOFF_S[1]) * self._random.uniform(0.5, 1.0)
                tries = min(tries + 1, 10)
                await asyncio.sleep(wait_s)

    def _is_silent(self, gateway: Gateway) -> bool:
        return self._silence and gateway.name in self._silent

    def _client(self, gateway: Gateway) -> aiomqtt.Client:
        plan = self._plan
        version_5 = gateway.version == MQTT_5
        return aiomqtt.Client(
            plan.host,
            plan.port,
            identifier=gateway.name,
            username=plan.user,
            password=plan.password,
            protocol=aiomqtt.ProtocolVersion.V5 if version_5 else aiomqtt.ProtocolVersion.V311,
            clean_session=None if version_5 else False,
            clean_start=False if version_5 else mqtt.MQTT_CLEAN_START_FIRST_ONLY,
            # 0, no limit, spares the client a walk over all its messages at each acknowledgement.
            max_inflight_messages=plan.inflight_max if plan.inflight_max < PACKET_IDS else 0,
            logger=SILENT,
            timeout=30.0,
            # Without it a publish waits for the delayed TCP acknowledgement of the one before.
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
        )

    async def _publish_waiting(self, gateway: Gateway, client: aiomqtt.Client) -> None:
        """Publish until the connection ends (MqttError), silence falls or the run closes."""
        listening = asyncio.create_task(_until_disconnected(client))
        publishing = asyncio.create_task(self._publish_steps(gateway, client))
        both = (listening, publishing)
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in both:
                task.cancel()
            ends = await asyncio.gather(*both, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):
                raise end

    async def _publish_steps(self, gateway: Gateway, client: aiomqtt.Client) -> None:
        while not self._closing:
            await gateway.wake.wait()
            gateway.wake.clear()
            if self._is_silent(gateway):
                return
            while gateway.waiting:
                # One step after another, so that a point's readings stay in order.
                await self._publish_step(gateway, client, gateway.waiting[0])
                gateway.waiting.popleft()

    async def _publish_step(self, gateway: Gateway, client: aiomqtt.Client, step: Step) -> None:
        """Publish what is left of a step and wait for its PUBACKs; what fails stays left.

        aiomqtt's own ``publish`` is a coroutine, an event and a look at all other waiting calls for each
        message. Here its client's publish and its callback for PUBACK do the same for two thirds of the CPU;
        connection, socket and protocol stay aiomqtt's.
        """
        paho = client._client
        paho.on_publish = gateway.on_acknowledged
        try:
            self._hand_over(gateway, paho, step)
            if gateway.flying:
                gateway.landed.clear()
                await gateway.landed.wait()
        except BaseException:
            gateway.wake.set()
            raise
        finally:
            gateway.flying.clear()
            step.keep_unsettled(self._plan.qos)

    def _hand_over(self, gateway: Gateway, paho: mqtt.Client, step: Step) -> None:
        """Everything left of a step to the client. A fresh reading is measured right before it is sent; one
        that waited for a connection keeps the time it was measured. A point's times only grow."""
        qos, chunk = self._plan.qos, step.chunk
        floor_ms = gateway.latest_ms + 1
        fresh = time.time() * 1000 - step.measured_ms < 1000 / self._plan.hz
        for begin, end in step.left:
            now_us = time.time_ns() // 1000
            if begin not in step.stamped:
                step.stamped.add(begin)
                stamp_ms = max(now_us // 1000 if fresh else step.measured_ms, floor_ms)
                chunk.time_us[begin:end] = stamp_ms * 1000
                gateway.latest_ms = max(gateway.latest_ms, stamp_ms)
            if chunk.sent_us[begin] == 0:
                chunk.sent(begin, end, now_us, final=not qos)
                self.report.sent += end - begin
                gateway.unsettled -= 0 if qos else 1
            else:
                self.report.resent_messages += 1
            info = paho.publish(*self._encoded(gateway, chunk, begin, end), qos)
            if info.rc != mqtt.MQTT_ERR_SUCCESS:
                raise aiomqtt.MqttCodeError(info.rc, "could not publish")
            if qos:
                gateway.flying[info.mid] = (chunk, begin, end)

    def _close(self) -> None:
        """Write the ledger, fill the report."""
        self._ledger.close()
        counts = self._ledger.counts
        report = self.report
        report.sent, report.acked = counts["sent"], counts["acked"]
        report.refused, report.queued = counts["refused"], counts["queued"]
        messages = max(1, report.sent // max(1, self._plan.batch))
        report.cpu_us_per_message = round(report.cpu_s / messages * 1e6, 3)


async def _until_disconnected(client: aiomqtt.Client) -> None:
    """Raises MqttError when the connection ends."""
    async for _ in client.messages:
        pass


async def _main(plan: Plan) -> None:
    speaker = AiomqttSpeaker(plan)
    loop = asyncio.get_running_loop()
    gc.collect()
    gc.freeze()
    forget_signals(lambda: loop.call_soon_threadsafe(speaker.stop))
    finished(await speaker.run())


def main() -> None:
    """Read the plan, speak, report."""
    raise_open_files()
    uvloop.run(_main(Plan.from_json(sys.stdin.buffer.readline().decode())))


if __name__ == "__main__":
    main()
