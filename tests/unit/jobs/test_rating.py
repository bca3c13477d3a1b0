"""What a rating tells of the video that was rated."""

from adaptivegen.experience import Experience
from adaptivegen.jobs.rating import decode_rating, rating_of
from adaptivegen.jobs.record import new_record
from tests.jobs import make_request, make_spec


def test_a_rating_tells_the_session_and_those_of_earlier_versions_none() -> None:
    spec = make_spec().model_copy(update={"request": make_request(session="s-7")})
    rating = rating_of(Experience(stars=4), new_record(spec), spec, at_ns=1)
    assert rating.session == "s-7" and decode_rating(rating.encode()) == rating
    earlier = decode_rating(rating.model_dump_json(exclude={"session"}).encode())
    assert earlier is not None and earlier.session == ""
