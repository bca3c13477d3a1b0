"""What was asked, from path, query and body: read strictly, and refused by the field that is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from pydantic import ValidationError
from starlette.requests import Request

from adaptivegen.errors import InvalidRequest
from adaptivegen.http_json import read_json
from scheduler.api.messages import Asked
from scheduler.api.operations import Operation

MAX_BODY_BYTES = 64 * 1024
BODY_TYPE = "application/json"


async def read_asked(operation: Operation, request: Request) -> Asked:
    """What an operation takes. Raises InvalidRequest naming field, value and limit, PayloadTooLarge, RequestTimeout."""
    path = {name: request.path_params[name] for name in operation.in_path}
    if operation.method == "GET":
        query = _query(request)
        _refuse_unknown(query, operation, "query")
        return _checked(lambda: operation.asked.model_validate_strings({**query, **path}))
    refuse_other_types(request)
    body = await read_json(request, max_bytes=MAX_BODY_BYTES)
    _refuse_unknown(body, operation, "body")
    # As text again: what JSON may hold and text may not (half a character) is refused with the rest.
    whole = json.dumps({**body, **path})
    return _checked(lambda: operation.asked.model_validate_json(whole))


def refuse_other_types(request: Request) -> None:
    """Raise InvalidRequest for a body that does not say it is JSON: a page of another site can send any other without
    being asked whether it may."""
    given = request.headers.getlist("content-type")
    if len(given) != 1 or given[0].partition(";")[0].strip().lower() != BODY_TYPE:
        raise InvalidRequest.field("content-type", ", ".join(given), BODY_TYPE)


def _query(request: Request) -> dict[str, str]:
    pairs = request.query_params.multi_items()
    query = dict(pairs)
    if len(query) != len(pairs):
        names = [name for name, _ in pairs]
        raise InvalidRequest.field("query", next(name for name in names if names.count(name) > 1), "each name once")
    return query


def _refuse_unknown(given: Mapping[str, object], operation: Operation, where: str) -> None:
    unknown = sorted(set(given) - set(operation.elsewhere))
    if unknown:
        raise InvalidRequest.field(where, unknown[0], ", ".join(operation.elsewhere) or "nothing")


def _checked(validate: Callable[[], Asked]) -> Asked:
    """The model; raises InvalidRequest for the first field that is wrong."""
    try:
        return validate()
    except ValidationError as exc:
        raise _refused(exc) from exc


def _refused(exc: ValidationError) -> InvalidRequest:
    first = exc.errors(include_url=False)[0]
    name = ".".join(str(part) for part in first["loc"])[:120] or "body"
    if first["type"] == "json_invalid":
        return InvalidRequest("the body holds half a character (a lone surrogate)", param="body")
    if first["type"] == "missing":
        return InvalidRequest.field(name, "nothing", "a value: there is none by default")
    limit = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return InvalidRequest.field(name, first["input"], limit)
