"""The models of the Pocket family: what each is called, what it accepts and which files it is made of. Pure tables."""

from dataclasses import dataclass
from typing import Literal

from adaptivegen.models.card import Limits, NoisePath, Refine, Split

VERSION = "0.4.0"
DRAFT, CLOUD, MIXED, PRUNED = "pocket-draft", "pocket-cloud", "pocket-cloud-mixed", "pocket-cloud-pruned"
SHARED = "pocket"  # folder of the files that all of them have
VARIANTS = (MIXED, PRUNED)  # of the cloud model, for latency
KV_POOL, ATTENDING = 2, 3  # how the pruned variant's attention is pruned; see `BaseParams`

TEXT_FILES = {
    "text_encoder": "text/encoder.onnx",
    "tokenizer": "text/tokenizer.json",
    "reader": "text/reader.onnx",
    "captions": "text/captions.npy",
}
_COMMON = {
    **TEXT_FILES,
    "planner": f"{SHARED}/planner.onnx",
    "finder": f"{SHARED}/finder.onnx",
    "upsampler": f"{SHARED}/upsampler.onnx",
}
_FINAL = {**_COMMON, "doubler": f"{SHARED}/doubler.onnx"}


def _limits(sizes: tuple[str, ...], steps_max: int, steps_default: int, guidance_default: float) -> Limits:
    """What all members have in common, and these."""
    return Limits(
        sizes=sizes,
        seconds=(2.0,),
        fps=12,
        steps_min=1,
        steps_max=steps_max,
        steps_default=steps_default,
        guidance_min=1.0,
        guidance_max=6.0,
        guidance_default=guidance_default,
    )


_DRAFT_LIMITS = _limits(("128x128",), 32, 4, 1.0)
_CLOUD_LIMITS = _limits(("256x256", "128x128"), 64, 12, 1.5)
REFINE = Refine(sources=(DRAFT,), t0=0.5, steps=4)
SPLIT = Split(finishers=(DRAFT,), until=0.5, steps=6, finish_steps=2)  # half of the flow, in half of each one's steps
# All members read and plan alike and go from noise to pixels on straight lines, so each can finish another's clips.
PATH = NoisePath(
    shape=(8, 48, 48, 3),
    sampler="euler",
    sigmas="linear",
    files=("text_encoder", "tokenizer", "reader", "planner"),
)


@dataclass(frozen=True, slots=True)
class Member:
    """One model; files are paths under the weights folder by logical name. See `ModelCard` for precision."""

    role: Literal["draft", "cloud"]
    description: str
    limits: Limits
    files: dict[str, str]
    precision: Literal["float32", "mixed"] = "float32"
    refine: Refine | None = None
    split: Split | None = None


FAMILY = {
    DRAFT: Member(
        role="draft",
        description="Pocket's draft: 24 frames of 128x128, distilled to four steps without guidance; int8 base",
        limits=_DRAFT_LIMITS,
        files={**_COMMON, "base": f"{DRAFT}/base.onnx"},
        precision="mixed",
    ),
    CLOUD: Member(
        role="cloud",
        description="Pocket's final: 24 frames of 256x256, guided, with a frame doubler",
        limits=_CLOUD_LIMITS,
        files={**_FINAL, "base": f"{CLOUD}/base.onnx"},
        refine=REFINE,
        split=SPLIT,
    ),
    MIXED: Member(
        role="cloud",
        description="Pocket's final in mixed precision: the base's products in int8 on a CPU, in bfloat16 on a GPU",
        limits=_CLOUD_LIMITS,
        files={**_FINAL, "base": f"{MIXED}/base.onnx", "base_float": f"{CLOUD}/base.onnx"},
        precision="mixed",
        refine=REFINE,
    ),
    PRUNED: Member(
        role="cloud",
        description="Pocket's final with pruned attention: every third block attends, to keys averaged over patches",
        limits=_CLOUD_LIMITS,
        files={**_FINAL, "base": f"{PRUNED}/base.onnx"},
        refine=REFINE,
    ),
}
