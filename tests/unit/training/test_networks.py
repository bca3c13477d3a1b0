"""Pocket's networks: what they may depend on, and that each input is heard."""

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the training extra (torch) is not installed")

from core_cloud.models.convolution import FrameDoubler, SharpenerParams  # noqa: E402
from core_cloud.models.enlarge import (  # noqa: E402
    SpaceTimeUpsampler,
    UpsamplerParams,
)
from core_cloud.models.finder import Finder, FinderParams  # noqa: E402
from core_cloud.models.grounding import FEATURES, Grounding  # noqa: E402
from core_cloud.models.layout import (  # noqa: E402
    LAYOUT_VALUES,
    THING_VALUES,
    Planner,
    PlannerParams,
    PlannerStep,
    scaled,
    unscaled,
)
from core_cloud.models.reader import SLOTS, AttributeHeads, Reader  # noqa: E402
from core_cloud.models.transformer import Block  # noqa: E402
from core_cloud.models.video import BaseParams, BaseTransformer, Conditions  # noqa: E402
from tests.unit.training.shaken import shaken  # noqa: E402
from training.train_base import pruned  # noqa: E402

SMALL = BaseParams(dim=64, depth=2, heads=1)
NAMES = ("noisy", "t", *Conditions._fields)


def inputs(batch: int = 2) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    clip = torch.randn(batch, 8, 48, 48, 3, generator=generator)
    known = torch.randn(batch, 8, 48, 48, 3, generator=generator)
    mask = torch.zeros(batch, 8)
    mask[:, 0] = 1.0
    slots = torch.randn(batch, SLOTS, 192, generator=generator)
    values = torch.randn(batch, SLOTS, 8, LAYOUT_VALUES, generator=generator)
    values[:, 0] = 1.0  # there
    layout = unscaled(values)
    values = (clip, torch.full((batch,), 0.3), slots, torch.ones(batch), layout, known, mask)
    return dict(zip(NAMES, values, strict=True))


def predicted(model: Any, **changed: Any) -> Any:
    return evaluated(model, {**inputs(), **changed})


def evaluated(model: Any, values: dict[str, Any]) -> Any:
    with torch.no_grad():
        return model(values["noisy"], values["t"], Conditions(*(values[name] for name in Conditions._fields)))[0]


def test_patches_survive_the_round_trip() -> None:
    model, clip = BaseTransformer(SMALL), inputs()["noisy"]
    assert torch.equal(model.unpatchify(model.patchify(clip)), clip)


def test_without_text_the_slots_do_not_matter_and_with_text_they_do() -> None:
    model, given = shaken(BaseTransformer(SMALL)), inputs()
    blind = {"keep": torch.zeros(2)}
    assert torch.equal(predicted(model, **blind), predicted(model, slots=-given["slots"], **blind))
    assert not torch.allclose(predicted(model), predicted(model, slots=-given["slots"]), atol=1e-3)


def test_the_layout_is_heard_with_the_text_and_only_then() -> None:
    model, given = shaken(BaseTransformer(SMALL)), inputs()
    moved = given["layout"].clone()
    moved[..., 0] += 0.2 * moved[..., 5]
    assert not torch.allclose(predicted(model), predicted(model, layout=moved), atol=1e-3)
    blind = {"keep": torch.zeros(2)}
    assert torch.equal(predicted(model, **blind), predicted(model, layout=moved, **blind))
    opened = torch.zeros_like(moved)
    assert not torch.allclose(predicted(model), predicted(model, layout=opened), atol=1e-3)


def test_a_patch_knows_its_place_in_an_object_whatever_its_size_and_angle() -> None:
    ground = Grounding((4, 8, 8), 2, 192, 64)
    layout = torch.zeros(2, SLOTS, 8, LAYOUT_VALUES)
    quarter = torch.tensor([0.0, 1.0])
    # The middle of patch (3, 4) lies half a radius right of the first object, and as far below the second,
    # which is twice as big and turned by a quarter.
    x, y = 4.5 / 8, 3.5 / 8
    layout[0, 0, :, :THING_VALUES] = torch.tensor([x - 0.1, y, 0.2, 1.0, 0.0, 1.0])
    layout[1, 0, :, :THING_VALUES] = torch.cat([torch.tensor([x, y - 0.2, 0.4]), quarter, torch.ones(1)])
    features, near = ground.features(layout)
    place = 3 * 8 + 4
    coordinates = features[:, 0, :, place, : FEATURES - 4]
    assert torch.allclose(coordinates[0], coordinates[1], atol=1e-5)
    assert (near[:, 0, :, place] > 0.5).all()
    assert (near[:, 0, :, 63] < near[:, 0, :, place]).all()
    assert not near[:, 1:].any()


def test_a_patch_knows_its_place_on_the_ground_and_the_ground_is_near_everywhere() -> None:
    ground = Grounding((4, 8, 8), 2, 192, 64)
    layout = torch.zeros(2, SLOTS, 8, LAYOUT_VALUES)
    layout[0, -1, :, :THING_VALUES] = torch.tensor([0.5, 0.5, 0.25, 1.0, 0.0, 1.0])
    layout[1, -1, :, :THING_VALUES] = torch.tensor([0.5 - 2 / 8, 0.5, 0.25, 1.0, 0.0, 1.0])  # panned by two patches
    features, near = ground.features(layout)
    assert torch.equal(near[:, -1], torch.ones_like(near[:, -1]))
    assert not near[:, :-1].any()
    place = 3 * 8 + 4
    assert torch.allclose(features[0, -1, :, place], features[1, -1, :, place - 2], atol=1e-5)
    slots = torch.randn(2, SLOTS, 192, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        told = shaken(ground)(layout, slots)
    assert not torch.allclose(told[0], told[1], atol=1e-3)


def test_scaling_a_layout_and_back_keeps_it_and_settles_who_is_there() -> None:
    layout = torch.zeros(1, SLOTS, 8, LAYOUT_VALUES)
    layout[:, 0, :, :THING_VALUES] = torch.tensor([0.4, 0.6, 0.19, 0.8, 0.6, 1.0])
    layout[:, -1] = torch.tensor([0.5, 0.5, 0.25, 1.0, 0.0, 1.0, 0.4, -0.3, 1.0])
    assert torch.allclose(unscaled(scaled(layout)), layout, atol=1e-5)
    faint = scaled(layout)
    faint[:, 0, :4, 5] -= 1.2  # absent in half of its frames, but present on the whole
    faint[:, 1, :, 5] += 0.3
    assert torch.equal(unscaled(faint)[..., 5], layout[..., 5])


def test_only_the_ground_has_layers_and_they_lie_where_they_lie_in_all_frames() -> None:
    layout = unscaled(torch.randn(3, SLOTS, 8, LAYOUT_VALUES) + 1.0)
    lie = layout[..., THING_VALUES:]
    assert not lie[:, :-1].any()
    assert torch.equal(lie[:, -1], lie[:, -1, :1].expand_as(lie[:, -1]))
    assert torch.equal(lie[:, -1, :, -1], layout[:, -1, :, 5])


def test_a_layer_that_lies_elsewhere_is_seen_as_by_a_camera_that_looks_elsewhere_and_untold_ones_nowhere() -> None:
    ground = Grounding((4, 8, 8), 2, 192, 64)
    layout = torch.zeros(3, 1, 8, LAYOUT_VALUES)
    layout[0, 0] = torch.tensor([0.5, 0.5, 0.25, 1.0, 0.0, 1.0, 0.25, 0.0, 1.0])
    layout[1, 0] = torch.tensor([0.5 - 2 / 8, 0.5, 0.25, 1.0, 0.0, 1.0, 0.0, 0.0, 1.0])  # panned by two patches
    layout[2, 0] = torch.tensor([0.5, 0.5, 0.25, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0])
    first, second, down = ground.layer_features(layout).chunk(3, dim=-1)
    assert torch.allclose(first[0], first[1], atol=1e-5)
    assert torch.allclose(second[0, 0, :, 4], second[1, 0, :, 2], atol=1e-5)
    assert not torch.allclose(second[0], second[1], atol=1e-2)
    assert torch.equal(down[0], down[1])
    assert not torch.equal(down[0, 0, :, 0], down[0, 0, :, 63])
    assert not any(part[2].any() for part in (first, second, down))


def layouts_at(x: float) -> Any:
    """(2, SLOTS, 8, LAYOUT_VALUES), all things at (x, 0.5)."""
    return torch.tensor([x, 0.5, 0.2, 1.0, 0.0, 1.0, *[0.0] * 3]).expand(2, SLOTS, 8, LAYOUT_VALUES)


def test_a_step_of_the_planner_says_which_layout_its_clean_values_mean() -> None:
    step = PlannerStep(shaken(Planner(PlannerParams(dim=64, depth=1, heads=1))))
    noisy, slots = torch.randn(2, SLOTS, 8, LAYOUT_VALUES), torch.randn(2, SLOTS, 192)
    with torch.no_grad():
        clean, layout = step(noisy, torch.zeros(2), slots, layouts_at(0.4), torch.zeros(2, SLOTS, 8))
    assert torch.equal(layout, unscaled(clean))
    assert layout.shape == noisy.shape


def test_the_planner_hears_text_and_time() -> None:
    planner = shaken(Planner(PlannerParams(dim=64, depth=1, heads=1)))
    noisy, slots, t = torch.randn(2, SLOTS, 8, LAYOUT_VALUES), torch.randn(2, SLOTS, 192), torch.full((2,), 0.5)
    with torch.no_grad():
        free = (torch.zeros_like(noisy), torch.zeros(2, SLOTS, 8))
        made = planner(noisy, t, slots, *free)
        assert not torch.allclose(made, planner(noisy, t, -slots, *free), atol=1e-3)
        assert not torch.allclose(made, planner(noisy, t * 0, slots, *free), atol=1e-3)


def test_the_planner_hears_where_things_are_known_to_be_and_of_what_it_is_told_only() -> None:
    step = PlannerStep(shaken(Planner(PlannerParams(dim=64, depth=1, heads=1))))
    noisy, slots, t = torch.randn(2, SLOTS, 8, LAYOUT_VALUES), torch.randn(2, SLOTS, 192), torch.full((2,), 0.5)
    told = torch.zeros(2, SLOTS, 8)
    with torch.no_grad():
        free = step(noisy, t, slots, layouts_at(0.3), told)[0]
        assert torch.equal(free, step(noisy, t, slots, layouts_at(0.7), told)[0])
        told[:, 0, 0] = 1.0
        here, there = (step(noisy, t, slots, layouts_at(x), told)[0] for x in (0.3, 0.7))
    assert not torch.allclose(here, there, atol=1e-3)
    assert not torch.allclose(here, free, atol=1e-3)


def test_the_finder_points_where_the_frame_looks_like_what_is_wanted() -> None:
    finder = shaken(Finder(FinderParams()))
    frames, slots = torch.zeros(1, 2, 48, 48, 3), torch.randn(1, SLOTS, 192)
    frames[:, 0, 10:20, 30:40], frames[:, 1, 30:40, 4:14] = 1.0, 1.0
    with torch.no_grad():
        found, other = finder(frames, slots), finder(frames, -slots)
    assert found.shape == (1, 3, 2, 6)
    assert ((found[..., :2] > 0) & (found[..., :2] < 1)).all()
    assert (found[..., 2] > 0).all()
    assert torch.allclose(found[..., 3:5].norm(dim=-1), torch.ones(1, 3, 2), atol=1e-5)
    assert not torch.allclose(found[:, :, 0], found[:, :, 1], atol=1e-3)
    assert not torch.allclose(found, other, atol=1e-3)


def test_only_known_frames_are_looked_at() -> None:
    model, given = shaken(BaseTransformer(SMALL)), inputs()
    other = given["known"].clone()
    other[:, 1:] += 1.0
    assert torch.equal(predicted(model), predicted(model, known=other))
    other[:, 0] += 1.0
    assert not torch.allclose(predicted(model), predicted(model, known=other), atol=1e-3)


def test_a_given_black_frame_is_not_the_same_as_no_frame() -> None:
    model = shaken(BaseTransformer(SMALL))
    nothing = torch.zeros_like(inputs()["known"])
    given = predicted(model, known=nothing)
    assert not torch.allclose(given, predicted(model, known=nothing, mask=torch.zeros(2, 8)), atol=1e-4)


def test_samples_at_different_times_share_a_batch() -> None:
    model, given = shaken(BaseTransformer(SMALL)), inputs()
    mixed = predicted(model, t=torch.tensor([0.1, 0.8]))
    for row, t in enumerate((0.1, 0.8)):
        alone = {name: value[row : row + 1] for name, value in given.items()} | {"t": torch.tensor([t])}
        assert torch.allclose(mixed[row : row + 1], evaluated(model, alone), atol=1e-5)


def test_pooled_keys_change_the_cost_and_not_the_shapes() -> None:
    pooled = shaken(BaseTransformer(BaseParams(dim=64, depth=2, heads=1, kv_pool=2)))
    assert predicted(pooled).shape == (2, 8, 48, 48, 3)
    keys = torch.randn(2, 1, SLOTS + 256, 64)
    small = pooled.blocks[0].pool(keys)
    assert small.shape == (2, 1, SLOTS + 64, 64)
    assert torch.equal(small[:, :, :SLOTS], keys[:, :, :SLOTS])
    first = keys[:, :, [SLOTS, SLOTS + 1, SLOTS + 8, SLOTS + 9]].mean(2)
    assert torch.allclose(small[:, :, SLOTS], first, atol=1e-6)


def test_blocks_that_do_not_attend_change_every_token_by_itself() -> None:
    block = shaken(Block(64, 1, attends=False))
    x, modulation = torch.randn(1, 5, 64), torch.randn(1, 6, 64)
    turn = (torch.ones(5, 32), torch.zeros(5, 32))
    with torch.no_grad():
        assert torch.allclose(block(x, modulation, turn)[:, :2], block(x[:, :2], modulation, turn), atol=1e-5)


def test_a_pruned_network_begins_with_the_weights_that_are_left() -> None:
    whole = shaken(BaseTransformer(BaseParams(dim=64, depth=4, heads=1)))
    small = pruned(whole, kv_pool=2, attending=3)
    assert [hasattr(block, "qkv") for block in small.blocks] == [True, False, False, True]
    kept = whole.state_dict()
    for name, value in small.state_dict().items():
        assert torch.equal(value, kept[name]), name
    assert predicted(small).shape == (2, 8, 48, 48, 3)


def test_the_reader_ignores_padding() -> None:
    reader = shaken(Reader(depth=1))
    tokens = torch.randn(1, 9, 384)
    padded = torch.cat([tokens, torch.randn(1, 5, 384)], dim=1)
    mask = torch.cat([torch.ones(1, 9), torch.zeros(1, 5)], dim=1)
    with torch.no_grad():
        assert torch.allclose(reader(tokens, torch.ones(1, 9)), reader(padded, mask), atol=1e-5)
    assert reader(tokens, torch.ones(1, 9)).shape == (1, SLOTS, 192)


def test_heads_name_objects_and_setting() -> None:
    present, objects, setting = AttributeHeads(192, (8, 12), (10,))(torch.randn(2, SLOTS, 192))
    assert present.shape == (2, 3, 2)
    assert [part.shape for part in objects] == [(2, 3, 8), (2, 3, 12)]
    assert setting[0].shape == (2, 10)


def test_the_upsampler_enlarges_in_space_and_time_and_hears_the_text() -> None:
    model = shaken(SpaceTimeUpsampler(UpsamplerParams(channels=16, depth=1)))
    low, slots, level = inputs(1)["noisy"], inputs(1)["slots"], torch.zeros(1)
    with torch.no_grad():
        high = model(low, level, slots)
        assert high.shape == (1, 24, 128, 128, 3)
        assert not torch.allclose(high, model(low, level, -slots), atol=1e-4)
        crop = model(low[:, :, 24:, :24], level, slots)
    assert crop.shape == (1, 24, 64, 64, 3)


def test_an_untrained_upsampler_interpolates() -> None:
    low = torch.full((1, 8, 48, 48, 3), 0.25)
    with torch.no_grad():
        high = SpaceTimeUpsampler(UpsamplerParams(channels=16, depth=1))(
            low, torch.zeros(1), torch.zeros(1, SLOTS, 192)
        )
    assert float((high - 0.25).abs().max()) < 0.3


def test_the_doubler_doubles() -> None:
    assert FrameDoubler(SharpenerParams(channels=8, depth=1))(torch.zeros(2, 16, 16, 3)).shape == (2, 32, 32, 3)
