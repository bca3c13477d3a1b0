"""How much more than once work may be asked for: a share of what is asked for at all, so that retries and second copies
cannot feed an overload (Finagle's retry budget). Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Budget:
    """`share` of all first attempts may be repeated; up to `most` are saved up, and some are there at the start."""

    share: float
    most: float
    left: float

    def deposit(self) -> None:
        """A first attempt was made."""
        self.left = min(self.most, self.left + self.share)

    def withdraw(self) -> bool:
        """Whether one more attempt may be made; if so, it is counted."""
        if self.left < 1.0:
            return False
        self.left -= 1.0
        return True


class Budgets:
    """Of one edge's drafts: for second tries, for waiting at two edges, for being made twice."""

    def __init__(self) -> None:
        self.retries, self.ties, self.hedges = retry_budget(), tie_budget(), hedge_budget()

    def deposit(self) -> None:
        """A draft is to be made."""
        for budget in (self.retries, self.ties, self.hedges):
            budget.deposit()


def retry_budget() -> Budget:
    """A fifth of all drafts may be tried again elsewhere."""
    return Budget(share=0.2, most=10.0, left=3.0)


def tie_budget() -> Budget:
    """A fifth of all drafts may wait at two edges: all but those that both begin at the same moment are made once."""
    return Budget(share=0.2, most=10.0, left=3.0)


def hedge_budget() -> Budget:
    """A twentieth of all drafts may be made twice."""
    return Budget(share=0.05, most=3.0, left=1.0)
