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
from antispoofing.report.wording import HEARS_ALL, heard_in_part
from antispoofing.scoring.scored import Scored
from antispoofing.scoring.timeline import Timeline
from antispoofing.text import aligned, auc_text, clock, eer_text, per_cent, printable
from antispoofing.uncertainty import FEWEST_CLIPS

WIDTH = 100  # characters in a line of a paragraph


def results(summaries: Mapping[str, dict]) -> str:
    """Report detectors on labelled recordings: a table, cautions, decisions and warnings.

    Args:
        summaries: Figures of each detector, from `summarise`, by its name.
    """
    of_line: dict[str, list[str]] = {}  # what holds for several detectors is said once
    for name, summary in summaries.items():
        for line in cautions(summary):
            of_line.setdefault(line, []).append(name)
    lines = [f"{', '.join(names)}: {line}" for line, names in of_line.items()]
    parts = [results_table(summaries), "\n".join([CONVENTION, *lines])]
    for name, summary in summaries.items():
        if "at_threshold" in summary:
            parts.append(f"{name}, {confusion_table(summary['at_threshold'])}")
        if "min_tdcf" in summary:
            cost = summary["min_tdcf"]
            parts.append(f"{name}: min t-DCF {cost['value']:.4f} ({cost['formula']}'s formula)")
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
        rows.append(
            (
                name,
                auc_text(values["auc"], intervals["auc"]),
                eer_text(values["eer"], intervals["eer"]),
                f"{values['min_dcf']:.3f}",
                str(counts["bonafide_scored"]),
                str(counts["spoof_scored"]),
                str(counts["failed"]),
            )
        )
    return aligned(rows if what == "detector" else [row[:-1] for row in rows])


def cautions(summary: dict) -> list[str]:
    """Return the cautions that belong beside a detector's figures, a line each."""
    values, counts = summary["metrics"], summary["counts"]
    threshold = values["threshold_at_eer_chosen_on_this_set"]
    lines = [_other_figures(values)]
    lines += [f"the EER is at threshold {threshold:.4g}, which was chosen on this very set"]
    if min(counts["bonafide_scored"], counts["spoof_scored"]) < FEWEST_CLIPS:
        lines.append(f"no intervals, since a class has fewer than {FEWEST_CLIPS} clips")
    elif summary["intervals_95"]["auc"] is None:
        lines.append(f"no intervals: {summary['intervals_95']['clips']}, which is too few")
    else:
        lines.append(f"in the intervals, {summary['intervals_95']['clips']}")
    if calibrated := summary.get("calibrated"):
        clips = counts["bonafide_scored"] + counts["spoof_scored"]
        lines.append(
            f"calibrated, it has a Cllr of {calibrated['cllr']:.3f} bits here (the least possible is "
            f"{values['min_cllr']:.3f}, and 1 is useless) and an actual DCF of {calibrated['act_dcf']:.3f}; "
            f'{clips - calibrated["sure"]} of {clips} verdicts are "not sure"'
            + (f", and of the others, {calibrated['wrong']} are wrong" if calibrated["sure"] else "")
            + ("; it was fitted on these very clips" if calibrated["fitted_on_these_clips"] else "")
        )
    if summary.get("constant"):
        lines.append("all scores are equal, so this detector says nothing about these clips")
    if values["auc"] < 0.5 and not summary["reversed"]:
        lines.append("the AUC is below 0.5, but that may be due to chance")
    return lines


def _other_figures(values: dict) -> str:
    """Write the figures of a detector that are not in the table."""
    rates = [
        f"{eer_text(frr)} % at a FAR of {100 * float(far):g} %" for far, frr in values["frr_at_far"].items()
    ]
    frr = f"; FRR {' and '.join(rates)}" if rates else ""
    return f"min Cllr {values['min_cllr']:.3f} bits (0 is perfect, 1 is useless){frr}"


def heard_lines(scored: Scored, has_timelines: bool = False, most: int = 5) -> list[str]:
    """Return lines on recordings of which only the beginning was heard, and on those with a note.

    Args:
        scored: The recordings.
        has_timelines: Whether timelines of the whole recordings follow.
        most: How many recordings with a note get a line.
    """
    rest = "see the timelines" if has_timelines else HEARS_ALL
    lines = [f"{words}: {rest}"] if (words := heard_in_part(scored)) else []
    noted = sorted(scored.notes.items())
    lines += [f"{scored.utterances[i].name}: {note}" for i, note in noted[:most]]
    if len(noted) > most:
        lines.append(f"... and {len(noted) - most} more with a note; see scores.csv")
    return [printable(line) for line in lines]


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
    rows: list[tuple[str, ...]] = [("file", "score", "verdict")]
    for u, score, verdict in islice(zip(scored.utterances, scored.scores, verdicts, strict=True), most):
        rows.append((printable(u.name), "" if np.isnan(score) else f"{score:.3f}", verdict or "not scored"))
    left = len(verdicts) - most
    return aligned(rows) + (f"\n... and {left} more in scores.csv" if left > 0 else "")


def reversal_warning(name: str, summary: dict) -> str:
    """Write the warning on a detector whose scores point the wrong way on this data."""
    other, value = summary["if_reversed"], summary["metrics"]["auc"]
    text = (
        f"WARNING, {name}: the AUC is {auc_text(value, summary['intervals_95']['auc'])}, below 0.5 by more "
        "than chance explains. Either the labels or the scores are reversed, or the detector fails on this "
        "data. Nothing was flipped. In the opposite direction, the figures would be "
        f"AUC {auc_text(other['auc'])}, EER {eer_text(other['eer'])} %: use them only if you find that the "
        "labels or the scores are swapped."
    )
    line = "!" * WIDTH
    return "\n".join([line, textwrap.fill(text, WIDTH), line])


def confusion_table(at: dict) -> str:
    """Write the decisions at a threshold as rates and counts.

    Args:
        at: The decisions, from `metrics.confusion_at`.
    """
    rows: list[tuple[str, ...]] = [
        ("", ">= threshold", "< threshold"),
        ("real", str(at["bonafide_bonafide"]), str(at["bonafide_spoof"])),
        ("fake", str(at["spoof_bonafide"]), str(at["spoof_spoof"])),
    ]
    words = (
        f"at threshold {at['threshold']:g}: accuracy {per_cent(at['accuracy'])} %, balanced "
        f"accuracy {per_cent(at['balanced_accuracy'])} %, FRR {per_cent(at['frr'])} %, "
        f"FAR {per_cent(at['far'])} %, F1 of real {at['f1_bonafide']:.3f}, of fake "
        f"{at['f1_spoof']:.3f}\n{aligned(rows)}"
    )
    if "precision" in at:
        shares = [
            f"of those called {word}, {per_cent(share)} % are"
            for label, word, _ in CLASSES
            if (share := at["precision"][label]) is not None
        ]
        words += f"\nwhere {100 * at['prevalence']:g} % of all clips are fake: {'; '.join(shares)}"
    return words


def crossed_table(eers: Mapping[str, Mapping[str, float | None]]) -> str:
    """Write EERs by two properties as a table; a cell without clips of a class is empty."""
    columns = list(next(iter(eers.values())))
    rows = [["", *columns]]
    for row, cells in eers.items():
        rows.append([row, *("" if (eer := cells[c]) is None else eer_text(eer) for c in columns)])
    return aligned([[printable(cell) for cell in row] for row in rows])


def timeline_lines(name: str, timeline: Timeline, cautions: Sequence[str]) -> list[str]:
    """Write a line on a recording, its cautions, and a line for each stretch that sounds synthetic.

    Args:
        name: Name of the recording.
        timeline: Its timeline.
        cautions: Its cautions, from `audio.cautions`.
    """
    n, mean = len(timeline.scores), timeline.margins.mean()
    windows = "1 window" if n == 1 else f"{n} windows"
    lines = [f"{printable(name)}, as a whole: {timeline.overall.upper()} ({windows}, mean margin {mean:.2f})"]
    lines += [f"  caution: {caution}" for caution in cautions]
    for stretch in timeline.suspicious():
        times = f"{clock(stretch.start)} to {clock(stretch.end)}"
        lines.append(f"  {times} {stretch.says} (lowest margin {stretch.margin:.2f})")
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
