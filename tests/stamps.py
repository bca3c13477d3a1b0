"""Time that passes for a store: what is in it was written so much earlier, by the store's own clock."""

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace

from adaptivegen.blob.base import BlobStore, ObjectMeta


class Stamps:
    """The stamps of a real store's objects, moved. One for each store."""

    def __init__(self, blob: BlobStore) -> None:
        self._head, self._list = blob.head, blob.list
        self._earlier_ns: Counter[tuple[str, int]] = Counter()  # by key and the moment it was really written
        blob.head = self.head  # type: ignore[method-assign]
        blob.list = self.list  # type: ignore[method-assign]

    async def passes(self, seconds: float) -> None:
        """All that is there now is so much older; with less than 0 the store's clock is set back."""
        async for meta in self._list(""):
            self._earlier_ns[meta.key, meta.last_modified_ns] += round(seconds * 1e9)

    async def head(self, key: str) -> ObjectMeta:
        return self._moved(await self._head(key))

    async def list(self, prefix: str, *, after: str = "") -> AsyncIterator[ObjectMeta]:
        async for meta in self._list(prefix, after=after):
            yield self._moved(meta)

    def _moved(self, meta: ObjectMeta) -> ObjectMeta:
        earlier_ns = self._earlier_ns[meta.key, meta.last_modified_ns]
        return replace(meta, last_modified_ns=meta.last_modified_ns - earlier_ns)
