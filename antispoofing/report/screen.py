"""Results on screen: tables, cautions and warnings, as text.

A score is logit 1 (bona fide): higher = more likely real; bona fide is the positive class of AUC and EER.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from functools import partial
from itertools import islice

import numpy as np

from antispoofing.classes import CLASSES
from antispoofing.report.summary import CONVENTION
from antispoofing.scoring.scored import Scored
from antispoofing.scoring.timeline import Timeline
from antispoofing.text import aligned, clock, printable

WIDTH = 100  # of paragraphs, in characters
FEW_ERRORS = 10  # in the smaller class; with fewer a bootstrap covers clearly less than 95 %


def results(summaries: dict[str, dict]) -> str:
    """All there is to say of detectors on labelled recordings: table, cautions, decisions, warnings."""
    parts = [results_table(summaries), CONVENTION]
    for name, summary in summaries.items():
        parts[-1] += "\n" + "\n".join(cautions(name, summary))
    for name, summary in summaries.items():
        if "at_threshold" in summary:
            parts.append(f"{name}, {confusion_table(summary['at_threshold'])}")
        if summary["reversed"]:
            parts.append(reversal_warning(name, summary))
    return "\n\n".join(parts)


def results_table(summaries: dict[str, dict], what: str = "detector") -> str:
    """One line for each detector: AUC and EER with their 95 % intervals, min DCF, counts.

    Args:
        what: the names are of; of anything but detectors failures are not counted.
    """
    rows = [(what, "AUC [95 %]", "EER % [95 %]", "min DCF", "real", "fake", "failed")]
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
    """What must be said beside a detector's figures, a line each."""
    values, counts = summary["metrics"], summary["counts"]
    threshold = values["threshold_at_eer_chosen_on_this_set"]
    lines = [f"{name}: its EER is at threshold {threshold:.4g}, chosen on this very set"]
    fewest = min(counts["bonafide_scored"], counts["spoof_scored"])
    errors = fewest * min(values["eer"], 1 - values["eer"])
    if fewest == 1:
        lines.append(f"{name}: one clip of a class says nothing of others")
    elif errors < FEW_ERRORS:
        side = "wrong" if values["eer"] <= 0.5 else "right"
        lines.append(
            f"{name}: about {errors:.0f} of the {fewest} clips in the smaller class are on the {side} side "
            "of that; with so few the intervals are narrower than the truth"
        )
    if summary["intervals_95"]["auc"][1] < 0.5 and not summary["reversed"]:
        lines.append(f"{name}: the AUC is below 0.5, but by a Mann-Whitney test that may be chance")
    return lines


def failures_list(scored: Scored, most: int = 10) -> str:
    """A line for each recording without a score, the first `most` of them; "" when all have one."""
    lines = [
        printable(f"not scored: {scored.utterances[i].name}: {reason}")
        for i, reason in sorted(scored.failures.items())[:most]
    ]
    left = len(scored.failures) - most
    return "\n".join(lines + ([f"... and {left} more not scored, see failures.csv"] if left > 0 else []))


def scores_table(scored: Scored, verdicts: list[str], most: int = 20) -> str:
    """A line for each recording, the first `most` of them."""
    spoken = {label: word for label, word, _ in CLASSES} | {"": "not scored"}
    rows = [("file", "score", "verdict")]
    for u, score, verdict in islice(zip(scored.utterances, scored.scores, verdicts, strict=True), most):
        rows.append((printable(u.name), "" if np.isnan(score) else f"{score:.3f}", spoken[verdict]))
    left = len(verdicts) - most
    return aligned(rows) + (f"\n... and {left} more in scores.csv" if left > 0 else "")


def reversal_warning(name: str, summary: dict) -> str:
    """What to say of a detector whose scores point the wrong way on this data."""
    low, high = summary["intervals_95"]["auc"]
    other = summary["if_reversed"]
    value = summary["metrics"]["auc"]
    text = (
        f"WARNING, {name}: the AUC is {value:.3f}, and its 95 % interval [{low:.3f}, {high:.3f}] lies "
        "wholly below 0.5. Either the labels or the scores are reversed, or the detector fails on "
        "this data. Nothing was flipped. In the opposite direction the figures "
        f"would be AUC {other['auc']:.3f}, EER {100 * other['eer']:.1f} %: use them only if you find the "
        "labels to be swapped."
    )
    line = "!" * WIDTH
    return "\n".join([line, textwrap.fill(text, WIDTH), line])


def confusion_table(at: dict) -> str:
    """Decisions at a threshold, as counts."""
    rows = [
        ("", "called real", "called fake"),
        ("real", str(at["bonafide_bonafide"]), str(at["bonafide_spoof"])),
        ("fake", str(at["spoof_bonafide"]), str(at["spoof_spoof"])),
    ]
    return (
        f"at threshold {at['threshold']:g}: accuracy {100 * at['accuracy']:.1f} %, "
        f"FRR {100 * at['frr']:.1f} %, FAR {100 * at['far']:.1f} %\n{aligned(rows)}"
    )


def timeline_lines(name: str, timeline: Timeline, cautions: Sequence[str]) -> list[str]:
    """What a timeline shows: a line on the recording, and one for each stretch that sounds synthetic.

    Args:
        cautions: from `scoring.timeline.cautions`.
    """
    n, mean = len(timeline.scores), timeline.margins.mean()
    heard = f"{n} windows" if n > 1 else "1 window"
    lines = [f"{printable(name)}: {timeline.verdict.upper()} ({heard}, mean margin {mean:.2f})"]
    lines += [f"  mind: {caution}" for caution in cautions]
    for stretch in timeline.suspicious():
        times = f"{clock(stretch.start)} to {clock(stretch.end)}"
        lines.append(f"  {times} {stretch.says} (lowest score {stretch.score:.2f})")
    return lines


def analysis_text(words: Sequence[str]) -> str:
    """Join an analysis, Markdown in blocks set apart by empty lines, to lines of at most WIDTH characters."""
    return "\n\n".join(_wrapped(block) for block in "\n\n".join(words).split("\n\n"))


def _wrapped(block: str) -> str:
    """Lines of at most WIDTH characters, tables left as they are."""
    if block.startswith("|"):
        return block
    wrap = partial(textwrap.fill, width=WIDTH, break_long_words=False, break_on_hyphens=False)
    return "\n".join(
        wrap(line, subsequent_indent="  " * line.startswith("- ")) for line in block.splitlines()
    )
