"""Whole recordings: windows that are scored as if alone, and the stretches that sound synthetic."""

import csv
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile
import torch
from helpers import PRESETS, tone
from PIL import Image

from antispoofing import text
from antispoofing.audio import cautions
from antispoofing.detectors.loading import for_scoring, load_detector
from antispoofing.errors import DataError, UserError
from antispoofing.report import plots, results, screen
from antispoofing.scoring.calibration import Calibration
from antispoofing.scoring.decision import FAKE, NOT_SURE, REAL, Rule
from antispoofing.scoring.score import score_windows
from antispoofing.scoring.timeline import MIXED, Stretch, Timeline, describe_overall, window_starts
from data_utils import AudioError, load_audio, pad
from model import Detector

WINDOW, HOP = 64600, 32300
UNCALIBRATED = Rule()
CALIBRATED = Rule(calibration=Calibration(1.0, 0.0, 50.0, "x", real_from=0.0, fake_to=0.0))
SAMPLES = Path(__file__).parent.parent / "samples"


@pytest.fixture(scope="module")
def stand_in():
    return for_scoring(load_detector(SAMPLES / "detector.safetensors", device="cpu"))


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
    detector = for_scoring(Detector(small_config))
    wave = noise(3 * WINDOW + 123)
    timeline = score_windows(detector, wave, Rule(), hop=1.0)
    for start, score in zip(timeline.starts, timeline.scores, strict=True):
        clip = wave[round(start * 16000) :][:WINDOW]
        assert score == score_windows(detector, clip, Rule()).scores[0]
        assert score == pytest.approx(detector.score(torch.from_numpy(clip)[None]).item(), abs=1e-5)


def test_a_window_has_the_score_of_the_recording_from_there_on(stand_in, tmp_path):
    """As `evaluate_custom.py --offset` hears it, at another sample rate too."""
    soundfile.write(tmp_path / "a.wav", tone(15, 44100, channels=2), 44100)
    timeline = score_windows(stand_in, load_audio(tmp_path / "a.wav"), Rule())
    assert len(timeline.scores) == 7
    for start, score in zip(timeline.starts, timeline.scores, strict=True):
        clip = pad(load_audio(tmp_path / "a.wav", max_samples=WINDOW, offset=start))
        assert score == pytest.approx(stand_in.score(torch.from_numpy(clip)[None]).item(), abs=1e-4)


@pytest.mark.parametrize("hop", [1e-9, 4.1, 1e9])
def test_a_hop_is_at_least_a_sample_and_at_most_a_window(stand_in, hop):
    with pytest.raises(DataError, match="it must be from"):
        score_windows(stand_in, noise(5), Rule(), hop)


def test_an_output_that_is_not_a_number_is_an_error():
    detector = Detector(PRESETS["small"]).eval()
    detector.back_end.out_layer.bias.data[:] = np.nan
    with pytest.raises(AudioError, match="not a number"):
        score_windows(detector, noise(5), Rule())


def timeline_of(margins, starts=None, rule=CALIBRATED):
    starts = np.arange(len(margins)) * 2.0 if starts is None else np.array(starts)
    logits = np.stack([np.zeros(len(margins)), margins], axis=1)
    return Timeline(starts, starts + 4, logits, rule)


@pytest.mark.parametrize(
    ("margins", "stretches"),
    [
        ([5, 5, 5], []),
        ([0.0], []),
        ([-1], [Stretch(0, 4, -1, False)]),
        ([-5], [Stretch(0, 4, -5, True)]),
        # the middles are at 2, 4, 6, 8, ..., so stretches begin and end at 3, 5, 7, ...
        ([5, -3, -4, 5], [Stretch(3, 7, -4, True)]),
        ([9, -1, -5, 9], [Stretch(3, 5, -1, False), Stretch(5, 7, -5, True)]),
        ([-5, 9, 9, -1], [Stretch(0, 3, -5, True), Stretch(7, 10, -1, False)]),
    ],
)
def test_the_stretches_that_sound_synthetic(margins, stretches):
    assert timeline_of(margins).suspicious() == stretches


def test_each_moment_goes_by_the_window_with_the_nearest_middle():
    rng = np.random.default_rng(1)
    for last in (30.7, 30.01):  # the last window begins as late as possible
        starts = np.append(np.arange(0, 30, 2.0), last)
        timeline = timeline_of(rng.normal(0, 4, len(starts)), starts)
        said = {}
        for stretch in timeline.suspicious():
            assert stretch.end - stretch.start > 1
            for now in np.arange(stretch.start, stretch.end, 0.1) + 1e-6:
                said[round(now, 6)] = FAKE if stretch.is_sure else NOT_SURE
        assert len(said) > 20
        for now, verdict in said.items():
            nearest = np.abs((timeline.starts + timeline.ends) / 2 - now).argmin()
            assert timeline.margins[nearest] < 0
            assert timeline.verdicts[nearest] == verdict


@pytest.mark.parametrize(
    ("margins", "overall"),
    [
        ([9.0, -1.0], REAL),
        ([-9.0, 1.0], FAKE),
        ([9.0, -2.9, -2.9], NOT_SURE),
        ([9.0, 9.0, 9.0, 9.0, -3.0], REAL),  # one window may be wrong by chance
        ([9.0, 9.0, 9.0, 9.0, -3.0, -9.0], REAL),  # and so may two that overlap by half
        ([9.0, 9.0, 9.0, -3.0, -9.0, -9.0], MIXED),
        ([-9.0, -9.0, -9.0, 3.0, 3.0, 3.0], MIXED),
        ([9.0, -9.0, 9.0, -9.0, 9.0, -9.0], NOT_SURE),
        ([9.0] * 60 + [-9.0] * 4, REAL),  # the longer a recording, the more are wrong in a row by chance
        ([9.0] * 60 + [-9.0] * 5, MIXED),
    ],
)
def test_the_judgement_of_the_whole(margins, overall):
    timeline = timeline_of(margins)
    assert timeline.overall == overall
    if overall == MIXED:
        assert any(stretch.is_sure for stretch in timeline.suspicious())


@pytest.mark.parametrize("rule", [Rule(0.0), Rule(), Rule(validation_threshold=0.0)])
@pytest.mark.parametrize(("margins", "overall"), [([9.0] * 3 + [-8.0] * 3, REAL), ([-9.0, 1.0], FAKE)])
def test_without_a_calibration_the_mean_decides_and_nothing_is_sure(margins, overall, rule):
    timeline = timeline_of(margins, rule=rule)
    assert timeline.overall == overall
    assert "mixed" not in describe_overall(timeline.rule)
    assert not any(stretch.is_sure for stretch in timeline.suspicious())


def test_a_recording_of_one_voice_is_rarely_called_mixed():
    """Windows that overlap by half, with an EER of 5 %; 2.5 % is what one would want at most."""
    rng = np.random.default_rng(2)
    distance = 3.29
    sets = rng.normal(distance, 1, 200), rng.normal(0, 1, 200)
    rule = Rule(calibration=Calibration.fit(*sets, "x"))
    for n in (7, 16, 30, 150):
        mixed = 0
        for i in range(300):
            noise = rng.standard_normal(n + 1)
            voice = np.sqrt(0.3) * rng.standard_normal() + np.sqrt(0.7) * (noise[1:] + noise[:-1]) / np.sqrt(
                2
            )
            scores = voice + distance * (i % 2)
            starts = np.arange(n) * 2.0
            logits = np.stack([np.zeros(n), scores], axis=1)
            mixed += Timeline(starts, starts + 4, logits, rule).overall == MIXED
        assert mixed <= 0.04 * 300


def test_each_window_has_a_verdict():
    assert timeline_of([5, -1, -5]).verdicts == [REAL, NOT_SURE, FAKE]


@pytest.mark.parametrize(
    ("wave", "words"),
    [
        (noise(16000), []),
        (noise(15999), ["less than 1 s"]),
        (np.zeros(32000), ["silent"]),
        (np.full(32000, 0.5), ["constant"]),
        (np.zeros(1), ["less than 1 s", "silent"]),
    ],
)
def test_what_cannot_be_judged_by(wave, words):
    found = cautions(wave, 16000)
    assert len(found) == len(words)
    assert all(word in caution for word, caution in zip(words, found, strict=True))


def test_the_lines_on_screen():
    timeline = timeline_of([5, -1, -9, -9, 40])
    assert screen.timeline_lines("a\nb.wav", timeline, ["it is silent"]) == [
        "a\\nb.wav, as a whole: REAL (5 windows, mean margin 5.20)",
        "  caution: it is silent",
        "  0:03.0 to 0:05.0 leans towards synthetic (lowest margin -1.00)",
        "  0:05.0 to 0:09.0 sounds synthetic (lowest margin -9.00)",
    ]
    assert text.clock(3599.96) == "59:59.9"


def test_whole_recordings_and_their_stretches_are_written(tmp_path):
    timelines = [
        ("a b\u00a0c.wav", timeline_of([5, -1, -9, -9, 40]), "it is silent"),
        ("d.wav", None, "gone"),
    ]
    results.write_overview(tmp_path, timelines)
    with open(tmp_path / "timelines.csv", encoding="utf-8", newline="") as file:
        first, second = csv.DictReader(file)
    assert first["whole_recording"] == "real"
    assert first["stretches"] == "3.00 to 5.00 s leans towards synthetic; 5.00 to 9.00 s sounds synthetic"
    assert (second["whole_recording"], second["note"]) == ("", "gone")
    lines = (tmp_path / "timelines.rttm").read_text(encoding="utf-8").splitlines()
    assert [line.split() for line in lines] == [
        ["SPEAKER", r"a\x20b\xa0c.wav", "1", *times, "<NA>", "<NA>", label, "<NA>", "<NA>"]
        for times, label in ((("3.000", "2.000"), "leans-synthetic"), (("5.000", "4.000"), "synthetic"))
    ]


def test_the_picture_marks_the_stretches(tmp_path):
    timelines = {"a$b": timeline_of([9, 9, -20, 9, 9]), "c": timeline_of([9, 9, 9, 9, 9])}
    figure = plots.plot_timeline(noise(12 * 16000), 16000, timelines)
    waveform, spectrogram, marked, unmarked = figure.axes
    assert waveform.get_xlim() == (0, 12)
    assert spectrogram.get_ylim() == (0, 8)
    spans = [patch.get_x() for patch in marked.patches]
    assert spans == [5.0]
    assert not unmarked.patches
    figure.savefig(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert len(np.unique(np.asarray(picture.convert("L")))) > 50


@pytest.mark.parametrize("n_samples", [1, 2, 511, 513])
def test_the_shortest_recordings_have_a_picture(n_samples, tmp_path):
    figure = plots.plot_timeline(np.zeros(n_samples, np.float32), 16000, {"a": timeline_of([1.0])})
    assert figure.axes[0].get_xlim() == (0, n_samples / 16000)
    figure.savefig(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.convert("L").getextrema() == (0, 255)  # black letters on white


def test_the_spectrogram_shows_a_tone_at_its_frequency():
    levels = plots._spectrogram(np.sin(2 * np.pi * 3000 * np.arange(48000) / 16000), 16000)
    assert np.ptp(levels.argmax(axis=0)) <= 1
    assert levels.argmax(axis=0)[50] == pytest.approx(3000 / 8000 * (len(levels) - 1), abs=1)
    assert np.ptp(levels) == pytest.approx(80)


def test_librosa_without_a_cache_folder_for_numba_names_the_remedy(monkeypatch):
    def unloadable(name):  # numba's words
        raise RuntimeError(f"cannot cache function {name!r}: no locator available for file 'x.py'")

    librosa = ModuleType("librosa")
    librosa.__getattr__ = unloadable
    monkeypatch.setitem(sys.modules, "librosa", librosa)
    with pytest.raises(UserError, match="set NUMBA_CACHE_DIR to a folder"):
        plots._spectrogram(noise(16000), 16000)


@pytest.mark.parametrize(("seconds", "columns"), [(3, 376), (120, 2001), (600, 2001)])
def test_a_spectrogram_has_no_more_columns_than_can_be_seen(seconds, columns):
    wave = np.zeros(seconds * 16000, np.float32)
    wave[len(wave) // 4] = 1
    levels = plots._spectrogram(wave, 16000)
    assert levels.shape == (257, columns)
    assert levels.max(axis=0).argmax() == pytest.approx(columns / 4, abs=1)
