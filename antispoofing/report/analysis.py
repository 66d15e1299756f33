"""An analysis of one detector in words: how good it is, how sure that is, and where it fails.

Every sentence follows an interval or a test, never the sign of a figure alone. AUC and EER have bootstrap
intervals (`metrics.py`), and shares of clips have Wilson's. Two shares are compared by Fisher's exact test at
5 %, divided by the number of comparisons where several are made at once (Bonferroni).

Convention: a score is logit 1 (bona fide), higher = more likely real.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import scipy  # scipy.stats, which takes half a second to import, is loaded on first use
from tqdm import tqdm

from antispoofing import metrics
from antispoofing.classes import CLASSES, FAKE, REAL
from antispoofing.report.groups import is_whole, property_groups, with_other_class
from antispoofing.scoring.scored import Scored
from antispoofing.text import printable

LEVEL = 0.05  # significance level of every test
MOST_CLIPS = 5  # number of misjudged clips of each class to name


def analyse(
    name: str,
    scored: Scored,
    summary: dict,
    properties: Mapping[str, Sequence[str]],
    threshold: float | None = None,
    seed: int = 0,
) -> str:
    """Write an analysis of one detector in Markdown.

    Args:
        name: Name of the detector.
        scored: Its scores of recordings of both classes.
        summary: The figures of these scores, from `summarise`.
        properties: Properties of the recordings, from `groups.clip_properties`.
        threshold: A threshold chosen on other data; None counts errors by group at the EER threshold.
        seed: Seed of the bootstrap resampling.
    """
    at_eer = summary["metrics"]["threshold_at_eer_chosen_on_this_set"]
    limit = at_eer if threshold is None else threshold
    at = "the EER threshold" if threshold is None else f"threshold {threshold:g}"
    parts = [
        f"## {printable(name)}",
        _how_good(summary),
        _decisions(scored, threshold),
        *_where(scored, properties, limit, at, seed),
        *_unlike_classes(scored, properties),
        _worst_clips(scored, limit),
    ]
    return "\n\n".join(part for part in parts if part)


def _how_good(summary: dict) -> str:
    auc, eer = summary["metrics"]["auc"], summary["metrics"]["eer"]
    (low, high), (eer_low, eer_high) = (summary["intervals_95"][name] for name in ("auc", "eer"))
    words = (
        f"**How good is it?** Given a random real clip and a random fake one, the real one scores higher in "
        f"{hundredths(auc)} of 100 cases (AUC {auc:.3f}, 95 % interval {low:.3f} to {high:.3f}; guessing "
        "gives 0.5). "
    )
    if summary["reversed"]:
        words += (
            "The interval lies entirely below 0.5: the scores point the wrong way. Either the labels or the "
            "scores are reversed, or the detector fails on this data; the figures alone cannot tell which."
        )
    elif summary["better_than_chance"]:
        words += "The interval lies entirely above 0.5: on this data, the detector can tell real from fake."
    elif low <= 0.5 <= high:
        words += (
            "The interval includes 0.5: these clips do not show that the detector can tell real from fake."
        )
    else:
        words += (
            "With so few clips, that interval is too narrow, and by a Mann-Whitney test the order of the "
            "scores may be due to chance: these clips do not show that the detector can tell real from fake."
        )
    words += (
        " At the threshold where both kinds of error are equally frequent, "
        f"{_percent(eer, eer_low, eer_high)} of the clips of each class are misjudged (EER)"
    )
    if eer < 0.5:
        words += "; that threshold was chosen on this very set, so expect more errors on new clips"
    return words + (
        ". The intervals assume that the clips are independent, which clips of the same speaker or the same "
        "synthesis system are not."
    )


def _decisions(scored: Scored, threshold: float | None) -> str:
    """Say how many real clips are rejected and fake ones accepted, and whether one is more frequent."""
    verdicts = np.array(scored.verdicts(threshold))
    errors = {}
    for label, other in ((REAL.label, FAKE.label), (FAKE.label, REAL.label)):
        called = verdicts[scored.mask(label)]
        errors[label] = (int((called == other).sum()), len(called))
    how = "by the larger of the two logits"
    if threshold is not None:
        how = f"at threshold {threshold:g}, chosen on other data"
    words = (
        f"**Its decisions**, {how}: of the real clips, {share(*errors[REAL.label])} are rejected; of the "
        f"fake clips, {share(*errors[FAKE.label])} are accepted. "
    )
    if p_value(errors[REAL.label], errors[FAKE.label]) >= LEVEL:
        return words + "The data do not show that one kind of error is more frequent than the other."
    more = max(errors, key=lambda label: errors[label][0] / errors[label][1])
    return words + f"The detector leans towards calling clips {'fake' if more == REAL.label else 'real'}."


def _where(
    scored: Scored, properties: Mapping[str, Sequence[str]], threshold: float, at: str, seed: int
) -> list[str]:
    """Return a table of errors for each property, and a paragraph on the groups that stand out."""
    wrong = misjudged(scored, threshold)
    tables, found, comparisons = [], [], []
    for title, groups in property_groups(scored, properties).items():
        rows = [[title, "real", "rejected", "fake", "accepted", "AUC [95 %]"]]
        for number, (group, members) in enumerate(with_progress(title, groups)):
            row = [group]
            for label, _, _ in CLASSES:
                inside, outside = members & scored.mask(label), ~members & scored.mask(label)
                errors = _count(wrong, inside), _count(wrong, outside)
                row += [str(errors[0][1]), share(*errors[0]) if errors[0][1] else ""]
                if errors[0][1] and errors[1][1] and (number == 0 or len(groups) > 2):
                    comparisons.append((title, group, label, *errors))
            rows.append([*row, _auc(scored, members, seed)])
        tables.append(table(rows))
    if not tables:
        return []
    for title, group, label, inside, outside in comparisons:
        if p_value(inside, outside) * len(comparisons) >= LEVEL:
            continue
        word, error = next((word, error) for known, word, error in CLASSES if known == label)
        found.append(
            f"- {title} {printable(group)}: of its {word} clips, {share(*inside)} are {error}; of all other "
            f"{word} clips, {share(*outside)}."
        )
    words = (
        f"**Where it fails.** The tables count errors at {at}, with 95 % intervals. For a group with clips "
        "of only one class, the AUC compares these with all clips of the other class."
    )
    test = f"Fisher's exact test {at_level(len(comparisons))}"
    if found:
        verdict = "\n".join([f"These groups stand out ({test}):", "", *found])
    elif comparisons:
        verdict = f"No group stands out from the other clips of its class beyond chance ({test})."
    else:
        verdict = "All clips of each class fall into one group, so there is nothing to compare."
    return [words, *tables, verdict]


def _unlike_classes(scored: Scored, properties: Mapping[str, Sequence[str]]) -> list[str]:
    """Caution against properties in which the classes differ: the score may measure these instead."""
    found = []
    candidates = property_groups(scored, properties)
    candidates.pop("subfolder", None)  # it often names the synthesis system
    for title, groups in candidates.items():
        counts = np.array(
            [[(members & scored.mask(label)).sum() for label, _, _ in CLASSES] for members in groups.values()]
        )
        if not counts.sum(axis=0).all():
            continue  # a property that only one class has, such as the attack
        if scipy.stats.chi2_contingency(counts, correction=False).pvalue < LEVEL / len(candidates):
            found.append(f"{title} (Cramér's V {scipy.stats.contingency.association(counts):.2f})")
    if not found:
        return []
    return [
        f"**A caution about the data.** Real and fake clips differ in {', '.join(found)}. Cramér's V is 0 if "
        "a property is distributed alike in both classes, and 1 if the property alone tells the classes "
        "apart. The figures above may reflect such differences rather than the voices."
    ]


def _worst_clips(scored: Scored, threshold: float) -> str:
    """Name the misjudged clips with the scores farthest from the threshold."""
    wrong, lines = misjudged(scored, threshold), []
    for label, word, error in CLASSES:
        indices = np.flatnonzero(wrong & scored.mask(label))
        indices = indices[np.argsort(-np.abs(scored.scores[indices] - threshold), kind="stable")][:MOST_CLIPS]
        clips = ", ".join(
            f"`{printable(scored.utterances[i].name)}` ({scored.scores[i]:.2f})" for i in indices.tolist()
        )
        if clips:
            lines.append(f"- {word} clips {error} by the widest margin: {clips}")
    if not lines:
        return f"No clip lies on the wrong side of the threshold, {threshold:.4g}."
    return "\n".join([f"**Worth listening to** (scores in brackets, threshold {threshold:.4g}):", "", *lines])


def at_level(comparisons: int) -> str:
    """Describe the level at which each of several comparisons is tested."""
    level = f"at {100 * LEVEL:g} %"
    return f"{level}, Bonferroni-corrected for {comparisons} comparisons" if comparisons > 1 else level


def with_progress(title: str, groups: Mapping[str, np.ndarray]) -> tqdm:
    """Return a property's groups and their members, with a progress bar if they take long."""
    what = f"analysis, {printable(title)}"
    return tqdm(groups.items(), desc=what, unit="group", leave=False, delay=2, disable=None)


def misjudged(scored: Scored, threshold: float) -> np.ndarray:
    """Return a mask [n] of the recordings on the wrong side of a threshold."""
    real, fake = scored.mask(REAL.label), scored.mask(FAKE.label)
    return (real & (scored.scores < threshold)) | (fake & (scored.scores >= threshold))


def _count(wrong: np.ndarray, members: np.ndarray) -> tuple[int, int]:
    return int((wrong & members).sum()), int(members.sum())


def p_value(a: tuple[int, int], b: tuple[int, int]) -> float:
    """Return the p value of Fisher's exact test that two shares, each k of n, are the same."""
    return float(scipy.stats.fisher_exact([[a[0], a[1] - a[0]], [b[0], b[1] - b[0]]]).pvalue)


def share(k: int, n: int) -> str:
    """Write a share with Wilson's 95 % interval: "12 of 60 (20 % [12, 32])"."""
    return f"{k} of {n} ({_percent(k / n, *wilson(k, n))})"


def wilson(k: int, n: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share, k of n."""
    interval = scipy.stats.binomtest(k, n).proportion_ci(method="wilson")
    return interval.low, interval.high


def hundredths(part: float) -> str:
    """Write a fraction as a whole number of hundredths: only 1 becomes "100", and only 0 becomes "0"."""
    rounded = round(100 * part)
    if rounded == 100 and part < 1:
        return "more than 99"
    return "less than 1" if rounded == 0 and part > 0 else str(rounded)


def _percent(value: float, low: float, high: float) -> str:
    return f"{hundredths(value)} % [{100 * low:.0f}, {100 * high:.0f}]"


def _auc(scored: Scored, members: np.ndarray, seed: int) -> str:
    members = with_other_class(scored, members)
    bonafide, spoof = (scored.scores[members & scored.mask(label)] for label, _, _ in CLASSES)
    if min(len(bonafide), len(spoof)) < 2 or is_whole(scored, members):
        return ""
    low, high = metrics.bootstrap_intervals(bonafide, spoof, seed=seed)["auc"]
    return f"{metrics.compute_metrics(bonafide, spoof)['auc']:.3f} [{low:.3f}, {high:.3f}]"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Write rows, the first of which is the heading, as a Markdown table with aligned columns."""
    cells = [[printable(cell).replace("|", "\\|") for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [f"| {' | '.join(cell.ljust(w) for cell, w in zip(row, widths, strict=True))} |" for row in cells]
    return "\n".join([lines[0], f"|{'|'.join('-' * (w + 2) for w in widths)}|", *lines[1:]])
