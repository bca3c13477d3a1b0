"""Least recently used, bounded by bytes, sparing what is pinned."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cdn_cache.eviction.lru import Lru


def test_the_least_recently_read_goes_first() -> None:
    policy = Lru(30)
    for key in "abc":
        assert policy.admit(key, 10, pinned=()) == []
    policy.touch("a")
    assert policy.admit("d", 15, pinned=()) == ["b", "c"]
    assert policy.used_bytes == 25


def test_pinned_objects_stay() -> None:
    policy = Lru(30)
    for key in "abc":
        policy.admit(key, 10, pinned=())
    assert policy.admit("d", 10, pinned={"a"}) == ["b"]
    assert policy.admit("e", 30, pinned={"a"}) is None
    assert policy.used_bytes == 30


def test_what_is_larger_than_the_cache_is_not_kept_and_evicts_nothing() -> None:
    policy = Lru(30)
    policy.admit("a", 10, pinned=())
    assert policy.admit("huge", 31, pinned=()) is None
    assert policy.used_bytes == 10


def test_a_resident_is_not_counted_twice() -> None:
    policy = Lru(30)
    policy.admit("a", 10, pinned=())
    assert policy.admit("a", 10, pinned=()) == []
    policy.remove("a")
    policy.remove("a")
    assert policy.used_bytes == 0


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abcdefgh"),
            st.integers(0, 50),
            st.sampled_from(["admit", "touch", "remove"]),
            st.sets(st.sampled_from("abcdefgh")),
        )
    )
)
def test_the_bound_holds_and_the_books_agree(steps: list[tuple[str, int, str, set[str]]]) -> None:
    policy, model = Lru(100), dict[str, int]()
    for key, size_bytes, step, pinned in steps:
        if step == "admit":
            victims = policy.admit(key, size_bytes, pinned=pinned)
            if victims is not None:
                assert not pinned & set(victims)
                for victim in victims:
                    del model[victim]
                model.setdefault(key, size_bytes)
        elif step == "touch":
            policy.touch(key)
        else:
            policy.remove(key)
            model.pop(key, None)
        assert policy.used_bytes == sum(model.values()) <= 100
