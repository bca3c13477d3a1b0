"""The sampler over networks whose answer is known: shapes, determinism, progress, cancellation, start clips."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from adaptivegen.errors import InvalidRequest
from adaptivegen.models.base import TASKS, Clip, GenerationCancelled, GenerationInput, StepReport, Task
from adaptivegen.models.card import CardFile, Limits, ModelCard, Refine, card_digest
from adaptivegen.models.cascade import CascadeGenerator, Floats
from adaptivegen.models.latent import Latent
from adaptivegen.models.layout import LAYOUT_SHAPE, NOWHERE, Found, Scene
from adaptivegen.models.resample import resize
from adaptivegen.models.slots import PromptSlots
from adaptivegen.models.starts import Arranged

FILES = {name: CardFile(path=f"p/{name}.onnx", sha256="0" * 64, bytes=1) for name in ("base", "planner")}
CARD = ModelCard(
    name="p",
    version="1.0.0",
    role="cloud",
    description="for a test",
    latent_space="pixels",
    files=FILES,
    limits=Limits(
        sizes=("128x128", "256x256"),
        seconds=(2.0,),
        fps=12,
        steps_min=1,
        steps_max=16,
        steps_default=4,
        guidance_min=1.0,
        guidance_max=4.0,
        guidance_default=1.0,
    ),
    refine=Refine(sources=("p",), t0=0.5, steps=2),
    digest=card_digest("p", "1.0.0", FILES),
)


class KeepingNetworks:
    """Predicts half of what it is given, so the noise shows in the result; counts its evaluations.

    found: what is found in given frames; a layout planned from it is 1 there.
    """

    def __init__(self, found: Found | None = None) -> None:
        self.found = found
        self.searched: list[Arranged] = []
        self.looked_for: list[PromptSlots] = []
        self.read: list[str] = []
        self.seen: list[tuple[float, bool]] = []
        self.inputs: list[Floats] = []
        self.known: list[Arranged] = []
        self.layouts: list[Floats] = []

    def encode(self, prompt: str) -> PromptSlots:
        self.read.append(prompt)
        return PromptSlots(np.zeros((4, 192), np.float32), np.zeros(384, np.float32), self.familiarity(prompt))

    @staticmethod
    def familiarity(prompt: str) -> float:
        """Of these prompts, by which they are told apart."""
        return {"a red ball": 1.0, "a blue ball": 0.75}.get(prompt, 0.5)

    def find(self, text: PromptSlots, given: Arranged) -> Found | None:
        self.searched.append(given)
        self.looked_for.append(text)
        return self.found

    def plan(self, text: PromptSlots, noise: Floats, found: Found = NOWHERE) -> Floats:
        return np.where(found.told[..., None] > 0, found.layout, noise)

    def predict(self, noisy: Floats, t: float, scene: Scene, known: Arranged, *, conditional: bool) -> Floats:
        self.layouts.append(scene.layout)
        self.seen.append((t, conditional))
        self.known.append(known)
        self.inputs.append(noisy.copy())
        return noisy * np.float32(0.5)

    def upsample(self, low: Floats, level: float, text: PromptSlots) -> Floats:
        return resize(low, 24, 128, 128)

    def double(self, frames: Floats) -> Floats:
        return frames.repeat(2, axis=1).repeat(2, axis=2)


def request(seed: int = 1, side: int = 128, steps: int = 4, guidance: float = 1.0) -> GenerationInput:
    return GenerationInput("a red ball", seed, side, side, 24, steps, guidance)


def never() -> bool:
    return False


def run(
    networks: KeepingNetworks,
    wanted: GenerationInput,
    start: Clip | None = None,
    *,
    task: Task = "restyle",
    strength: float | None = None,
    on_step: Callable[[StepReport], None] | None = None,
) -> Clip:
    return CascadeGenerator(CARD, networks).generate(
        wanted,
        start=start,
        strength=strength,
        task=task,
        on_step=on_step or (lambda report: None),
        should_stop=never,
    )


@pytest.mark.parametrize("side", [128, 256])
def test_the_clip_has_the_requested_shape(side: int) -> None:
    clip = run(KeepingNetworks(), request(side=side))
    assert clip.shape == (24, side, side, 3)
    assert clip.dtype == np.uint8


def test_the_seed_decides_the_clip() -> None:
    one, again, other = (run(KeepingNetworks(), request(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert (one != other).mean() > 0.5


def test_every_base_step_reports_a_look_and_upsampling_follows() -> None:
    reports: list[StepReport] = []
    run(KeepingNetworks(), request(side=256, steps=3), on_step=reports.append)
    base = [report for report in reports if report.stage == "base"]
    assert [report.step for report in base] == [1, 2, 3]
    assert all(report.look is not None and report.look.shape == (8, 128, 128, 3) for report in base)
    later = reports[3:]
    assert later
    assert all(report.stage == "upsample" for report in later)
    assert later[-1].step == later[-1].steps


def test_guidance_asks_twice_and_no_guidance_once() -> None:
    plain, guided = KeepingNetworks(), KeepingNetworks()
    run(plain, request(steps=3))
    run(guided, request(steps=3, guidance=2.0))
    assert [conditional for _, conditional in plain.seen] == [True] * 3
    assert sorted(conditional for _, conditional in guided.seen) == [False] * 3 + [True] * 3


@pytest.mark.parametrize("allowed", [0, 1, 3])
def test_cancel_stops_within_one_step(allowed: int) -> None:
    networks = KeepingNetworks()
    done: list[StepReport] = []
    with pytest.raises(GenerationCancelled):
        CascadeGenerator(CARD, networks).generate(
            request(steps=8), on_step=done.append, should_stop=lambda: len(done) >= allowed
        )
    assert len(networks.seen) == allowed


def test_cancel_stops_between_upsampling_chunks() -> None:
    done: list[StepReport] = []
    with pytest.raises(GenerationCancelled):
        CascadeGenerator(CARD, KeepingNetworks()).generate(
            request(side=256, steps=1), on_step=done.append, should_stop=lambda: len(done) >= 3
        )
    assert len(done) == 3


def test_a_start_clip_enters_at_its_strength() -> None:
    start = np.full((24, 64, 48, 3), 255, dtype=np.uint8)
    networks = KeepingNetworks()
    run(networks, request(), start, strength=0.9)
    assert networks.seen[0][0] == pytest.approx(0.9)
    assert networks.inputs[0].mean() == pytest.approx(0.9, abs=0.02)


def test_a_draft_and_its_refined_final_share_the_layout_of_their_seed() -> None:
    draft, refined, other = KeepingNetworks(), KeepingNetworks(), KeepingNetworks()
    clip = run(draft, request(steps=2))
    run(refined, request(side=256, steps=3), clip, task="refine")
    run(other, request(seed=2, steps=1))
    assert draft.layouts[0].shape == LAYOUT_SHAPE
    for layout in (*draft.layouts, *refined.layouts):
        np.testing.assert_array_equal(layout, draft.layouts[0])
    assert (other.layouts[0] != draft.layouts[0]).all()
    assert refined.seen[0][0] == pytest.approx(0.5)


@pytest.mark.parametrize("task", [task for task in TASKS if task != "refine"])
def test_where_a_foreign_clip_shows_nothing_of_the_prompt_no_layout_is_planned(task: Task) -> None:
    networks = KeepingNetworks()
    run(networks, request(), np.zeros((24, 32, 32, 3), dtype=np.uint8), task=task)
    assert not any(layout.any() for layout in networks.layouts)
    assert len(networks.searched) == 1


@pytest.mark.parametrize(
    ("task", "held"),
    [
        ("animate", [0]),
        ("extend", [0, 1, 2, 3]),
        ("interpolate", [0, 7]),
        ("extended", [0, 1, 2, 3]),
        ("interpolated", [0, 7]),
    ],
)
def test_things_go_on_from_where_they_are_in_the_frames_that_are_held(task: Task, held: list[int]) -> None:
    told = np.zeros(LAYOUT_SHAPE[:2], np.float32)
    told[0, held] = 1.0
    networks, free = KeepingNetworks(Found(np.ones(LAYOUT_SHAPE, np.float32), told)), KeepingNetworks()
    run(networks, request(), np.zeros((24, 32, 32, 3), dtype=np.uint8), task=task)
    run(free, request())
    assert np.flatnonzero(networks.searched[0].mask).tolist() == held
    for layout in networks.layouts:
        assert (layout[0, held] == 1.0).all()
        np.testing.assert_array_equal(layout[1:], free.layouts[0][1:])  # what was not found is the seed's


def test_things_of_a_clip_that_is_redrawn_stay_where_they_are_found() -> None:
    told = np.zeros(LAYOUT_SHAPE[:2], np.float32)
    told[0, 2:] = 1.0
    networks = KeepingNetworks(Found(np.ones(LAYOUT_SHAPE, np.float32), told))
    run(networks, request(), np.zeros((24, 32, 32, 3), dtype=np.uint8))
    assert networks.searched[0].mask.all()
    for layout in networks.layouts:
        assert (layout[0] == 1.0).all()
        assert not layout[1:].any()  # neither of what was not found nor of the ground


def test_a_split_generation_is_the_whole_one_cut_in_two() -> None:
    whole, first, second = KeepingNetworks(), KeepingNetworks(), KeepingNetworks()
    wanted = run(whole, request(steps=4))
    calls: dict[str, Any] = {"on_step": lambda report: None, "should_stop": never}
    latent = CascadeGenerator(CARD, first).begin(request(steps=2), 0.5, **calls)
    assert [t for t, _ in first.seen] == [0.0, 0.25]
    made = CascadeGenerator(CARD, second).finish(request(steps=2), Latent.from_bytes(latent.to_bytes()), **calls)
    assert [t for t, _ in second.seen] == [0.5, 0.75]
    assert np.abs(made.astype(int) - wanted).max() <= 1  # it travels as float16


def test_what_a_model_cannot_finish_is_refused_by_name() -> None:
    generator = CascadeGenerator(CARD, KeepingNetworks())
    calls: dict[str, Any] = {"on_step": lambda report: None, "should_stop": never}
    good = generator.begin(request(), 0.5, **calls)
    wrong = {
        "latent.space": replace(good, space="pixels (8, 48, 48, 3) 1111111111111111"),
        "latent.shape": replace(good, z=good.z[:4]),
        "latent.t": replace(good, t=1.0),
        "latent": replace(good, z=good.z * np.nan),
    }
    for param, latent in wrong.items():
        with pytest.raises(InvalidRequest) as caught:
            generator.finish(request(), latent, **calls)
        assert caught.value.param == param
    with pytest.raises(InvalidRequest) as caught:
        generator.begin(request(), 1.0, **calls)
    assert caught.value.param == "until"


@pytest.mark.parametrize("data", [b"", b"\x01", b"\xff\xff\xff\xff{}", b"\x02\x00\x00\x00{}", b"\x04\x00\x00\x00null"])
def test_bytes_that_are_no_latent_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Latent.from_bytes(data)
    assert caught.value.param == "latent"


def test_a_latent_cut_short_on_its_way_is_refused() -> None:
    data = Latent(np.zeros((8, 4, 4, 3), np.float32), 0.5, "pixels").to_bytes()
    assert Latent.from_bytes(data).z.shape == (8, 4, 4, 3)
    for end in (len(data) - 1, len(data) - 2, 20):
        with pytest.raises(InvalidRequest):
            Latent.from_bytes(data[:end])


def test_without_held_frames_the_networks_are_told_of_none() -> None:
    networks = KeepingNetworks()
    run(networks, request(), np.zeros((1, 32, 32, 3), dtype=np.uint8))
    assert networks.known[0].mask.sum() == 0


def test_a_held_frame_can_be_joined_by_a_strength() -> None:
    networks = KeepingNetworks()
    run(networks, request(), np.zeros((1, 32, 32, 3), dtype=np.uint8), task="animate", strength=0.3)
    assert networks.seen[0][0] == pytest.approx(0.3)


def test_without_a_strength_the_card_decides() -> None:
    networks = KeepingNetworks()
    run(networks, request(), np.zeros((1, 32, 32, 3), dtype=np.uint8))
    assert networks.seen[0][0] == pytest.approx(0.5)


def test_the_first_frame_can_be_held_and_the_networks_are_told() -> None:
    start = np.zeros((1, 128, 128, 3), dtype=np.uint8)
    start[:, :, :64] = 255
    networks = KeepingNetworks()
    clip = run(networks, request(), start, task="animate")
    assert networks.seen[0][0] == 0.0  # what is kept is given, so the rest begins as noise
    assert networks.known[0].mask.tolist() == [1, 0, 0, 0, 0, 0, 0, 0]
    assert networks.known[0].clip[0, :, :16].mean() == 1.0
    assert clip[0, :, :48].mean() > 240
    assert clip[0, :, 80:].mean() < 15


@pytest.mark.parametrize(
    "start",
    [
        np.zeros((2, 32, 32), np.uint8),
        np.zeros((2, 32, 32, 4), np.uint8),
        np.zeros((0, 32, 32, 3), np.uint8),
        np.zeros((2, 32, 32, 3), np.float32),
    ],
)
def test_a_start_that_is_no_clip_is_refused(start: Clip) -> None:
    with pytest.raises(InvalidRequest) as caught:
        run(KeepingNetworks(), request(), start)
    assert caught.value.param == "start"


def test_strength_and_tasks_that_keep_frames_need_a_start() -> None:
    with pytest.raises(InvalidRequest):
        run(KeepingNetworks(), request(), strength=0.5)
    with pytest.raises(InvalidRequest):
        run(KeepingNetworks(), request(), task="animate")


def test_limits_are_checked_before_any_work() -> None:
    networks = KeepingNetworks()
    with pytest.raises(InvalidRequest):
        run(networks, request(steps=17))
    assert not networks.seen
