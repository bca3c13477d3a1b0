"""Which endpoint is nearest, by measuring it: the shortest of a few HTTP round trips to each.

The first request also opens the connection, so the shortest of several is the round trip. End users are in no gossip
ring, so this is the only distance anyone knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Protocol

import httpx

from adaptivegen.clock import Clock
from adaptivegen.discovery.base import Endpoint
from adaptivegen.errors import NodeUnavailable

ROUNDS = 3
DEADLINE_S = 2.0
MAX_CONCURRENT = 8
PATH = "/healthz"


@dataclass(frozen=True, slots=True)
class Measured:
    """An endpoint and its shortest round trip in seconds."""

    endpoint: Endpoint
    round_trip_s: float


class Getter(Protocol):
    """What is used of an HTTP client."""

    async def get(self, url: str) -> httpx.Response:
        """GET."""
        ...


async def nearest(
    endpoints: Sequence[Endpoint],
    *,
    clock: Clock,
    rounds: int = ROUNDS,
    deadline_s: float = DEADLINE_S,
    max_concurrent: int = MAX_CONCURRENT,
    client: Getter | None = None,
) -> Endpoint:
    """The endpoint with the shortest round trip; raises NodeUnavailable naming each and why, if none answers."""
    ranked = await measure(
        endpoints,
        clock=clock,
        rounds=rounds,
        deadline_s=deadline_s,
        max_concurrent=max_concurrent,
        client=client,
    )
    return ranked[0].endpoint


async def measure(
    endpoints: Sequence[Endpoint],
    *,
    clock: Clock,
    rounds: int = ROUNDS,
    deadline_s: float = DEADLINE_S,
    max_concurrent: int = MAX_CONCURRENT,
    client: Getter | None = None,
) -> list[Measured]:
    """All that answered with 200, nearest first (equals by node id). `deadline_s` is for the whole call: what was
    measured by then counts. Raises NodeUnavailable naming each endpoint and why, if none did."""
    best_s: dict[Endpoint, float] = {}
    failures: dict[Endpoint, str] = {}
    gate = asyncio.Semaphore(max_concurrent)

    async def probe(endpoint: Endpoint, http: Getter) -> None:
        if endpoint.http_url is None:
            failures[endpoint] = "no HTTP address"
            return
        async with gate:
            for _ in range(rounds):
                began_s = clock.monotonic_s()
                failure = await _failure(http, endpoint.http_url.rstrip("/") + PATH)
                if failure:
                    failures[endpoint] = failure
                    best_s.pop(endpoint, None)
                    return
                took_s = clock.monotonic_s() - began_s
                best_s[endpoint] = min(took_s, best_s.get(endpoint, took_s))

    async with AsyncExitStack() as opened:
        http = client
        if http is None:
            http = await opened.enter_async_context(httpx.AsyncClient(timeout=deadline_s))
        try:
            async with asyncio.timeout(deadline_s), asyncio.TaskGroup() as group:
                for endpoint in endpoints:
                    group.create_task(probe(endpoint, http))
        except TimeoutError:
            late = [endpoint for endpoint in endpoints if endpoint not in best_s and endpoint not in failures]
            failures.update(dict.fromkeys(late, f"no answer within {deadline_s:g} s"))
    if not best_s:
        said = "; ".join(f"{e.node_id} {e.http_url or ''}: {why}" for e, why in failures.items())
        raise NodeUnavailable(f"no endpoint answers: {said}" if said else "no endpoint is known")
    ranked = [Measured(endpoint, round_trip_s) for endpoint, round_trip_s in best_s.items()]
    return sorted(ranked, key=lambda measured: (measured.round_trip_s, measured.endpoint.node_id))


async def _failure(http: Getter, url: str) -> str:
    """Why a request failed; empty when it answered 200."""
    try:
        status = (await http.get(url)).status_code
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        return f"{type(exc).__name__} {exc}".rstrip()
    return "" if status == 200 else f"HTTP {status}"
