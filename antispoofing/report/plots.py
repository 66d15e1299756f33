"""Pictures of results.

Convention: a score is logit 1 (bona fide), higher = more likely real.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import scipy  # scipy.stats, which takes half a second to import, is loaded on first use

from antispoofing.classes import FAKE, REAL
from antispoofing.errors import UserError
from antispoofing.metrics import ErrorRates, compute_eer
from antispoofing.scoring.calibration import LIMIT
from antispoofing.scoring.scored import Scored
from antispoofing.scoring.timeline import Timeline
from antispoofing.text import auc_text, eer_text, printable, with_interval
from antispoofing.training.history import EpochResult, best_epoch

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REAL_COLOR, FAKE_COLOR = "tab:blue", "tab:orange"  # colour-blind people can tell these apart
# Of detectors and of curves, so that each colour has one meaning.
CURVE_COLORS = (
    "black",
    "tab:green",
    "tab:purple",
    "tab:brown",
    "tab:pink",
    "tab:olive",
    "tab:cyan",
    "tab:red",
)


def plot_roc(points: Mapping[str, ErrorRates], summaries: Mapping[str, dict]) -> Figure:
    """Draw ROC curves: the share of real clips accepted over the share of fake clips accepted.

    Args:
        points: The operating points of each detector, by its name.
        summaries: Their figures, from `report.summary.summarise`.
    """
    figure = _figure(5, 5)
    axes = figure.add_subplot(aspect="equal", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.set_prop_cycle(color=CURVE_COLORS)
    axes.plot([0, 1], [0, 1], color="0.7", linestyle="--", linewidth=1, label="chance")
    for name, of_one in points.items():
        auc = auc_text(summaries[name]["metrics"]["auc"], summaries[name]["intervals_95"]["auc"])
        drawn = axes.plot(of_one.far, 1 - of_one.frr, label=_labelled(name, f"AUC {auc}", points))
        frr, far = _at_eer(of_one)
        axes.plot(far, 1 - frr, "o", color=drawn[0].get_color(), markersize=5)
    axes.plot([], [], "o", color="0.3", markersize=5, label="EER")
    axes.set(xlabel="fake accepted (FAR)", ylabel="real accepted (1 - FRR)")
    axes.legend(loc="lower right")
    _entitle(figure, summaries)
    return figure


def plot_det(points: Mapping[str, ErrorRates], summaries: Mapping[str, dict]) -> Figure:
    """Draw DET curves: misses over false alarms, on probit axes, where normal scores give straight lines.

    Rates of 0 and 1 are infinitely far away on such axes. They are drawn on the axes' edges, which are beyond
    half a clip, and the picture says so.

    Args:
        points: The operating points of each detector, by its name.
        summaries: Their figures, from `report.summary.summarise`.
    """
    counts = [summary["counts"] for summary in summaries.values()]
    most = max(max(c["bonafide_scored"], c["spoof_scored"]) for c in counts)
    edge = max(0.25 / most, 5e-5)
    ticks = np.array([0.01, 0.1, 1, 5, 20, 50, 80, 95, 99, 99.9, 99.99]) / 100
    ticks = ticks[(ticks > edge) & (ticks < 1 - edge)]
    limits = scipy.stats.norm.ppf([edge, 1 - edge])
    figure = _figure(5, 5.3)
    axes = figure.add_subplot(aspect="equal", xlim=limits, ylim=limits)
    axes.set_prop_cycle(color=CURVE_COLORS)
    axes.plot(limits, limits, color="0.7", linestyle="--", linewidth=1, label="FAR = FRR")
    for name, of_one in points.items():
        far, frr = (scipy.stats.norm.ppf(np.clip(rate, edge, 1 - edge)) for rate in (of_one.far, of_one.frr))
        interval = summaries[name]["intervals_95"]["eer"]
        eer = with_interval(f"{eer_text(summaries[name]['metrics']['eer'])} %", interval, eer_text)
        drawn = axes.plot(far, frr, label=_labelled(name, f"EER {eer}", points))
        at = [scipy.stats.norm.ppf(np.clip(rate, edge, 1 - edge)) for rate in _at_eer(of_one)]
        axes.plot(at[1], at[0], "o", color=drawn[0].get_color(), markersize=5)
    axes.set_xticks(scipy.stats.norm.ppf(ticks), [f"{100 * t:g}" for t in ticks])
    axes.set_yticks(scipy.stats.norm.ppf(ticks), [f"{100 * t:g}" for t in ticks])
    axes.set(xlabel="fake accepted, FAR (%)\n(0 and 100 % are on the edges)", ylabel="real rejected, FRR (%)")
    axes.legend(loc="upper right")
    _entitle(figure, summaries)
    return figure


def _at_eer(points: ErrorRates) -> tuple[float, float]:
    """Return FRR and FAR at the EER."""
    at = int(np.abs(points.frr - points.far).argmin())
    return float(points.frr[at]), float(points.far[at])


def _labelled(name: str, figure: str, points: Mapping[str, ErrorRates]) -> str:
    """Return the label of a curve, with the detector's name if there are several."""
    name = printable(name).replace("$", r"\$")
    # Matplotlib leaves labels out that begin with "_".
    return figure if len(points) == 1 else f"{' ' * name.startswith('_')}{name}: {figure}"


def _entitle(figure: Figure, summaries: Mapping[str, dict]) -> None:
    """Write above a picture which detector it is of, and how many clips."""
    counts = [summary["counts"] for summary in summaries.values()]
    numbers = {(c["bonafide_scored"], c["spoof_scored"]) for c in counts}
    clips = "; ".join(f"{real} real, {fake} fake clips" for real, fake in sorted(numbers))
    named = printable(next(iter(summaries))) if len(summaries) == 1 else f"{len(summaries)} detectors"
    # A file's name may have a $ in it.
    figure.suptitle(f"{named}\n{clips}", parse_math=False, fontsize="medium")


def plot_histogram(title: str, bonafide: np.ndarray, spoof: np.ndarray, summary: dict) -> Figure:
    """Draw the density of each class's scores."""
    scores = np.concatenate([bonafide, spoof])
    low, high = float(scores.min()), float(scores.max())
    if high - low < 1e-9 * max(abs(low), abs(high), 1e-9):  # too close together for 40 bins
        low, high = low - 0.5, high + 0.5
    bins = np.linspace(low, high, 41).tolist()
    threshold = summary["metrics"]["threshold_at_eer_chosen_on_this_set"]
    figure = _figure(6, 4)
    axes = figure.add_subplot()
    axes.hist(spoof, bins, alpha=0.6, density=True, color=FAKE_COLOR, label=f"fake ({len(spoof)})")
    axes.hist(bonafide, bins, alpha=0.6, density=True, color=REAL_COLOR, label=f"real ({len(bonafide)})")
    axes.axvline(
        threshold, color="0.3", linestyle="--", linewidth=1, label="EER threshold, chosen on this set"
    )
    if "at_threshold" in summary:
        at = summary["at_threshold"]["threshold"]
        axes.axvline(at, color="0.3", linestyle="-", linewidth=1, label="threshold, chosen elsewhere")
    axes.set(xlabel="score (higher = more likely real)", ylabel="density")
    axes.legend(loc="upper left")
    _entitle(figure, {title: summary})
    return figure


def plot_history(history: Sequence[EpochResult]) -> Figure:
    """Draw both losses and the validation EER over the epochs, and mark the epoch that is kept."""
    epochs = [result.epoch for result in history]
    kept = best_epoch(history)
    figure = _figure(6, 6)
    losses, eers = figure.subplots(2, sharex=True)
    for axes in (losses, eers):
        axes.set_prop_cycle(color=CURVE_COLORS)
    losses.plot(epochs, [result.train_loss for result in history], marker="o", label="training")
    losses.plot(epochs, [result.validation_loss for result in history], marker="o", label="validation")
    losses.set(ylabel="cross entropy (nats)", ylim=(0, None))
    eers.plot(epochs, [100 * result.validation_eer for result in history], marker="o", label="validation")
    eers.plot(kept.epoch, 100 * kept.validation_eer, "o", color="tab:red", markersize=9, label="kept")
    eers.set(xlabel="epoch", ylabel="EER (%)", ylim=(0, None), xticks=epochs)
    losses.legend()
    eers.legend()
    return figure


def plot_change(before: Scored, after: Scored) -> Figure:
    """Draw each clip's score after fine-tuning over its score before; on the diagonal nothing changed.

    The dotted lines are at the EER thresholds, at which misjudged clips are compared.
    """
    figure = _figure(5.5, 5)
    axes = figure.add_subplot()
    for (label, word, _), color in ((FAKE, FAKE_COLOR), (REAL, REAL_COLOR)):
        chosen = np.array([u.label == label for u in before.utterances])
        axes.scatter(before.scores[chosen], after.scores[chosen], s=14, alpha=0.6, color=color, label=word)
    low, high = axes.get_xlim()
    axes.plot([low, high], [low, high], color="0.5", linestyle="--", linewidth=1, label="no change")
    for draw, scored in ((axes.axvline, before), (axes.axhline, after)):
        draw(compute_eer(scored.bonafide, scored.spoof).threshold, color="0.3", linestyle=":", linewidth=1)
    axes.plot([], [], color="0.3", linestyle=":", linewidth=1, label="EER threshold")
    axes.set(xlabel="score before (higher = more likely real)", ylabel="score after")
    axes.legend()
    return figure


def plot_timeline(wave: np.ndarray, sample_rate: int, timelines: Mapping[str, Timeline]) -> Figure:
    """Draw a recording's waveform and spectrogram, and under them each detector's margin over time.

    Each window's margin is drawn at the window's middle; above 0, the real side, it is blue, and below it
    orange. Stretches that sound synthetic are shaded. With a calibration, dotted lines show from where on a
    verdict is sure.

    Args:
        wave: Samples [n].
        sample_rate: Sample rate in Hz.
        timelines: The recording's timeline by each detector, by the detector's name.

    Raises:
        UserError: If librosa, which computes the spectrogram, cannot be loaded.
    """
    seconds = len(wave) / sample_rate
    figure = _figure(9, 3 + 1.7 * len(timelines))
    rows = figure.subplots(2 + len(timelines), sharex=True, height_ratios=[1, 1.4, *[1.6] * len(timelines)])
    times, low, high = _envelope(wave, sample_rate)
    rows[0].fill_between(times, low, high, step="post", color="0.35", linewidth=0)
    rows[0].set(
        ylabel="waveform", xlim=(0, seconds), ylim=(-1.05 * (peak := np.abs(wave).max() or 1), 1.05 * peak)
    )
    levels = _spectrogram(wave, sample_rate)
    rows[1].imshow(
        levels,
        origin="lower",
        aspect="auto",
        extent=(0, seconds, 0, sample_rate / 2000),
        cmap="magma",
        vmin=levels.max() - 80,
    )
    rows[1].set(ylabel="kHz")
    for axes, (name, timeline) in zip(rows[2:], timelines.items(), strict=True):
        _draw_margins(axes, timeline)
        axes.set_ylabel(f"margin\n{name}"[:40], parse_math=False)
        axes.set_title(f"as a whole: {timeline.overall}", fontsize="medium")
    rows[-1].set(xlabel="s")
    return figure


def _draw_margins(axes: Axes, timeline: Timeline) -> None:
    for stretch in timeline.suspicious():
        axes.axvspan(stretch.start, stretch.end, color=FAKE_COLOR, alpha=0.35 if stretch.is_sure else 0.12)
    middles = (timeline.starts + timeline.ends) / 2
    times = np.concatenate([timeline.starts[:1], middles, timeline.ends[-1:]])
    margins = np.pad(timeline.margins, 1, "edge")
    for side, color in ((margins > 0, REAL_COLOR), (margins < 0, FAKE_COLOR)):
        axes.fill_between(times, margins, 0, side, interpolate=True, color=color, alpha=0.5)
    axes.axhline(0, color="0.4", linewidth=1)
    if timeline.rule.can_be_sure:
        for limit in (LIMIT, -LIMIT):
            axes.axhline(limit, color="0.4", linestyle=":", linewidth=1)
    axes.plot(times, margins, color="0.1", linewidth=1.2)
    axes.plot(middles, timeline.margins, "o", color="0.1", markersize=3.5)


def _envelope(wave: np.ndarray, sample_rate: int, columns: int = 2000) -> tuple[np.ndarray, ...]:
    """Reduce a wave to what can be seen: times in s, and the wave's minimum and maximum from each on."""
    starts = np.unique(np.linspace(0, len(wave), columns, endpoint=False, dtype=np.int64))
    return starts / sample_rate, np.minimum.reduceat(wave, starts), np.maximum.reduceat(wave, starts)


def _spectrogram(wave: np.ndarray, sample_rate: int) -> np.ndarray:
    """Return the power in dB [frequencies, times] of 32 ms Hann windows, down to 80 dB below the loudest.

    The windows are a quarter of their length apart, or farther, so that there are no more than about 2000.
    """
    try:
        from librosa import power_to_db, stft  # takes a second to import: only when there is a plot
    except RuntimeError as error:  # numba's, which names no remedy
        raise UserError(
            "the spectrogram cannot be drawn: numba, which librosa needs, can write its cache neither beside "
            "librosa nor in the home folder; set NUMBA_CACHE_DIR to a folder that it may write to"
        ) from error
    size = max(4, round(0.032 * sample_rate))
    wave = np.pad(wave, (0, max(0, size - len(wave))))  # librosa warns if a window does not fit
    spectrum = stft(wave, n_fft=size, hop_length=max(size // 4, len(wave) // 2000))
    return power_to_db(np.abs(spectrum) ** 2, top_db=80)


def _figure(width: float, height: float) -> Figure:
    """Return an empty figure; sizes are in inches."""
    from matplotlib.figure import Figure  # takes a third of a second to import: only when there is a plot

    return Figure(figsize=(width, height), layout="constrained")
