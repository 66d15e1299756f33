"""An analysis of one detector in words: how good it is, how sure that is, and where it fails.

Every sentence follows an interval or a test of `antispoofing/uncertainty.py`, never the sign of a figure
alone. Tests are two-sided. A sentence with a direction ("better", "leans towards fake") needs p < 5 %, so
that each direction is claimed wrongly in 2.5 % of cases; one without ("the threshold does not hold") needs p
< 2.5 %. Where several comparisons are made at once, the level is divided by their number (Bonferroni).

Convention: a score is logit 1 (bona fide), higher = more likely real.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import scipy  # scipy.stats, which takes half a second to import, is loaded on first use

from antispoofing import metrics, uncertainty
from antispoofing.classes import CLASSES, FAKE, REAL
from antispoofing.data.words import plain
from antispoofing.report.groups import is_whole, property_groups, with_other_class
from antispoofing.report.standing_out import Comparison, standing_out
from antispoofing.report.wording import (
    HEARS_ALL,
    LEVEL,
    UNDIRECTED,
    heard_in_part,
    hundredths,
    misjudged,
    share,
    table,
    with_progress,
)
from antispoofing.scoring import clusters
from antispoofing.scoring.clusters import FILE_NAMES, Clustering, find_clusters
from antispoofing.scoring.decision import NOT_SURE, Rule
from antispoofing.scoring.scored import Scored
from antispoofing.text import auc_text, eer_text, per_cent, printable, with_interval

ANOTHER_WAY = " If the file names mislead, name the speakers in a list of labels, in a column called speaker."
EQUAL = 0.02  # FRR and FAR that differ by no more are called equal
MOST_CLIPS = 5  # number of misjudged clips of each class to name


def analyse(
    name: str,
    scored: Scored,
    summary: dict,
    properties: Mapping[str, Sequence[str]],
    rule: Rule,
) -> str:
    """Write an analysis of one detector in Markdown.

    Args:
        name: Name of the detector.
        scored: Its scores of recordings of both classes.
        summary: The figures of these scores, from `summarise`.
        properties: Properties of the recordings, from `groups.clip_properties`.
        rule: How scores become verdicts; by the larger logit, errors by group are those at the EER threshold.
    """
    clustering = find_clusters(scored.utterances)
    at_eer = summary["metrics"]["threshold_at_eer_chosen_on_this_set"]
    limit = at_eer if rule.common_threshold is None else rule.common_threshold
    at = "the EER threshold" if rule.common_threshold is None else f"{limit:.4g}, {rule.source}"
    parts = [
        f"## {printable(name)}",
        _how_good(scored, summary, clustering),
        _decisions(scored, summary, clustering, rule),
        *_where(scored, properties, limit, at),
        *_unlike_classes(scored, clustering, properties),
        _worst_clips(scored, limit),
    ]
    return "\n\n".join(part for part in parts if part)


def _how_good(scored: Scored, summary: dict, clustering: Clustering) -> str:
    if summary.get("constant"):
        return "**How good is it?** All scores are equal, so they say nothing about these clips."
    auc, eer = summary["metrics"]["auc"], summary["metrics"]["eer"]
    interval, of_eer = (summary["intervals_95"][name] for name in ("auc", "eer"))
    words = (
        f"**How good is it?** Given a random real clip and a random fake one, the real one scores higher in "
        f"{hundredths(auc)} of 100 cases{_ties(scored)} (AUC {auc_text(auc)}"
    )
    if interval:
        words += f", 95 % interval {interval[0]:.4f} to {interval[1]:.4f}"
    words += "; guessing gives 0.5). "
    if summary["reversed"]:
        words += (
            "That is below 0.5 by more than chance explains: the scores point the wrong way. Either the "
            "labels or the scores are reversed, or the detector fails on this data; the figures alone cannot "
            "tell which."
        )
    elif summary["better_than_chance"]:
        words += "That is more than chance explains: on this data, the detector can tell real from fake."
    elif interval is None:
        words += (
            "There are too few clips, or speakers, sources or systems that they come from, to show that this "
            "is more than chance."
        )
    else:
        words += (
            "The interval includes 0.5, so that may be due to chance: these clips do not show that the "
            "detector can tell real from fake."
        )
    values = metrics.compute_eer(scored.bonafide, scored.spoof)
    of_eer_text = with_interval(f"{eer_text(eer)} %", of_eer, eer_text)
    if abs(values.frr - values.far) <= EQUAL:
        words += (
            f" At the threshold where both kinds of error are equally frequent, {of_eer_text} of the clips "
            "of each class are misjudged (EER)"
        )
    else:
        words += (
            " No threshold makes both kinds of error equally frequent: where they differ least, "
            f"{per_cent(values.frr)} % of the real clips are rejected and {per_cent(values.far)} % of the "
            f"fake ones accepted, on average {of_eer_text} (EER)"
        )
    if eer < 0.5:
        words += "; that threshold was chosen on this very set, so expect more errors on new clips"
    return f"{words}. {_certainty(scored, summary, clustering)}"


def _ties(scored: Scored) -> str:
    """Say that equal scores count one half, if a real and a fake clip have the same."""
    has_ties = np.isin(scored.bonafide, scored.spoof).any()
    return ", where equal scores count as half a case" if has_ties else ""


def _certainty(scored: Scored, summary: dict, clustering: Clustering) -> str:
    """Say which clips were taken as belonging together, and what follows from that."""
    told, interval = summary["intervals_95"]["clips"], summary["intervals_95"]["auc"]
    if min(len(scored.bonafide), len(scored.spoof)) < uncertainty.FEWEST_CLIPS:
        return (
            f"With fewer than {uncertainty.FEWEST_CLIPS} clips in a class, it is impossible to say how "
            "certain these figures are."
        )
    if interval is None:
        return (
            f"**AUC and EER have no interval**: {told}. That is too few in one class at least to say how "
            f"certain the figures are for other voices and systems: it takes {uncertainty.FEWEST_CLUSTERS} "
            "groups of equal size, or more that are unequal."
            + (ANOTHER_WAY if FILE_NAMES in clustering.told_by.values() else "")
        )
    words = f"In the intervals, {told}."
    if all(clustering.told_by.values()):
        return words
    return words + (
        " Where clips of the same speaker, or of the same synthesis system, are taken as independent, the "
        "intervals are too narrow."
    )


def _decisions(scored: Scored, summary: dict, clustering: Clustering, rule: Rule) -> str:
    """Say how many real clips are rejected and fake ones accepted, and whether one is more frequent."""
    verdicts = np.array(rule.verdicts(scored.logits))
    is_wrong = {
        REAL.label: scored.mask(REAL.label) & (verdicts == FAKE.word),
        FAKE.label: scored.mask(FAKE.label) & (verdicts == REAL.word),
    }
    rejected, accepted = (share(is_wrong[label], scored.mask(label), clustering) for label in is_wrong)
    words = (
        f"**Its verdicts** ({printable(rule.describe())}): of the real clips, {rejected} are called fake; of "
        f"the fake clips, {accepted} are called real. "
    )
    if summary.get("calibrated", {}).get("fitted_on_these_clips"):
        words += "The calibration was fitted on these very clips, so expect more errors on new ones. "
    if rule.can_be_sure:
        unsure = share(verdicts == NOT_SURE, scored.labelled, clustering)
        words += f'Of all clips, {unsure} get the verdict "not sure". '
    members = scored.labelled
    wrong = is_wrong[REAL.label] | is_wrong[FAKE.label]
    p_value = uncertainty.p_of_shares(
        wrong[members], scored.mask(REAL.label)[members], clustering.among(members)
    )
    if p_value is None:
        return words + (
            "The clips come from too few speakers, sources or systems to tell whether one kind of error is "
            "more frequent."
        )
    if p_value >= LEVEL:
        return words + "The data do not show that one kind of error is more frequent than the other."
    rates = {label: wrong[scored.mask(label)].mean() for label in is_wrong}
    side = FAKE if rates[REAL.label] > rates[FAKE.label] else REAL
    return words + f"The detector leans towards calling clips {side.word}."


def _where(scored: Scored, properties: Mapping[str, Sequence[str]], threshold: float, at: str) -> list[str]:
    """Return a table of errors for each property, and a paragraph on the groups that stand out."""
    wrong = misjudged(scored, threshold)
    tables: list[str] = []
    comparisons: list[Comparison] = []
    for title, groups in property_groups(scored, properties).items():
        clustering = find_clusters(scored.utterances, without=[title])
        rows = [[title, "real", "rejected", "fake", "accepted", "AUC [95 %]"]]
        for group, members in with_progress(title, groups):
            row = [group]
            for label, _, _ in CLASSES:
                inside = members & scored.mask(label)
                row += [str(inside.sum()), share(wrong, inside, clustering) if inside.any() else ""]
                outside = scored.mask(label) & ~inside
                comparison = Comparison(title, group, label, inside, outside, clustering)
                if inside.any() and outside.any() and not comparison.is_known(comparisons):
                    comparisons.append(comparison)
            rows.append([*row, _auc(scored, members, clustering)])
        tables.append(table(rows))
    if not tables:
        return []
    words = (
        f"**Where it fails.** The tables count errors at {at}, with 95 % intervals where there are enough "
        "clips, or groups of clips that belong together. For a group with clips of only one class, the AUC "
        "compares these with all clips of the other class."
    )
    return [words, *tables, standing_out(wrong, comparisons)]


def _unlike_classes(
    scored: Scored, clustering: Clustering, properties: Mapping[str, Sequence[str]]
) -> list[str]:
    """Caution against properties in which the classes differ: the score may measure these instead.

    What names the speaker or the system says so by design, and is passed over.
    """
    found, members = [], scored.labelled
    is_real = scored.mask(REAL.label)[members]
    candidates = {
        title: groups
        for title, groups in property_groups(scored, properties).items()
        if title != "subfolder" and plain(title) not in clusters.COLUMNS
    }
    for title, groups in candidates.items():
        counts = np.array(
            [[(inside & scored.mask(label)).sum() for label, _, _ in CLASSES] for inside in groups.values()]
        )
        if not (counts > 0).all(axis=1).any() or not counts.sum(axis=0).all():
            continue  # its groups hold one class each, or only one class has it
        p_values = [
            uncertainty.p_of_shares(is_real, inside[members], clustering.among(members))
            for inside in groups.values()
        ]
        tested = [p_value for p_value in p_values if p_value is not None]
        if tested and min(tested) * len(tested) * len(candidates) < UNDIRECTED:
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
            f"`{printable(scored.utterances[i].name)}` ({scored.scores[i]:.3g})" for i in indices.tolist()
        )
        if clips:
            lines.append(f"- {word} clips {error} and farthest from the threshold: {clips}")
    if not lines:
        return f"No clip lies on the wrong side of the threshold, {threshold:.4g}."
    return "\n".join([f"**Worth listening to** (scores in brackets, threshold {threshold:.4g}):", "", *lines])


def doubtful(scored: Scored) -> str:
    """Say what was not heard, and name the first clips whose notes say why a verdict on them is doubtful."""
    noted = [(scored.utterances[i].name, note) for i, note in sorted(scored.notes.items())]
    in_part = f"{words}: {HEARS_ALL}." if (words := heard_in_part(scored)) else ""
    if not noted:
        return in_part
    lines = [f"- `{printable(name)}`: {printable(note)}" for name, note in noted[:MOST_CLIPS]]
    if len(noted) > MOST_CLIPS:
        lines.append(f"- ... and {len(noted) - MOST_CLIPS} more; see the column note of scores.csv")
    title = f"**Doubtful clips** ({len(noted)} of {len(scored.utterances)}):"
    return "\n\n".join(filter(None, (in_part, title, "\n".join(lines))))


def _auc(scored: Scored, members: np.ndarray, clustering: Clustering) -> str:
    chosen = with_other_class(scored, members)
    if is_whole(scored, chosen):
        return ""
    part = scored.subset(chosen)
    if min(len(part.bonafide), len(part.spoof)) < 2:
        return ""
    together = clustering.subset(chosen).of(part)
    interval = uncertainty.intervals(part.bonafide, part.spoof, together)["auc"]
    return auc_text(metrics.compute_auc(part.bonafide, part.spoof), interval)
