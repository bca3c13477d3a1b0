"""Writes what the services load: ONNX files under the weights folder and the cards with measured times and quality."""

import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

from adaptivegen.media.mp4 import encode_mp4
from adaptivegen.models.base import Clip, GenerationInput, Generator, StepReport
from adaptivegen.models.card import CardFile, Limits, ModelCard, Profile, Quality, Refine, card_digest, dump_card
from adaptivegen.models.registry import open_generator
from adaptivegen.models.text import TextEncoder
from training import evaluate, export
from training.evaluate import Share
from training.grammar import Attributes
from training.recogniser import Recogniser, load_recogniser
from training.train import load_base
from training.train_upsampler import load_doubler, load_upsampler

VERSION = "0.1.0"
DRAFT, CLOUD = "pocket-draft", "pocket-cloud"
DESCRIPTIONS = {
    DRAFT: "Pocket's draft: 24 frames of 128x128 in four guided steps on a CPU; int8 base",
    CLOUD: "Pocket's final: 24 frames of 256x256; a deeper base with guidance, a deeper upsampler, a frame doubler",
}
LIMITS = {
    DRAFT: Limits(
        sizes=("128x128",),
        seconds=(2.0,),
        fps=12,
        steps_min=1,
        steps_max=32,
        steps_default=4,
        guidance_min=1.0,
        guidance_max=6.0,
        guidance_default=3.0,
    ),
    CLOUD: Limits(
        sizes=("256x256", "128x128"),
        seconds=(2.0,),
        fps=12,
        steps_min=1,
        steps_max=64,
        steps_default=16,
        guidance_min=1.0,
        guidance_max=6.0,
        guidance_default=3.0,
    ),
}
REFINE = Refine(sources=(DRAFT,), t0=0.5, steps=12)
Shares = dict[str, Share]


def export_models(folder: Path, weights: Path) -> None:
    """Write both models' graphs and first cards from the checkpoints; the text encoder must be there already."""
    with tempfile.TemporaryDirectory() as scratch:
        raw = Path(scratch) / "raw.onnx"
        for name, source in ((DRAFT, folder / "draft"), (CLOUD, folder / "cloud")):
            target = weights / name
            target.mkdir(parents=True, exist_ok=True)
            export.export_base(load_base(source / "base.pt"), raw, fold=name == DRAFT)
            (export.dynamic_int8 if name == DRAFT else export.store_int8)(raw, target / "base.onnx")
            export.export_upsampler(load_upsampler(source / "upsampler.pt"), raw)
            export.store_half(raw, target / "upsampler.onnx")
            if name == CLOUD:
                export.export_doubler(load_doubler(source / "doubler.pt"), raw)
                export.store_half(raw, target / "doubler.onnx")
            write_card(name, weights, (), {})


def write_card(name: str, weights: Path, profile: Sequence[Profile], quality: dict[str, Quality]) -> ModelCard:
    """Card of the files as they are now, with these measurements."""
    paths = {
        "text_encoder": weights / "text" / "encoder.onnx",
        "tokenizer": weights / "text" / "tokenizer.json",
        **{path.stem: path for path in sorted((weights / name).glob("*.onnx"))},
    }
    files: dict[str, CardFile] = {logical: export.card_file(path, weights) for logical, path in paths.items()}
    card = ModelCard(
        name=name,
        version=VERSION,
        role="draft" if name == DRAFT else "cloud",
        description=DESCRIPTIONS[name],
        latent_space="pixels",
        files=files,
        limits=LIMITS[name],
        refine=REFINE if name == CLOUD else None,
        profile=tuple(profile),
        quality=quality,
        digest=card_digest(name, VERSION, files),
    )
    (weights / name / "card.json").write_text(dump_card(card), encoding="utf-8")
    return card


def request_for(card: ModelCard, prompt: str, seed: int) -> GenerationInput:
    """The card's defaults at its first size."""
    width, height = (int(part) for part in card.limits.sizes[0].split("x"))
    frames = card.limits.frame_counts()[0]
    limits = card.limits
    return GenerationInput(prompt, seed, width, height, frames, limits.steps_default, limits.guidance_default)


def time_model(name: str, threads: int, weights: Path, *, repeats: int = 5) -> Profile:
    """Medians over warm runs at the card's defaults; `first_look_ms` is text and first step with its look."""
    begun = time.perf_counter()
    model = open_generator(name, threads=threads, weights=weights)
    load_ms = (time.perf_counter() - begun) * 1e3
    text_ms = _text_ms(weights, threads)
    looks, steps, ups = [], [], []
    for seed in range(repeats + 1):
        marks = _timed_run(model, seed)
        base = [when for report, when in marks if report.stage == "base"]
        looks.append(base[0])
        steps.append((base[-1] - base[0]) / max(1, len(base) - 1))
        ups.append(marks[-1][1] - base[-1])
    look_ms, step_ms, upsample_ms = (statistics.median(values[1:]) for values in (looks, steps, ups))
    request = request_for(model.card, "", 0)
    return Profile(
        hardware=hardware_name(),
        threads=threads,
        backend="onnx",
        width=request.width,
        height=request.height,
        frames=request.frames,
        load_ms=round(load_ms, 1),
        text_ms=round(text_ms, 1),
        step_ms=round(step_ms, 1),
        upsample_ms=round(upsample_ms, 1),
        first_look_ms=round(look_ms, 1),
        encode_ms=round(_encode_ms(request), 1),
        memory_mib=round(loaded_memory_mib(name, threads, weights), 1),
    )


def _timed_run(model: Generator, seed: int) -> list[tuple[StepReport, float]]:
    """Every report with its milliseconds since the start; the end of the run is the last upsampling report."""
    marks: list[tuple[StepReport, float]] = []
    begun = time.perf_counter()
    request = request_for(model.card, "a red circle moves left over a sunset sky", seed)
    model.generate(
        request,
        should_stop=lambda: False,
        on_step=lambda report: marks.append((report, (time.perf_counter() - begun) * 1e3)),
    )
    marks.append((StepReport(step=1, steps=1, stage="upsample", look=None), (time.perf_counter() - begun) * 1e3))
    return marks


def _encode_ms(request: GenerationInput, *, repeats: int = 5) -> float:
    """Median time to encode a clip of this size as MP4; the frames hold a moving gradient."""
    ramp = np.arange(request.frames * request.height * request.width * 3) // (3 * request.width)
    clip = (ramp % 256).astype(np.uint8).reshape(request.frames, request.height, request.width, 3)
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        encode_mp4(clip, 12)
        times.append((time.perf_counter() - begun) * 1e3)
    return statistics.median(times)


def _text_ms(weights: Path, threads: int, *, repeats: int = 9) -> float:
    """Median time to encode a prompt."""
    encoder, times = TextEncoder(weights / "text", threads=threads), []
    for _ in range(repeats):
        begun = time.perf_counter()
        encoder.encode("a red circle moves left over a sunset sky")
        times.append((time.perf_counter() - begun) * 1e3)
    return statistics.median(times)


def hardware_name() -> str:
    """Processor as the system names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")) + " (CPU)"
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def loaded_memory_mib(name: str, threads: int, weights: Path) -> float:
    """Resident MiB of a fresh process, without torch, that loaded the model and generated once; 0 if unknown."""
    command = [sys.executable, "-c", _MEMORY_PROBE, name, str(threads), str(weights)]
    out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    return float(out.stdout.strip().splitlines()[-1])


_MEMORY_PROBE = """
import sys
from pathlib import Path
from adaptivegen.models.base import GenerationInput
from adaptivegen.models.registry import open_generator
model = open_generator(sys.argv[1], threads=int(sys.argv[2]), weights=Path(sys.argv[3]))
width, height = map(int, model.card.limits.sizes[0].split("x"))
request = GenerationInput("a red ball", 1, width, height, 24, 2, 1.0)
model.generate(request, on_step=lambda report: None, should_stop=lambda: False)
status = Path("/proc/self/status")
lines = status.read_text().splitlines() if status.exists() else []
print(next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), 0.0))
"""


def as_quality(share: Share) -> Quality:
    """Rounded for the card."""
    return Quality(value=round(share.value, 4), low=round(share.low, 4), high=round(share.high, 4), n=share.n)


def measured_quality(judge: Recogniser, clips: Sequence[Clip], scenes: Sequence[Attributes]) -> Shares:
    """Attribute accuracies, tracked direction and the mos of these clips."""
    accuracy = evaluate.attribute_accuracy(judge, clips, scenes)
    mos = evaluate.mean_opinion(accuracy, clips[0].shape[1])
    return {**accuracy, "direction_tracked": evaluate.direction_accuracy(clips, scenes), "mos": mos}


def measure_models(folder: Path, weights: Path, count: int, threads: int, sheet: Path | None) -> None:
    """Measure times, then quality of draft, cloud from noise and refine, and rewrite both cards."""
    times = {name: time_model(name, threads, weights) for name in (DRAFT, CLOUD)}
    judge = load_recogniser(folder / "recogniser.pt")
    scenes, prompts = evaluate.evaluation_scenes(count)
    ceiling = {f"judge_{name}": share for name, share in evaluate.judge_accuracy(judge).items()}
    draft, cloud = (open_generator(name, threads=threads, weights=weights) for name in (DRAFT, CLOUD))
    drafts = _clips(draft, prompts, "drafts")
    draft_quality = measured_quality(judge, drafts, scenes) | ceiling
    finals = _clips(cloud, prompts[: count // 2], "cloud from noise")
    cloud_quality = measured_quality(judge, finals, scenes[: count // 2]) | ceiling
    few = max(8, count // 4)
    refined: list[Clip] = []
    for t0 in (0.3, 0.5, 0.7):
        made = _clips(cloud, prompts[:few], f"refine from {t0}", drafts[:few], t0)
        for name, share in evaluate.agreement(judge, drafts[:few], made).items():
            cloud_quality[f"refine_{t0:g}_same_{name}"] = share
        if t0 == REFINE.t0:
            refined = made
            asked = measured_quality(judge, made, scenes[:few])
            cloud_quality |= {f"refine_{name}": share for name, share in asked.items()}
    for name, quality in ((DRAFT, draft_quality), (CLOUD, cloud_quality)):
        write_card(name, weights, (times[name],), {key: as_quality(share) for key, share in quality.items() if share.n})
        print(name, asdict_rows(quality), times[name].model_dump(), sep="\n")
    if sheet is not None:
        rows = [part for i in range(0, min(12, few - 1), 2) for part in (drafts[i : i + 2], refined[i : i + 2])]
        Image.fromarray(evaluate.contact_sheet(rows, 4, 64)).quantize(192).save(sheet, optimize=True)


def _clips(
    model: Generator, prompts: Sequence[str], label: str, starts: Sequence[Clip] | None = None, t0: float | None = None
) -> list[Clip]:
    from rich.progress import Progress

    request = request_for(model.card, "", 0)
    steps = request.steps if t0 is None else REFINE.steps
    with Progress() as progress:
        task = progress.add_task(label, total=len(prompts))
        tick: Callable[[int], None] = lambda done: progress.update(task, completed=done)  # noqa: E731
        return evaluate.make_clips(
            model,
            prompts,
            size=request.width,
            steps=steps,
            guidance=request.guidance,
            starts=starts,
            strength=t0,
            report=tick,
        )


def asdict_rows(quality: Shares) -> str:
    """One line per metric."""
    return "\n".join(f"  {name}: {asdict(share)}" for name, share in quality.items())
