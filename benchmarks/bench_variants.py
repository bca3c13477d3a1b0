"""What mixed precision and pruned attention save: the cloud model and its variants on one device, one after another.

`python -m benchmarks.bench_variants [--runs 9] [--threads 2] [--backend onnx|torch] [--device cuda]`. Times the base's
steps of a final (12 steps with guidance, two evaluations each) and the whole final, in rounds, so that a busy machine
slows all alike. Prints the hardware, medians with their spread, each variant's share of the time of the float32,
unpruned model, and one line of JSON. It measures no accuracy; the cards have that.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys

from benchmarks.bench_models import PROMPT, timed
from benchmarks.machine import hardware
from core_cloud.models.registry import BACKENDS, open_generator
from training.family import CLOUD, VARIANTS
from training.timing import request_for

PARTS = ("base", "whole")


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description="The cloud model and its variants.")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--backend", choices=BACKENDS, default="onnx")
    parser.add_argument("--device", default=None, help="torch's; by default CUDA where there is one")
    options = parser.parse_args()
    machine, names = hardware(), (CLOUD, *VARIANTS)
    models = {
        name: open_generator(name, threads=options.threads, backend=options.backend, device=options.device)
        for name in names
    }
    seconds: dict[str, list[float]] = {}
    for number in range(options.runs + 1):
        for name, model in models.items():
            marks = timed(model, request_for(model.card, PROMPT, number), name)
            if number > 0:  # the first round warms up
                for part in PARTS:
                    seconds.setdefault(f"{name}: {part}", []).append(marks[f"{name}: {part}"])
    print(f"hardware: {machine}\nbackend:  {options.backend} {options.device or ''}".rstrip())
    print("\n| | median | min - max | of float32, unpruned |\n| --- | --- | --- | --- |")
    shares = {}
    for key, values in seconds.items():
        whole = seconds[f"{CLOUD}: {key.rsplit(': ', 1)[1]}"]
        shares[key] = statistics.median(mine / other for mine, other in zip(values, whole, strict=True))
        spread = f"{min(values):.3f} - {max(values):.3f} s"
        print(f"| {key} | {statistics.median(values):.3f} s | {spread} | {shares[key]:.1%} |")
    rounded = {key: round(share, 4) for key, share in shares.items()}
    print(json.dumps({"benchmark": "variants", "hardware": machine, "backend": options.backend, **rounded}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
