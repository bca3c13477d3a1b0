"""Which models exist here, and opening one: cards by name, every weights file checked against its card.

A folder of models has a folder for each, with its `card.json`; paths in a card are relative to the folder of models.

ONNX Runtime is imported only when a generator is opened. The torch backend is added by `core_cloud.models.registry`.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from adaptivegen.errors import InvalidRequest, ModelDigestMismatch, ModelNotFound
from adaptivegen.models.card import ModelCard, parse_card
from adaptivegen.telemetry import get_logger

if TYPE_CHECKING:  # its arrays need numpy, which only those load who open a model
    from adaptivegen.models.base import SplitGenerator

WEIGHTS = Path(__file__).parent / "weights"
NEEDED = {
    "text_encoder",
    "tokenizer",
    "reader",
    "captions",
    "planner",
    "finder",
    "base",
    "upsampler",
}  # logical names of files


def card_names(weights: Path = WEIGHTS) -> tuple[str, ...]:
    """Names of all models that have a card, sorted."""
    return tuple(sorted(path.parent.name for path in weights.glob("*/card.json")))


def load_card(name: str, weights: Path = WEIGHTS) -> ModelCard:
    """Read a model's card; raises ModelNotFound, or InvalidRequest for a malformed card."""
    known = card_names(weights)
    if name not in known:
        raise ModelNotFound(f"no model {name[:80]!r}; known: {', '.join(known) or 'none'}", param="model")
    path = weights / name / "card.json"
    try:
        card = parse_card(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as exc:
        raise InvalidRequest.field("card", str(path), f"a file that can be read ({exc})") from exc
    if card.name != name:
        raise InvalidRequest.field("card.name", card.name, f"{name}, as its folder is called")
    return card


class ModelLibrary:
    """The models that came along, and those in a folder of the operator's, which is looked at anew each time: a version
    that is put there can be rolled out without a restart. Of two with one name the one that came along counts. A card
    is parsed again when its file has changed."""

    def __init__(self, added: Path | None = None) -> None:
        self._folders = (WEIGHTS,) if added is None else (WEIGHTS, added)
        self._parsed: dict[Path, tuple[tuple[int, int, int], ModelCard]] = {}  # by file: as it was, and what it held

    def names(self) -> tuple[str, ...]:
        """Names of all models, sorted."""
        return tuple(sorted({name for folder in self._folders for name in card_names(folder)}))

    def folder(self, name: str) -> Path:
        """The folder of models that has this one; raises ModelNotFound."""
        for folder in self._folders:
            if name in card_names(folder):
                return folder
        raise ModelNotFound(f"no model {name[:80]!r}; known: {', '.join(self.names()) or 'none'}", param="model")

    def card(self, name: str) -> ModelCard:
        """A model's card; raises ModelNotFound, or InvalidRequest for a malformed one."""
        folder = self.folder(name)
        path = folder / name / "card.json"
        try:
            found = path.stat()
        except OSError:  # gone since; said by the reading
            return load_card(name, folder)
        mark = (found.st_ino, found.st_mtime_ns, found.st_size)
        known = self._parsed.get(path)
        if known is None or known[0] != mark:
            known = self._parsed[path] = mark, load_card(name, folder)
        return known[1]

    def cards(self) -> dict[str, ModelCard]:
        """All cards that can be read, by name: a malformed one in an added folder must not take the others along."""
        found: dict[str, ModelCard] = {}
        for name in self.names():
            try:
                found[name] = self.card(name)
            except InvalidRequest as exc:
                get_logger().error("card_unreadable", model=name, error=exc.message)
        return found


def verified_files(card: ModelCard, weights: Path = WEIGHTS) -> dict[str, Path]:
    """Paths of the card's files by logical name, each read and compared; raises ModelDigestMismatch."""
    paths: dict[str, Path] = {}
    for logical, file in card.files.items():
        path = weights / file.path
        if not path.is_file():
            raise ModelDigestMismatch(f"{card.name}: file {file.path} ({logical}) is missing")
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != file.sha256:
            raise ModelDigestMismatch(
                f"{card.name}: file {file.path} ({logical}) has sha256 {found}, its card says {file.sha256}"
            )
        paths[logical] = path
    return paths


def needed_files(card: ModelCard, weights: Path = WEIGHTS) -> dict[str, Path]:
    """The verified files, all that a Pocket model needs among them; raises ModelDigestMismatch, or InvalidRequest for a
    model whose latents are no pixels."""
    if card.latent_space != "pixels":
        raise InvalidRequest.field("card.latent_space", card.latent_space, "pixels")
    missing = NEEDED - set(card.files)
    if missing:
        raise ModelDigestMismatch(f"{card.name}: its card names no file for {', '.join(sorted(missing))}")
    return verified_files(card, weights)


def open_generator(name: str, *, threads: int, weights: Path = WEIGHTS) -> SplitGenerator:
    """Load a model into ONNX Runtime on `threads` threads after checking every file's digest."""
    card = load_card(name, weights)
    paths = needed_files(card, weights)
    from adaptivegen.models.cascade import CascadeGenerator
    from adaptivegen.models.cascade_onnx import CascadeOnnx

    return CascadeGenerator(card, CascadeOnnx(paths, threads=threads))
