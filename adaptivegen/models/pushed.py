"""Versions of models in the object store, from where nodes that lack one's files fetch them.

    models-files/<name>/<digest>/<sha256>   a file of the version
    models-files/<name>/<digest>/card       its card, whose paths are all inside the version's own folder
    models-files/<name>/version             the digest, by put-if-absent: a name stands for one version for ever

The last is written last, so whoever finds it finds the rest. On a node the files are brought one by one under temporary
names, compared with the card, and renamed; the card comes last, since a model is there once its card is. Files that
were brought and that nobody on the node's folder has needed for long are removed from there (`fetched`); from the store
nothing is.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TypeVar

from adaptivegen.blob.base import BlobStore
from adaptivegen.blob.store import storage_error
from adaptivegen.clock import Clock
from adaptivegen.errors import (
    AdaptiveGenError,
    Conflict,
    InvalidRequest,
    ModelDigestMismatch,
    ModelNotFound,
    NotFound,
    PayloadTooLarge,
)
from adaptivegen.models import fetched
from adaptivegen.models.card import ModelCard, dump_card, parse_card
from adaptivegen.models.registry import ModelLibrary, verified_files
from adaptivegen.telemetry import get_logger

Result = TypeVar("Result")
PREFIX = "models-files/"
MAX_CARD_BYTES = 1024 * 1024
CHUNK_BYTES = 1024 * 1024
LOOK_EVERY_S = 2.0
SWEEP_EVERY_S = 3600.0
DAY_NS = 86400 * 10**9
MISSED_FOR_S = 30.0  # what is not in the store is not asked for again so soon


async def push(blob: BlobStore, library: ModelLibrary, name: str) -> ModelCard:
    """Put a version of `library` into the store; its card as nodes will have it. Doing it again is fine.

    Raises ModelNotFound, InvalidRequest, ModelDigestMismatch, Conflict where the name stands for another version, a
    storage error."""
    card = library.card(name)
    with ThreadPoolExecutor(1) as reading:
        paths = await asyncio.get_running_loop().run_in_executor(reading, verified_files, card, library.folder(name))
    pushed = _portable(card)
    await _check_free(blob, card)
    for logical, path in paths.items():
        await blob.put_file(_file_key(card, logical), path)
    await blob.put(f"{_folder_key(name, card.digest)}/card", dump_card(pushed).encode())
    await blob.put_if_absent(f"{PREFIX}{name}/version", card.digest.encode())
    await _check_free(blob, card)
    return pushed


class PushedModels:
    """What one node fetches. folder: of models, where they go; without one nothing is fetched. max_bytes: of one
    version, beyond which it is refused."""

    def __init__(self, blob: BlobStore, library: ModelLibrary, folder: Path | None, *, max_bytes: int) -> None:
        self._blob = blob
        self._library = library
        self._folder = folder
        self._max_bytes = max_bytes
        self._writing = asyncio.Lock()
        self._cleaned = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="models")  # of files

    async def ensure(self, name: str, damaged: bool = False) -> bool:
        """Have a version's files here, as far as they can be had: what is in no store is the caller's to miss; whether
        any was brought. damaged: not all that is here is what its card says, so it is compared, not only measured.

        Raises InvalidRequest, PayloadTooLarge, ModelDigestMismatch, a storage error."""
        if self._folder is None:
            return False
        await self._clean(self._folder)
        await self._on_folder(fetched.need, [name])  # before it is looked at: nobody removes it now
        if not damaged and self._complete(name):
            return False
        try:
            card = await self._card(name)
        except ModelNotFound:
            return False
        if damaged and not self._is_pushed(card):
            return False
        async with self._writing:
            paths = {logical: self._folder / file.path for logical, file in card.files.items()}
            brought = [await self._bring(card, logical, path) for logical, path in paths.items()]
            await self._put_card(card)
            if any(brought):
                await self._on_folder(fetched.mark, name)
        get_logger().info("version_fetched", model=name, files=sum(brought), bytes=_bytes(card))
        return any(brought)

    async def ensure_card(self, name: str) -> None:
        """Have a version's card here, for nodes that do not run it; as `ensure`."""
        if self._folder is None or name in self._library.names():
            return
        await self._clean(self._folder)
        try:
            card = await self._card(name)
        except ModelNotFound:
            return
        async with self._writing:
            await self._put_card(card)

    async def keep_cards(self, wanted: Callable[[], Iterable[str]], clock: Clock) -> None:
        """Have the cards of these versions, until cancelled."""
        missed: dict[str, float] = {}
        while self._folder is not None:
            now_s = clock.monotonic_s()
            for name in wanted():
                if name in self._library.names() or now_s < missed.get(name, 0.0):
                    continue
                missed = {known: until_s for known, until_s in missed.items() if until_s > now_s}
                missed[name] = now_s + MISSED_FOR_S
                try:
                    await self.ensure_card(name)
                except AdaptiveGenError as exc:
                    get_logger().warning("card_not_fetched", model=name, code=exc.code, error=exc.message)
            await clock.sleep(LOOK_EVERY_S)

    async def sweep(self, needed: Callable[[], Collection[str]], clock: Clock, *, keep_days: float) -> None:
        """Remove files that were brought here and not needed for so long, every hour, until cancelled. needed: names of
        all that is loaded here, is to be, or may be wanted at once."""
        while self._folder is not None:
            try:
                await self.remove_unneeded(needed(), keep_days=keep_days)
            except AdaptiveGenError as exc:
                get_logger().warning("versions_not_swept", code=exc.code, error=exc.message)
            await clock.sleep(SWEEP_EVERY_S)

    async def remove_unneeded(self, needed: Collection[str], *, keep_days: float) -> list[str]:
        """One such pass; the versions whose files were removed. Raises a storage error."""
        if self._folder is None:
            return []
        for_ns, removed = round(keep_days * DAY_NS), []
        await self._on_folder(fetched.need, needed)
        for name in await self._on_folder(fetched.unneeded, for_ns):
            card = await self._again(name) if name not in needed else None
            others = self._library.cards().values()
            if card is not None and await self._on_folder(fetched.remove, card, for_ns, others):
                removed.append(name)
        if removed:
            get_logger().info("versions_removed", models=removed)
        return removed

    # ---- parts ------------------------------------------------------------------------------------------------

    async def _again(self, name: str) -> ModelCard | None:
        """The card of a version that is here and that could be fetched again as it is; None where it could not."""
        try:
            card = await self._card(name)
            if self._library.folder(name) != self._folder or self._library.card(name).digest != card.digest:
                return None
            for logical, file in card.files.items():
                if (await self._blob.head(_file_key(card, logical))).size_bytes != file.bytes:
                    return None
        except (ModelNotFound, NotFound, InvalidRequest, PayloadTooLarge, ModelDigestMismatch):
            return None
        return card

    async def _on_folder(self, work: Callable[..., Result], *values: object) -> Result:
        """Work on the folder of models; raises a storage error."""
        try:
            return await self._blocking(work, self._folder, *values)
        except OSError as exc:
            raise storage_error(exc, str(self._folder)) from exc

    def _complete(self, name: str) -> bool:
        """Whether the card and files of the sizes it says are here; their digests are compared when they are loaded."""
        try:
            card, folder = self._library.card(name), self._library.folder(name)
            return all((folder / file.path).stat().st_size == file.bytes for file in card.files.values())
        except (ModelNotFound, InvalidRequest, OSError):
            return False

    def _is_pushed(self, card: ModelCard) -> bool:
        """Whether what is here of a name is the version that was pushed, in the folder where such go: another that an
        operator has put there by hand, or one that came along, is not ours to replace."""
        try:
            here = self._library.card(card.name)
            return self._library.folder(card.name) == self._folder and here.digest == card.digest
        except (ModelNotFound, InvalidRequest):
            return True  # what is damaged is the card

    async def _clean(self, folder: Path) -> None:
        """Remove, once, what downloads that were killed have left in the folder of models."""
        if self._cleaned:
            return
        self._cleaned = True
        if removed := await self._blocking(_remove_parts, folder):
            get_logger().info("parts_removed", files=removed)

    async def _card(self, name: str) -> ModelCard:
        """A version's card as it was pushed, which names nothing outside of the version's folder."""
        digest = await _digest(self._blob, name)
        if digest is None:
            raise ModelNotFound(f"no model {name[:80]!r} was pushed", param="model")
        data = await self._blob.get(f"{_folder_key(name, digest)}/card", end=MAX_CARD_BYTES + 1)
        if len(data) > MAX_CARD_BYTES:
            raise PayloadTooLarge(f"the card of {name} has over {MAX_CARD_BYTES} bytes", param="card")
        card = parse_card(data.decode("utf-8", errors="replace"))
        if (card.name, card.digest) != (name, digest):
            raise ModelDigestMismatch(f"the card pushed as {name} {digest[:12]} is {card.name} {card.digest[:12]}")
        for logical, file in card.files.items():
            parts = PurePosixPath(file.path).parts
            if len(parts) != 2 or parts[0] != name or parts[1].startswith(".") or parts[1] == "card.json":
                raise InvalidRequest.field(f"card.files.{logical[:40]}.path", file.path, f"a file in {name}/")
        if _bytes(card) > self._max_bytes:
            raise PayloadTooLarge(f"{name} has {_bytes(card)} bytes; allowed: {self._max_bytes}", param="model")
        return card

    async def _bring(self, card: ModelCard, logical: str, path: Path) -> bool:
        """One file, compared with the card before it has its name; False where it was here."""
        file, arriving = card.files[logical], _Arriving(path)
        try:
            if await self._blocking(_is, path, file.sha256):
                return False
            await self._blocking(arriving.open)
            async for chunk in self._pieces(card, logical):
                await self._blocking(arriving.write, chunk)
            if arriving.sha256 != file.sha256:
                raise ModelDigestMismatch(
                    f"{card.name}: {logical} came with sha256 {arriving.sha256}, its card says {file.sha256}"
                )
            await self._blocking(arriving.keep)
            return True
        except OSError as exc:
            raise storage_error(exc, str(path)) from exc
        finally:
            await self._blocking(arriving.drop)

    async def _blocking(self, work: Callable[..., Result], *values: object) -> Result:
        """Work on files, in order."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *values)

    async def _pieces(self, card: ModelCard, logical: str) -> AsyncIterator[bytes]:
        """The bytes of a file, no more than the card says."""
        file, key = card.files[logical], _file_key(card, logical)
        try:
            async for chunk in self._blob.stream(key, start=0, end=file.bytes, chunk_bytes=CHUNK_BYTES):
                yield chunk
        except NotFound as exc:
            raise ModelDigestMismatch(f"{card.name}: {logical} is not in the store ({key})") from exc

    async def _put_card(self, card: ModelCard) -> None:
        if self._folder is None:
            return
        arriving = _Arriving(self._folder / card.name / "card.json")
        try:
            await self._blocking(arriving.whole, dump_card(card).encode())
        except OSError as exc:
            raise storage_error(exc, card.name) from exc


class _Arriving:
    """A file on its way to its name, under one that no other process on this folder has. Blocking; raises OSError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._new = path
        self._hash = hashlib.sha256()
        self._file = -1
        self._kept = False

    @property
    def sha256(self) -> str:
        """Of what has come."""
        return self._hash.hexdigest()

    def open(self) -> None:
        """Begin."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            self._file, name = tempfile.mkstemp(prefix=f".{self._path.name}.", suffix=".new", dir=self._path.parent)
            self._new = Path(name)
            with contextlib.suppress(OSError):  # a file system without locks: nobody removes parts there
                fcntl.flock(self._file, fcntl.LOCK_EX)
            if os.fstat(self._file).st_nlink:  # else it was taken for a left part before it was locked
                break
            os.close(self._file)
        os.fchmod(self._file, 0o644)

    def write(self, data: bytes) -> None:
        """More of it."""
        left = memoryview(data)
        while left:
            left = left[os.write(self._file, left) :]
        self._hash.update(data)

    def keep(self) -> None:
        """It is whole."""
        os.fsync(self._file)
        self._new.replace(self._path)
        self._kept = True

    def drop(self) -> None:
        """Let go of what was opened; of what was not kept nothing stays."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
            if not self._kept:
                self._new.unlink(missing_ok=True)

    def whole(self, data: bytes) -> None:
        """All of it at once."""
        try:
            self.open()
            self.write(data)
            self.keep()
        finally:
            self.drop()


def _remove_parts(folder: Path) -> int:
    """Remove what has the name of a file on its way and nobody writes: whoever does holds a lock, which ends with its
    process. Returns how many."""
    removed = 0
    for path in folder.glob("*/.*.new"):
        try:
            with path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
            removed += 1
        except OSError:  # it is being written, has its name by now, or cannot be removed
            continue
    return removed


def _is(path: Path, sha256: str) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == sha256


def _portable(card: ModelCard) -> ModelCard:
    """The card with all files in the version's own folder, called as they are, by which some find one another; its
    digest is of contents, not of paths. Raises InvalidRequest for two of one name."""
    names = {logical: PurePosixPath(file.path).name for logical, file in card.files.items()}
    for logical, name in names.items():
        if list(names.values()).count(name) > 1:
            raise InvalidRequest.field(f"card.files.{logical}.path", card.files[logical].path, "a file name of its own")
    files = {
        logical: file.model_copy(update={"path": f"{card.name}/{names[logical]}"})
        for logical, file in card.files.items()
    }
    return parse_card(dump_card(card.model_copy(update={"files": files})))


async def _check_free(blob: BlobStore, card: ModelCard) -> None:
    standing = await _digest(blob, card.name)
    if standing not in (None, card.digest):
        raise Conflict(f"{card.name} was pushed before as {standing[:12]}, this is {card.digest[:12]}", param="model")


async def _digest(blob: BlobStore, name: str) -> str | None:
    """Of the version that a name stands for; None for one that was not pushed."""
    try:
        return (await blob.get(f"{PREFIX}{name}/version", end=64)).decode("ascii", errors="replace")
    except NotFound:
        return None


def _folder_key(name: str, digest: str) -> str:
    return f"{PREFIX}{name}/{digest}"


def _file_key(card: ModelCard, logical: str) -> str:
    return f"{_folder_key(card.name, card.digest)}/{card.files[logical].sha256}"


def _bytes(card: ModelCard) -> int:
    return sum(file.bytes for file in card.files.values())
