"""Endpoints in Consul: each node is a service that its agent knows, with a check that says whether it lives.

Whoever follows a kind asks for it with questions that Consul answers at the next change. While Consul is down the list
read last stands. Lists are by node id: `?near=` would sort by the distance from the agent, which is not where the
clients are (see adaptivegen.discovery.probe).
"""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adaptivegen.clock import Clock
from adaptivegen.discovery.base import Endpoint, Tell
from adaptivegen.discovery.consul_service import (
    LOCAL_AGENT,
    TTL_S,
    ConsulOptions,
    Service,
    endpoints_of,
    next_index,
    service_of,
)
from adaptivegen.errors import AdaptiveGenError, SettingsInvalid, Unavailable
from adaptivegen.telemetry import get_logger

if TYPE_CHECKING:
    from adaptivegen.discovery.consul_agent import ConsulAgent

DEADLINE_S = 2.0
WITHDRAW_TIMEOUT_S = 2.0
BEATS_PER_TTL = 3  # two may be lost


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds: a node that is silent for `ttl_s` counts as dead; a question waits for a change for `wait_s`; after an
    answer the next comes no sooner than after `rest_s`, however fast a list changes, and after a failure `retry_s`."""

    ttl_s: float = TTL_S
    wait_s: float = 30.0
    rest_s: float = 0.5
    retry_s: float = 5.0


@dataclass(frozen=True, slots=True)
class _Known:
    """The list of a kind that was read last, and when."""

    nodes: list[Endpoint]
    read_s: float


class ConsulDiscovery:
    """Raises SettingsInvalid for a `ca` that cannot be used."""

    def __init__(
        self,
        clock: Clock,
        *,
        url: str = LOCAL_AGENT,
        options: ConsulOptions | None = None,
        pace: Pace | None = None,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        self._clock = clock
        self._url = url
        self._options = options or ConsulOptions()
        self._pace = pace or Pace()
        self._deadline_s = deadline_s
        self._tls = _tls(self._options) if url.startswith("https:") else True
        self._known: dict[str, _Known] = {}
        self._unread: dict[str, str] = {}  # kinds that cannot be read now, and the error said of each

    async def endpoints(self, kind: str) -> list[Endpoint]:
        """Those whose checks pass, by one question that does not wait. While Consul cannot be asked, those read last;
        raises NodeUnavailable where there are none, PermissionDenied for a token that is refused."""
        name = self._options.service_name(kind)
        try:
            async with self._agent() as agent:
                _, entries = await agent.passing(name)
        except AdaptiveGenError as exc:
            self._failed(kind, exc)
            known = self._known.get(kind)
            if known is None or not isinstance(exc, Unavailable):
                raise
            return list(known.nodes)
        return self._read(kind, entries)

    async def follow(self, kind: str, tell: Tell) -> None:
        """By questions that wait for a change. After a failure the first one does not wait: what happened meanwhile is
        read at once, and an index of before means nothing to a Consul that has lost its state."""
        name = self._options.service_name(kind)
        told: list[Endpoint] | None = None
        index = 0
        async with self._agent() as agent:
            while True:
                try:
                    answered, entries = await agent.passing(name, index=index, wait_s=self._pace.wait_s)
                except AdaptiveGenError as exc:
                    self._failed(kind, exc)
                    index = 0
                    await self._clock.sleep(self._pace.retry_s)
                    continue
                found = self._read(kind, entries)
                index = next_index(index, answered)
                if found != told:
                    await tell(found)
                    told = found
                await self._clock.sleep(self._pace.rest_s)

    async def register(self, endpoint: Endpoint) -> None:
        """Keep `endpoint` listed until cancelled, then take it out. A Consul that is away is waited for, an agent that
        has lost the registration is told again. Of two processes with one node id the one started last is listed."""
        service = service_of(endpoint, self._options, ttl_s=self._pace.ttl_s)
        async with self._agent() as agent:
            try:
                await self._keep(agent, service)
            finally:
                with suppress(AdaptiveGenError, TimeoutError):  # else its check fails, and Consul forgets it
                    async with asyncio.timeout(WITHDRAW_TIMEOUT_S):
                        if await agent.meta(service) == service.meta:
                            await agent.deregister(service)

    async def _keep(self, agent: ConsulAgent, service: Service) -> None:
        said, begun = "", False
        while True:
            trouble = ""
            try:
                if begun:
                    trouble = await self._look_after(agent, service)
                else:
                    await agent.register(service)
                    begun = True
            except AdaptiveGenError as exc:
                trouble = exc.message
            if trouble and trouble != said:
                get_logger().warning("not_registered", service=service.id, error=trouble)
            elif said and not trouble:
                get_logger().info("registered", service=service.id)
            said = trouble
            await self._clock.sleep(self._pace.ttl_s / BEATS_PER_TTL)

    async def _look_after(self, agent: ConsulAgent, service: Service) -> str:
        """Keep what is registered alive. Returns what is wrong with it, empty if nothing is."""
        held = await agent.meta(service)
        if held is not None and held != service.meta:
            # Its check is the other's to pass: passed from here, a dead process would look alive.
            return f"another process of this node id took over: {dict(held)}"
        if held is None or (service.heartbeat and not await agent.beat(service)):
            await agent.register(service)
            get_logger().info("registered_again", service=service.id)
        return ""

    def _agent(self) -> ConsulAgent:
        """A connection of its own for each who uses one, so nobody closes another's."""
        from adaptivegen.discovery.consul_agent import ConsulAgent

        return ConsulAgent(self._url, token=self._options.token, tls=self._tls, deadline_s=self._deadline_s)

    def _read(self, kind: str, entries: list[object]) -> list[Endpoint]:
        """The list in an answer. One bad entry (another version's, a stranger's) hides no good one."""
        nodes, faults = endpoints_of(entries, kind)
        for fault in faults:
            get_logger().warning("bad_endpoint", error=fault)
        if self._unread.pop(kind, ""):
            get_logger().info("nodes_read_again", kind=kind, nodes=len(nodes))
        self._known[kind] = _Known(nodes, self._clock.monotonic_s())
        return list(nodes)

    def _failed(self, kind: str, error: AdaptiveGenError) -> None:
        """Say once, until a list is read again, that there is none or only an old one."""
        if self._unread.get(kind) == error.code:
            return
        self._unread[kind] = error.code
        known = self._known.get(kind)
        kept, age_s = (0, None) if known is None else (len(known.nodes), self._clock.monotonic_s() - known.read_s)
        get_logger().warning(
            "nodes_not_read",
            kind=kind,
            code=error.code,
            error=error.message,
            kept=kept,
            age_s=None if age_s is None else round(age_s, 1),
        )


def _tls(options: ConsulOptions) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=options.ca)
    except (OSError, ssl.SSLError) as exc:
        raise SettingsInvalid(f"consul_ca {options.ca} cannot be used: {exc}", param="consul_ca") from exc
