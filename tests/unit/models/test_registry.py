"""The registry finds cards and refuses files that are not the ones their card names."""

import hashlib
from pathlib import Path

import pytest

from adaptivegen.errors import InvalidRequest, ModelDigestMismatch, ModelNotFound
from adaptivegen.models.card import CardFile, Limits, ModelCard, card_digest, dump_card
from adaptivegen.models.registry import NEEDED, ModelLibrary, card_names, load_card, open_generator, verified_files
from tests.added_models import add_model

CONTENT = b"weights"


def write_model(folder: Path, name: str, without: frozenset[str] = frozenset()) -> ModelCard:
    file = CardFile(path=f"{name}/base.onnx", sha256=hashlib.sha256(CONTENT).hexdigest(), bytes=len(CONTENT))
    files = dict.fromkeys(sorted(NEEDED - without), file)
    limits = Limits(
        sizes=("128x128",),
        seconds=(2.0,),
        fps=12,
        steps_min=1,
        steps_max=8,
        steps_default=4,
        guidance_min=1.0,
        guidance_max=4.0,
        guidance_default=1.0,
    )
    card = ModelCard(
        name=name,
        version="1.0.0",
        role="draft",
        description="for a test",
        latent_space="pixels",
        files=files,
        limits=limits,
        digest=card_digest(name, "1.0.0", files),
    )
    (folder / name).mkdir(parents=True)
    (folder / name / "base.onnx").write_bytes(CONTENT)
    (folder / name / "card.json").write_text(dump_card(card))
    return card


def test_names_are_those_with_a_card(tmp_path: Path) -> None:
    write_model(tmp_path, "two")
    write_model(tmp_path, "one")
    (tmp_path / "text").mkdir()
    assert card_names(tmp_path) == ("one", "two")


def test_a_model_whose_latents_are_no_pixels_is_not_opened_as_one_of_pocket(tmp_path: Path) -> None:
    card = write_model(tmp_path, "wan").model_copy(update={"latent_space": "wan2.1"})
    (tmp_path / "wan" / "card.json").write_text(dump_card(card))
    with pytest.raises(InvalidRequest, match=r"wan2\.1"):
        open_generator("wan", threads=1, weights=tmp_path)


@pytest.mark.parametrize("name", ["three", "../one", "", "one/../one", "x" * 5000])
def test_an_unknown_model_is_refused(tmp_path: Path, name: str) -> None:
    write_model(tmp_path, "one")
    with pytest.raises(ModelNotFound) as caught:
        load_card(name, tmp_path)
    assert len(caught.value.message) < 300


def test_files_that_match_are_returned(tmp_path: Path) -> None:
    card = write_model(tmp_path, "one")
    assert verified_files(card, tmp_path) == dict.fromkeys(NEEDED, tmp_path / "one" / "base.onnx")


def test_a_card_of_another_kind_of_model_is_refused_by_the_files_it_lacks(tmp_path: Path) -> None:
    write_model(tmp_path, "one", frozenset({"planner", "reader"}))
    with pytest.raises(ModelDigestMismatch, match="one: its card names no file for planner, reader"):
        open_generator("one", threads=1, weights=tmp_path)


def test_a_changed_file_is_refused_by_name(tmp_path: Path) -> None:
    write_model(tmp_path, "one")
    (tmp_path / "one" / "base.onnx").write_bytes(CONTENT + b"!")
    with pytest.raises(ModelDigestMismatch, match=r"one/base\.onnx"):
        open_generator("one", threads=1, weights=tmp_path)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    card = write_model(tmp_path, "one")
    (tmp_path / "one" / "base.onnx").unlink()
    with pytest.raises(ModelDigestMismatch, match="missing"):
        verified_files(card, tmp_path)


def test_a_card_is_called_as_its_folder_is(tmp_path: Path) -> None:
    add_model(tmp_path, "pocket-one")
    (tmp_path / "pocket-one").rename(tmp_path / "pocket-two")
    with pytest.raises(InvalidRequest, match="pocket-two"):
        load_card("pocket-two", tmp_path)
    with pytest.raises(InvalidRequest):
        ModelLibrary(tmp_path).card("pocket-two")
    assert "pocket-two" not in ModelLibrary(tmp_path).cards()


def test_added_models_are_found_beside_those_that_came_along_and_do_not_hide_them(tmp_path: Path) -> None:
    library = ModelLibrary(tmp_path)
    add_model(tmp_path, "pocket-later")
    assert "pocket-later" in library.names() and "pocket-cloud" in library.names()
    assert library.folder("pocket-later") == tmp_path
    (tmp_path / "pocket-cloud").mkdir()
    (tmp_path / "pocket-cloud" / "card.json").write_text("{}")
    assert library.card("pocket-cloud").name == "pocket-cloud"
    with pytest.raises(ModelNotFound, match="pocket-later"):
        library.card("pocket-9")


def test_a_card_that_has_changed_is_read_anew_and_one_that_is_gone_is_missed(tmp_path: Path) -> None:
    library = ModelLibrary(tmp_path)
    made = add_model(tmp_path, "pocket-later")
    assert library.card("pocket-later") is library.card("pocket-later")
    path = tmp_path / "pocket-later" / "card.json"
    path.write_text(dump_card(made.model_copy(update={"description": "another"})))
    assert library.card("pocket-later").description == "another"
    path.write_text("{")
    with pytest.raises(InvalidRequest):
        library.card("pocket-later")
    path.unlink()
    with pytest.raises(ModelNotFound):
        library.card("pocket-later")
