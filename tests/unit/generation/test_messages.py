"""Commands and errors between a service and its model child, as JSON and back."""

import json

import pytest

from adaptivegen.errors import STATUS, AdaptiveGenError
from adaptivegen.generation.messages import GenerateCommand, error_header, raised
from adaptivegen.models.base import GenerationInput


@pytest.mark.parametrize("strength", [None, 0.25])
def test_a_command_is_the_same_after_the_wire(strength: float | None) -> None:
    request = GenerationInput(prompt="é", seed=2**62, width=64, height=32, frames=4, steps=3, guidance=1.5)
    command = GenerateCommand(request_id="r", request=request, fps=12, strength=strength, want_looks=True)
    assert GenerateCommand.from_header(json.loads(json.dumps(command.header()))) == command


@pytest.mark.parametrize("cls", [cls for cls in STATUS if cls is not AdaptiveGenError])
def test_an_error_is_raised_as_what_it_was(cls: type[AdaptiveGenError]) -> None:
    error = raised(json.loads(json.dumps(error_header(cls("why", param="steps"), "r"))))
    assert (type(error), error.message, error.param) == (cls, "why", "steps")


def test_an_error_without_a_request_is_a_model_that_could_not_be_opened() -> None:
    assert error_header(AdaptiveGenError("why"))["type"] == "failed"
    assert error_header(AdaptiveGenError("why"), "r")["type"] == "error"
