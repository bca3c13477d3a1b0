"""How long the shipped models take, without any service: text, first look, draft, final, refined final, a live chunk.

`python -m benchmarks.bench_models [--runs 7] [--threads 2]`. All in one process, one after another, round by round, so
that a busy machine slows all alike. Prints the hardware, a table of medians with their spread, and one line of JSON.
Exit status 1 when the draft misses 0.6 s or the first look 0.25 s.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from adaptivegen.models.base import Clip, GenerationInput, SplitGenerator, Task
from adaptivegen.models.cascade import CascadeGenerator
from adaptivegen.models.cascade_onnx import CascadeOnnx
from adaptivegen.models.live import LiveSession, LiveSettings
from adaptivegen.models.registry import WEIGHTS, load_card, needed_files, open_generator
from benchmarks.machine import hardware
from training.timing import request_for

PROMPT = "a big red star moves left over the sea at dusk"
DRAFT_TARGET_S, LOOK_TARGET_S = 0.6, 0.25
Timed = Callable[[], dict[str, float]]


def timed(
    model: SplitGenerator,
    request: GenerationInput,
    name: str,
    start: Clip | None = None,
    task: Task = "restyle",
) -> dict[str, float]:
    """Seconds to the first look, to the end of the base steps, and of the whole."""
    marks: list[tuple[str, float]] = []
    begun = time.perf_counter()
    model.generate(
        request,
        start=start,
        task=task,
        on_step=lambda report: marks.append((report.stage, time.perf_counter() - begun)),
        should_stop=lambda: False,
    )
    base = [when for stage, when in marks if stage == "base"]
    return {f"{name}: first look": base[0], f"{name}: base": base[-1], f"{name}: whole": time.perf_counter() - begun}


def measures(threads: int) -> list[Timed]:
    """What is timed, in the order of a round."""
    card = load_card("pocket-draft")
    networks = CascadeOnnx(needed_files(card, WEIGHTS), threads=threads)
    draft, cloud = CascadeGenerator(card, networks), open_generator("pocket-cloud", threads=threads)
    sketch, final = (request_for(model.card, PROMPT, 1) for model in (draft, cloud))
    begun = draft.generate(sketch, on_step=lambda report: None, should_stop=lambda: False)
    refine = cloud.card.refine
    refined = replace(final, steps=refine.steps if refine is not None else final.steps)
    stream = np.full((12, 360, 640, 3), 90, np.uint8)

    def live(steps: int) -> dict[str, float]:
        session = LiveSession(networks, PROMPT, LiveSettings(steps=steps))
        session.push(stream)
        begun_s = time.perf_counter()
        session.push(stream)
        return {f"live: chunk of 12 frames, {steps} step{'s' * (steps > 1)}": time.perf_counter() - begun_s}

    return [
        lambda: timed(draft, sketch, f"draft in {sketch.steps} steps"),
        lambda: timed(draft, replace(sketch, steps=1), "draft in 1 step"),
        lambda: timed(cloud, final, f"final in {final.steps} steps"),
        lambda: timed(cloud, refined, f"refined in {refined.steps} steps", begun, "refine"),
        lambda: live(1),
        lambda: live(2),
    ]


def main() -> int:
    """Print the figures; 1 when the draft is too slow."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    machine, parts = hardware(), measures(options.threads)
    rows: dict[str, list[float]] = {}
    for number in range(options.runs + 1):
        for part in parts:
            for name, seconds in part().items():
                if number > 0:  # the first round warms up
                    rows.setdefault(name, []).append(seconds)
    command = f"python -m benchmarks.bench_models --runs {options.runs} --threads {options.threads}"
    print(f"hardware: {machine}\ncommand:  {command}")
    print("\n| | median | min - max |\n| --- | --- | --- |")
    for name, values in rows.items():
        print(f"| {name} | {statistics.median(values):.3f} s | {min(values):.3f} - {max(values):.3f} s |")
    medians = {name: round(statistics.median(values), 4) for name, values in rows.items()}
    print(json.dumps({"benchmark": "models", "hardware": machine, "runs": options.runs, **medians}))
    looks = [statistics.median(values) for name, values in rows.items() if name.startswith("draft") and "look" in name]
    whole = [statistics.median(values) for name, values in rows.items() if name.startswith("draft") and "whole" in name]
    return int(max(looks) > LOOK_TARGET_S or max(whole) > DRAFT_TARGET_S)


if __name__ == "__main__":
    sys.exit(main())
