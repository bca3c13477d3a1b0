"""The finals an edge can answer with while it is cut off: by tenant and content key, with their bytes, on its disk.

Owns one folder, bounded in bytes and entries; what was not used for longest is forgotten first. An entry is written
after its bytes and removed before them. Nothing crosses tenants: the tenant is in every key that is looked up.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import OrderedDict
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pydantic import ValidationError

from adaptivegen.blob.base import BlobStore
from adaptivegen.errors import AdaptiveGenError, NotFound
from adaptivegen.jobs.spec import ContentEntry, Media, content_index_key
from adaptivegen.process import guarded
from adaptivegen.telemetry import get_logger
from edge_node.spool.blobs import MeteredStore
from edge_node.spool.own_store import open_own

MAX_ENTRIES = 4096
MAX_WANTED = 64
_OWN = re.compile(r"content/[\w.=-]+/[\w.=-]+|out/[\w.=-]+/[\w.=-]+/[0-9]+/[0-9a-f]+\.mp4", re.ASCII)
LARGEST = 4  # parts of the room that one video may take at most: a quarter


class Known:
    """The finals kept in `folder`. `open` must have returned before anything else is called."""

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._entries: OrderedDict[str, ContentEntry] = OrderedDict()  # by key, the longest unused first
        self._clips: set[str] = set()  # keys of their bytes
        self._wanted: asyncio.Queue[tuple[str, str, ContentEntry, BlobStore]] = asyncio.Queue(MAX_WANTED)
        self._coming: list[set[str]] = []  # digests of what is being copied, less what is dropped meanwhile
        self._hashing = ThreadPoolExecutor(max_workers=1, thread_name_prefix="known")
        self.blob: MeteredStore

    async def run(self) -> None:
        """Keep what is wanted, until cancelled."""
        while True:
            await guarded("keep a final", self.remember(*await self._wanted.get()))

    def want(self, tenant: str, content_key: str, entry: ContentEntry, source: BlobStore) -> None:
        """Have a final kept soon; returns at once. Where too many wait it is not kept."""
        if not self._wanted.full():
            self._wanted.put_nowait((tenant, content_key, entry, source))

    async def open(self) -> None:
        """Find what is there; what is damaged or belongs to no entry is removed, of clips and entries: nothing else is
        touched. Raises StorageFailure."""
        self.blob = MeteredStore(open_own(self._folder))
        metas = [meta for meta in await self.blob.measure() if _OWN.fullmatch(meta.key)]
        for meta in metas:
            if meta.key.startswith("content/"):
                try:
                    entry = ContentEntry.model_validate_json(await self.blob.get(meta.key))
                except ValidationError:
                    continue
                if all(media.key in self.blob.sizes for media in _media(entry)):
                    self._add(meta.key, entry)
        for meta in metas:
            if meta.key not in self._entries and not self.has(meta.key):
                await self.blob.delete(meta.key)
        await self._make_room(0)

    def __len__(self) -> int:
        return len(self._entries)

    def has(self, key: str) -> bool:
        """Whether the bytes of a clip are here, whole."""
        return key in self._clips

    async def find(self, tenant: str, content_key: str) -> ContentEntry | None:
        """The final of a content key, if it is here and its bytes are as they were."""
        key = content_index_key(tenant, content_key)
        entry = self._entries.get(key)
        if entry is None:
            return None
        try:
            for media in _media(entry):
                if await self._digest(await self.blob.get(media.key)) != media.sha256:
                    raise NotFound(f"{media.key} is damaged")
        except AdaptiveGenError as exc:
            get_logger().warning("known_final_unusable", key=key, error=exc.message)
            await self._forget(key)
            return None
        if key not in self._entries:  # forgotten meanwhile, for want of room
            return None
        self._entries.move_to_end(key)
        return entry

    async def _digest(self, data: bytes) -> str:
        loop = asyncio.get_running_loop()  # a final may have megabytes
        return await loop.run_in_executor(self._hashing, lambda: hashlib.sha256(data).hexdigest())

    async def remember(self, tenant: str, content_key: str, entry: ContentEntry, source: BlobStore) -> None:
        """Keep a final with its bytes, read from `source`; one that is too large, or cannot be read or kept, is not."""
        key = content_index_key(tenant, content_key)
        size_bytes = len(entry.encode()) + sum(media.size_bytes for media in _media(entry))
        if key in self._entries:
            self._entries.move_to_end(key)
            return
        if size_bytes * LARGEST > self._max_bytes:
            return
        coming = {media.sha256 for media in _media(entry)}
        whole = set(coming)
        self._coming.append(coming)
        try:
            await self._make_room(size_bytes)
            for media in _media(entry):
                await self.blob.put(media.key, await source.get(media.key))
            await self.blob.put(key, entry.encode())
        except AdaptiveGenError as exc:
            get_logger().info("final_not_kept", key=key, code=exc.code, error=exc.message)
            return
        finally:
            self._coming = [other for other in self._coming if other is not coming]
        self._add(key, entry)
        if coming != whole:  # dropped while it was copied
            await self._forget(key)

    def _add(self, key: str, entry: ContentEntry) -> None:
        self._entries[key] = entry
        self._clips.update(media.key for media in _media(entry))

    async def _make_room(self, size_bytes: int) -> None:
        while self._entries and (
            self.blob.total_bytes + size_bytes > self._max_bytes or len(self._entries) >= MAX_ENTRIES
        ):
            await self._forget(next(iter(self._entries)))

    async def _forget(self, key: str) -> None:
        """Let an entry go, if it is there still; what cannot be deleted is removed at the next start."""
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        self._clips.difference_update(media.key for media in _media(entry))
        try:
            for gone in (key, *(media.key for media in _media(entry))):
                await self.blob.delete(gone)
        except AdaptiveGenError as exc:
            get_logger().warning("known_final_left", key=key, code=exc.code, error=exc.message)

    async def drop(self, shas: Collection[str]) -> None:
        """Let go of the finals with one of these digests, or whose draft has."""
        wanted = set(shas)
        for coming in self._coming:
            coming -= wanted
        for key, entry in list(self._entries.items()):
            if wanted & {media.sha256 for media in _media(entry)}:
                await self._forget(key)

    async def drop_all(self) -> None:
        """Let go of everything."""
        await self.drop({media.sha256 for entry in self._entries.values() for media in _media(entry)})

    async def close(self) -> None:
        """Let go of the folder."""
        self._hashing.shutdown(wait=False)
        await self.blob.close()


def _media(entry: ContentEntry) -> tuple[Media, ...]:
    return (entry.final,) if entry.draft is None else (entry.final, entry.draft)
