"""Versions of models in a folder of an operator's, made of those that came along: good ones, and two kinds of bad."""

from __future__ import annotations

import shutil
from pathlib import Path

from adaptivegen.models.card import CardFile, ModelCard, card_digest, dump_card
from adaptivegen.models.registry import WEIGHTS, load_card


def add_model(
    folder: Path, name: str, *, like: str = "pocket-cloud", sources: tuple[str, ...] = (), **replaced: str
) -> ModelCard:
    """A version with the weights of another; sources: whose drafts it continues, by default those of the other;
    replaced: logical names of files that are another file of it instead."""
    for shared in WEIGHTS.iterdir():
        if not (folder / shared.name).exists() and not (shared / "card.json").exists() and shared.is_dir():
            (folder / shared.name).symlink_to(shared)
    card = load_card(like)
    own = folder / name
    own.mkdir(parents=True)
    files: dict[str, CardFile] = {}
    for logical in card.files:
        source = card.files[replaced.get(logical, logical)]
        path = source.path
        if (WEIGHTS / source.path).parent.name == like:
            path = f"{name}/{Path(source.path).name}"
            if not (folder / path).exists():
                shutil.copyfile(WEIGHTS / source.path, folder / path)
        files[logical] = source.model_copy(update={"path": path})
    made = card.model_copy(update={"name": name, "files": files, "digest": card_digest(name, card.version, files)})
    if sources and card.refine is not None:
        made = made.model_copy(update={"refine": card.refine.model_copy(update={"sources": sources})})
    (own / "card.json").write_text(dump_card(made))
    return made


def add_draft(folder: Path, name: str) -> ModelCard:
    """A version of the draft model, as `add_model`."""
    return add_model(folder, name, like="pocket-draft")


def add_unmeasured(folder: Path, name: str, *, like: str = "pocket-cloud") -> ModelCard:
    """A version of which nobody has measured how good its clips are."""
    made = add_model(folder, name, like=like).model_copy(update={"quality": {}, "scores": ()})
    (folder / name / "card.json").write_text(dump_card(made))
    return made


def add_broken(folder: Path, name: str, *, like: str = "pocket-cloud") -> ModelCard:
    """A version whose weights are not what its card says: it loads nowhere."""
    made = add_model(folder, name, like=like)
    with (folder / name / "base.onnx").open("ab") as file:
        file.write(b"damaged")
    return made


def add_failing(folder: Path, name: str) -> ModelCard:
    """A version that loads, makes small clips, and fails at every large one: its enlarger is another network."""
    return add_model(folder, name, doubler="finder")


def add_failing_draft(folder: Path, name: str) -> ModelCard:
    """A version of the draft model that loads, and fails at every upload: what finds things in one is another
    network."""
    return add_model(folder, name, like="pocket-draft", finder="upsampler")
