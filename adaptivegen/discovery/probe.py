"""Which endpoint is nearest, by measuring it: the shortest of a few HTTP round trips to each.

The first request also opens the connection, so the shortest of several is the round trip. End users are in no gossip
ring, so this is the only distance anyone knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Protocol

import httpx

from adaptivegen.clock import Clock
from adaptivegen.discovery.base import Endpoint
from adaptivegen.errors import NodeUnavailable

_NOT_READY = "HTTP 503"
ROUNDS = 3
DEADLINE_S = 2.0
MAX_CONCURRENT = 8
PATH = "/readyz"  # an edge that drains is alive, but no place to go


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
    urls = [endpoint.http_url for endpoint in endpoints if endpoint.http_url is not None]
    found = await round_trips(
        urls, clock=clock, rounds=rounds, deadline_s=deadline_s, max_concurrent=max_concurrent, client=client
    )
    ranked: list[Measured] = []
    failures: list[str] = []
    for endpoint in endpoints:
        answer = "no HTTP address" if endpoint.http_url is None else found[endpoint.http_url]
        if isinstance(answer, str):
            failures.append(f"{endpoint.node_id} {endpoint.http_url or ''}: {answer}")
        else:
            ranked.append(Measured(endpoint, answer))
    if not ranked:
        raise NodeUnavailable(f"no endpoint answers: {'; '.join(failures)}" if failures else "no endpoint is known")
    return sorted(ranked, key=lambda measured: (measured.round_trip_s, measured.endpoint.node_id))


async def round_trips(
    urls: Sequence[str],
    *,
    clock: Clock,
    rounds: int = ROUNDS,
    deadline_s: float = DEADLINE_S,
    max_concurrent: int = MAX_CONCURRENT,
    client: Getter | None = None,
) -> dict[str, float | str]:
    """For each base URL its shortest round trip in seconds, or why it has none, by `deadline_s` for all."""
    found: dict[str, float | str] = {}
    gate = asyncio.Semaphore(max_concurrent)

    async def probe(url: str, http: Getter) -> None:
        async with gate:
            for _ in range(rounds):
                began_s = clock.monotonic_s()
                failure = await _failure(http, url.rstrip("/") + PATH)
                if failure:
                    found[url] = failure
                    return
                took_s, best = clock.monotonic_s() - began_s, found.get(url)
                found[url] = min(took_s, best) if isinstance(best, float) else took_s

    async with AsyncExitStack() as opened:
        http = client
        if http is None:
            http = await opened.enter_async_context(httpx.AsyncClient(timeout=deadline_s))
        with suppress(TimeoutError):  # what was measured by then counts
            async with asyncio.timeout(deadline_s), asyncio.TaskGroup() as group:
                for url in dict.fromkeys(urls):
                    group.create_task(probe(url, http))
    late = f"no answer within {deadline_s:g} s"
    return {url: found.get(url, late) for url in urls}


def is_there(found: float | str) -> bool:
    """Whether a node answered, be it only that it is not ready: it loads or drains, and may be ready soon."""
    return isinstance(found, float) or found == _NOT_READY


async def _failure(http: Getter, url: str) -> str:
    """Why a request failed; empty when it answered 200."""
    try:
        status = (await http.get(url)).status_code
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        return f"{type(exc).__name__} {exc}".rstrip()
    return "" if status == 200 else f"HTTP {status}"
