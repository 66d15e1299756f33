"""Results as HTML for the web page, with plots, sound and CSV files embedded.

Whatever comes from a file or its name is escaped. A higher score means more likely real.
"""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import soundfile
from markdown_it import MarkdownIt

from antispoofing.audio import cautions
from antispoofing.data.archives import is_archive
from antispoofing.errors import DataError
from antispoofing.report import plots, results, screen
from antispoofing.report.analysis import analyse
from antispoofing.report.detector_card import detector_card, verdict_note
from antispoofing.report.groups import clip_properties
from antispoofing.report.summary import CONVENTION, summarise
from antispoofing.scoring.calibration import LIMIT
from antispoofing.scoring.clusters import find_clusters
from antispoofing.scoring.decision import FAKE, NOT_SURE, REAL, Decision, Rule
from antispoofing.scoring.scored import Scored
from antispoofing.scoring.timeline import COLUMNS, MIXED, Stretch, Timeline, describe_overall
from antispoofing.text import clock, printable
from antispoofing.web.service import NOTHING, HeardRecording, NamedDetector, Service

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_STRETCHES = 20  # stretches that are listed
MOST_ROWS = 200  # rows of a table
MOST_SECONDS = 30  # how much of a stretch can be played

SIGNS = {REAL: "✓", FAKE: "✗", NOT_SURE: "?", MIXED: "≠"}  # not everybody can tell the colours apart
VERDICTS = {
    REAL: "Sounds real",
    FAKE: "Sounds synthetic (fake)",
    NOT_SURE: "Not sure",
    MIXED: "Mixed: parts sound real, parts synthetic",
}

OVER_TIME = (
    "The margin over time, with one dot for each window that the network scores: above 0 (blue) more likely "
    "real, below 0 (orange) more likely fake. Stretches that sound synthetic are shaded, more strongly where "
    "that is sure."
)
NO_PROBABILITY = "No probability: this detector is not calibrated."
NO_COMMON_PROBABILITY = "No probability: none can be computed for several overlapping windows together."

CSS = """
.judged { border: 1px solid var(--border-color-primary); border-left: 8px solid #888; border-radius: 6px;
    padding: 0.5em 1em; margin: 0.7em 0; overflow-wrap: anywhere; }
.judged h3 { margin: 0.2em 0; }
.judged.real { border-left-color: #1f77b4; }
.judged.fake, .judged.mixed { border-left-color: #ff7f0e; }
.wide { overflow-x: auto; }
.wide img { min-width: 36em; max-width: 60em; width: 100%; }
.wide table { border-collapse: collapse; }
.wide th, .wide td { padding: 0.2em 0.8em; border-bottom: 1px solid var(--border-color-primary);
    text-align: left; white-space: nowrap; }
.stretches li { margin: 0.6em 0; }
audio { display: block; width: 100%; max-width: 30em; height: 2.5em; }
.pictures { display: flex; flex-wrap: wrap; gap: 1em; }
.pictures img { max-width: 100%; width: 26em; }
footer a, footer button { color: var(--body-text-color) !important; }
"""


def results_html(service: Service, paths: Sequence[str | Path], names: Sequence[str]) -> str:
    """Return the results of one recording, of several, or of an archive.

    Args:
        service: Scores them.
        paths: The uploaded files.
        names: The names of the detectors.

    Raises:
        DataError: If there is no file, an archive is not alone, or as in the methods of `Service`.
    """
    if not paths:
        raise DataError(NOTHING)
    detectors = service.chosen(names)
    packed = [path for path in paths if is_archive(Path(path))]
    if packed and len(paths) > 1:
        raise DataError(f"{Path(packed[0]).name} is an archive: upload it alone")
    if packed:
        with service.unpacked(packed[0]) as found:
            scored = service.score(found.utterances, names)
            return _evaluated(scored, detectors)
    if len(paths) == 1:
        return timeline_html(service.hear(paths[0], names), detectors)
    return table(service.score(service.uploaded(paths), names), detectors)


def _evaluated(scored: dict[str, Scored], detectors: Sequence[NamedDetector]) -> str:
    """Return the scores of an archive; if it has labels, also AUC, EER, plots and their analysis."""
    rows = table(scored, detectors)
    rules = {named.name: named.rule for named in detectors}
    clustering = find_clusters(next(iter(scored.values())).utterances)
    summaries = {name: summarise(outcome, clustering, rule=rules[name]) for name, outcome in scored.items()}
    if not all("metrics" in summary for summary in summaries.values()):
        return rows + "<p>No AUC or EER: these need recordings in folders named Real and Fake.</p>"
    parts = [preformatted(screen.results(summaries))]
    for name, summary in summaries.items():
        drawn = results.pictures(scored[name], summary, name)
        parts.append(pictures({f"{what} of {name}": figure for what, figure in drawn.items()}))
        words = analyse(name, scored[name], summary, clip_properties(scored[name]), rules[name])
        parts.append(f'<div class="wide" tabindex="0">{_from_markdown(words)}</div>')
    return "".join([*parts, rows])


def timeline_html(recording: HeardRecording, detectors: Sequence[NamedDetector]) -> str:
    """Return each detector's verdict on a recording, its timeline, and the stretches that sound synthetic."""
    timelines, length = recording.timelines, clock(len(recording.wave) / recording.sample_rate)
    several = len(detectors) > 1
    verdicts = ", ".join(f"{name}: {timeline.overall}" for name, timeline in timelines.items())
    figure = plots.plot_timeline(recording.wave, recording.sample_rate, timelines)
    picture = _picture(figure, f"Waveform, spectrogram, and the margin over {length} ({verdicts})")
    info = recording.info
    parts = [
        f"<h2>{_text(recording.name)}</h2>",
        f"<p>{escape(info.format)}, {info.sample_rate} Hz, {length} (minutes:seconds)</p>",
        _player(recording.wave, recording.sample_rate, "Play the recording"),
        *(
            f"<p><b>Caution:</b> {escape(words)}.</p>"
            for words in cautions(recording.wave, recording.sample_rate, recording.info.note)
        ),
        *(_decision_html(named, timelines[named.name], several) for named in detectors),
        f'<div class="wide" tabindex="0">{picture}</div>',
        f"<p>{OVER_TIME}</p>",
        *(_stretches(recording, timelines[named.name], named.name if several else "") for named in detectors),
        _download(windows_csv(recording), "windows.csv", "All windows as CSV"),
    ]
    return _result(parts)


def _decision_html(named: NamedDetector, timeline: Timeline, several: bool) -> str:
    """Return a detector's verdict on a recording, and the reasons for it."""
    rule, verdict = named.rule, timeline.overall
    first = rule.decide(timeline.logits[0])
    how = [f"Decision rule: {escape(rule.describe())}."]
    if len(timeline.scores) == 1:
        says, probable = _score_line(rule, first), _probability(first)
    else:
        scores, mean = timeline.scores, timeline.margins.mean()
        says = (
            f"{len(scores)} windows with scores from <b>{scores.min():.2f}</b> to <b>{scores.max():.2f}</b> "
            f"(higher = more likely real); mean margin {mean:.2f}{_sure_from(rule)}."
        )
        probable = NO_COMMON_PROBABILITY
        elsewhere = (
            "" if named.detector.config.hears_whole else ", as by evaluate_custom.py and in publications"
        )
        how += [
            f"The whole recording is {escape(describe_overall(rule))}.",
            f"Judged by its first {timeline.ends[0]:.2f} s alone{elsewhere}: {first.verdict}. "
            f"{_score_line(rule, first)}",
        ]
    by = f" <small>({_text(named.name)})</small>" if several else ""
    says_verdict = VERDICTS[verdict] if rule.can_be_sure else f"Leans towards {verdict}"
    kind, how_lines = verdict.replace(" ", "-"), "".join(f"<p>{line}</p>" for line in how)
    return (
        f'<section class="judged {kind}"><h3>{SIGNS[verdict]} {says_verdict}{by}</h3>'
        f"<p>{says}</p><p>{probable if rule.can_be_sure else NO_PROBABILITY}</p>"
        f"<p>{_text(verdict_note(named.detector))}</p>"
        f"<details><summary>How this was decided</summary>{how_lines}</details>"
        f"{detector_html(named)}</section>"
    )


def _score_line(rule: Rule, decision: Decision) -> str:
    """Return a clip's score and threshold, and what they mean."""
    side = "real" if decision.margin >= 0 else "fake"
    which = ", the spoof logit of this clip" if rule.common_threshold is None else ""
    return (
        f"Score <b>{decision.score:.3f}</b> (higher = more likely real); threshold "
        f"{decision.threshold:.3f}{which}. The score is on the {side} side, with a margin of "
        f"{decision.margin:.2f}{_sure_from(rule)}."
    )


def _sure_from(rule: Rule) -> str:
    """Return what a margin must be for a sure verdict, in brackets; "" if none is ever sure."""
    if not rule.can_be_sure:
        return ""
    margins = {REAL: f"{LIMIT:.2f} or more", FAKE: f"{-LIMIT:.2f} or less"}
    sure = [f"{margin} is surely {verdict}" for verdict, margin in margins.items() if rule.can_say(verdict)]
    return f" ({', '.join(sure)})" if sure else " (it can never be sure)"


def _probability(decision: Decision) -> str:
    if decision.probability_real is None:
        return ""
    percent = 100 * decision.probability_real
    return f"Probability that it is real: {percent:.1f} %, if real and fake recordings are equally frequent."


def detector_html(named: NamedDetector) -> str:
    """Return what is known about a detector, folded up."""
    rows = "".join(
        f"<dt><b>{escape(title)}</b></dt><dd>{_text(words)}</dd>"
        for title, words in detector_card(named.detector).items()
    )
    return f"<details><summary>The detector: {_text(named.name)}</summary><dl>{rows}</dl></details>"


def _stretches(recording: HeardRecording, timeline: Timeline, detector: str) -> str:
    by = f" to {_text(detector)}" if detector else ""
    stretches = timeline.suspicious()
    if not stretches:
        return f"<p>No stretch sounds synthetic{by}.</p>"
    listed = sorted(stretches, key=lambda stretch: (not stretch.is_sure, stretch.margin))[:MOST_STRETCHES]
    items = "".join(_stretch(recording, stretch) for stretch in sorted(listed, key=lambda s: s.start))
    left = len(stretches) - len(listed)
    more = f"<p>... and {left} more in the CSV of all windows</p>" if left else ""
    return f'<h4>What sounds synthetic{by}</h4><ul class="stretches">{items}</ul>{more}'


def _stretch(recording: HeardRecording, stretch: Stretch) -> str:
    rate, end = recording.sample_rate, min(stretch.end, stretch.start + MOST_SECONDS)
    wave = recording.wave[round(stretch.start * rate) : round(end * rate)]
    times = f"{clock(stretch.start)} to {clock(stretch.end)}"
    cut = f" (its first {MOST_SECONDS} s)" if end < stretch.end else ""
    return (
        f"<li><b>{times}</b> {stretch.says}, lowest margin {stretch.margin:.2f}{cut}"
        f"{_player(wave, rate, f'Play {times}')}</li>"
    )


def table(scored: dict[str, Scored], detectors: Sequence[NamedDetector]) -> str:
    """Return a table of many recordings, with each detector's score and verdict, and all scores as CSV."""
    utterances = next(iter(scored.values())).utterances
    labelled = any(u.label for u in utterances)
    heading = ["recording", *["label"] * labelled]
    for named in detectors:
        suffix = f" ({named.name})" if len(detectors) > 1 else ""
        heading += [f"score{suffix}", f"verdict{suffix}"]
    rows = []
    for i, utterance in enumerate(utterances[:MOST_ROWS]):
        cells = [_text(utterance.name), *[escape(utterance.label)] * labelled]
        for named in detectors:
            outcome = scored[named.name]
            if i in outcome.failures:
                cells += ["", f"not scored: {_text(outcome.failures[i])}"]
            else:
                decision = named.rule.decide(outcome.logits[i])
                cells += [f"{decision.score:.3f}", f"{SIGNS[decision.verdict]} {decision.verdict}"]
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    left = len(utterances) - MOST_ROWS
    head = "".join(f'<th scope="col">{_text(words)}</th>' for words in heading)
    parts = [
        f'<div class="wide" tabindex="0"><table><thead><tr>{head}</tr></thead>',
        f"<tbody>{''.join(rows)}</tbody></table></div>",
        f"<p>... and {left} more in the CSV</p>" if left > 0 else "",
        f"<p>{escape(CONVENTION)}. Only the beginning of each recording was judged, as much as the network "
        "hears at once; upload a recording alone to have it judged in full.</p>",
        _download(scores_csv(scored, detectors), "scores.csv", "All scores as CSV"),
        *map(detector_html, detectors),
    ]
    return _result(parts)


def preformatted(text: str) -> str:
    """Return text in a fixed-width font, so that columns are straight."""
    return f'<div class="wide" tabindex="0"><pre>{escape(text)}</pre></div>'


def _from_markdown(text: str) -> str:
    """Return Markdown as HTML, without links, images and tags: it contains strangers' file names."""
    allowed = ["heading", "list", "emphasis", "table", "backticks"]
    return MarkdownIt("zero").enable(allowed).render(text)


def pictures(figures: dict[str, Figure]) -> str:
    """Return figures side by side, each with its key as a description."""
    shown = "".join(_picture(figure, words) for words, figure in figures.items())
    return f'<div class="pictures">{shown}</div>'


def scores_csv(scored: dict[str, Scored], detectors: Sequence[NamedDetector]) -> str:
    """Return a CSV file with a row for each recording and detector."""
    rows: list[tuple[object, ...]] = [
        ("path", "label", "detector", "score", "threshold", "margin", "verdict", "rule", "reason")
    ]
    for named in detectors:
        outcome = scored[named.name]
        for i, utterance in enumerate(outcome.utterances):
            row = (utterance.name, utterance.label, named.name)
            if i in outcome.failures:
                rows.append((*row, "", "", "", "", "", outcome.failures[i]))
                continue
            decision = named.rule.decide(outcome.logits[i])
            numbers = (decision.score, decision.threshold, decision.margin)
            rows.append((*row, *numbers, decision.verdict, decision.rule, ""))
    return _csv(rows)


def windows_csv(recording: HeardRecording) -> str:
    """Return a CSV file with a row for each window and detector."""
    rows = [(name, *row) for name, timeline in recording.timelines.items() for row in timeline.rows()]
    return _csv([("detector", *COLUMNS), *rows])


def _csv(rows: Sequence[tuple]) -> str:
    file = io.StringIO()
    csv.writer(file).writerows([_no_formula(cell) for cell in row] for row in rows)
    return file.getvalue()


def _no_formula(cell: object) -> object:
    """Put a quote before a text that a spreadsheet would take for a formula: file names are strangers'."""
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell


def _result(parts: Sequence[str]) -> str:
    """Wrap results so that screen readers announce them when they appear."""
    return f'<div class="result" aria-live="polite">{"".join(parts)}</div>'


def _text(words: object) -> str:
    return escape(printable(str(words)))


def _picture(figure: Figure, words: str) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return f'<img alt="{_text(words)}" src="{_data_uri("image/png", file.getvalue())}">'


def _player(wave: np.ndarray, sample_rate: int, words: str) -> str:
    file = io.BytesIO()
    soundfile.write(file, np.clip(wave, -1, 1), sample_rate, format="FLAC", subtype="PCM_16")
    sound = _data_uri("audio/flac", file.getvalue())
    return f'<audio controls preload="metadata" aria-label="{_text(words)}" src="{sound}"></audio>'


def _download(text: str, name: str, words: str) -> str:
    uri = _data_uri("text/csv;charset=utf-8", text.encode("utf-8", "replace"))
    return f'<p><a download="{name}" href="{uri}">{escape(words)}</a></p>'


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
