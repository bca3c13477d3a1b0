"""The self-test must refuse stores that break a promise."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from obstore.store import MemoryStore

from adaptivegen.blob.base import ObjectMeta
from adaptivegen.blob.selftest import selftest
from adaptivegen.blob.store import ObjectStore
from adaptivegen.errors import StorageReadOnly, StoreUnsafe


class Faulty(ObjectStore):
    """A memory store; subclasses break one promise."""

    def __init__(self) -> None:
        super().__init__("memory://faulty", MemoryStore(), deadline_s=5.0, root=None)


class EveryoneWins(Faulty):
    async def put_if_absent(self, key: str, data: bytes) -> bool:
        await self.put(key, data)
        return True


class NobodyWins(Faulty):
    async def put_if_absent(self, key: str, data: bytes) -> bool:
        await super().put_if_absent(key, data)
        return False


class StaleReads(Faulty):
    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> bytes:
        return b"something else"


class IgnoresRanges(Faulty):
    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> bytes:
        return await super().get(key)


class ListsNothing(Faulty):
    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectMeta]:
        return
        yield


class DeletesNothing(Faulty):
    async def delete(self, key: str) -> None:
        return


class ReadOnly(Faulty):
    async def put_if_absent(self, key: str, data: bytes) -> bool:
        raise StorageReadOnly("cannot write")


@pytest.mark.parametrize(
    ("faulty", "said"),
    [
        (EveryoneWins, "8 of 8 racing creates won"),
        (NobodyWins, "0 of 8"),
        (StaleReads, "does not hold"),
        (IgnoresRanges, "range read"),
        (ListsNothing, "does not list"),
        (DeletesNothing, "deleted object"),
    ],
)
async def test_a_broken_promise_is_named(faulty: Any, said: str) -> None:
    with pytest.raises(StoreUnsafe, match=said):
        await selftest(faulty(), random.Random(3))


async def test_a_store_that_cannot_be_written_says_so_itself() -> None:
    with pytest.raises(StorageReadOnly):
        await selftest(ReadOnly(), random.Random(3))
