"""Writes what the services load: ONNX files under the weights folder and the cards with measured times and quality."""

import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from adaptivegen.models.base import SplitGenerator
from adaptivegen.models.card import CardFile, Limits, ModelCard, Profile, Quality, Refine, card_digest, dump_card
from adaptivegen.models.cascade import CascadeGenerator
from adaptivegen.models.cascade_onnx import CascadeOnnx
from adaptivegen.models.registry import load_card, open_generator, verified_files
from core_cloud.models.reader import Reader
from training import export, report
from training.captions import sample_caption
from training.data import draw_scenes
from training.embedding import embed
from training.evaluate import Recipe
from training.statistics import Figure
from training.timing import hardware_name, time_model
from training.train_base import load_base
from training.train_judge import load_judge
from training.train_layout import load_planner
from training.train_reader import load_reader
from training.train_upsampler import load_doubler, load_upsampler

VERSION = "0.2.0"
DRAFT, CLOUD, SHARED = "pocket-draft", "pocket-cloud", "pocket"
DESCRIPTIONS = {
    DRAFT: "Pocket's draft: 24 frames of 128x128, distilled to four steps without guidance; int8 base",
    CLOUD: "Pocket's final: 24 frames of 256x256, guided, with a frame doubler",
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
        guidance_default=1.0,
    ),
    CLOUD: Limits(
        sizes=("256x256", "128x128"),
        seconds=(2.0,),
        fps=12,
        steps_min=1,
        steps_max=64,
        steps_default=12,
        guidance_min=1.0,
        guidance_max=6.0,
        guidance_default=1.5,
    ),
}
REFINE = Refine(sources=(DRAFT,), t0=0.5, steps=6)
KNOWN_CAPTIONS = 4000
KNOWN_SEED = 500_001
TEXT_FILES = {
    "text_encoder": "text/encoder.onnx",
    "tokenizer": "text/tokenizer.json",
    "reader": "text/reader.onnx",
    "captions": "text/captions.npy",
}
FILES = {
    DRAFT: {
        **TEXT_FILES,
        "planner": f"{SHARED}/planner.onnx",
        "base": f"{DRAFT}/base.onnx",
        "upsampler": f"{SHARED}/upsampler.onnx",
    },
    CLOUD: {
        **TEXT_FILES,
        "planner": f"{SHARED}/planner.onnx",
        "base": f"{CLOUD}/base.onnx",
        "upsampler": f"{SHARED}/upsampler.onnx",
        "doubler": f"{SHARED}/doubler.onnx",
    },
}


def export_family(folder: Path, weights: Path, processes: int) -> None:
    """Write the text side, both models' graphs and first cards from the checkpoints in `folder`."""
    for name in (DRAFT, CLOUD, SHARED):
        (weights / name).mkdir(parents=True, exist_ok=True)
    export_text(load_reader(folder / "reader.pt")[0], weights, processes)
    export.export_planner(load_planner(folder / "planner.pt"), weights / FILES[CLOUD]["planner"])
    with tempfile.TemporaryDirectory() as scratch:
        raw = Path(scratch) / "raw.onnx"
        export.export_base(load_base(folder / "draft" / "base.pt"), raw, fold=True)
        export.dynamic_int8(raw, weights / FILES[DRAFT]["base"])
        export.export_base(load_base(folder / "cloud" / "base.pt"), raw, fold=False)
        export.store_half(raw, weights / FILES[CLOUD]["base"])
        export.export_upsampler(load_upsampler(folder / "upsampler.pt"), raw)
        export.store_half(raw, weights / FILES[CLOUD]["upsampler"])
        export.export_doubler(load_doubler(folder / "doubler.pt"), raw)
        export.store_half(raw, weights / FILES[CLOUD]["doubler"])
    for name in (DRAFT, CLOUD):
        write_card(name, weights, (), {})


def export_text(reader: Reader, weights: Path, processes: int) -> None:
    """The reader's graph, and the known captions' pooled vectors as int8 (KNOWN_CAPTIONS, 384)."""
    export.export_reader(reader, weights / TEXT_FILES["reader"])
    rng = random.Random(KNOWN_SEED)
    captions = [sample_caption(scene, rng) for scene in draw_scenes(KNOWN_CAPTIONS, KNOWN_SEED, novel=None)]
    pooled = embed(captions, weights / "text", processes).pooled.astype(np.float32)
    scale = 127.0 / np.abs(pooled).max(axis=1, keepdims=True)
    np.save(weights / TEXT_FILES["captions"], np.rint(pooled * scale).astype(np.int8))


def write_card(name: str, weights: Path, profile: Sequence[Profile], quality: dict[str, Quality]) -> ModelCard:
    """Card of the files as they are now, with these measurements."""
    files: dict[str, CardFile] = {
        logical: export.card_file(weights / path, weights) for logical, path in FILES[name].items()
    }
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


def card_quality(figures: dict[str, Any]) -> dict[str, dict[str, Quality]]:
    """The figures that the cards carry, by model: attributes on one object, `all_two`, mos, and what refining keeps."""
    chosen: dict[str, dict[str, Figure]] = {}
    for name, section in ((DRAFT, figures["draft"]), (CLOUD, figures["cloud"])):
        part = {key: figure for key, figure in section["one"].items() if key != "mean"}
        chosen[name] = part | {"all_two": section["two"]["all"], "mos": section["mos"]}
    refine = figures["refine"]
    kept = refine["t0"][f"{refine['default_t0']:g}"]["kept"]
    chosen[CLOUD] |= {f"refine_same_{key}": figure for key, figure in kept.items() if not key.startswith("track")}
    chosen[CLOUD] |= {"refine_track_within_3_percent": kept["track_3%"], "refine_mos": refine["mos"]}
    return {
        name: {key: Quality(**report.plain(figure)) for key, figure in part.items()} for name, part in chosen.items()
    }


def _whole_draft(folder: Path, weights: Path, threads: int) -> SplitGenerator:
    """The draft with its base in float32, to tell what int8 costs."""
    card = load_card(DRAFT, weights)
    with tempfile.TemporaryDirectory() as scratch:
        raw = Path(scratch) / "base.onnx"
        export.export_base(load_base(folder / "draft" / "base.pt"), raw, fold=True)
        paths = {**verified_files(card, weights), "base": raw}
        return CascadeGenerator(card, CascadeOnnx(paths, threads=threads))


def measure_family(folder: Path, weights: Path, count: int, threads: int) -> None:
    """Measure times, then quality; rewrite both cards and write report and contact sheets into `folder`."""
    times = {name: time_model(name, threads, weights) for name in (DRAFT, CLOUD)}
    draft, cloud = (open_generator(name, threads=threads, weights=weights) for name in (DRAFT, CLOUD))
    family = report.Family(
        draft,
        _whole_draft(folder, weights, threads),
        cloud,
        Recipe(LIMITS[DRAFT].steps_default, LIMITS[DRAFT].guidance_default, 128),
        Recipe(LIMITS[CLOUD].steps_default, LIMITS[CLOUD].guidance_default, 256),
        REFINE.steps,
        REFINE.t0,
    )
    evaluation = report.Evaluation(family, load_judge(folder / "judge.pt"), count, print)
    figures, sheets = evaluation.run()
    figures["hardware"] = hardware_name()
    report.write(figures, sheets, folder / "report")
    for name, quality in card_quality(figures).items():
        write_card(name, weights, (times[name],), quality)
    print((folder / "report" / "report.md").read_text(encoding="utf-8"))
