"""A model child for the tests: a real child process with a model that does what its prompt says.

`python -m tests.integration.obedient_model [refuse | die]`.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable

import numpy as np

from adaptivegen.child.serve import Channel
from adaptivegen.errors import InvalidRequest, ModelDigestMismatch
from adaptivegen.generation.child import serve
from adaptivegen.models.base import Clip, GenerationCancelled, GenerationInput, Generator, StepReport, Task
from adaptivegen.models.card import ModelCard
from tests.cards import draft_card


class ObedientModel:
    """Prompts: forever, deaf (no cancel stops it), die, refuse, bug, silent; any other makes a plain clip."""

    def __init__(self) -> None:
        self.card: ModelCard = draft_card()

    def generate(
        self,
        request: GenerationInput,
        *,
        start: Clip | None = None,
        strength: float | None = None,
        task: Task = "restyle",
        on_step: Callable[[StepReport], None],
        should_stop: Callable[[], bool],
    ) -> Clip:
        """Make a grey clip of the size asked for, brighter when there is a start."""
        look = np.full((1, 32, 32, 3), 90, np.uint8)
        step = 0
        while step < request.steps or request.prompt in ("forever", "deaf"):
            if should_stop() and request.prompt != "deaf":
                raise GenerationCancelled("stopped")
            step += 1
            known = None if request.prompt == "unmeasured" else 0.75
            on_step(StepReport(step=step, steps=request.steps, stage="base", look=look, familiarity=known))
            threading.Event().wait(0.002)
            match request.prompt:
                case "die":
                    os.kill(os.getpid(), signal.SIGKILL)
                case "refuse":
                    raise InvalidRequest.field("steps", request.steps, "1")
                case "bug":
                    raise ZeroDivisionError("a bug")
                case "silent":
                    threading.Event().wait()
        shade = 200 if start is not None else 40
        return np.full((request.frames, request.height, request.width, 3), shade, np.uint8)


def open_model() -> Generator:
    """The model, or what the argument says."""
    if sys.argv[1:] == ["refuse"]:
        raise ModelDigestMismatch("the weights are not the card's")
    if sys.argv[1:] == ["die"]:
        os.kill(os.getpid(), signal.SIGKILL)
    return ObedientModel()


if __name__ == "__main__":
    serve(Channel(), open_model)
