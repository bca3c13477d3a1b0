"""Runs the planned processes: starts them in order, restarts those that die, ends them all in reverse order.

Owns the processes. Each has its own session (a Ctrl-C in the terminal reaches only the supervisor), its log file, and
the kernel's promise to be killed when the supervisor is.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc

from adaptivegen.clock import Clock
from adaptivegen.errors import AdaptiveGenError, NodeUnavailable
from cli.system import data_dir as data
from cli.system.broker import configuration, find_binary
from cli.system.layout import (
    HOST,
    ProcessPlan,
    RestartPolicy,
    SystemOptions,
    assign_ports,
    plan_system,
    port_count,
)

READY_TIMEOUT_S = 120.0
PROBE_TIMEOUT_S = 1.0
PROBE_EVERY_S = 0.1
GRACE_S = 15.0
_PR_SET_PDEATHSIG = 1


@dataclass(slots=True)
class _Running:
    """One process as it is now."""

    plan: ProcessPlan
    process: asyncio.subprocess.Process | None = None
    keeper: asyncio.Task[None] | None = None
    restarts: int = 0


class System:
    """A running system. Built by `running_system`."""

    def __init__(
        self, options: SystemOptions, plans: list[ProcessPlan], *, clock: Clock, announce: Callable[[str], None]
    ) -> None:
        self.options = options
        self.plans = plans
        self._clock = clock
        self._announce = announce
        self._policy = RestartPolicy()
        self._running = {plan.name: _Running(plan) for plan in plans}
        self._stopping = False

    @property
    def edge_urls(self) -> list[str]:
        """HTTP URLs of the edges."""
        return [plan.url for plan in self.plans if plan.endpoint.get("kind") == "edge"]

    def plan(self, name: str) -> ProcessPlan:
        """The plan of a process."""
        return self._running[name].plan

    def pid(self, name: str) -> int | None:
        """Process id of a process, while it lives."""
        process = self._running[name].process
        return process.pid if process and process.returncode is None else None

    def restarts(self, name: str) -> int:
        """How often a process was started again."""
        return self._running[name].restarts

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to a process; it will be started again if that ends it."""
        pid = self.pid(name)
        if pid is not None:
            os.kill(pid, number)

    async def start(self, group: asyncio.TaskGroup) -> None:
        """Start stage by stage; returns when everything is ready. Raises NodeUnavailable naming what is not."""
        for stage in sorted({plan.stage for plan in self.plans}):
            mates = [running for running in self._running.values() if running.plan.stage == stage]
            for running in mates:
                await self._spawn(running)
            for running in mates:
                await self.wait_ready(running.plan.name)
                self._announce(f"{running.plan.name:<12} {running.plan.url}  pid {self.pid(running.plan.name)}")
                running.keeper = group.create_task(self._keep(running))
        data.write_endpoints(self.options.data_dir, self.plans)

    async def stop(self) -> None:
        """End everything, last stage first: SIGTERM, `GRACE_S`, SIGKILL."""
        self._stopping = True
        data.remove_endpoints(self.options.data_dir)
        for running in self._running.values():
            if running.keeper is not None:
                running.keeper.cancel()
        for stage in sorted({plan.stage for plan in self.plans}, reverse=True):
            mates = [running for running in self._running.values() if running.plan.stage == stage]
            async with asyncio.TaskGroup() as group:
                for running in mates:
                    group.create_task(self._end(running))

    async def wait_ready(self, name: str, *, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Return when the process answers its probe; raises NodeUnavailable when it died or takes too long."""
        running = self._running[name]
        until_s = self._clock.monotonic_s() + timeout_s
        while self._clock.monotonic_s() < until_s:
            if await probe(running.plan):
                return
            if running.keeper is None and running.process is not None and running.process.returncode is not None:
                raise NodeUnavailable(f"{name} ended with status {running.process.returncode}; {self._log_hint(name)}")
            await self._clock.sleep(PROBE_EVERY_S)
        raise NodeUnavailable(f"{name} was not ready within {timeout_s:g} s; {self._log_hint(name)}")

    async def _keep(self, running: _Running) -> None:
        """Start the process again whenever it ends."""
        failures = 0
        name = running.plan.name
        while running.process is not None:
            started_s = self._clock.monotonic_s()
            status = await running.process.wait()
            if self._stopping:
                return
            failures = self._policy.failures_after(failures, lived_s=self._clock.monotonic_s() - started_s)
            pause_s = self._policy.pause_s(failures)
            self._announce(f"{name:<12} ended with status {status}; starting again in {pause_s:g} s")
            await self._clock.sleep(pause_s)
            running.restarts += 1
            await self._spawn(running)
            try:
                await self.wait_ready(name)
                self._announce(f"{name:<12} {running.plan.url}  pid {self.pid(name)} again")
            except AdaptiveGenError as exc:
                self._announce(f"{name:<12} {exc.message}")

    async def _spawn(self, running: _Running) -> None:
        logs = self.options.data_dir / "logs"
        logs.mkdir(exist_ok=True)
        plan = running.plan
        log = os.open(logs / f"{plan.name}.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            running.process = await asyncio.create_subprocess_exec(
                *plan.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(plan.env),
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        finally:
            os.close(log)

    async def _end(self, running: _Running) -> None:
        process = running.process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(GRACE_S):
                await process.wait()
        except TimeoutError:
            self._announce(f"{running.plan.name:<12} did not end within {GRACE_S:g} s and was killed")
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def _log_hint(self, name: str) -> str:
        return f"see {self.options.data_dir / 'logs' / name}.log"


def _die_with_parent() -> None:
    """In the child before it runs: on Linux, be killed when the supervisor dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


async def probe(plan: ProcessPlan) -> bool:
    """Whether a process answers that it is ready."""
    host, _, port = plan.address.rpartition(":")
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            if plan.probe == "http":
                async with httpx.AsyncClient() as client:
                    return (await client.get(f"{plan.url}/readyz")).status_code == 200
            if plan.probe == "grpc":
                async with grpc.aio.insecure_channel(plan.address) as channel:
                    stub: Any = health_pb2_grpc.HealthStub(channel)
                    reply = await stub.Check(health_pb2.HealthCheckRequest(), timeout=PROBE_TIMEOUT_S)
                    return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)
            _, writer = await asyncio.open_connection(host, int(port))
            writer.close()
            await writer.wait_closed()
            return True
    except (TimeoutError, OSError, httpx.HTTPError, grpc.aio.AioRpcError):
        return False


def free_ports(count: int) -> list[int]:
    """Ports free on loopback now; held together while chosen, so that none is given twice."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for candidate in sockets:
            candidate.bind((HOST, 0))
        return [int(candidate.getsockname()[1]) for candidate in sockets]
    finally:
        for candidate in sockets:
            candidate.close()


@asynccontextmanager
async def running_system(
    options: SystemOptions, *, clock: Clock, announce: Callable[[str], None]
) -> AsyncIterator[System]:
    """A whole system, ready inside the block and gone after it: no process, no lock.

    Raises InvalidRequest, AlreadyRunning, SettingsInvalid, or NodeUnavailable naming the process that did not start.
    """
    options.check()
    with data.locked(options.data_dir):
        binary = find_binary(options.nats_server_binary, options.nats_server_sha256)
        secrets = data.read_secrets(options.data_dir)
        ports = assign_ports(options, free_ports(port_count(options)))
        broker_dir = options.data_dir / "broker"
        broker_dir.mkdir(exist_ok=True)
        config = broker_dir / "nats.conf"
        config.touch(mode=0o600)
        config.write_text(
            configuration(port=ports.broker, store_dir=broker_dir, password=secrets.broker_password), encoding="utf-8"
        )
        plans = plan_system(options, ports, secrets, [str(binary), "-c", str(config)])
        system = System(options, plans, clock=clock, announce=announce)
        try:
            async with asyncio.TaskGroup() as group:
                try:
                    await system.start(group)
                    yield system
                finally:
                    await system.stop()
        except BaseExceptionGroup as errors:
            raise next((e for e in errors.exceptions if isinstance(e, AdaptiveGenError)), errors) from errors
