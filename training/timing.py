"""Times of a model on this machine: loading, text, steps, upsampling, encoding, and its memory."""

import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from adaptivegen.media.mp4 import encode_mp4
from adaptivegen.models.base import GenerationInput, Generator, StepReport
from adaptivegen.models.card import ModelCard, Profile
from adaptivegen.models.registry import open_generator
from adaptivegen.models.slots import SlotEncoder


def request_for(card: ModelCard, prompt: str, seed: int, size: str = "") -> GenerationInput:
    """The card's defaults at this size, by default its first."""
    width, height = (int(part) for part in (size or card.limits.sizes[0]).split("x"))
    frames = card.limits.frame_counts()[0]
    limits = card.limits
    return GenerationInput(prompt, seed, width, height, frames, limits.steps_default, limits.guidance_default)


def time_model(name: str, threads: int, weights: Path, *, repeats: int = 5) -> tuple[Profile, ...]:
    """Medians over warm runs at the card's defaults, for each of its sizes.

    `first_look_ms` is text and first step with its look.
    """
    begun = time.perf_counter()
    model = open_generator(name, threads=threads, weights=weights)
    load_ms = (time.perf_counter() - begun) * 1e3
    text_ms, memory_mib = _text_ms(weights, threads), loaded_memory_mib(name, threads, weights)
    return tuple(
        _time_size(
            model, size, threads=threads, load_ms=load_ms, text_ms=text_ms, memory_mib=memory_mib, repeats=repeats
        )
        for size in model.card.limits.sizes
    )


def _time_size(
    model: Generator, size: str, *, threads: int, load_ms: float, text_ms: float, memory_mib: float, repeats: int
) -> Profile:
    looks, steps, ups = [], [], []
    for seed in range(repeats + 1):
        marks = _timed_run(model, seed, size)
        base = [when for report, when in marks if report.stage == "base"]
        looks.append(base[0])
        steps.append((base[-1] - base[0]) / max(1, len(base) - 1))
        ups.append(marks[-1][1] - base[-1])
    look_ms, step_ms, upsample_ms = (statistics.median(values[1:]) for values in (looks, steps, ups))
    request = request_for(model.card, "", 0, size)
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
        memory_mib=round(memory_mib, 1),
    )


def _timed_run(model: Generator, seed: int, size: str) -> list[tuple[StepReport, float]]:
    """Every report with its milliseconds since the start; the end of the run is the last upsampling report."""
    marks: list[tuple[StepReport, float]] = []
    begun = time.perf_counter()
    request = request_for(model.card, "a red circle moves left over a sunset sky", seed, size)
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
    encoder, times = SlotEncoder(weights / "text", threads=threads), []
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
