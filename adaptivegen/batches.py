"""Many small reads, so many at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from adaptivegen.errors import first_error

Item = TypeVar("Item")
Found = TypeVar("Found")
AT_ONCE = 32


async def read_all(items: Sequence[Item], read: Callable[[Item], Awaitable[Found]]) -> list[Found]:
    """What `read` finds for each, in order, `AT_ONCE` at a time; the first error ends it and is raised."""
    found: list[Found] = []
    for start in range(0, len(items), AT_ONCE):
        try:
            async with asyncio.TaskGroup() as group:
                reads = [group.create_task(_awaited(read(item))) for item in items[start : start + AT_ONCE]]
        except BaseExceptionGroup as errors:
            raise first_error(errors) from errors
        found += [done.result() for done in reads]
    return found


async def _awaited(reading: Awaitable[Found]) -> Found:
    return await reading
