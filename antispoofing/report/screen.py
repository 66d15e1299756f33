"""Results as text for the screen: tables, cautions and warnings.

A score is logit 1 (bona fide): higher = more likely real; bona fide is the positive class of AUC and EER.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice

import numpy as np

from antispoofing.classes import CLASSES
from antispoofing.report.summary import CONVENTION
from antispoofing.scoring.scored import Scored
from antispoofing.scoring.timeline import Timeline
from antispoofing.text import aligned, clock, printable

WIDTH = 100  # characters in a line of a paragraph
FEW_ERRORS = 10  # with fewer errors in the smaller class, bootstrap intervals cover clearly less than 95 %


def results(summaries: Mapping[str, dict]) -> str:
    """Report detectors on labelled recordings: a table, cautions, decisions and warnings.

    Args:
        summaries: Figures of each detector, from `summarise`, by its name.
    """
    parts = [results_table(summaries), CONVENTION]
    for name, summary in summaries.items():
        parts[-1] += "\n" + "\n".join(cautions(name, summary))
    for name, summary in summaries.items():
        if "at_threshold" in summary:
            parts.append(f"{name}, {confusion_table(summary['at_threshold'])}")
        if summary["reversed"]:
            parts.append(reversal_warning(name, summary))
    return "\n\n".join(parts)


def results_table(summaries: Mapping[str, dict], what: str = "detector") -> str:
    """Write a line for each detector: AUC and EER with their 95 % intervals, min DCF, counts.

    Args:
        summaries: Figures from `summarise`, by name.
        what: What the names stand for. Failures are counted for detectors only.
    """
    rows: list[tuple[str, ...]] = [(what, "AUC [95 %]", "EER % [95 %]", "min DCF", "real", "fake", "failed")]
    for name, summary in summaries.items():
        values, intervals, counts = summary["metrics"], summary["intervals_95"], summary["counts"]
        low, high = (100 * x for x in intervals["eer"])
        rows.append(
            (
                name,
                f"{values['auc']:.3f} [{intervals['auc'][0]:.3f}, {intervals['auc'][1]:.3f}]",
                f"{100 * values['eer']:.1f} [{low:.1f}, {high:.1f}]",
                f"{values['min_dcf']:.3f}",
                str(counts["bonafide_scored"]),
                str(counts["spoof_scored"]),
                str(counts["failed"]),
            )
        )
    return aligned(rows if what == "detector" else [row[:-1] for row in rows])


def cautions(name: str, summary: dict) -> list[str]:
    """Return the cautions that belong beside a detector's figures, a line each."""
    values, counts = summary["metrics"], summary["counts"]
    threshold = values["threshold_at_eer_chosen_on_this_set"]
    lines = [f"{name}: the EER is at threshold {threshold:.4g}, which was chosen on this very set"]
    fewest = min(counts["bonafide_scored"], counts["spoof_scored"])
    errors = fewest * min(values["eer"], 1 - values["eer"])
    if fewest == 1:
        lines.append(f"{name}: with only one clip in a class, these figures say nothing about other clips")
    elif errors < FEW_ERRORS:
        side = "wrong" if values["eer"] <= 0.5 else "right"
        lines.append(
            f"{name}: the smaller class has about {errors:.0f} of its {fewest} clips on the {side} side of "
            "that threshold; with so few, the intervals are too narrow"
        )
    if summary["intervals_95"]["auc"][1] < 0.5 and not summary["reversed"]:
        lines.append(f"{name}: the AUC is below 0.5, but by a Mann-Whitney test that may be due to chance")
    return lines


def failures_list(scored: Scored, listed: str = "see failures.csv", most: int = 10) -> str:
    """Write a line for each of the first `most` recordings without a score; "" if all have one.

    Args:
        scored: The recordings.
        listed: Where the others are listed, in words.
        most: How many get a line.
    """
    lines = [
        printable(f"not scored: {scored.utterances[i].name}: {reason}")
        for i, reason in sorted(scored.failures.items())[:most]
    ]
    left = len(scored.failures) - most
    return "\n".join(lines + ([f"... and {left} more not scored; {listed}"] if left > 0 else []))


def scores_table(scored: Scored, verdicts: Sequence[str], most: int = 20) -> str:
    """Write a line with score and verdict for each of the first `most` recordings."""
    words = {label: word for label, word, _ in CLASSES} | {"": "not scored"}
    rows: list[tuple[str, ...]] = [("file", "score", "verdict")]
    for u, score, verdict in islice(zip(scored.utterances, scored.scores, verdicts, strict=True), most):
        rows.append((printable(u.name), "" if np.isnan(score) else f"{score:.3f}", words[verdict]))
    left = len(verdicts) - most
    return aligned(rows) + (f"\n... and {left} more in scores.csv" if left > 0 else "")


def reversal_warning(name: str, summary: dict) -> str:
    """Write the warning on a detector whose scores point the wrong way on this data."""
    low, high = summary["intervals_95"]["auc"]
    other = summary["if_reversed"]
    value = summary["metrics"]["auc"]
    text = (
        f"WARNING, {name}: the AUC is {value:.3f}, and its 95 % interval [{low:.3f}, {high:.3f}] lies "
        "entirely below 0.5. Either the labels or the scores are reversed, or the detector fails on "
        "this data. Nothing was flipped. In the opposite direction, the figures would be "
        f"AUC {other['auc']:.3f}, EER {100 * other['eer']:.1f} %: use them only if you find that the labels "
        "are swapped."
    )
    line = "!" * WIDTH
    return "\n".join([line, textwrap.fill(text, WIDTH), line])


def confusion_table(at: dict) -> str:
    """Write the decisions at a threshold as rates and counts.

    Args:
        at: The decisions, from `metrics.confusion_at`.
    """
    rows: list[tuple[str, ...]] = [
        ("", "called real", "called fake"),
        ("real", str(at["bonafide_bonafide"]), str(at["bonafide_spoof"])),
        ("fake", str(at["spoof_bonafide"]), str(at["spoof_spoof"])),
    ]
    return (
        f"at threshold {at['threshold']:g}: accuracy {100 * at['accuracy']:.1f} %, "
        f"FRR {100 * at['frr']:.1f} %, FAR {100 * at['far']:.1f} %\n{aligned(rows)}"
    )


def timeline_lines(name: str, timeline: Timeline, cautions: Sequence[str]) -> list[str]:
    """Write a line on a recording, its cautions, and a line for each stretch that sounds synthetic.

    Args:
        name: Name of the recording.
        timeline: Its timeline.
        cautions: Its cautions, from `scoring.timeline.cautions`.
    """
    n, mean = len(timeline.scores), timeline.margins.mean()
    windows = "1 window" if n == 1 else f"{n} windows"
    lines = [f"{printable(name)}: {timeline.verdict.upper()} ({windows}, mean margin {mean:.2f})"]
    lines += [f"  caution: {caution}" for caution in cautions]
    for stretch in timeline.suspicious():
        times = f"{clock(stretch.start)} to {clock(stretch.end)}"
        lines.append(f"  {times} {stretch.says} (lowest score {stretch.score:.2f})")
    return lines


def analysis_text(words: Sequence[str]) -> str:
    """Join the sections of an analysis in Markdown, in lines of at most WIDTH characters."""
    return "\n\n".join(_wrapped(block) for block in "\n\n".join(words).split("\n\n"))


def _wrapped(block: str) -> str:
    """Wrap a block of Markdown at WIDTH characters; tables stay as they are."""
    if block.startswith("|"):
        return block
    wrap = partial(textwrap.fill, width=WIDTH, break_long_words=False, break_on_hyphens=False)
    return "\n".join(
        wrap(line, subsequent_indent="  " * line.startswith("- ")) for line in block.splitlines()
    )
