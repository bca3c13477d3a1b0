"""Runs the planned processes: starts them in order, restarts those that die, ends them all in reverse order."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from adaptivegen.clock import Clock
from adaptivegen.drain import DEFAULT_GRACE_S, kill_after_s
from adaptivegen.errors import NodeUnavailable, first_error
from cli.system import data_dir as data
from cli.system.broker import configuration, find_binary
from cli.system.layout import (
    ProcessPlan,
    RestartPolicy,
    SystemOptions,
    assign_ports,
    plan_system,
    port_count,
)
from cli.system.logs import keep_small
from cli.system.ports import check_free, free_ports
from cli.system.process import Child
from cli.system.readiness import is_ready

READY_TIMEOUT_S = 120.0
PROBE_EVERY_S = 0.1
GRACE_S = kill_after_s(DEFAULT_GRACE_S)


class System:
    """A running system. Built by `running_system`."""

    def __init__(
        self,
        data_dir: Path,
        plans: list[ProcessPlan],
        *,
        clock: Clock,
        announce: Callable[[str], None],
        policy: RestartPolicy,
        grace_s: float,
    ) -> None:
        self.plans = plans
        self._data_dir = data_dir
        self._clock = clock
        self._announce = announce
        self._policy = policy
        self._grace_s = grace_s
        self._children = {plan.name: Child(plan, data_dir / "logs" / f"{plan.name}.log") for plan in plans}
        self._keepers: list[asyncio.Task[None]] = []

    @property
    def edge_urls(self) -> list[str]:
        """HTTP URLs of the edges."""
        return [plan.url for plan in self.plans if plan.endpoint.get("kind") == "edge"]

    @property
    def dashboards(self) -> list[str]:
        """Pages that show the schedulers at work."""
        return [plan.dashboard for plan in self.plans if plan.dashboard]

    def plan(self, name: str) -> ProcessPlan:
        """The plan of a process."""
        return self._children[name].plan

    def pid(self, name: str) -> int | None:
        """Process id of a process, while it lives."""
        return self._children[name].pid

    def restarts(self, name: str) -> int:
        """How often a process was started again."""
        return self._children[name].restarts

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to a process; it will be started again if that ends it."""
        self._children[name].send(number)

    async def start(self, group: asyncio.TaskGroup) -> None:
        """Start stage by stage; returns when everything is ready. Raises NodeUnavailable naming what is not."""
        (self._data_dir / "logs").mkdir(exist_ok=True)
        for stage in sorted({plan.stage for plan in self.plans}):
            mates = self._stage(stage)
            for child in mates:
                await child.start()
            for child in mates:
                await self._until_ready(child, timeout_s=READY_TIMEOUT_S)
                self._say(child, f"{child.plan.url}  pid {child.pid}")
                self._keepers.append(group.create_task(self._keep(child)))
        logs = [child.log for child in self._children.values()]
        self._keepers.append(group.create_task(keep_small(logs, clock=self._clock)))
        data.write_endpoints(self._data_dir, self.plans)

    async def stop(self) -> None:
        """End everything, last stage first, each stage at once: SIGTERM, the grace, SIGKILL."""
        data.remove_endpoints(self._data_dir)
        for keeper in self._keepers:
            keeper.cancel()
        if self._keepers:
            await asyncio.wait(self._keepers)  # none may start a process after this
        for stage in sorted({plan.stage for plan in self.plans}, reverse=True):
            async with asyncio.TaskGroup() as group:
                for child in self._stage(stage):
                    group.create_task(self._end(child))

    async def wait_ready(self, name: str, *, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Return when the process answers, also after restarts; raises NodeUnavailable when that takes too long."""
        await self._until_ready(self._children[name], timeout_s=timeout_s, one_life=False)

    async def _until_ready(self, child: Child, *, timeout_s: float, one_life: bool = True) -> None:
        """Raises NodeUnavailable after `timeout_s`, and with `one_life` as soon as the process has ended."""
        until_s = self._clock.monotonic_s() + timeout_s
        while self._clock.monotonic_s() < until_s:
            if child.pid is not None and await is_ready(child.plan) and child.pid is not None:
                return
            if one_life and child.status is not None:
                raise NodeUnavailable(f"{child.plan.name} ended with status {child.status}; see {child.log}")
            await self._clock.sleep(PROBE_EVERY_S)
        raise NodeUnavailable(f"{child.plan.name} was not ready within {timeout_s:g} s; see {child.log}")

    async def _keep(self, child: Child) -> None:
        """Start the process again whenever it ends, until cancelled."""
        failures = 0
        while True:
            began_s = self._clock.monotonic_s()
            ended = await self._outlive(child, tell=failures > 0)
            failures = self._policy.failures_after(failures, lived_s=self._clock.monotonic_s() - began_s)
            pause_s = self._policy.pause_s(failures)
            self._say(child, f"{ended}; starting again in {pause_s:g} s")
            await self._clock.sleep(pause_s)
            try:
                await child.start()
            except NodeUnavailable as exc:
                self._say(child, exc.message)

    async def _outlive(self, child: Child, *, tell: bool) -> str:
        """How the process ended; meanwhile, with `tell`, say when it is ready again."""
        async with asyncio.TaskGroup() as group:
            teller = group.create_task(self._tell_ready(child)) if tell else None
            status = await child.wait()
            if teller is not None:
                teller.cancel()
        return f"ended with status {status}"

    async def _tell_ready(self, child: Child) -> None:
        try:
            await self._until_ready(child, timeout_s=READY_TIMEOUT_S)
            self._say(child, f"{child.plan.url}  pid {child.pid} again")
        except NodeUnavailable as exc:
            self._say(child, exc.message)

    async def _end(self, child: Child) -> None:
        if not await child.end(grace_s=self._grace_s):
            self._say(child, f"did not end within {self._grace_s:g} s and was killed")

    def _stage(self, stage: int) -> list[Child]:
        return [child for child in self._children.values() if child.plan.stage == stage]

    def _say(self, child: Child, text: str) -> None:
        self._announce(f"{child.plan.name:<12} {text}")


@asynccontextmanager
async def supervised(
    data_dir: Path,
    plans: list[ProcessPlan],
    *,
    clock: Clock,
    announce: Callable[[str], None],
    policy: RestartPolicy | None = None,
    grace_s: float = GRACE_S,
) -> AsyncIterator[System]:
    """These processes, ready inside the block, kept running, and gone after it. The directory is the caller's to lock.

    Raises NodeUnavailable naming the process that did not start.
    """
    system = System(data_dir, plans, clock=clock, announce=announce, policy=policy or RestartPolicy(), grace_s=grace_s)
    try:
        async with asyncio.TaskGroup() as group:
            try:
                await system.start(group)
                yield system
            finally:
                await system.stop()
    except BaseExceptionGroup as errors:
        raise first_error(errors) from errors


@asynccontextmanager
async def running_system(
    options: SystemOptions, *, clock: Clock, announce: Callable[[str], None]
) -> AsyncIterator[System]:
    """A whole system, ready inside the block and gone after it: no process, no lock.

    Raises InvalidRequest, AlreadyRunning, SettingsInvalid, or NodeUnavailable naming the process that did not start.
    """
    options.check()
    with data.locked(options.data_dir):
        if options.port:
            check_free(options.port)
        binary = find_binary(options.nats_server_binary, options.nats_server_sha256)
        secrets = data.read_secrets(options.data_dir)
        ports = assign_ports(options, free_ports(port_count(options)))
        broker_dir = options.data_dir / "broker"
        config = data.write_private(
            broker_dir / "nats.conf",
            configuration(port=ports.broker, store_dir=broker_dir, password=secrets.broker_password),
        )
        plans = plan_system(options, ports, secrets, [str(binary), "-c", str(config)])
        async with supervised(
            options.data_dir, plans, clock=clock, announce=announce, grace_s=options.kill_after_s
        ) as system:
            yield system
