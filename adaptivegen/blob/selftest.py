"""The store's self-test: may jobs be kept here? Every service runs it before it serves.

The commit of a job rests on put-if-absent being exclusive; at least one real store lets several racing creates win.
"""

from __future__ import annotations

import asyncio
import random

from adaptivegen.blob.base import BlobStore
from adaptivegen.errors import NotFound, StoreUnsafe
from adaptivegen.ids import new_token

RACERS = 8


async def selftest(store: BlobStore, rng: random.Random) -> None:
    """Raise StoreUnsafe naming what failed, or what the store raised (read-only, full, unreachable)."""
    key = f"selftest/{new_token(prefix='t', rng=rng)}"
    payloads = [f"racer {number}".encode() for number in range(RACERS)]
    try:
        winners = await _race(store, key, payloads)
        if len(winners) != 1:
            raise StoreUnsafe(f"{len(winners)} of {RACERS} racing creates won in {store.url}; exactly one may")
        if await store.get(key) != winners[0]:
            raise StoreUnsafe(f"{store.url} does not hold what the winning create wrote")
        if await store.get(key, start=2, end=5) != winners[0][2:5]:
            raise StoreUnsafe(f"{store.url} answers a range read wrongly")
        if [meta.key async for meta in store.list("selftest/") if meta.key == key] != [key]:
            raise StoreUnsafe(f"{store.url} does not list what it holds")
    finally:
        await store.delete(key)
    try:
        await store.head(key)
    except NotFound:
        return
    raise StoreUnsafe(f"{store.url} still shows a deleted object")


async def _race(store: BlobStore, key: str, payloads: list[bytes]) -> list[bytes]:
    """The payloads whose create said that it won; raises the first error when one failed."""
    answers = await asyncio.gather(*(store.put_if_absent(key, payload) for payload in payloads), return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return [payload for payload, won in zip(payloads, answers, strict=True) if won]
