"""Which version of a model serves a request: as schedulers have told, the same for all requests of a session."""

from __future__ import annotations

import json

from adaptivegen.desired import DesiredModels
from adaptivegen.errors import AdaptiveGenError
from adaptivegen.models.card import ModelCard
from adaptivegen.models.lines import Line
from adaptivegen.models.registry import ModelLibrary
from adaptivegen.request import GenerationRequest
from adaptivegen.telemetry import get_logger


class Versions:
    """The versions in force, as cards. Raises ModelNotFound for a model that is not installed here."""

    def __init__(self, desired: DesiredModels, library: ModelLibrary) -> None:
        self._desired = desired
        self._library = library
        self._missing: set[str] = set()  # as said

    def stable(self, model: str) -> ModelCard:
        """The card by which requests of a model are checked: a version that is tried can do all that this one can."""
        return self._card(self._line(model).stable, model)

    def of(self, request: GenerationRequest, tenant: str) -> ModelCard:
        """The version for a tenant's request, whose seed is drawn.

        A session stays with one; of a request without a session its repeats do, which finds them in the cache.
        """
        return self._card(self._line(request.model).version_of(sticky(request, tenant)), request.model)

    def still(self, model: str, version: str) -> ModelCard:
        """The version that a job was placed for, as long as it serves; else the one that does."""
        line = self._line(model)
        return self._card(version if version in line.versions else line.stable, model)

    def card(self, version: str) -> ModelCard:
        """Of a version as it was just named here."""
        return self._library.card(version)

    def _line(self, model: str) -> Line:
        self._library.folder(model)  # raises for a model that is not here
        return self._desired.of(model)

    def _card(self, version: str, model: str) -> ModelCard:
        """Of a version that is not installed here the edge cannot tell what it is; the workers serve the model by it
        all the same, and the final is not kept for repeats."""
        try:
            return self._library.card(version)
        except AdaptiveGenError as exc:  # also one of a newer software's, which this one cannot read
            if version == model:
                raise
            if version not in self._missing:
                self._missing.add(version)
                get_logger().warning("version_not_installed", model=model, version=version, error=exc.message)
            return self._library.card(model)


def sticky(request: GenerationRequest, tenant: str) -> str:
    """What stays with one version: a tenant's session; of a request without one what its repeats have in common."""
    asked = [request.session] if request.session else [request.prompt, request.seed]
    return json.dumps([tenant, *asked])
