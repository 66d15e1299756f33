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
from antispoofing.metrics import ErrorRates
from antispoofing.scoring.scored import Scored
from antispoofing.scoring.timeline import Timeline
from antispoofing.training.history import EpochResult, best_epoch

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

REAL_COLOR, FAKE_COLOR = "tab:blue", "tab:orange"  # colour-blind people can tell these apart


def plot_roc(points: ErrorRates, auc: float, interval: Sequence[float]) -> Figure:
    """Draw the ROC curve: the share of real clips accepted over the share of fake clips accepted.

    Args:
        points: The operating points.
        auc: Area under the curve.
        interval: 95 % interval of the AUC.
    """
    low, high = interval
    figure = _figure(5, 5)
    axes = figure.add_subplot(aspect="equal", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.plot([0, 1], [0, 1], color="0.7", linestyle="--", linewidth=1, label="chance")
    label = f"AUC {auc:.3f} [{low:.3f}, {high:.3f}]"
    axes.plot(points.far, 1 - points.frr, label=label)
    axes.set(xlabel="fake accepted (FAR)", ylabel="real accepted (1 - FRR)")
    axes.legend()
    return figure


def plot_det(points: ErrorRates, summary: dict) -> Figure:
    """Draw the DET curve: misses over false alarms, on normal deviate scales."""
    # On such scales, rates of 0 and 1 are infinitely far away; they are drawn half a clip away from 0 and 1.
    half = 0.5 / max(summary["counts"]["bonafide_scored"], summary["counts"]["spoof_scored"])
    edge = max(half / 2, 5e-4)
    far, frr = (scipy.stats.norm.ppf(np.clip(rate, half, 1 - half)) for rate in (points.far, points.frr))
    ticks = np.array([0.1, 1, 5, 20, 50, 80, 95, 99, 99.9]) / 100
    ticks = ticks[(ticks > edge) & (ticks < 1 - edge)]
    limits = scipy.stats.norm.ppf([edge, 1 - edge])
    low, high = (100 * rate for rate in summary["intervals_95"]["eer"])
    figure = _figure(5, 5)
    axes = figure.add_subplot(aspect="equal", xlim=limits, ylim=limits)
    axes.plot(limits, limits, color="0.7", linestyle="--", linewidth=1, label="FAR = FRR")
    axes.plot(far, frr, label=f"EER {100 * summary['metrics']['eer']:.1f} % [{low:.1f}, {high:.1f}]")
    axes.set_xticks(scipy.stats.norm.ppf(ticks), [f"{100 * t:g}" for t in ticks])
    axes.set_yticks(scipy.stats.norm.ppf(ticks), [f"{100 * t:g}" for t in ticks])
    axes.set(xlabel="fake accepted, FAR (%)", ylabel="real rejected, FRR (%)")
    axes.legend()
    return figure


def plot_histogram(bonafide: np.ndarray, spoof: np.ndarray, summary: dict) -> Figure:
    """Draw the density of each class's scores."""
    bins = np.histogram_bin_edges(np.concatenate([bonafide, spoof]), bins=40).tolist()
    threshold = summary["metrics"]["threshold_at_eer_chosen_on_this_set"]
    figure = _figure(6, 4)
    axes = figure.add_subplot()
    axes.hist(spoof, bins, alpha=0.6, density=True, color=FAKE_COLOR, label=f"fake ({len(spoof)})")
    axes.hist(bonafide, bins, alpha=0.6, density=True, color=REAL_COLOR, label=f"real ({len(bonafide)})")
    axes.axvline(threshold, color="0.3", linestyle="--", linewidth=1, label="EER, chosen on this set")
    axes.set(xlabel="score (higher = more likely real)", ylabel="density")
    axes.legend()
    return figure


def plot_history(history: Sequence[EpochResult]) -> Figure:
    """Draw both losses and the validation EER over the epochs, and mark the epoch that is kept."""
    epochs = [result.epoch for result in history]
    kept = best_epoch(history)
    figure = _figure(6, 6)
    losses, eers = figure.subplots(2, sharex=True)
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
    """Draw each clip's score after fine-tuning over its score before; on the diagonal nothing changed."""
    figure = _figure(5.5, 5)
    axes = figure.add_subplot()
    for (label, word, _), color in ((FAKE, FAKE_COLOR), (REAL, REAL_COLOR)):
        chosen = np.array([u.label == label for u in before.utterances])
        axes.scatter(before.scores[chosen], after.scores[chosen], s=14, alpha=0.6, color=color, label=word)
    low, high = axes.get_xlim()
    axes.plot([low, high], [low, high], color="0.5", linestyle="--", linewidth=1, label="no change")
    axes.set(xlabel="score before (higher = more likely real)", ylabel="score after")
    axes.legend()
    return figure


def plot_timeline(wave: np.ndarray, sample_rate: int, timelines: Mapping[str, Timeline]) -> Figure:
    """Draw a recording's waveform and spectrogram, and under them each detector's score over time.

    Each window's score is drawn at the window's middle; blue is the real side of the threshold, orange the
    fake side. Stretches that sound synthetic are shaded.

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
        _draw_scores(axes, timeline)
        axes.set_ylabel(f"score\n{name}"[:40], parse_math=False)
    rows[-1].set(xlabel="s")
    return figure


def _draw_scores(axes: Axes, timeline: Timeline) -> None:
    for stretch in timeline.suspicious():
        axes.axvspan(stretch.start, stretch.end, color=FAKE_COLOR, alpha=0.35 if stretch.is_sure else 0.12)
    middles = (timeline.starts + timeline.ends) / 2
    times = np.concatenate([timeline.starts[:1], middles, timeline.ends[-1:]])
    scores = np.pad(timeline.scores, 1, "edge")
    thresholds = np.pad(timeline.rule.thresholds(timeline.logits), 1, "edge")
    for side, color in ((scores > thresholds, REAL_COLOR), (scores < thresholds, FAKE_COLOR)):
        axes.fill_between(times, scores, thresholds, side, interpolate=True, color=color, alpha=0.5)
    axes.plot(times, thresholds, color="0.4", linestyle="--", linewidth=1, label="threshold")
    axes.plot(times, scores, color="0.1", linewidth=1.2)
    axes.plot(middles, timeline.scores, "o", color="0.1", markersize=3.5, label="score of a window")
    axes.legend(fontsize="small")


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
