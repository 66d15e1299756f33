"""Whole recordings: windows that are scored as if alone, and the stretches that sound synthetic."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from test_data_utils import tone

import plots
import report
from data_utils import load_audio, pad
from decision import FAKE, NOT_SURE, REAL, Rule
from detector import Detector, load_detector
from windows import Stretch, Timeline, score_windows, window_starts

WINDOW, HOP = 64600, 32300
SAMPLES = Path(__file__).parent.parent / "samples"


@pytest.fixture(scope="module")
def stand_in():
    return load_detector(SAMPLES / "detector.safetensors", device="cpu").for_scoring()


def noise(n):
    return (0.1 * np.random.default_rng(n).standard_normal(n)).astype(np.float32)


@pytest.mark.parametrize(
    ("n_samples", "starts"),
    [
        (1, [0]),
        (WINDOW, [0]),
        (WINDOW + 1, [0, 1]),
        (WINDOW + HOP, [0, HOP]),
        (WINDOW + HOP + 5, [0, HOP, HOP + 5]),
        (3 * WINDOW, [0, HOP, 2 * HOP, 3 * HOP, 4 * HOP]),
    ],
)
def test_windows_cover_everything_and_end_with_the_recording(n_samples, starts):
    assert window_starts(n_samples, WINDOW, HOP).tolist() == starts


@pytest.mark.parametrize("n_samples", [1, 5000, WINDOW, WINDOW + 1, 7 * WINDOW + 123])
def test_a_window_has_the_score_of_the_same_samples_alone(stand_in, n_samples):
    wave = noise(n_samples)
    timeline = score_windows(stand_in, wave, Rule())
    for start, end, logits in zip(timeline.starts, timeline.ends, timeline.logits, strict=True):
        alone = pad(wave[round(start * 16000) : round(end * 16000)])
        with torch.inference_mode():
            expected = stand_in(torch.from_numpy(alone)[None])[0]
        np.testing.assert_allclose(logits, expected, atol=1e-5)
    assert (timeline.starts[0], timeline.ends[-1]) == (0, n_samples / 16000)


def test_an_xlsr_window_has_that_score_to_the_last_bit(small_config):
    torch.manual_seed(0)
    detector = Detector(small_config).for_scoring()
    wave = noise(3 * WINDOW + 123)
    timeline = score_windows(detector, wave, Rule(), hop=1.0)
    for start, score in zip(timeline.starts, timeline.scores, strict=True):
        clip = wave[round(start * 16000) :][:WINDOW]
        assert score == score_windows(detector, clip, Rule()).scores[0]
        assert score == pytest.approx(detector.score(torch.from_numpy(clip)[None]).item(), abs=1e-5)


def test_a_window_has_the_score_of_the_recording_from_there_on(stand_in, tmp_path):
    """What `evaluate_custom.py --offset` hears, of another sample rate too."""
    soundfile.write(tmp_path / "a.wav", tone(15, 44100, channels=2), 44100)
    timeline = score_windows(stand_in, load_audio(tmp_path / "a.wav"), Rule())
    assert len(timeline.scores) == 7
    for start, score in zip(timeline.starts, timeline.scores, strict=True):
        clip = pad(load_audio(tmp_path / "a.wav", max_samples=WINDOW, offset=start))
        assert score == pytest.approx(stand_in.score(torch.from_numpy(clip)[None]).item(), abs=1e-4)


def test_a_hop_of_nothing_is_refused(stand_in):
    with pytest.raises(ValueError, match="hop"):
        score_windows(stand_in, noise(5), Rule(), hop=1e-9)


def timeline_of(margins, starts=None, length=4.0):
    starts = np.arange(len(margins)) * 2.0 if starts is None else np.array(starts)
    logits = np.stack([np.zeros(len(margins)), margins], axis=1)
    return Timeline(starts, starts + length, logits, Rule())


@pytest.mark.parametrize(
    ("margins", "stretches"),
    [
        ([5, 5, 5], []),
        ([0.0], []),
        ([-1], [Stretch(0, 4, -1, False)]),
        ([-5], [Stretch(0, 4, -5, True)]),
        # over 2 to 4 s lies the mean of two windows, 1; over 4 to 6 s that of two others, -3
        ([5, -3, -3, 5], [Stretch(4, 6, -3, True)]),
        ([9, -1, -1, 9], [Stretch(4, 6, -1, False)]),
        ([9, -1, -1, -9, 9], [Stretch(4, 6, -1, False), Stretch(6, 8, -9, True)]),
        ([-9, -9, 99, -1], [Stretch(0, 4, -9, True), Stretch(8, 10, -1, False)]),
    ],
)
def test_the_stretches_that_sound_synthetic(margins, stretches):
    assert timeline_of(margins).suspicious() == stretches


def test_stretches_are_what_each_moment_by_itself_says():
    rng = np.random.default_rng(1)
    for _ in range(20):
        starts = np.append(np.arange(0, 30, 2.0), 30.7)
        timeline = timeline_of(rng.normal(0, 4, len(starts)), starts)
        said = np.full(347, REAL, dtype=object)
        for stretch in timeline.suspicious():
            said[round(stretch.start * 10) : round(stretch.end * 10)] = FAKE if stretch.is_sure else NOT_SURE
        for tenth in range(347):
            now = tenth / 10 + 0.05
            over = (timeline.starts <= now) & (timeline.ends > now)
            margin = timeline.margins[over].mean(keepdims=True)
            assert said[tenth] == (REAL if margin >= 0 else timeline.rule.verdict(margin))


def test_each_window_has_a_verdict():
    assert timeline_of([5, -1, -5]).verdicts() == [REAL, NOT_SURE, FAKE]


def test_the_lines_on_screen():
    timeline = timeline_of([5, 5, -9, -9, 40])
    assert report.timeline_lines("a\nb.wav", timeline) == [
        "a\\nb.wav: MIXED (5 windows, mean margin 6.40)",
        "  0:04.0 to 0:06.0 leans towards synthetic (lowest score -9.00)",
        "  0:06.0 to 0:08.0 sounds synthetic (lowest score -9.00)",
    ]
    assert report.clock(3599.96) == "59:59.9"


def test_the_picture_marks_the_stretches(tmp_path):
    timelines = {"a$b": timeline_of([9, 9, -20, 9, 9]), "c": timeline_of([9, 9, 9, 9, 9])}
    figure = plots.plot_timeline(noise(12 * 16000), 16000, timelines)
    waveform, spectrogram, marked, unmarked = figure.axes
    assert waveform.get_xlim() == (0, 12)
    assert spectrogram.get_ylim() == (0, 8)
    spans = [patch.get_x() for patch in marked.patches]
    assert spans == [4.0]
    assert not unmarked.patches
    figure.savefig(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert len(np.unique(np.asarray(picture.convert("L")))) > 50


@pytest.mark.parametrize("n_samples", [1, 2, 511, 513])
def test_the_shortest_recordings_have_a_picture(n_samples, tmp_path):
    figure = plots.plot_timeline(np.zeros(n_samples, np.float32), 16000, {"a": timeline_of([1.0])})
    figure.savefig(tmp_path / "a.png")


def test_the_spectrogram_shows_a_tone_at_its_frequency():
    levels = plots._spectrogram(np.sin(2 * np.pi * 3000 * np.arange(48000) / 16000), 16000)
    assert np.ptp(levels.argmax(axis=0)) <= 1
    assert levels.argmax(axis=0)[50] == pytest.approx(3000 / 8000 * (len(levels) - 1), abs=1)
