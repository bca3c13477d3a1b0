"""Where a client gets media: from the media cache by a signed URL while it answers, else from this edge.

Owns the knowledge which cache is reachable (asked every two seconds), the prefetch of finals into it, and what it
learns from that: how long bytes take from the object store to there, and which repeats were there already.
"""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import httpx

from adaptivegen.clock import Clock
from adaptivegen.jobs.spec import Media
from adaptivegen.media.signing import sign
from adaptivegen.nodes import STORE_GET, Way
from adaptivegen.telemetry import get_logger
from adaptivegen.ways import Transfers

PROBE_EVERY_S = 2.0
PROBE_DEADLINE_S = 1.0
PREFETCH_DEADLINE_S = 30.0


class Delivery:
    """The media cache as this edge sees it, the one set or the first registered one that answers; `ca` is the CA of its
    certificate. `run` must be running. `transport` stands for the network in tests."""

    def __init__(
        self,
        cache_url: str,
        *,
        keys: dict[str, bytes],
        ttl_s: float,
        clock: Clock,
        ca: Path | None,
        deadline_s: float = PROBE_DEADLINE_S,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._cache_url = cache_url.rstrip("/")
        self._known = [self._cache_url] if cache_url else []
        self._keys = keys
        self._ttl_s = ttl_s
        self._clock = clock
        verify = ssl.create_default_context(cafile=ca) if ca else True
        self._deadline_s = deadline_s
        self._client = httpx.AsyncClient(timeout=deadline_s, verify=verify, transport=transport)
        self.cache_reachable = False
        self._transfers = Transfers()
        self.repeats_cached = 0
        self.repeats_fetched = 0

    @property
    def ways(self) -> dict[str, Way]:
        """What lately was brought into the cache took, for the heartbeat."""
        return self._transfers.told(now_s=self._clock.monotonic_s())

    def offer(self, urls: list[str]) -> None:
        """The caches there are, by preference. The one in use stays in use while it answers."""
        self._known = [url.rstrip("/") for url in urls]

    async def run(self) -> None:
        """Ask the cache whether it is there, and the next when it is not, until cancelled."""
        while True:
            await self.look()
            await self._clock.sleep(PROBE_EVERY_S)

    async def look(self) -> None:
        """Use the first cache that answers, beginning with the one in use."""
        current = self._cache_url
        order = sorted(self._known, key=lambda url: url != current)
        found = None
        for url in order:
            if await self._answers(url):
                found = url
                break
        reachable = found is not None
        if reachable != self.cache_reachable or (found is not None and found != current):
            event = "cache_reachable" if reachable else "cache_unreachable"
            get_logger().info(event, url=found or current)
        if found not in (None, current):
            self._transfers = Transfers()  # the way to another cache is another
        self._cache_url, self.cache_reachable = found or current, reachable

    async def _answers(self, url: str) -> bool:
        """One probe. httpx counts its time between bytes; a cache that drips them is as good as silent."""
        try:
            async with asyncio.timeout(self._deadline_s):
                return (await self._client.get(f"{url}/readyz")).status_code == 200
        except (httpx.HTTPError, TimeoutError):
            return False

    def cache_location(self, media: Media, *, tenant: str) -> str | None:
        """The signed URL of `media` in the cache, or None when this edge must serve it."""
        if not self.cache_reachable:
            return None
        path = f"/media/{media.key}"
        if not self._keys:
            return f"{self._cache_url}{path}"
        kid, key = next(iter(self._keys.items()))
        expires_at_s = int(self._clock.now_ns() / 1e9 + self._ttl_s)
        return f"{self._cache_url}{path}?{sign(path, tenant=tenant, expires_at_s=expires_at_s, kid=kid, key=key)}"

    async def prefetch(self, media: Media, *, tenant: str) -> bool | None:
        """Bring a final into the cache, best effort: one byte is asked for, the cache fetches the whole.

        Returns whether it was there already, None where that is not known or it could not be brought there."""
        location = self.cache_location(media, tenant=tenant)
        if location is None:
            return None
        begun_s = self._clock.monotonic_s()
        try:
            async with asyncio.timeout(PREFETCH_DEADLINE_S):
                answer = await self._client.get(location, headers={"range": "bytes=0-0"}, timeout=PREFETCH_DEADLINE_S)
            if answer.status_code != 206:
                get_logger().warning("prefetch_failed", key=media.key, error=f"HTTP {answer.status_code}")
                return None
        except (httpx.HTTPError, TimeoutError) as exc:
            get_logger().warning("prefetch_failed", key=media.key, error=f"{type(exc).__name__} {exc}".rstrip())
            return None
        now_s = self._clock.monotonic_s()
        status = answer.headers.get("cache-status", "")
        if status.endswith("; stored"):
            self._transfers.observe(STORE_GET, media.size_bytes, now_s - begun_s, now_s=now_s)
        return status.endswith("; hit") if status else None

    async def repeat(self, media: Media, *, tenant: str) -> None:
        """A final of an earlier video answers a request: have it in the cache before it is asked for."""
        cached = await self.prefetch(media, tenant=tenant)
        self.repeats_cached += cached is True
        self.repeats_fetched += cached is False

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()
