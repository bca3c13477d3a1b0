"""Retries and second copies are a share of all drafts."""

from edge_node.draft.budget import Budgets, hedge_budget, retry_budget


def test_a_share_of_the_first_attempts_may_be_repeated() -> None:
    budget = retry_budget()
    repeated = 0
    for _ in range(1000):
        budget.deposit()
        repeated += budget.withdraw()
    assert 200 <= repeated <= 204


def test_what_is_saved_up_is_bounded() -> None:
    budget = hedge_budget()
    for _ in range(10_000):
        budget.deposit()
    assert sum(budget.withdraw() for _ in range(100)) == 3


def test_without_first_attempts_there_is_little_to_repeat() -> None:
    assert sum(hedge_budget().withdraw() for _ in range(1)) == 1
    budget = retry_budget()
    assert sum(budget.withdraw() for _ in range(100)) == 3


def test_each_kind_of_second_copy_has_a_budget_of_its_own() -> None:
    budgets = Budgets()
    for _ in range(100):
        budgets.deposit()
        budgets.ties.withdraw()
    assert not budgets.ties.withdraw()
    assert budgets.hedges.withdraw() and budgets.retries.withdraw()
