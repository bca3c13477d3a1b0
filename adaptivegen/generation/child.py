"""The child's side: opens one model, then generates on command, reporting each step, stoppable between steps.

Runs synchronously in its own process, so that a model never blocks a service's loop and can be killed. Which model and
backend is the caller's choice (`open_model`); what it may be asked is in `messages`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from adaptivegen.child.serve import Channel
from adaptivegen.errors import AdaptiveGenError, Cancelled, InternalError
from adaptivegen.generation.messages import GenerateCommand, error_header
from adaptivegen.media.mp4 import decode_video, encode_jpeg, encode_mp4
from adaptivegen.models.base import Clip, Generator, StepReport


def serve(channel: Channel, open_model: Callable[[], Generator]) -> None:
    """Open the model and answer commands until the parent closes the channel."""
    started_s = time.perf_counter()
    try:
        model = open_model()
    except AdaptiveGenError as exc:
        channel.write(error_header(exc))
        return
    channel.write({"type": "ready", "model": model.card.name, "load_ms": _ms_since(started_s)})
    while (message := channel.read()) is not None:
        header, blobs = message
        if header.get("type") != "generate":
            continue  # a cancel that came after its generation ended
        command = GenerateCommand.from_header(header)
        try:
            _generate(channel, model, command, bytes(blobs["start"]) if "start" in blobs else None)
        except AdaptiveGenError as exc:
            channel.write(error_header(exc, command.request_id))
        except Exception as exc:  # a bug in a model must reach the client as a typed error, not as silence
            error = InternalError(f"{type(exc).__name__} in the model: {exc}")
            channel.write(error_header(error, command.request_id))


def _generate(channel: Channel, model: Generator, command: GenerateCommand, start_mp4: bytes | None) -> None:
    """One generation: step reports, then `done` with the MP4."""
    start: Clip | None = decode_video(start_mp4)[0] if start_mp4 is not None else None
    started_s = time.perf_counter()

    def stop() -> bool:
        return channel.cancelled(command.request_id)

    familiarity: float | None = None

    def report(step: StepReport) -> None:
        nonlocal familiarity
        familiarity = step.familiarity if step.familiarity is not None else familiarity
        header = {
            "type": "step",
            "request_id": command.request_id,
            "step": step.step,
            "steps": step.steps,
            "stage": step.stage,
        }
        if command.want_looks and step.look is not None:
            channel.write(header, {"look": encode_jpeg(step.look[0])})
        else:
            channel.write(header)

    clip = model.generate(
        command.request,
        start=start,
        strength=command.strength if start is not None else None,
        task=command.task,
        on_step=report,
        should_stop=stop,
    )
    generate_ms = _ms_since(started_s)
    if stop():
        raise Cancelled(f"generation {command.request_id} was cancelled")
    started_s = time.perf_counter()
    mp4 = encode_mp4(clip, command.fps)
    frames, height, width, _ = clip.shape
    done = {
        "type": "done",
        "request_id": command.request_id,
        "width": width,
        "height": height,
        "frames": frames,
        "generate_ms": generate_ms,
        "encode_ms": _ms_since(started_s),
        "familiarity": familiarity,
    }
    channel.write(done, {"mp4": mp4})


def _ms_since(started_s: float) -> float:
    return round((time.perf_counter() - started_s) * 1e3, 3)
