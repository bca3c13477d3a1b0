"""When a node's model is slow or fails: a small file that its model child reads before every generation."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Spell:
    """From one time to another, by this machine's monotonic clock, generations take `factor` times as long or fail."""

    from_s: float
    until_s: float
    factor: float = 1.0
    fails: bool = False


def write_conduct(path: Path, spells: Sequence[Spell]) -> None:
    """Replace the file in one step, so that nobody reads half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".part")
    scratch.write_text(json.dumps([asdict(spell) for spell in spells]), encoding="utf-8")
    os.replace(scratch, path)


def conduct_at(path: Path, now_s: float) -> Spell:
    """The spell that holds now; a healthy one where there is none."""
    spells = [Spell(**values) for values in json.loads(path.read_text(encoding="utf-8"))]
    return next((spell for spell in spells if spell.from_s <= now_s < spell.until_s), Spell(0.0, 0.0))
