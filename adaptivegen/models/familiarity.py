"""What is said of a prompt that a model knows little of. Pure.

Familiarity is the cosine between a prompt and the nearest caption of the model's world. Pocket's own captions have 0.6
and more, other words for the same things 0.5 and more, prompts about something else mostly 0.1 to 0.5.
"""

UNFAMILIAR = 0.5


def doubt(familiarity: float | None) -> str | None:
    """A sentence for the user where the prompt is unlike all the model knows, else None."""
    if familiarity is None or familiarity >= UNFAMILIAR:
        return None
    return f"the model knows little of what this prompt asks for (familiarity {familiarity:.2f} of 1)"
