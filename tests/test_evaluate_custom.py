"""`evaluate_custom.py` as a user runs it: what it prints, writes and refuses."""

import csv
import hashlib
import importlib.metadata
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
import soundfile
import torch
from helpers import PRESETS, read_metrics, read_scores, tone, write_bad_files
from PIL import Image

import evaluate_custom
import evaluate_custom_for
import fine_tune_for
from antispoofing import distributed, metrics, project
from antispoofing.detectors.checkpoints import official_name
from antispoofing.detectors.loading import save_detector
from antispoofing.errors import ProcessError
from antispoofing.report import plots, screen
from data_utils import load_audio, pad
from model import Detector

SCRIPT = Path(evaluate_custom.__file__)

WORDS = {"bonafide": "real", "spoof": "fake"}  # of the classes, in verdicts


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    return Detector(PRESETS["small"]).eval()


@pytest.fixture
def workplace(tmp_path, monkeypatch, detector):
    """Change to an empty folder with a detector's file in it."""
    monkeypatch.chdir(tmp_path)
    save_detector(detector, "detector.safetensors")
    return tmp_path


def write_clips(folder, rates=(8000, 16000, 22050, 44100, 48000), formats=("wav", "flac", "mp3", "ogg")):
    folder.mkdir(parents=True)
    for i, rate in enumerate(rates):
        for suffix in formats:
            soundfile.write(folder / f"{rate}.{suffix}", tone(1 + i, rate, channels=1 + i % 2), rate)
    soundfile.write(folder / "48000.opus", tone(2, 48000), 48000, format="OGG", subtype="OPUS")


def run(*args) -> int:
    args = [*map(str, args)]
    return evaluate_custom.main(args if "--workers" in args else [*args, "--workers", "0"])


def test_every_format_and_rate_gets_the_score_of_its_samples(workplace, detector, capsys):
    write_clips(workplace / "data" / "Real")
    write_clips(workplace / "data" / "Fake")
    bad = write_bad_files(workplace / "data" / "Fake" / "bad")
    options = ("--batch-size", 4, "--workers", 2)
    assert run("--data", "data", "--checkpoint", "detector.safetensors", *options) == 0

    folder = workplace / "results" / "custom" / "detector"
    rows = read_scores(folder)
    assert len(rows) == 2 * 21 + len(bad)
    for name, row in rows.items():
        if "/bad/" in name:
            assert (row["label"], row["score"], row["verdict"]) == ("spoof", "", "")
            continue
        assert row["label"] == ("bonafide" if name.startswith("Real/") else "spoof")
        wave = torch.from_numpy(pad(load_audio(workplace / "data" / name)))
        assert float(row["score"]) == pytest.approx(float(detector.score(wave[None])), abs=1e-5)

    with open(folder / "failures.csv", encoding="utf-8", newline="") as file:
        failures = {Path(row["path"]).name: row["reason"] for row in csv.DictReader(file)}
    assert failures.keys() == bad.keys()
    assert all(bad[name] in reason for name, reason in failures.items())

    found = read_metrics(folder)
    assert found["counts"] == {
        "files": 42 + len(bad),
        "scored": 42,
        "failed": len(bad),
        "bonafide_scored": 21,
        "spoof_scored": 21,
        "unlabelled_scored": 0,
    }
    assert sum(found["failures"].values()) == len(bad)
    assert found["failures"]["it has no samples"] == 1
    assert found["metrics"]["auc"] == pytest.approx(0.5, abs=0.02)  # the same clips on both sides
    assert len(found["detector"]["sha256"]) == 64
    assert found["command"].startswith("python evaluate_custom.py --data data")
    assert "higher = more likely real" in found["convention"]
    for package in ("numpy", "scikit-learn", "librosa", "soundfile"):
        assert found["versions"][package] == importlib.metadata.version(package)
    for picture in ("roc", "det", "histogram"):
        with Image.open(folder / f"{picture}.png") as image:
            assert min(image.size) > 400
            assert np.ptp(np.asarray(image.convert("L"))) > 200  # something is drawn
    shown = capsys.readouterr().out
    assert "42 recordings" not in shown
    assert f"{42 + len(bad)} recordings: 21 real, {21 + len(bad)} fake" in shown
    assert "AUC [95 %]" in shown
    assert "not scored: Fake/bad/no_samples.wav: it has no samples" in shown


def write_sorted_clips(folder, detector, real_scores_higher: bool, n=40):
    """Write noise clips to Real and Fake by the scores that a detector gives them; return the median."""
    rng = np.random.default_rng(0)
    waves = (0.1 * rng.standard_normal((n, 8000)) * np.logspace(-2, 0, n)[:, None]).astype(np.float32)
    scores = detector.score(torch.from_numpy(np.stack([pad(wave) for wave in waves]))).numpy()
    for label, chosen in (("Fake", scores < np.median(scores)), ("Real", scores >= np.median(scores))):
        label = label if real_scores_higher else {"Fake": "Real", "Real": "Fake"}[label]
        (folder / label).mkdir(parents=True)
        for i in np.flatnonzero(chosen):
            soundfile.write(folder / label / f"{i}.wav", waves[i], 16000, subtype="FLOAT")
    return float(np.median(scores))


def test_each_recording_is_opened_once_and_not_again_for_the_analysis(
    workplace, detector, monkeypatch, capsys
):
    write_sorted_clips(workplace / "data", detector, real_scores_higher=True, n=6)
    opened = []
    init = soundfile.SoundFile.__init__

    def counted(self, file, *args, **kwargs):
        opened.append(file)
        init(self, file, *args, **kwargs)

    monkeypatch.setattr(soundfile.SoundFile, "__init__", counted)
    assert run("--data", "data", "--checkpoint", "detector.safetensors", "--no-audit") == 0
    assert len(opened) == len(set(opened)) == 6


def test_a_planted_reversal_is_announced_and_not_flipped(workplace, detector, capsys):
    write_sorted_clips(workplace / "data", detector, real_scores_higher=False)
    assert run("--data", "data", "--checkpoint", "detector.safetensors") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "WARNING, detector: the AUC is 0.0000" in shown
    assert "labels or the scores are reversed, or the detector fails" in shown
    assert "Nothing was flipped" in shown
    assert "AUC 1.0000, EER 0.00 %" in shown
    found = read_metrics(workplace / "results" / "custom" / "detector")
    assert found["reversed"] is True
    assert found["metrics"]["auc"] == 0.0
    assert found["if_reversed"] == {"auc": 1.0, "eer": 0.0}


def test_a_good_detector_at_a_given_threshold(workplace, detector, capsys):
    median = write_sorted_clips(workplace / "data", detector, real_scores_higher=True)
    assert run("--data", "data", "--checkpoint", "detector.safetensors", "--threshold", median - 1e-6) == 0
    shown = capsys.readouterr().out
    assert "WARNING" not in shown
    assert "accuracy 100.0 %" in shown
    assert "chosen on this very set" in shown
    folder = workplace / "results" / "custom" / "detector"
    found = read_metrics(folder)
    assert found["metrics"]["auc"] == 1.0
    at = found["at_threshold"]
    assert (at["bonafide_bonafide"], at["bonafide_spoof"]) == (20, 0)
    assert (at["spoof_bonafide"], at["spoof_spoof"]) == (0, 20)
    for row in read_scores(folder).values():
        assert (row["verdict"], row["rule"]) == (WORDS[row["label"]], "threshold given")
        assert float(row["margin"]) == pytest.approx(float(row["score"]) - (median - 1e-6))


@pytest.mark.parametrize("as_list", [False, True])
def test_unlabelled_recordings_get_scores_and_verdicts(as_list, workplace, detector, capsys):
    soundfile.write("b.wav", tone(1, 16000), 16000)
    soundfile.write("a.flac", tone(2, 22050), 22050)
    data = ["a.flac", "b.wav"] if as_list else ["b.wav"]
    assert run("--data", *data, "--checkpoint", "detector.safetensors") == 0
    shown = capsys.readouterr().out
    assert "AUC" not in shown
    assert "Verdict: real or fake by the larger of the two logits" in shown
    folder = workplace / "results" / "custom" / "detector"
    assert not (folder / "roc.png").exists()
    assert "metrics" not in read_metrics(folder)
    rows = read_scores(folder)
    assert list(rows) == data
    for name, row in rows.items():
        logits = detector(torch.from_numpy(pad(load_audio(name)))[None])[0]
        assert row["label"] == ""
        assert row["verdict"] == ("real" if logits[1] >= logits[0] else "fake")
        assert float(row["margin"]) == pytest.approx((logits[1] - logits[0]).item(), abs=1e-4)
        assert f"{logits[1]:.3f}" in shown


def test_detectors_side_by_side_and_the_same_file_once(workplace, detector, capsys):
    data = workplace / "Dataset_Speech_Assignment" / "Dataset_Speech_Assignment"
    write_sorted_clips(data, detector, True, n=12)
    torch.manual_seed(1)
    other = Detector(PRESETS["small"])
    files = {"LA_model": detector, "Best_LA_model_for_DF": other, "copy": detector}
    paths = []
    for name, saved in files.items():
        paths.append(workplace / name / "model.safetensors")
        paths[-1].parent.mkdir()
        save_detector(saved, paths[-1])
    (workplace / "bad.pth").write_bytes(b"no detector")
    assert run("--checkpoint", paths[0], "--checkpoint", "bad.pth", *paths[1:]) == 2
    shown, error = capsys.readouterr()
    assert error == "error: bad.pth: damaged, or not a PyTorch file\n"
    table = [line.split() for line in shown.splitlines() if line.startswith("model")][:2]
    assert "is the same detector as model: scored once" in shown
    assert re.search(r"^model, model-\w{8}: in the intervals, ", shown, re.MULTILINE)  # said once for both
    results = sorted(path.name for path in (workplace / "results" / "custom").iterdir() if path.is_dir())
    assert results[0] == "model"
    assert results[1].startswith("model-")
    assert len(results) == 2
    sha256s = {
        read_metrics(workplace / "results" / "custom" / name)["detector"]["sha256"] for name in results
    }
    assert len(sha256s) == 2
    analysis = (workplace / "results" / "custom" / "analysis.md").read_text(encoding="utf-8")
    for title in ("## model\n", f"## {results[1]}\n", f"## {results[1]} against model\n"):
        assert title in analysis
        assert title in shown
    # the table has the figures that the files have
    for name, row in zip(results, table, strict=True):
        content = read_metrics(workplace / "results" / "custom" / name)
        (auc_low, auc_high), (eer_low, eer_high) = (content["intervals_95"][k] for k in ("auc", "eer"))
        auc, eer, min_dcf = (content["metrics"][k] for k in ("auc", "eer", "min_dcf"))
        expected = f"{name} {auc:.4f} [{auc_low:.4f}, {auc_high:.4f}] "
        expected += f"{100 * eer:.2f} [{100 * eer_low:.2f}, {100 * eer_high:.2f}] {min_dcf:.3f} 6 6 0"
        assert row == expected.split()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--checkpoint", "detector.safetensors"], "no data: there is no Dataset_Speech_Assignment/"),
        (["--data", "both"], "no checkpoint: none of best_la_model.pth, LA_model.pth"),
        (["--data", "gone", "--checkpoint", "detector.safetensors"], "gone: no such file or folder"),
        (["--data", "empty", "--checkpoint", "detector.safetensors"], "no recordings in"),
        (["--data", "both", "--checkpoint", "gone.pth"], "gone.pth: no such file"),
        (["--data", "both", "--checkpoint", "no.pth"], "not a PyTorch file"),
        (["--data", "one", "--checkpoint", "detector.safetensors"], "real recordings but no fake ones"),
        (["--data", "bad", "--checkpoint", "detector.safetensors"], "could be scored"),
        (
            ["--data", "half", "--checkpoint", "detector.safetensors"],
            "none of the fake recordings could be scored",
        ),
        (
            ["--data", "both", "--checkpoint", "detector.safetensors", "--device", "cuda:99"],
            "choose another one, or auto",
        ),
        (
            [
                "--data",
                "both",
                "--checkpoint",
                "detector.safetensors",
                "--device",
                "cpu",
                "--precision",
                "fp16",
            ],
            "choose another --precision or --device",
        ),
        (
            ["--data", "both", "--checkpoint", "detector.safetensors", "--output", "detector.safetensors"],
            "error: --output detector.safetensors: File exists\n",
        ),
    ],
)
def test_what_is_missing_is_one_line_and_exit_code_2(args, words, workplace, capsys):
    for name in ("both/Real/a", "both/Fake/b", "one/Real/a", "half/Real/a"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(f"{name}.wav", tone(1, 16000), 16000)
    Path("empty").mkdir()
    Path("no.pth").write_bytes(b"no detector")
    write_bad_files(Path("bad"))
    write_bad_files(Path("half/Fake"))
    assert run(*args) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert words in error


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--checkpoint", "LA_modle.pth"], "LA_modle.pth: no such file"),
        (["--checkpoint", "no.pth"], "no.pth: damaged"),
        (["--checkpoint", "older.pth"], "older.pth: missing key"),
        (["--checkpoint", "detector.safetensors", "--timeline", "--hop", "5"], "--hop 5: it must be from"),
        (["--checkpoint", "detector.safetensors", "--output", "no.pth/results"], "--output no.pth/results: "),
        (["--checkpoint", "detector.safetensors", "--scores-as", "asvspoof"], "would have the same name, a"),
        (["--checkpoint", "detector.safetensors", "--threshold", "1", "2"], "--threshold: 2 for 1 detector"),
        (["--checkpoint", "detector.safetensors", "--precision", "int8", "--frontend", "fairseq"], "fairseq"),
    ],
)
def test_what_is_wrong_is_said_before_any_recording_is_decoded(args, words, workplace, capsys, monkeypatch):
    for name in ("both/Real/a", "both/Fake/a"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(f"{name}.wav", tone(1, 16000), 16000)
    Path("no.pth").write_bytes(b"no detector")
    tensors = {official_name(key): value for key, value in Detector(PRESETS["small"]).state_dict().items()}
    torch.save(dict(list(tensors.items())[:-1]), "older.pth", _use_new_zipfile_serialization=False)
    monkeypatch.setattr("antispoofing.audio._opened", None)
    assert run("--data", "both", *args) == 2
    said = capsys.readouterr()
    assert words in said.err
    assert said.err.count("\n") == 1
    assert "duplicates" not in said.out
    assert "Scoring" not in said.out


def test_a_detector_that_cannot_be_used_is_told_before_the_others_are_used(workplace, capsys, monkeypatch):
    soundfile.write("a.wav", tone(1, 16000), 16000)
    soundfile.write("b.wav", tone(1, 16000), 16000)
    checked = []
    monkeypatch.setattr("evaluate_custom.tasks.audit", lambda *_: checked.append(capsys.readouterr().err))
    assert run("--data", "a.wav", "b.wav", "--checkpoint", "detector.safetensors", "gone.pth") == 2
    assert checked == ["error: gone.pth: no such file\n"]
    assert Path("results/custom/detector/scores.csv").is_file()
    assert capsys.readouterr().err == ""


def test_results_of_an_earlier_run_do_not_stay(workplace, detector, capsys):
    write_sorted_clips(workplace / "data", detector, real_scores_higher=True, n=12)
    options = ("--checkpoint", "detector.safetensors", "--precision", "bf16")
    assert run("--data", "data", *options, "--pictures", "svg", "pdf") == 0
    folder = workplace / "results" / "custom" / "detector"
    assert (folder / "roc.svg").exists()
    assert (folder / "roc.pdf").exists()
    assert not (folder / "roc.png").exists()
    content = read_metrics(folder)
    assert content["detector"]["precision"] == "bf16"
    assert content["intervals_95"]["clips"].startswith(
        "the clips are taken as independent, since neither a column"
    )
    assert content["data_root"] == str(workplace / "data")
    assert "In the intervals, the clips are taken as independent" in " ".join(capsys.readouterr().out.split())
    assert run("--data", "data/Real", *options) == 0
    assert sorted(p.name for p in folder.iterdir()) == ["failures.csv", "metrics.json", "scores.csv"]
    assert "There are no labels, so there is no AUC: no folder in" in capsys.readouterr().out


def test_options_may_be_repeated_and_names_odd(workplace, capsys):
    for name in ("x/real/a\nb", "x/fake/c"):
        Path(name).parent.mkdir(parents=True)
        soundfile.write(f"{name}.wav", tone(1, 16000), 16000)
    Path("detector.safetensors").rename("a$\\foo$b.safetensors")
    assert run("--data", "x/real", "--data", "x/fake", "--checkpoint", "a$\\foo$b.safetensors") == 0
    assert list(read_scores(workplace / "results" / "custom" / "a$\\foo$b")) == [
        "fake/c.wav",
        r"real/a\nb.wav",
    ]
    assert run("--data", "x/real", "--checkpoint", "a$\\foo$b.safetensors") == 0
    assert "a\\nb.wav" in capsys.readouterr().out
    assert run("--data", "x/real", "--checkpoint", "new\nline.pth") == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_partly_labelled_recordings_are_scored(workplace, capsys):
    for name in ("x/real/a", "x/b"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(f"{name}.wav", tone(1, 16000), 16000)
    assert run("--data", "x", "--checkpoint", "detector.safetensors") == 0
    rows = read_scores(workplace / "results" / "custom" / "detector")
    assert {name: row["label"] for name, row in rows.items()} == {"b.wav": "", "real/a.wav": "bonafide"}
    assert "AUC [" not in capsys.readouterr().out


def test_many_failures_are_shortened_on_screen(workplace, capsys):
    Path("many").mkdir()
    soundfile.write("many/good.wav", tone(1, 16000), 16000)
    for i in range(13):
        Path(f"many/bad{i:02}.wav").write_bytes(b"bad")
    assert run("--data", "many", "--checkpoint", "detector.safetensors") == 0
    shown = capsys.readouterr().out
    assert shown.count("not scored: ") == 10
    assert "... and 3 more not scored" in shown


def test_curves_are_drawn_the_right_way_round():
    points = metrics.error_rates([1.0, 2.0, 3.0], [0.0, 1.5])
    scored_counts = {"bonafide_scored": 3, "spoof_scored": 2}
    summary = {"metrics": {"auc": 1, "eer": 0}, "intervals_95": {"auc": [0, 1], "eer": [0, 1]}}
    summary["counts"] = scored_counts
    roc = plots.plot_roc({"x": points}, {"x": summary}).axes[0].lines[1].get_xydata().tolist()
    assert [0.5, 1.0] in roc  # half of the fakes accepted, and all real clips
    assert [0.0, pytest.approx(2 / 3)] in roc
    far, frr = plots.plot_det({"x": points}, {"x": summary}).axes[0].lines[1].get_xydata()[2]  # threshold 1.5
    assert (far, frr) == (pytest.approx(0), pytest.approx(scipy.stats.norm.ppf(1 / 3)))


def test_few_clips_below_chance_are_mentioned_without_a_warning():
    summary = {
        "metrics": {"auc": 0.0, "eer": 1.0, "threshold_at_eer_chosen_on_this_set": 1.0}
        | {"min_cllr": 1.0, "frr_at_far": {"0.01": 0.25}},
        "counts": {"bonafide_scored": 2, "spoof_scored": 3},
        "intervals_95": {"clips": "x", "auc": [0.0, 0.0], "eer": [1.0, 1.0]},
        "reversed": False,
    }
    found = screen.cautions(summary)
    assert found[0] == "min Cllr 1.000 bits (0 is perfect, 1 is useless); FRR 25.00 % at a FAR of 1 %"
    assert "may be due to chance" in " ".join(found)


@pytest.mark.parametrize("script", [evaluate_custom, evaluate_custom_for])
def test_recordings_can_be_named_without_an_option(script):
    for argv in (
        ["a.mp3", "b", "--checkpoint", "d.pth", "--output", "o"],
        ["--checkpoint", "d.pth", "--output", "o", "a.mp3", "b"],
        ["a.mp3", "--data", "b", "--checkpoint", "d.pth", "--output", "o"],
        ["--checkpoint", "d.pth", "--output", "o", "--data", "a.mp3", "b"],
    ):
        args = script.parse_args(argv)
        assert args.data == ["a.mp3", "b"], argv
        assert args.output == Path("o")
    assert not script.parse_args([]).data


def test_a_recording_among_the_detectors_is_named(capsys):
    with pytest.raises(SystemExit):
        evaluate_custom.parse_args(["--checkpoint", "LA_model.pth", "call.MP3"])
    assert "call.MP3 is no detector; name recordings before the options, or" in capsys.readouterr().err


@pytest.mark.parametrize(
    "bad",
    [["--threshold", "nan"], ["--batch-size", "0"], ["--hop", "x"], ["--workers", "-1"], ["--offset", "-1"]],
)
def test_options_that_make_no_sense_are_refused(bad, capsys):
    with pytest.raises(SystemExit) as caught:
        evaluate_custom.main(bad)
    assert caught.value.code == 2
    assert f"argument {bad[0]}: " in capsys.readouterr().err


def test_scores_that_are_not_numbers_are_failures(workplace, capsys):
    broken = Detector(PRESETS["small"])
    broken.back_end.out_layer.weight.data[1] = 3e38  # whose products are too large for a float32
    save_detector(broken, "broken.safetensors")
    soundfile.write("a.wav", tone(1, 16000), 16000)
    assert run("--data", "a.wav", "--checkpoint", "broken.safetensors") == 2
    assert "a.wav: the detector's output is not a number" in capsys.readouterr().out


def test_an_analysis_does_not_outlive_its_labels(workplace, detector, capsys):
    write_sorted_clips(workplace / "data", detector, real_scores_higher=True, n=4)
    analysis = workplace / "results" / "custom" / "analysis.md"
    assert run("--data", "data", "--checkpoint", "detector.safetensors") == 0
    assert analysis.exists()
    assert run("--data", "data/Real", "--checkpoint", "detector.safetensors") == 0
    assert not analysis.exists()


def test_an_offset_scores_what_comes_later(workplace, detector, capsys):
    long, short = tone(9, 22050), tone(2, 44100)
    soundfile.write("long.wav", long, 22050, subtype="FLOAT")
    soundfile.write("short.wav", short, 44100)
    args = ("--data", "long.wav", "short.wav", "--checkpoint", "detector.safetensors")
    assert run(*args, "--offset", 3.5) == 0
    folder = workplace / "results" / "custom" / "detector"
    rows = read_scores(folder)
    later = load_audio("long.wav")[56000:]
    expected = detector.score(torch.from_numpy(pad(later))[None]).item()
    assert float(rows["long.wav"]["score"]) == pytest.approx(expected, abs=1e-5)
    assert rows["short.wav"]["score"] == ""
    assert "it ends before 3.5 s" in (folder / "failures.csv").read_text(encoding="utf-8")
    assert read_metrics(folder)["offset_seconds"] == 3.5


def test_timelines_of_whole_recordings(workplace, capsys):
    (workplace / "talks" / "Real").mkdir(parents=True)
    (workplace / "talks" / "Fake").mkdir()
    soundfile.write("talks/Real/long.wav", tone(11, 22050), 22050)
    soundfile.write("talks/Fake/long.wav", tone(2, 16000), 16000)
    soundfile.write("talks/Fake/cut short.flac", tone(20, 16000), 16000)
    whole = Path("talks/Fake/cut short.flac").read_bytes()
    Path("talks/Fake/cut short.flac").write_bytes(whole[: len(whole) // 2])
    Path("talks/Fake/broken.wav").write_bytes(b"no recording")
    options = [
        "--data",
        "talks",
        "--checkpoint",
        "detector.safetensors",
        "--output",
        "out",
        "--threshold=0.1",
    ]
    assert run(*options, "--timeline", "--hop", "1.5") == 0
    shown = capsys.readouterr().out
    assert "Timelines, detector: a window is real if score >= 0.1, the threshold given" in shown
    assert "no timeline: Fake/broken.wav: " in shown
    for beginning in ("Fake/cut short.flac: ", "  caution: "):
        assert f"{beginning}its header promises 20.00 s, but there are only " in shown
    heard = "Of 2 recordings, only 4.04 s were heard (the longest has 0:11.0): "
    assert f"{heard}see the timelines" in shown
    folder = workplace / "out" / "detector" / "timelines"
    notes = {name: row["note"] for name, row in read_scores(folder.parent).items()}
    assert notes["Real/long.wav"] == "only 4.04 of 11.0 s were heard"
    assert notes["Fake/cut short.flac"].startswith("only 4.04 of ")
    assert "; its header promises 20.00 s" in notes["Fake/cut short.flac"]
    assert notes["Fake/long.wav"] == ""
    analysis = " ".join((workplace / "out" / "analysis.md").read_text(encoding="utf-8").split())
    assert f"{heard}evaluate_custom.py --timeline hears all. **Doubtful clips** (1 of 4): " in analysis
    written = {str(path.relative_to(folder)) for path in folder.rglob("*.*")}
    assert written == {
        f"{name}.{kind}"
        for name in ("Real/long.wav", "Fake/long.wav", "Fake/cut short.flac")
        for kind in ("csv", "png")
    }
    with open(folder / "Real" / "long.wav.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["start_seconds"]) for row in rows] == [0, 1.5, 3, 4.5, 6, 6.9625]
    assert float(rows[-1]["end_seconds"]) == 11
    first = float(read_scores(folder.parent)["Real/long.wav"]["score"])
    assert float(rows[0]["score"]) == pytest.approx(first, abs=1e-5)
    for row in rows:
        assert float(row["threshold"]) == 0.1
        assert float(row["margin"]) == pytest.approx(float(row["score"]) - 0.1)
        assert row["verdict"] == ("real" if float(row["score"]) >= 0.1 else "fake")
    with Image.open(folder / "Real" / "long.wav.png") as picture:
        assert min(picture.size) > 300
    with open(folder.parent / "timelines.csv", encoding="utf-8", newline="") as file:
        overview = {row["path"]: row for row in csv.DictReader(file)}
    assert list(overview) == [
        f"{n}" for n in ("Fake/broken.wav", "Fake/cut short.flac", "Fake/long.wav", "Real/long.wav")
    ]
    whole = overview["Real/long.wav"]
    margin = np.mean([float(row["margin"]) for row in rows])
    assert float(whole["mean_margin"]) == pytest.approx(margin)
    assert (whole["seconds"], whole["windows"], whole["note"]) == ("11.0", "6", "")
    assert whole["whole_recording"] == ("real" if margin >= 0 else "fake")
    assert f"Real/long.wav, as a whole: {whole['whole_recording'].upper()} (6 windows" in shown
    assert "its header promises 20.00 s" in overview["Fake/cut short.flac"]["note"]
    assert overview["Fake/broken.wav"]["whole_recording"] == ""
    assert overview["Fake/broken.wav"]["note"] in shown
    lines = (folder.parent / "timelines.rttm").read_text(encoding="utf-8").splitlines()
    stretches = [(n, words) for n, row in overview.items() for words in row["stretches"].split("; ") if words]
    assert len(lines) == len(stretches) > 0
    for line, (name, words) in zip(map(str.split, lines), stretches, strict=True):
        assert line[:3] == ["SPEAKER", name.replace(" ", r"\x20"), "1"]
        times = re.match(r"(\S+) to (\S+) s leans towards synthetic$", words).groups()
        start, duration = map(float, line[3:5])
        assert (start, start + duration) == pytest.approx(tuple(map(float, times)), abs=0.01)
        assert line[5:] == ["<NA>", "<NA>", "leans-synthetic", "<NA>", "<NA>"]
    # the next run removes them
    name = "n" * 251 + ".wav"
    Path(name).write_bytes(Path("talks/Real/long.wav").read_bytes())
    assert run("--data", name, *options[2:], "--timeline") == 0
    digest = hashlib.sha256(name.encode()).hexdigest()
    assert {path.name for path in folder.rglob("*")} == {f"{digest}.csv", f"{digest}.png"}
    assert run("--data", name, *options[2:]) == 0
    assert not folder.exists()
    assert not list(folder.parent.glob("timelines.*"))


def test_timelines_name_the_calibration(workplace, detector, capsys):
    calibrated = Detector(PRESETS["small"])
    calibrated.load_state_dict(detector.state_dict())
    calibrated.provenance = {
        "calibration": {"slope": 2.0, "intercept": 1.0, "bound": 50.0, "fitted_on": "3 clips"}
    }
    save_detector(calibrated, "calibrated.safetensors")
    soundfile.write("a.wav", tone(2, 16000), 16000)
    assert run("--data", "a.wav", "--checkpoint", "calibrated.safetensors", "--timeline") == 0
    assert "calibrated on 3 clips" in capsys.readouterr().out
    with open("results/custom/calibrated/timelines/a.wav.csv", encoding="utf-8", newline="") as file:
        row = next(csv.DictReader(file))
    assert float(row["margin"]) == pytest.approx(2 * float(row["score"]) + 1)


def test_a_damaged_calibration_costs_no_other_detector_its_results(workplace, detector, capsys):
    damaged = Detector(PRESETS["small"])
    damaged.load_state_dict(detector.state_dict())
    damaged.provenance = {"calibration": {"slope": -1.0}}
    save_detector(damaged, "damaged.safetensors")
    soundfile.write("a.wav", tone(2, 16000), 16000)
    paths = ["damaged.safetensors", "detector.safetensors"]
    assert run("--data", "a.wav", "--checkpoint", *paths, "--timeline", "--hop", "5") == 2
    assert run("--data", "a.wav", "--checkpoint", *paths, "--timeline") == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[1] == ("error: --hop 5: it must be from 6.25e-05 s, one sample, to 4.0375 s, one window")
    assert lines[2] == "error: damaged.safetensors: its calibration is damaged"
    assert Path("results/custom/detector/timelines/a.wav.csv").is_file()


def test_a_quiet_run_leaves_warnings(workplace, capsys):
    rng = np.random.default_rng(0)
    for kind in ("Real", "Fake"):
        Path("data", kind).mkdir(parents=True)
        for i in range(12):
            wave = 0.1 * rng.standard_normal(16000) * (1 if kind == "Real" else 1e-3)
            soundfile.write(f"data/{kind}/{i}.wav", np.round(wave, 4), 16000)
    Path("data/Fake/broken.wav").write_bytes(b"RIFF")
    arguments = ["--data", "data", "--checkpoint", "detector.safetensors", "--quiet"]
    assert run(*arguments) == 0
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "not scored: Fake/broken.wav" in shown.err
    reversed_here = read_metrics(workplace / "results" / "custom" / "detector")["reversed"]
    assert ("WARNING, detector: the AUC is" in shown.err) == reversed_here


def test_names_that_lead_elsewhere_have_their_own_timelines(workplace):
    for name in ("wav/a.wav", "lists/wav/a.wav"):
        Path(name).parent.mkdir(parents=True)
        soundfile.write(name, tone(1, 16000), 16000)
    Path("lists/l.txt").write_text("../wav/a.wav\nwav/a.wav\n")
    assert run("--data", "lists/l.txt", "--checkpoint", "detector.safetensors", "--timeline") == 0
    folder = workplace / "results" / "custom" / "detector" / "timelines"
    assert len(list(folder.rglob("*.csv"))) == 2


def test_a_damaged_calibration_is_told_before_scoring(workplace, capsys, monkeypatch):
    soundfile.write("a.wav", tone(1, 16000), 16000)
    Path("detector.safetensors.calibration.json").write_text("{")
    monkeypatch.setattr("antispoofing.audio._opened", None)
    assert run("--data", "a.wav", "--checkpoint", "detector.safetensors") == 2
    assert "detector.safetensors.calibration.json: not a calibration" in capsys.readouterr().err


def test_what_is_in_the_way_of_results_is_told_before_scoring(workplace, capsys):
    soundfile.write("a.wav", tone(1, 16000), 16000)
    Path("out").mkdir()
    Path("out/detector").touch()
    assert run("--data", "a.wav", "--checkpoint", "detector.safetensors", "--output", "out") == 2
    assert capsys.readouterr().err == "error: --output out: detector in it is in the way: move it away\n"


def test_data_after_the_detectors_are_not_taken_for_detectors(workplace, capsys):
    Path("folder").mkdir()
    for name in ("folder", "list.csv", "a.wav"):
        with pytest.raises(SystemExit):
            run("--checkpoint", "detector.safetensors", name)
        assert f"{name} is no detector; name recordings before the options" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["-q", "--quiet"])
def test_a_quiet_run_prints_errors_alone(option, workplace, capsys):
    soundfile.write("a.wav", tone(1, 16000), 16000)
    assert run("--data", "a.wav", "--checkpoint", "detector.safetensors", "gone.pth", option) == 2
    assert capsys.readouterr() == ("", "error: gone.pth: no such file\n")
    assert Path("results/custom/detector/scores.csv").is_file()
    assert run("--data", "a.wav", "--checkpoint", "detector.safetensors") == 0
    assert "a.wav" in capsys.readouterr().out


@pytest.mark.parametrize("script", [evaluate_custom, evaluate_custom_for, fine_tune_for])
def test_the_version_is_that_of_the_project(script, capsys):
    with pytest.raises(SystemExit) as ended:
        script.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"antispoofing {project.version()}\n"


def test_a_hop_needs_a_timeline(workplace):
    with pytest.raises(SystemExit) as error:
        run("--hop", "1")
    assert error.value.code == 2


def test_timelines_need_a_single_process(monkeypatch):
    monkeypatch.setattr(distributed, "size", lambda: 2)
    with pytest.raises(ProcessError, match="one process"):
        evaluate_custom.parse_args(["--timeline"])
