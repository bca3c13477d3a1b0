"""Model cards for tests: small, valid, made here, so that no test depends on which weights are shipped."""

from adaptivegen.models.card import CardFile, Limits, ModelCard, Profile, Quality, Refine, card_digest

FILES = {"base": CardFile(path="x/base.onnx", sha256="0" * 64, bytes=1)}


def profile(*, step_ms: float = 100.0, upsample_ms: float = 200.0) -> Profile:
    return Profile(
        hardware="test",
        threads=2,
        backend="onnx",
        width=256,
        height=256,
        frames=24,
        load_ms=500.0,
        text_ms=10.0,
        step_ms=step_ms,
        upsample_ms=upsample_ms,
        first_look_ms=120.0,
        encode_ms=20.0,
        memory_mib=200.0,
    )


def limits(size: str = "256x256") -> Limits:
    return Limits(
        sizes=(size,),
        seconds=(2.0,),
        fps=12,
        steps_min=1,
        steps_max=50,
        steps_default=8,
        guidance_min=1.0,
        guidance_max=5.0,
        guidance_default=2.0,
    )


def cloud_card(**changes: object) -> ModelCard:
    card = ModelCard(
        name="test-cloud",
        version="1.0.0",
        role="cloud",
        description="a card for tests",
        latent_space="pixels",
        files=FILES,
        limits=limits(),
        refine=Refine(sources=("test-draft",), t0=0.5, steps=4),
        profile=(profile(),),
        quality={"mos": Quality(value=4.0, low=3.9, high=4.1, n=10)},
        digest=card_digest("test-cloud", "1.0.0", FILES),
    )
    return card.model_copy(update=changes)


def draft_card(**changes: object) -> ModelCard:
    card = ModelCard(
        name="test-draft",
        version="1.0.0",
        role="draft",
        description="a card for tests",
        latent_space="pixels",
        files=FILES,
        limits=limits("128x128"),
        profile=(profile(step_ms=30.0, upsample_ms=100.0),),
        quality={"mos": Quality(value=3.0, low=2.9, high=3.1, n=10)},
        digest=card_digest("test-draft", "1.0.0", FILES),
    )
    return card.model_copy(update=changes)
