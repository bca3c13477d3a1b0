"""JSON that others wrote, read as a model or refused by the field that is wrong."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from adaptivegen.errors import InvalidRequest

Model = TypeVar("Model", bound=BaseModel)


def parsed(model: type[Model], data: bytes | str, *, name: str) -> Model:
    """The model in `data`; raises InvalidRequest naming `name` and the field."""
    try:
        return model.model_validate_json(data)
    except ValidationError as exc:
        field, value, allowed = first_fault(exc, whole=name)
        raise InvalidRequest.field(f"{name}.{field}", value, allowed) from exc


def first_fault(error: ValidationError, *, whole: str) -> tuple[str, object, str]:
    """The first field that is wrong, its value, and what is said of it; whole: what is named where it is no field."""
    first = error.errors(include_url=False)[0]
    return ".".join(str(part) for part in first["loc"]) or whole, first["input"], first["msg"]
