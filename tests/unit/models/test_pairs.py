"""What two models can hand to one another is told by their cards alone."""

from typing import Any, cast

import numpy as np
import pytest

from adaptivegen.models.card import CardFile, ModelCard, NoisePath
from adaptivegen.models.cascade import LOW_SHAPE, CascadeGenerator
from adaptivegen.models.latent import Latent
from adaptivegen.models.pairs import difference, latent_bytes, pair_kind
from adaptivegen.models.registry import ModelLibrary
from tests.cards import FILES, cloud_card, draft_card

SHARED = CardFile(path="shared/vae.onnx", sha256="1" * 64, bytes=1)
OTHER = CardFile(path="shared/vae.onnx", sha256="2" * 64, bytes=1)
PATH = NoisePath(shape=(21, 60, 104, 16), sampler="unipc", sigmas="shifted-5", files=("vae",))


def with_path(card: ModelCard, path: NoisePath | None = PATH, *, vae: CardFile = SHARED, space: str = "x") -> ModelCard:
    return card.model_copy(update={"path": path, "files": {**FILES, "vae": vae}, "latent_space": space})


def test_models_of_one_space_and_path_that_share_their_files_are_resumable_whatever_else_they_are() -> None:
    draft, cloud = with_path(draft_card()), with_path(cloud_card(version="9.0.0"))
    assert pair_kind(draft, cloud) == pair_kind(cloud, draft) == "resumable"
    assert difference(draft, cloud) == ""


@pytest.mark.parametrize(
    ("cloud", "why"),
    [
        (with_path(cloud_card(), None), "the card of test-cloud tells of no path"),
        (with_path(cloud_card(), space="wan2.1"), "their latents are of x and of wan2.1"),
        (with_path(cloud_card(), PATH.model_copy(update={"shape": (21, 90, 160, 16)})), "shapes (21, 60, 104, 16) and"),
        (with_path(cloud_card(), PATH.model_copy(update={"sampler": "euler"})), "their samplers are unipc and euler"),
        (with_path(cloud_card(), PATH.model_copy(update={"sigmas": "linear"})), "noise are shifted-5 and linear"),
        (with_path(cloud_card(), vae=OTHER), "they do not share the file vae"),
        (with_path(cloud_card(), PATH.model_copy(update={"files": ("vae", "base", "x")})), "share the file x"),
    ],
)
def test_any_other_pair_is_advisory_and_it_is_said_why(cloud: ModelCard, why: str) -> None:
    draft = with_path(draft_card())
    assert pair_kind(draft, cloud) == "advisory"
    assert why in difference(draft, cloud)
    assert difference(cloud, draft)


def test_the_bytes_of_latents_are_those_that_travel() -> None:
    card = ModelLibrary().card("pocket-cloud")
    latent = Latent(np.zeros(LOW_SHAPE, np.float32), 0.5, "pixels")
    assert 0 < len(latent.to_bytes()) - latent_bytes(card) < 200
    assert latent_bytes(cloud_card()) == 0


def test_shipped_models_that_their_cards_call_resumable_take_one_anothers_latents() -> None:
    library = ModelLibrary()
    draft = library.card("pocket-draft")
    space = CascadeGenerator(draft, cast(Any, None)).space
    for name in ("pocket-cloud", "pocket-cloud-mixed", "pocket-cloud-pruned"):
        cloud = library.card(name)
        assert pair_kind(draft, cloud) == "resumable"
        assert CascadeGenerator(cloud, cast(Any, None)).space == space
        assert cloud.path is not None and cloud.path.shape == LOW_SHAPE


def test_a_card_says_by_whom_its_clips_are_finished_only_where_that_was_measured() -> None:
    for card in ModelLibrary().cards().values():
        measured = [score for score in card.scores if score.plan == "split"]
        assert bool(measured) == (card.split is not None)
        if card.split is not None:
            assert [score.steps for score in measured] == [card.split.steps]
            assert card.split.finishers == ("pocket-draft",)
