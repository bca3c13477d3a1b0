"""JSON that others wrote, read as a model or refused by the field that is wrong."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from adaptivegen.errors import InvalidRequest

Model = TypeVar("Model", bound=BaseModel)


def parsed(model: type[Model], data: bytes, *, name: str) -> Model:
    """The model in `data`; raises InvalidRequest naming `name` and the field."""
    try:
        return model.model_validate_json(data)
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or name
        raise InvalidRequest.field(f"{name}.{field}", first["input"], first["msg"]) from exc
