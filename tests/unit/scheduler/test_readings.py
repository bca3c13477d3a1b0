"""What is read off cards is what the cards say, also when a card is replaced and when there are many shapes."""

from scheduler.decide.qoe import quality_of
from scheduler.decide.readings import MAX_READ, Readings
from scheduler.decide.work import draft_shape, draft_work, work_of
from tests.unit.scheduler.builders import cloud_card, draft_card


def test_readings_are_those_of_the_card_whatever_was_read_before() -> None:
    readings, cloud, draft = Readings(), cloud_card(), draft_card()
    for number in range(2 * (MAX_READ + 2)):  # each shape twice, more of them than are kept
        width = 16 + number % (MAX_READ + 2)
        shape = {"width": width, "height": 64, "frames": 24}
        assert readings.work(cloud, steps=8, **shape) == work_of(cloud, steps=8, **shape)
        assert readings.draft_shape(draft, **shape) == draft_shape(draft, **shape)
        assert readings.draft_work(draft, **shape) == draft_work(draft, **shape)
        for assumed in (2.0, 3.0):
            read = readings.quality(cloud, "refine", steps=8, width=width, height=64, assumed=assumed)
            assert read == quality_of(cloud, "refine", steps=8, width=width, height=64, assumed=assumed)


def test_a_card_that_is_replaced_is_read_anew() -> None:
    readings, shape = Readings(), {"width": 256, "height": 256, "frames": 24}
    assert readings.work(cloud_card(), steps=8, **shape) is not None
    assert readings.work(cloud_card(profiled=False), steps=8, **shape) is None
