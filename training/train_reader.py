"""Trains the reader on captions alone: its slots must name every attribute of the scene that the caption describes."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core_cloud.models.reader import AttributeHeads, Reader
from training.captions import sample_caption
from training.data import draw_scenes
from training.embedding import Embedded, embed, read_slots
from training.grammar import OBJECT_ATTRIBUTES, OBJECT_CLASSES, SCENE_ATTRIBUTES, SCENE_CLASSES, Scene
from training.world import scene_batch

SEED = 300_001


@dataclass(frozen=True, slots=True)
class ReaderSettings:
    """How the reader is trained: captions, passes over them, batch in captions, rate at the start."""

    captions: int = 40_000
    passes: int = 6
    batch: int = 128
    rate: float = 2e-3
    weight_decay: float = 0.02
    noise: float = 0.5  # deviation at first, falling to none, of what blurs the tokens: against learning words by heart
    seed: int = SEED


def described(
    count: int, seed: int, *, held: bool = False, novel: bool | None = False
) -> tuple[list[Scene], list[str]]:
    """Seeded scenes with one caption each."""
    scenes = draw_scenes(count, seed, novel=novel)
    rng = random.Random(seed + 1)
    return scenes, [sample_caption(scene, rng, held=held) for scene in scenes]


def reading_loss(slots: Tensor, heads: AttributeHeads, things: Tensor, setting: Tensor) -> Tensor:
    """Mean cross-entropy over all attributes; objects that are not there count only in `present`."""
    present, objects, settings = heads(slots)
    there = things[:, :, 0] >= 0  # (B, OBJECT_SLOTS)
    loss = F.cross_entropy(present.flatten(0, 1), there.long().flatten())
    for index, logits in enumerate(objects):
        loss = loss + F.cross_entropy(logits[there], things[:, :, index][there])
    for index, logits in enumerate(settings):
        loss = loss + F.cross_entropy(logits, setting[:, index])
    return loss


def train_reader(
    path: Path, text_folder: Path, settings: ReaderSettings, processes: int, report: Callable[[float, float], None]
) -> None:
    """Fit reader and heads and save both to `path`; report(share done, loss)."""
    s = settings
    torch.manual_seed(s.seed)
    scenes, captions = described(s.captions, s.seed)
    texts, batch = embed(captions, text_folder, processes), scene_batch(scenes, s.seed)
    reader, heads = Reader(), AttributeHeads(192, OBJECT_CLASSES, SCENE_CLASSES)
    reader.fit_scale(*texts.padded(np.arange(min(2000, s.captions))))
    parameters = [*reader.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=s.rate, betas=(0.9, 0.98), weight_decay=s.weight_decay)
    rng, done = np.random.default_rng(s.seed), 0
    total = s.passes * (s.captions // s.batch)
    for _ in range(s.passes):
        for rows in rng.permutation(s.captions)[: s.captions // s.batch * s.batch].reshape(-1, s.batch):
            left = 1 - done / total
            optimiser.param_groups[0]["lr"] = s.rate * min(1.0, done / 50) * left + 1e-6
            tokens, mask = texts.padded(rows)
            tokens = tokens + s.noise * left * reader.deviation * torch.randn_like(tokens)
            loss = reading_loss(reader(tokens, mask), heads, batch.things[rows], batch.setting[rows])
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            done += 1
            if done % 20 == 0:
                report(done / total, loss.item())
    torch.save({"reader": reader.state_dict(), "heads": heads.state_dict()}, path)


def load_reader(path: Path) -> tuple[Reader, AttributeHeads]:
    """A saved reader with its heads, in evaluation mode."""
    state = torch.load(path, weights_only=True)
    reader, heads = Reader(), AttributeHeads(192, OBJECT_CLASSES, SCENE_CLASSES)
    reader.load_state_dict(state["reader"])
    heads.load_state_dict(state["heads"])
    return reader.eval(), heads.eval()


@torch.no_grad()
def reading_accuracy(
    reader: Reader, heads: AttributeHeads, texts: Embedded, scenes: Sequence[Scene]
) -> dict[str, float]:
    """Share of objects, or of scenes, whose attribute the reader names as the caption means it."""
    batch = scene_batch(scenes, 0)
    present, objects, settings = heads(read_slots(reader, texts))
    there = batch.things[:, :, 0] >= 0
    out = {"count": float((present.argmax(-1).bool() == there).all(1).float().mean())}
    for index, name in enumerate(OBJECT_ATTRIBUTES):
        out[name] = float((objects[index].argmax(-1) == batch.things[:, :, index])[there].float().mean())
    for index, name in enumerate(SCENE_ATTRIBUTES):
        out[name] = float((settings[index].argmax(-1) == batch.setting[:, index]).float().mean())
    return out
