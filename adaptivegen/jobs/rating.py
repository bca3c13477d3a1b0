"""How a person found a video, with what their client saw: times until it was there, and stalls while it played. Pure.

Ratings are objects `ratings/<tenant>/<id>`: of several of one video the last counts. From them the anchors of the QoE
function are fitted, so a rating says what the clip was made of, too: how good such clips are is known from the models'
cards.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adaptivegen.experience import LONGEST_WAIT_S, Experience
from adaptivegen.jobs.record import JobRecord
from adaptivegen.jobs.spec import JobSpec, Media

PREFIX = "ratings/"
Wait = Annotated[float, Field(ge=0.0, le=LONGEST_WAIT_S)]
Size = Annotated[str, Field(pattern=r"^([1-9][0-9]{0,4}x[1-9][0-9]{0,4})?$")]


class Rating(BaseModel):
    """One stored rating. Sizes are WxH and steps counts of what the person saw; empty and 0 where there was none.

    upgraded: the final was asked for later, so that its wait holds the time in which the person looked at the draft;
    made_with, drafted_with: the versions of the models that made final and draft, where that was noted; session: the
    request's, empty where it named none, and in ratings of earlier versions.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    tenant: str
    at_ns: Annotated[int, Field(ge=0)]
    intent: Literal["iterate", "render"]
    session: str = ""
    plan: str
    upgraded: bool = False
    stars: Annotated[int, Field(ge=1, le=5)]
    draft_wait_s: Wait | None = None
    final_wait_s: Wait | None = None
    stalls: Annotated[int, Field(ge=0)] = 0
    stalled_s: Wait = 0.0
    draft_model: str
    drafted_with: str = ""
    draft_size: Size = ""
    draft_steps: Annotated[int, Field(ge=0)] = 0
    cloud_model: str
    made_with: str = ""
    final_size: Size = ""
    final_steps: Annotated[int, Field(ge=0)] = 0

    @property
    def tells(self) -> bool:
        """Whether its stars say how long waits are found: the client saw all that was made, had asked for it at once,
        and then nothing stopped the clip from playing, of which the stars would speak as well."""
        unseen = (self.draft_size and self.draft_wait_s is None) or (self.final_size and self.final_wait_s is None)
        stalled = self.stalls > 0 or self.stalled_s > 0.0
        return not (unseen or self.upgraded or stalled)

    @property
    def key(self) -> str:
        """Where it is stored."""
        return f"{PREFIX}{self.tenant}/{self.id}"

    def encode(self) -> bytes:
        """JSON as stored."""
        return self.model_dump_json().encode()


def rating_of(said: Experience, record: JobRecord, spec: JobSpec, *, at_ns: int) -> Rating:
    """A rating of a video as it is now; raises InvalidRequest for numbers out of range."""
    said.check()
    return Rating(
        id=record.id,
        tenant=record.tenant,
        at_ns=at_ns,
        intent=spec.request.intent,
        session=spec.request.session,
        plan=record.plan,
        upgraded=spec.upgrade,
        stars=said.stars,
        draft_wait_s=said.draft_wait_s,
        final_wait_s=said.final_wait_s,
        stalls=said.stalls,
        stalled_s=said.stalled_s,
        draft_model=spec.draft_model,
        drafted_with=record.drafted_with,
        draft_size=_size(record.draft),
        draft_steps=record.draft_steps if record.draft else 0,
        cloud_model=spec.cloud_model,
        made_with=record.made_with,
        final_size=_size(record.final),
        final_steps=record.final_steps if record.final else 0,
    )


def decode_rating(data: bytes) -> Rating | None:
    """A stored rating; None for one that this version cannot read."""
    try:
        return Rating.model_validate_json(data)
    except ValidationError:
        return None


def _size(media: Media | None) -> str:
    return f"{media.width}x{media.height}" if media is not None else ""
