"""Which models exist here, and opening one: cards by name, every weights file checked against its card.

ONNX Runtime is imported only when a generator is opened. The torch backend is added by `core_cloud.models.registry`.
"""

import hashlib
from pathlib import Path

from adaptivegen.errors import ModelDigestMismatch, ModelNotFound
from adaptivegen.models.base import SplitGenerator
from adaptivegen.models.card import ModelCard, parse_card

WEIGHTS = Path(__file__).parent / "weights"
_FOLDERS: list[Path] = [WEIGHTS]  # of cards, in this process
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


def add_cards(folder: Path) -> None:
    """Look for cards in this folder, too, for as long as this process lives: `<folder>/<name>/card.json`."""
    _FOLDERS.append(folder)


def card_names(weights: Path | None = None) -> tuple[str, ...]:
    """Names of all models that have a card, sorted; weights: of this folder alone."""
    return tuple(sorted(_card_paths(weights)))


def load_card(name: str, weights: Path | None = None) -> ModelCard:
    """Read a model's card; raises ModelNotFound, or InvalidRequest for a malformed card."""
    known = _card_paths(weights)
    if name not in known:
        raise ModelNotFound(f"no model {name[:80]!r}; known: {', '.join(sorted(known)) or 'none'}", param="model")
    return parse_card(known[name].read_text(encoding="utf-8"))


def _card_paths(weights: Path | None) -> dict[str, Path]:
    folders = _FOLDERS if weights is None else [weights]
    return {path.parent.name: path for folder in folders for path in folder.glob("*/card.json")}


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
    """The verified files, all that a Pocket model needs among them; raises ModelDigestMismatch."""
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
