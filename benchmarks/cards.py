"""Model cards for benchmarks of decisions: of models that do not exist, with times that are told."""

from __future__ import annotations

from adaptivegen.models.card import CardFile, Limits, ModelCard, Profile, Quality, Refine, card_digest


def make_card(
    name: str, *, side: int, step_ms: float, steps: int = 8, text_ms: float = 10, refine: Refine | None = None
) -> ModelCard:
    """A card with one profile of 24 frames: text, the steps, 100 ms of upsampling, 50 ms of encoding."""
    files = {"base": CardFile(path=f"{name}/base.onnx", sha256="0" * 64, bytes=1)}
    limits = Limits(
        sizes=(f"{side}x{side}",),
        seconds=(2.0,),
        fps=12,
        steps_min=1,
        steps_max=64,
        steps_default=steps,
        guidance_min=1.0,
        guidance_max=4.0,
        guidance_default=1.0,
    )
    profile = Profile(
        hardware="none",
        threads=2,
        backend="onnx",
        width=side,
        height=side,
        frames=24,
        load_ms=500,
        text_ms=text_ms,
        step_ms=step_ms,
        upsample_ms=100,
        first_look_ms=text_ms + step_ms,
        encode_ms=50,
        memory_mib=100,
    )
    return ModelCard(
        name=name,
        version="1.0.0",
        role="cloud" if refine else "draft",
        description="for the benchmark",
        latent_space="pixels",
        files=files,
        limits=limits,
        refine=refine,
        profile=(profile,),
        quality={"mos": Quality(value=4.0, low=3.5, high=4.5, n=100)},
        digest=card_digest(name, "1.0.0", files),
    )
