"""One line of the zoo's table of measured figures."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One measured figure.

    Attributes:
        name: the model.
        measure: what was measured, and how.
        values: one number per seed, or per set drawn.
        bar: what the mean must reach; None if nothing is asked.
        at_least: whether the bar is a lower bound.
    """

    name: str
    measure: str
    values: tuple[float, ...]
    bar: float | None = None
    at_least: bool = True

    @property
    def mean(self) -> float:
        """Mean of the values."""
        return sum(self.values) / len(self.values)

    @property
    def spread(self) -> float:
        """Half the distance from the smallest to the largest value."""
        return (max(self.values) - min(self.values)) / 2

    @property
    def figure(self) -> str:
        """Mean and spread as text; a single value stands alone."""
        return f"{self.mean:.4g} ± {self.spread:.2g}" if len(self.values) > 1 else f"{self.mean:.4g}"

    @property
    def passed(self) -> bool:
        """Whether the mean reaches the bar (True without a bar)."""
        return self.bar is None or (self.mean >= self.bar if self.at_least else self.mean <= self.bar)
