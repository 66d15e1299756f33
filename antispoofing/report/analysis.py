"""What the figures mean, in words: how good a detector is, how sure that is, where it fails, what changed.

Every sentence follows an interval or a test, never the sign of a figure alone. AUC and EER have
bootstrap intervals (`metrics.py`), shares of clips Wilson's; two shares are compared by Fisher's
exact test, at 5 % over the number of comparisons made (Bonferroni) where several are made at once.

Convention: a score is logit 1 (bona fide), higher = more likely real.
"""

from __future__ import annotations

import numpy as np
import scipy  # its stats take half a second to import: only when first used
from tqdm import tqdm

from antispoofing import metrics
from antispoofing.classes import CLASSES, FAKE, REAL
from antispoofing.report.groups import is_whole, property_groups, with_other_class
from antispoofing.scoring.scored import Scored
from antispoofing.text import printable

LEVEL = 0.05  # of every test
MOST_CLIPS = 5  # of the wrongly judged ones that are named, of each class


# ------------------------------------------------------------------- one detector


def analyse(
    name: str,
    scored: Scored,
    summary: dict,
    properties: dict[str, list[str]],
    threshold: float | None = None,
    seed: int = 0,
) -> str:
    """Markdown on one detector, both classes scored.

    Args:
        name: what to call it.
        scored, summary: from `score_recordings` and `summarise`.
        properties: of the same recordings, from `groups.clip_properties`.
        threshold: one chosen on other data; None: errors are counted at the detector's EER.
        seed: of the bootstrap.
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
        f"**How good.** Of a random real and a random fake clip, the real one has the higher score in "
        f"{100 * auc:.0f} of 100 cases (AUC {auc:.3f}, 95 % interval {low:.3f} to {high:.3f}; guessing is "
        "0.5). "
    )
    if summary["reversed"]:
        words += (
            "The interval lies wholly below 0.5: the scores point the wrong way. Either labels or scores are "
            "reversed, or the detector fails on this data; the figures alone cannot tell which."
        )
    elif summary["better_than_chance"]:
        words += "The interval lies wholly above 0.5: on this data it can tell real from fake."
    elif low <= 0.5 <= high:
        words += "The interval includes 0.5: these clips do not show that it can tell real from fake."
    else:
        words += (
            "On so few clips that interval is too narrow, and by a Mann-Whitney test the order may be "
            "chance: these clips do not show that it can tell real from fake."
        )
    words += (
        f" Where both kinds of error are equally frequent, {_percent(eer, eer_low, eer_high)} of the clips "
        "of each class are judged wrongly (EER)"
    )
    if eer < 0.5:
        words += "; the threshold for that was chosen on this very set, so expect more on new clips"
    return words + (
        ". The intervals take the clips for independent, which clips of one speaker or one synthesis "
        "system are not."
    )


def _decisions(scored: Scored, threshold: float | None) -> str:
    """How many real clips are rejected and fake ones accepted, and whether one is more frequent."""
    verdicts = np.array(scored.verdicts(threshold))
    errors = {}
    for label, other in ((REAL.label, FAKE.label), (FAKE.label, REAL.label)):
        called = verdicts[scored.mask(label)]
        errors[label] = (int((called == other).sum()), len(called))
    how = "by the larger of the two logits"
    if threshold is not None:
        how = f"at threshold {threshold:g}, chosen on other data"
    words = (
        f"**Its decisions**, {how}: {share(*errors['bonafide'])} of the real clips are rejected, "
        f"{share(*errors['spoof'])} of the fake ones accepted. "
    )
    if p_value(errors[REAL.label], errors[FAKE.label]) >= LEVEL:
        return words + "The data do not show that one error is more frequent than the other."
    more = max(errors, key=lambda label: errors[label][0] / errors[label][1])
    return words + f"It leans towards calling clips {'fake' if more == 'bonafide' else 'real'}."


def _where(
    scored: Scored, properties: dict[str, list[str]], threshold: float, at: str, seed: int
) -> list[str]:
    """A table of errors for each property, and which groups stand out."""
    wrong = misjudged(scored, threshold)
    tables, found, comparisons = [], [], []
    for title, groups in property_groups(scored, properties).items():
        rows = [(title, "real", "rejected", "fake", "accepted", "AUC [95 %]")]
        for number, (group, members) in enumerate(with_progress(title, groups)):
            row = [group]
            for label, _, _ in CLASSES:
                inside, outside = members & scored.mask(label), ~members & scored.mask(label)
                errors = _count(wrong, inside), _count(wrong, outside)
                row += [str(errors[0][1]), share(*errors[0]) if errors[0][1] else ""]
                if errors[0][1] and errors[1][1] and (number == 0 or len(groups) > 2):
                    comparisons.append((title, group, label, *errors))
            rows.append((*row, _auc(scored, members, seed)))
        tables.append(table(rows))
    if not tables:
        return []
    for title, group, label, inside, outside in comparisons:
        if p_value(inside, outside) * len(comparisons) >= LEVEL:
            continue
        word, error = next((word, error) for known, word, error in CLASSES if known == label)
        rates = f"{share(*inside)} of the {word} clips are {error}, of the others {share(*outside)}"
        found.append(f"- {title} {printable(group)}: {rates}.")
    words = (
        f"**Where it fails.** Errors at {at}, with 95 % intervals; the AUC of a group that has clips of one "
        "class only is against all clips of the other."
    )
    tried = f"Fisher's exact test, 5 % over the {len(comparisons)} comparisons"
    if found:
        verdict = "\n".join([f"These groups stand out ({tried}):", "", *found])
    elif comparisons:
        verdict = f"No group stands out from the other clips of its class beyond chance ({tried})."
    else:
        verdict = "Each class is all in one group, so nothing can be compared."
    return [words, *tables, verdict]


def _unlike_classes(scored: Scored, properties: dict[str, list[str]]) -> list[str]:
    """Properties that real and fake clips do not share: the score may measure these instead."""
    found = []
    candidates = property_groups(scored, properties)
    candidates.pop("subfolder", None)  # it often names the synthesis system
    for title, groups in candidates.items():
        counts = np.array(
            [[(members & scored.mask(label)).sum() for label, _, _ in CLASSES] for members in groups.values()]
        )
        if not counts.sum(axis=0).all():
            continue  # told of one class only, as attacks are
        if scipy.stats.chi2_contingency(counts, correction=False).pvalue < LEVEL / len(candidates):
            found.append(f"{title} (Cramér's V {scipy.stats.contingency.association(counts):.2f})")
    if not found:
        return []
    return [
        f"**Mind the data.** Real and fake clips differ in {' and '.join(found)}; 0 would be no difference, "
        "1 that it tells the classes apart by itself. The figures above may owe something to that rather "
        "than to the voices."
    ]


def _worst_clips(scored: Scored, threshold: float) -> str:
    """The clips on the wrong side that are farthest from the threshold."""
    wrong, lines = misjudged(scored, threshold), []
    for label, word, error in CLASSES:
        indices = np.flatnonzero(wrong & scored.mask(label))
        indices = indices[np.argsort(-np.abs(scored.scores[indices] - threshold), kind="stable")][:MOST_CLIPS]
        clips = ", ".join(
            f"`{printable(scored.utterances[i].name)}` ({scored.scores[i]:.2f})" for i in indices
        )
        if clips:
            lines.append(f"- {word} clips {error} by the widest margin: {clips}")
    if not lines:
        return f"No clip lies on the wrong side of {threshold:.4g}."
    return "\n".join([f"**Worth listening to** (score; threshold {threshold:.4g}):", "", *lines])


def with_progress(title: str, groups: dict[str, np.ndarray]) -> tqdm:
    """A property's groups and members, with a bar where they take long."""
    what = f"analysis, {printable(title)}"
    return tqdm(groups.items(), desc=what, unit="group", leave=False, delay=2, disable=None)


def misjudged(scored: Scored, threshold: float) -> np.ndarray:
    """Which recordings [n] are on the wrong side of a threshold."""
    real, fake = scored.mask(REAL.label), scored.mask(FAKE.label)
    return (real & (scored.scores < threshold)) | (fake & (scored.scores >= threshold))


def _count(wrong: np.ndarray, members: np.ndarray) -> tuple[int, int]:
    return int((wrong & members).sum()), int(members.sum())


# ------------------------------------------------------------------------- figures


def p_value(a: tuple[int, int], b: tuple[int, int]) -> float:
    """Of Fisher's exact test that two shares, each k of n, are the same."""
    return float(scipy.stats.fisher_exact([[a[0], a[1] - a[0]], [b[0], b[1] - b[0]]]).pvalue)


def share(k: int, n: int) -> str:
    """ "12 of 60 (20 % [12, 32])", with Wilson's 95 % interval."""
    return f"{k} of {n} ({_percent(k / n, *wilson(k, n))})"


def wilson(k: int, n: int) -> tuple[float, float]:
    """The 95 % interval of a share, k of n."""
    interval = scipy.stats.binomtest(k, n).proportion_ci(method="wilson")
    return interval.low, interval.high


def _percent(value: float, low: float, high: float) -> str:
    return f"{100 * value:.0f} % [{100 * low:.0f}, {100 * high:.0f}]"


def _auc(scored: Scored, members: np.ndarray, seed: int) -> str:
    members = with_other_class(scored, members)
    bonafide, spoof = (scored.scores[members & scored.mask(label)] for label, _, _ in CLASSES)
    if min(len(bonafide), len(spoof)) < 2 or is_whole(scored, members):
        return ""
    low, high = metrics.bootstrap_intervals(bonafide, spoof, seed=seed)["auc"]
    return f"{metrics.compute_metrics(bonafide, spoof)['auc']:.3f} [{low:.3f}, {high:.3f}]"


def table(rows: list[tuple[str, ...]]) -> str:
    """Markdown, its columns aligned."""
    rows = [tuple(printable(cell).replace("|", "\\|") for cell in row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [f"| {' | '.join(cell.ljust(w) for cell, w in zip(row, widths, strict=True))} |" for row in rows]
    return "\n".join([lines[0], f"|{'|'.join('-' * (w + 2) for w in widths)}|", *lines[1:]])
