"""Pixels or latents: one transformer learns the same clips in both for the same time, and a judge reads what it makes.

`python -m benchmarks.compare_spaces --folder RUN [--minutes 12] [--decoder-minutes 7] [--clips 4000] [--prompts 40]
[--device cpu]`. RUN is the folder of a training run with its data, reader, upsampler and judge. Pixels are Pocket's own
way: 48x48x8, enlarged by the run's upsampler. Latents are those of `video_vae`, trained here for --decoder-minutes,
which should be the upsampler's own time. Both flows are told the true layouts, and train for --minutes without
known frames or guidance. Prints the hardware, a table and one line of JSON; the outcome belongs into docs/adr/0010.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from adaptivegen.errors import InvalidRequest
from adaptivegen.models.base import Clip
from adaptivegen.models.cascade import INPUT_LEVEL
from adaptivegen.models.registry import WEIGHTS
from adaptivegen.models.resample import to_bytes
from benchmarks.machine import hardware
from benchmarks.video_vae import CHANNELS, GROUP, SIDE_FACTOR, VideoVae, vae_loss
from core_cloud.models.enlarge import HIGH
from core_cloud.models.video import BaseParams, BaseTransformer, Conditions
from training import evaluate
from training.data import HIGH_FRAMES, LOW_FRAMES, LOW_SIZE, Dataset, load, to_unit
from training.embedding import embed, read_slots
from training.evaluate import Asked
from training.fit import FitSettings, averaged, batch_rows, fit, read_checkpoint, step_generator
from training.flow import noised, sample_t, velocity_loss
from training.judge import Judge
from training.train_base import load_base
from training.train_judge import load_judge
from training.train_reader import load_reader
from training.train_upsampler import load_upsampler, render_high
from training.world import SceneBatch, clip_times, layouts, render, scene_batch

CROP = 64  # side of the autoencoder's training crops, in pixels
VAE_BATCH, FLOW_BATCH = 4, 32
STEPS = 12  # of sampling
SEED = 31


@dataclass(frozen=True, slots=True)
class Space:
    """Where a flow works: what its base is like, the clips of the data set there, and how one becomes frames.

    clips gives those of these rows (B, T, H, W, C), about zero and of about unit range; encode brings renders of scenes
    here; decode turns (1, T, H, W, C) and slots (1, SLOTS, 192) into (1, 24, 128, 128, 3) in [-1, 1].
    """

    params: BaseParams
    clips: Callable[[Tensor], Tensor]
    encode: Callable[[SceneBatch], Tensor]
    decode: Callable[[Tensor, Tensor], Tensor]


def minutes_of(minutes: float, device: str, muon_rate: float | None) -> FitSettings:
    """Training for so long, the number of steps settled by timing a few."""
    return FitSettings(lambda step_s: int(60 * minutes / step_s), 2e-3, muon_rate, device=device)


def progress(name: str) -> Callable[[float, float], None]:
    """Says on standard error how far a training is."""
    return lambda share, loss: print(f"{name}: {share:.0%}, loss {loss:.4f}", file=sys.stderr, flush=True)


def bfloat16(device: str) -> torch.autocast:
    """Both trainings' arithmetic."""
    return torch.autocast(device.split(":")[0], dtype=torch.bfloat16)


def trained_vae(high: Tensor, minutes: float, device: str, folder: Path) -> VideoVae:
    """The autoencoder after `minutes` on crops of the clips (N, 24, 128, 128, 3) uint8."""
    vae = VideoVae().to(device)

    def loss_at(step: int) -> Tensor:
        generator = step_generator(SEED, step, device)
        rows = batch_rows(len(high), VAE_BATCH, step, SEED)
        y, x = torch.randint(0, HIGH - CROP + 1, (2,), generator=generator, device=device).tolist()
        with bfloat16(device):
            return vae_loss(vae, to_unit(high[rows, :, y : y + CROP, x : x + CROP].to(device)), generator)

    fit(vae, loss_at, folder / "vae.pt", minutes_of(minutes, device, None), {}, progress("autoencoder"))
    return averaged(folder / "vae.pt", lambda params: VideoVae()).to(device)


@torch.no_grad()
def latent_space(vae: VideoVae, high: Tensor, device: str) -> Space:
    """The flow's space of this autoencoder, its numbers scaled to zero mean and unit deviation per channel."""
    parts = [vae.encode(to_unit(high[i : i + 8].to(device)))[0] for i in range(0, len(high), 8)]
    latents = torch.cat(parts)
    mean, deviation = latents.mean((0, 1, 2, 3)), latents.std((0, 1, 2, 3))
    latents = (latents - mean) / deviation
    params = BaseParams(
        frames=HIGH_FRAMES // GROUP, size=HIGH // SIDE_FACTOR, patch_frames=2, patch_size=2, channels=CHANNELS
    )

    def encode(scenes: SceneBatch) -> Tensor:
        clip = render(scenes, HIGH_FRAMES, HIGH, HIGH).clip
        return (vae.encode(to_unit(clip))[0] - mean) / deviation

    return Space(params, lambda rows: latents[rows], encode, lambda made, slots: vae.decode(made * deviation + mean))


def pixel_space(data: Dataset, upsampler: torch.nn.Module, device: str) -> Space:
    """Pocket's own."""
    level = torch.full((1,), INPUT_LEVEL, device=device)
    return Space(
        BaseParams(frames=LOW_FRAMES, size=LOW_SIZE),
        data.frames,
        lambda scenes: to_unit(render(scenes, LOW_FRAMES, LOW_SIZE, LOW_SIZE).clip),
        lambda made, slots: upsampler(made, level, slots),
    )


def trained_flow(
    space: Space, data: Dataset, count: int, minutes: float, device: str, path: Path
) -> tuple[BaseTransformer, int]:
    """The base of a space after `minutes` on the first `count` clips, and its steps."""
    model = BaseTransformer(space.params).to(device)
    forward = torch.compile(model)

    def loss_at(step: int) -> Tensor:
        generator = step_generator(SEED, step, device)
        rows = batch_rows(count, FLOW_BATCH, step, SEED).to(data.clips.device)
        clip = space.clips(rows)
        given = conditions(space, data.scenes.take(rows), data.text(rows, torch.zeros_like(rows)))
        t = sample_t(FLOW_BATCH, generator)
        noise = torch.randn(clip.shape, generator=generator, device=device)
        with bfloat16(device):
            predicted = forward(noised(clip, noise, t), t, given)[0]
        return velocity_loss(predicted, clip, t)

    fit(model, loss_at, path, minutes_of(minutes, device, 0.01), asdict(space.params), progress(path.stem))
    return load_base(path).to(device), int(read_checkpoint(path)["step"])


def conditions(space: Space, scenes: SceneBatch, slots: Tensor) -> Conditions:
    """Text and true layouts, nothing known."""
    p, count, device = space.params, len(scenes), slots.device
    layout = layouts(scenes, clip_times(p.frames, scenes.jitter.device.type)).to(device)
    known = torch.zeros(count, p.frames, p.size, p.size, p.channels, device=device)
    return Conditions(slots, torch.ones(count, device=device), layout, known, known[:, :, 0, 0, 0])


def now_s(device: str) -> float:
    """A clock that waits for the device's work."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.perf_counter()


@torch.no_grad()
def made_clips(
    model: BaseTransformer, space: Space, scenes: SceneBatch, slots: Tensor
) -> tuple[list[Clip], float, float]:
    """One clip per scene, and the median seconds of its steps and of its decoding."""
    device = str(slots.device)
    clips, base_s, decode_s = [], [], []
    for row in range(len(scenes)):
        begun_s = now_s(device)
        given = conditions(space, scenes.take(slice(row, row + 1)), slots[row : row + 1])
        z = torch.randn(given.known.shape, generator=step_generator(SEED, row, device), device=device)
        for step in range(STEPS):
            clean = model(z, torch.full((1,), step / STEPS, device=device), given)[0]
            z = z + (clean - z) / (STEPS - step)
        between_s = now_s(device)
        frames = space.decode(z, slots[row : row + 1])[0].float()
        base_s.append(between_s - begun_s)
        decode_s.append(now_s(device) - between_s)
        clips.append(to_bytes(frames.cpu().numpy()))
    return clips, float(np.median(base_s)), float(np.median(decode_s))


@torch.no_grad()
def made_again(space: Space, scenes: SceneBatch, slots: Tensor) -> list[Clip]:
    """Renders brought into the space and back: the most that a flow there can reach."""
    parts = ((space.encode(scenes.take(slice(row, row + 1))), slots[row : row + 1]) for row in range(len(scenes)))
    return [to_bytes(space.decode(*part)[0].float().cpu().numpy()) for part in parts]


def figures(judge: Judge, clips: Sequence[Clip], asked: Asked) -> dict[str, float]:
    """Shares that the judge reads as asked: some attributes, the mean of all eight, and all of a clip."""
    right = evaluate.accuracy(evaluate.seen(judge, clips), asked.scenes)
    return {name: round(right[name].value, 3) for name in ("shape", "texture", "motion", "camera", "mean", "all")}


def compared(options: argparse.Namespace, scratch: Path) -> dict[str, dict[str, float]]:
    """Every row of the table. Raises InvalidRequest for more clips than the run has."""
    device, run = options.device, options.folder
    data = load(run / "data")
    if not FLOW_BATCH <= options.clips <= len(data):
        raise InvalidRequest.field("clips", options.clips, f"{FLOW_BATCH} to {len(data)}, which the run has")
    high, judge = render_high(data, options.clips, scratch / "high.npy"), load_judge(run / "judge.pt")
    data = data if device == "cpu" else data.to(device)
    asked = evaluate.asked(options.prompts, 1, novel=True)
    slots = read_slots(load_reader(run / "reader.pt")[0], embed(list(asked.prompts), options.text, 2)).to(device)
    wanted = scene_batch(asked.scenes, SEED, device)
    vae = trained_vae(high, options.decoder_minutes, device, scratch)
    spaces = {
        "pixels": pixel_space(data, load_upsampler(run / "upsampler.pt").to(device), device),
        "latents": latent_space(vae, high, device),
    }
    rows: dict[str, dict[str, float]] = {}
    for name, space in spaces.items():
        rows[f"{name}: renders there and back"] = figures(judge, made_again(space, wanted, slots), asked)
        path = scratch / f"{name}.pt"
        model, steps = trained_flow(space, data, options.clips, options.minutes, device, path)
        clips, base_s, decode_s = made_clips(model, space, wanted, slots)
        costs = {"training steps": steps, "12 steps, s": round(base_s, 3), "decoding, s": round(decode_s, 3)}
        rows[f"{name}: generated"] = figures(judge, clips, asked) | costs
    return rows


def main(arguments: Sequence[str]) -> int:
    """Compare, print; returns the exit code."""
    parser = argparse.ArgumentParser(description="Pixels or latents for the same time of training.")
    parser.add_argument("--folder", type=Path, required=True, help="a training run, with data, upsampler and judge")
    parser.add_argument("--text", type=Path, default=WEIGHTS / "text", help="folder of the text encoder")
    parser.add_argument("--minutes", type=float, default=12.0, help="for each flow")
    parser.add_argument("--decoder-minutes", type=float, default=7.0, help="for the autoencoder")
    parser.add_argument("--clips", type=int, default=4000)
    parser.add_argument("--prompts", type=int, default=40)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    machine = hardware()
    with tempfile.TemporaryDirectory() as scratch:
        try:
            rows = compared(options, Path(scratch))
        except InvalidRequest as exc:
            print(f"error: {exc}")
            return 2
    print(machine)
    for name, values in rows.items():
        print(f"{name}: " + ", ".join(f"{key} {value:g}" for key, value in values.items()))
    print(json.dumps({"benchmark": "spaces", "hardware": machine, "minutes": options.minutes, **rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
