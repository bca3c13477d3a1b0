"""Cards of two models that sleep instead of computing: tiny clips, times and qualities that are told, not measured."""

from __future__ import annotations

from pathlib import Path

from adaptivegen.models.card import (
    CardFile,
    Limits,
    ModelCard,
    Profile,
    Quality,
    Refine,
    Score,
    ScoredPlan,
    card_digest,
    dump_card,
)

DRAFT, CLOUD = "asleep-draft", "asleep-cloud"
FRAMES, FPS = 8, 8


def _profile(side: int, *, step_ms: float, upsample_ms: float) -> Profile:
    return Profile(
        hardware="asleep",
        threads=1,
        backend="onnx",
        width=side,
        height=side,
        frames=FRAMES,
        load_ms=100,
        text_ms=10,
        step_ms=step_ms,
        upsample_ms=upsample_ms,
        first_look_ms=10 + step_ms,
        encode_ms=4,
        memory_mib=60,
    )


def _score(plan: ScoredPlan, steps: int, side: int, mos: float) -> Score:
    told = Quality(value=mos, low=mos, high=mos, n=1)
    return Score(
        plan=plan, steps=steps, width=side, height=side, accuracy=Quality(value=0.9, low=0.9, high=0.9, n=1), mos=told
    )


def _card(name: str, side: int, steps: int, profile: Profile, scores: list[Score], refine: Refine | None) -> ModelCard:
    files = {"base": CardFile(path=f"{name}/base.onnx", sha256="0" * 64, bytes=1)}
    limits = Limits(
        sizes=(f"{side}x{side}",),
        seconds=(FRAMES / FPS,),
        fps=FPS,
        steps_min=2,
        steps_max=32,
        steps_default=steps,
        guidance_min=1.0,
        guidance_max=1.0,
        guidance_default=1.0,
    )
    return ModelCard(
        name=name,
        version="1.0.0",
        role="cloud" if refine else "draft",
        description="sleeps as long as its card says",
        latent_space="pixels",
        files=files,
        limits=limits,
        refine=refine,
        profile=(profile,),
        scores=tuple(scores),
        digest=card_digest(name, "1.0.0", files),
    )


def draft_card() -> ModelCard:
    """4 steps: 0.43 s, as long as Pocket's takes on two cores (README), the first look after 0.1 s."""
    return _card(DRAFT, 64, 4, _profile(64, step_ms=90, upsample_ms=60), [_score("draft", 4, 64, 3.4)], refine=None)


def cloud_card() -> ModelCard:
    """16 steps from noise: 1.53 s; 8 from a draft: 0.81 s; half of either where a reduced final is allowed."""
    scores = [
        _score("cloud", 8, 96, 4.4),
        _score("cloud", 16, 96, 4.6),
        _score("refine", 4, 96, 4.2),
        _score("refine", 8, 96, 4.5),
    ]
    refine = Refine(sources=(DRAFT,), t0=0.5, steps=8)
    return _card(CLOUD, 96, 16, _profile(96, step_ms=90, upsample_ms=80), scores, refine)


def write_cards(folder: Path) -> None:
    """Put both into a folder, as `adaptivegen.models.registry` reads them."""
    for card in (draft_card(), cloud_card()):
        (folder / card.name).mkdir(parents=True)
        (folder / card.name / "card.json").write_text(dump_card(card), encoding="utf-8")
