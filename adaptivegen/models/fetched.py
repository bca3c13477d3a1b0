"""Which versions in a folder of models were fetched, when they were needed last, and removing their files.

A version that was brought from the object store has a mark in its folder, `.fetched`, whose time says when a process on
this folder needed it last; what an operator put there by hand has none, and stays. The card stays, too: whoever needs
the version again fetches its files again. All times are stamps of one clock, that of the folder's file system.
Everything here blocks, and raises OSError.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from adaptivegen.models.card import ModelCard

MARK = ".fetched"
MOMENT = ".moment"  # in the folder of models: written for its time


def mark(folder: Path, name: str) -> None:
    """A version was brought here just now."""
    (folder / name / MARK).touch()


def need(folder: Path, names: Iterable[str]) -> None:
    """These are needed now; what has no mark gets none, and where nothing can be written nothing is removed either."""
    for name in names:
        with contextlib.suppress(OSError):
            os.utime(folder / name / MARK)


def unneeded(folder: Path, for_ns: int) -> list[str]:
    """Versions that were brought here and that nobody has needed for so long, the longest first."""
    marks = [(path.stat().st_mtime_ns, path.parent.name) for path in folder.glob(f"*/{MARK}")]
    if not marks:  # the folder may be one that nothing can be written to
        return []
    now_ns = _now_ns(folder)
    return [name for at_ns, name in sorted(marks) if now_ns - at_ns > for_ns]


def remove(folder: Path, card: ModelCard, for_ns: int, others: Iterable[ModelCard]) -> bool:
    """Remove a version's own files, and its mark last, unless it is needed again by now, or one of the other cards here
    names a file of its folder."""
    shared = {
        (folder / file.path).parent for other in others if other.name != card.name for file in other.files.values()
    }
    if folder / card.name in shared:
        return False
    marked = folder / card.name / MARK
    if not marked.exists() or _now_ns(folder) - marked.stat().st_mtime_ns <= for_ns:
        return False
    for file in card.files.values():
        if (folder / file.path).parent == marked.parent:
            (folder / file.path).unlink(missing_ok=True)
    marked.unlink(missing_ok=True)
    return True


def _now_ns(folder: Path) -> int:
    (folder / MOMENT).touch()
    return (folder / MOMENT).stat().st_mtime_ns
