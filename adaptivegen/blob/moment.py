"""What moment it is by the store's own clock.

How old an object is, only stamps of one clock say: a node whose own is an hour ahead would take what was written a
second ago for abandoned. So whoever judges by age has the store stamp an object of its own first.
"""

from __future__ import annotations

from adaptivegen.blob.base import BlobStore

MOMENT = "moment"  # the object that is written for its stamp; who reads another's reads a later one


async def store_now_ns(blob: BlobStore) -> int:
    """Now, comparable with `ObjectMeta.last_modified_ns` of the same store (some stores stamp whole seconds); a write
    and a read. Raises a storage error."""
    await blob.put(MOMENT, b"")
    return (await blob.head(MOMENT)).last_modified_ns
