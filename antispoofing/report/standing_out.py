"""Groups of clips in which a detector errs more, or less, than elsewhere, by more than chance.

The level of the tests is divided by their number (Bonferroni). Where no group stands out, the text says what
the tests would probably have missed.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy  # scipy.stats, which takes half a second to import, is loaded on first use

from antispoofing import uncertainty
from antispoofing.classes import CLASSES
from antispoofing.report.wording import LEVEL, at_level, hundredths, share
from antispoofing.scoring.clusters import Clustering
from antispoofing.text import printable

POWER = 0.8  # how often a group must stand out before its error rate counts as one that would be noticed


class Comparison(NamedTuple):
    """A group of clips of one class, and the other clips of that class; masks [n] of the recordings."""

    title: str
    group: str
    label: str
    inside: np.ndarray
    outside: np.ndarray
    clustering: Clustering

    def is_known(self, others: Sequence[Comparison]) -> bool:
        """Whether one of the others compares the same clips the other way round."""
        return any(
            other.title == self.title and np.array_equal(other.outside, self.inside) for other in others
        )

    def p_value(self, wrong: np.ndarray) -> float | None:
        """Test whether errors, bool [n], are as frequent inside as outside; see `uncertainty.p_of_shares`."""
        members = self.inside | self.outside
        return uncertainty.p_of_shares(wrong[members], self.inside[members], self.clustering.among(members))


def standing_out(wrong: np.ndarray, comparisons: Sequence[Comparison]) -> str:
    """Say in which groups errors are more, or less, frequent than elsewhere, beyond chance.

    Args:
        wrong: Which recordings are misjudged, bool [n].
        comparisons: The groups.
    """
    if not comparisons:
        return "All clips of each class fall into one group, so there is nothing to compare."
    p_values = [comparison.p_value(wrong) for comparison in comparisons]
    tested = [(c, p) for c, p in zip(comparisons, p_values, strict=True) if p is not None]
    untold = len(comparisons) - len(tested)
    left = ""
    if untold:
        left = (
            f" In {untold} of {len(comparisons)} comparisons, the clips come from too few speakers, sources "
            "or systems to be tested."
        )
    if not tested:
        return f"It cannot be told whether a group stands out.{left}"
    found = []
    for comparison, p_value in tested:
        if p_value * len(tested) >= LEVEL:
            continue
        word, error = next((word, error) for label, word, error in CLASSES if label == comparison.label)
        shares = (
            share(wrong, part, comparison.clustering) for part in (comparison.inside, comparison.outside)
        )
        found.append(
            f"- {comparison.title} {printable(comparison.group)}: of its {word} clips, {next(shares)} are "
            f"{error}; of all other {word} clips, {next(shares)}."
        )
    test = f"Fisher's exact test {at_level(len(tested))}"
    if any(comparison.clustering.is_known for comparison, _ in tested):
        test += ", and a test that allows for clips that belong together"
    if found:
        return "\n".join([f"These groups stand out ({test}):{left}", "", *found])
    return (
        f"No group stands out from the other clips of its class beyond chance ({test}). "
        f"{_power(wrong, [comparison for comparison, _ in tested])}{left}"
    )


def _power(wrong: np.ndarray, comparisons: Sequence[Comparison]) -> str:
    """Say how many errors it takes for a group to stand out: what the tests would probably have missed."""
    needed = []
    for comparison in comparisons:
        n, outside = int(comparison.inside.sum()), int(comparison.outside.sum())
        errors = int(wrong[comparison.outside].sum())
        level = LEVEL / len(comparisons)
        # The fewest errors in the group that stand out; they get no less significant as they grow.
        fewest = bisect.bisect_left(
            range(n + 1),
            True,
            key=lambda k: (
                k / n > errors / outside and uncertainty.p_of_counts((k, n), (errors, outside)) < level
            ),
        )
        needed.append(1.0 if fewest > n else float(scipy.special.betaincinv(fewest, n - fewest + 1, POWER)))
    least = float(np.median(needed))
    if least > 0.99:
        return "But the groups are so small that hardly any number of errors would stand out."
    higher = (
        ", or even higher, since clips belong together"
        if any(c.clustering.is_known for c in comparisons)
        else ""
    )
    return (
        f"Half of the groups are so small that only an error rate of {hundredths(least)} % or more{higher}, "
        f"would stand out in {100 * POWER:.0f} % of such sets."
    )
