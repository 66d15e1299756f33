"""Score files: written as the field reads them, read as the field writes them, and what they are worth."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT
from sklearn.metrics import roc_auc_score

import evaluate_custom
from antispoofing import metrics, uncertainty
from antispoofing.commands.metrics import main
from antispoofing.data.labels import read_labels
from antispoofing.data.recordings import Utterance
from antispoofing.errors import DataError
from antispoofing.files import file_sha256
from antispoofing.report import results
from antispoofing.scoring.score_files import FORMATS, names_in, read_scores, with_keys, write_scores
from antispoofing.scoring.scored import Scored

KEYS_2021 = """\
LA_0009 LA_E_1 alaw ita_tx A07 spoof notrim eval
LA_0009 LA_E_2 alaw ita_tx bonafide bonafide notrim eval
LA_0020 LA_E_3 g722 loc_tx A17 spoof notrim eval
LA_0020 LA_E_4 none - - bonafide notrim eval
LA_0020 LA_E_5 none - A17 spoof notrim progress
"""


def scored_of(names, scores, trials=None) -> Scored:
    trials = trials or [""] * len(names)
    utterances = [Utterance(f"/data/{n}", n, "spoof", t) for n, t in zip(names, trials, strict=True)]
    return Scored(utterances, np.stack([np.zeros(len(scores)), scores], axis=1), {})


def test_asvspoofs_formats_are_what_its_tools_read(tmp_path):
    scored = scored_of(
        ["flac/LA_E_1.flac", "flac/LA_E_2.flac", "x.wav"], [0.1, -1e-7, np.nan], ["LA_E_1", "", ""]
    )
    lines = write_scores(tmp_path, "asvspoof", scored).read_text(encoding="utf-8").splitlines()
    assert lines == ["LA_E_1 0.1", "LA_E_2 -1e-07"]
    lines = write_scores(tmp_path, "asvspoof5", scored).read_text(encoding="utf-8").splitlines()
    assert lines == ["filename\tcm-score", "LA_E_1\t0.1", "LA_E_2\t-1e-07"]


def test_the_arenas_format_has_the_names_of_its_csv(tmp_path):
    scored = scored_of(["a.flac", "b c.flac"], [1.5, 2.5], ["/elsewhere/a.flac", "b c.flac"])
    path = write_scores(tmp_path, "arena", scored)
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, delimiter=" "))
    assert rows == [["/elsewhere/a.flac", "1.5"], ["/data/b c.flac", "2.5"]]


def test_names_that_a_format_cannot_hold_are_refused():
    with pytest.raises(DataError, match=r"2 recordings would have the same name, a: rename them"):
        names_in("asvspoof", scored_of(["Real/a.wav", "Fake/a.wav"], [0, 0]).utterances)
    for name in (" a.wav", "a\u00a0.wav"):
        with pytest.raises(DataError, match="names cannot contain spaces"):
            names_in("asvspoof", scored_of([name], [0]).utterances)
    with pytest.raises(DataError, match="names cannot contain spaces, but 'a b' does"):
        names_in("asvspoof5", scored_of(["a b.wav"], [0]).utterances)


@pytest.mark.parametrize("format_", FORMATS)
def test_what_is_written_is_read(format_, tmp_path):
    scored = scored_of(["a.flac", "b.flac"], [0.1 + 0.2, -3.0])
    rows = read_scores(write_scores(tmp_path, format_, scored))
    assert [row.score for row in rows] == [0.1 + 0.2, -3.0]
    assert [Path(row.name).stem for row in rows] == ["a", "b"]


NAMES = [
    "a,b.flac",
    'say "no".flac',
    '"quoted".flac',
    "semi;colon.flac",
    "it's.flac",
    "tab\\t.flac",
    "\\xe4.flac",
]


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("first", range(len(NAMES)))
def test_any_name_is_read_as_it_was_written(format_, first, tmp_path):
    names = [*NAMES[first:], *NAMES[:first]] + (
        ["with blank.flac", 'with, both; ".flac'] if format_ == "arena" else []
    )
    scored = scored_of(
        [name.replace(" ", "_") if format_ != "arena" else name for name in names], range(len(names))
    )
    rows = read_scores(write_scores(tmp_path, format_, scored))
    assert [row.name for row in rows] == names_in(format_, scored.utterances)
    assert [row.score for row in rows] == list(range(len(names)))


def test_blanks_in_quotes_do_not_set_columns_apart(tmp_path):
    (tmp_path / "s.txt").write_text('"/data/0 real, a.wav"   1.5\nb.wav 2\n"c d.wav" -1\n')
    assert [(row.name, row.score) for row in read_scores(tmp_path / "s.txt")] == [
        ("/data/0 real, a.wav", 1.5),
        ("b.wav", 2.0),
        ("c d.wav", -1.0),
    ]


def test_both_forms_of_a_name_keep_their_own_scores(tmp_path):
    text = "path,label,score\n\u00e9.wav,bonafide,1\ne\u0301.wav,spoof,-1\n"
    (tmp_path / "s.csv").write_text(text, encoding="utf-8")
    scored, without = with_keys(read_scores(tmp_path / "s.csv"), read_labels(tmp_path / "s.csv"))
    assert (scored.scores.tolist(), without) == ([1, -1], 0)


@pytest.mark.parametrize(
    ("trials", "scores"),
    [
        (["s1\\1.flac", "s2\\1.flac"], ["s1/1.flac", "s2/1.flac"]),
        (["./s1/1.flac", "s2/../s2/1.flac"], ["s1/1.flac", "s2/1.flac"]),
        (["Real/1.flac", "Fake/1.flac"], ["/data/set/Real/1.flac", "/data/set/Fake/1.flac"]),
        (["J\\xf6rg.wav", "Bj\\xf6rg.wav"], ["J\\xf6rg", "Bj\\xf6rg"]),
        (["audio.wav", "path.wav"], ["audio", "path"]),
    ],
)
def test_names_written_in_other_ways_are_the_same(trials, scores, tmp_path):
    (tmp_path / "keys.csv").write_text(
        "path,label\n" + "".join(f"{t},real\n" for t in trials), encoding="utf-8"
    )
    (tmp_path / "s.txt").write_text(
        "".join(f"{name} {i}\n" for i, name in enumerate(scores)), encoding="utf-8"
    )
    scored, without = with_keys(read_scores(tmp_path / "s.txt"), read_labels(tmp_path / "keys.csv"))
    assert (scored.scores.tolist(), without) == ([0, 1], 0)


def test_composed_and_decomposed_letters_are_the_same_name(tmp_path):
    (tmp_path / "keys.csv").write_text(
        "path,label\nréel.wav,real\nfake/e\u0301t\u00e9.wav,fake\n", encoding="utf-8"
    )
    (tmp_path / "s.csv").write_text("path,score\nre\u0301el.wav,1\nété,-1\n", encoding="utf-8")
    scored, without = with_keys(read_scores(tmp_path / "s.csv"), read_labels(tmp_path / "keys.csv"))
    assert (scored.scores.tolist(), without) == ([1, -1], 0)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names are always text")
@pytest.mark.parametrize("format_", FORMATS)
def test_names_that_are_not_utf_8_can_be_written(format_, tmp_path):
    utterance = Utterance("/data/Aufn\udce4hme.flac", r"Aufn\xe4hme.flac", "spoof")
    path = write_scores(tmp_path, format_, Scored([utterance], np.array([[0.0, 1.0]]), {}))
    assert r"Aufn\xe4hme" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "text",
    [
        "LA_E_1 -1.5\nLA_E_2 2\nLA_E_3 -3e0\nLA_E_4 4\nLA_E_5 9\n",  # ASVspoof 2021
        "filename\tcm-score\nLA_E_1\t-1.5\nLA_E_2\t2\nLA_E_3\t-3\nLA_E_4\t4\nLA_E_5\t9\n",  # ASVspoof 5
        "LA_E_1 A07 spoof -1.5\nLA_E_2 - bonafide 2\nLA_E_3 A17 spoof -3\nLA_E_4 - bonafide 4\n",  # 2019
        "path,score\nflac/LA_E_1.flac,-1.5\nflac/LA_E_2.flac,2\nLA_E_3.flac,-3\nb/LA_E_4.flac,4\n",
        "file_name,cm_score\n/d/LA_E_4.wav,4\n/d/LA_E_3.wav,-3\n/d/LA_E_2.wav,2\n/d/LA_E_1.wav,-1.5\nother,0\n",
    ],
)
def test_every_format_meets_its_keys(text, tmp_path):
    (tmp_path / "scores").write_text(text, encoding="utf-8")
    (tmp_path / "keys.txt").write_text(KEYS_2021, encoding="utf-8")
    scores = read_scores(tmp_path / "scores")
    scored, without = with_keys(scores, read_labels(tmp_path / "keys.txt"))
    assert scored.scores.tolist() == [-1.5, 2, -3, 4]
    assert scored.scores_with_label("bonafide").tolist() == [2, 4]
    assert without == len(scores) - 4
    assert not scored.failures


def test_a_trial_without_a_score_fails(tmp_path):
    (tmp_path / "keys.txt").write_text(KEYS_2021, encoding="utf-8")
    keys = read_labels(tmp_path / "keys.txt")
    (tmp_path / "s.csv").write_text("path,score\nLA_E_1.wav,1\nLA_E_2.wav,\na/LA_E_3.wav,1\nb/LA_E_3.wav,2\n")
    scored, _ = with_keys(read_scores(tmp_path / "s.csv"), keys)
    assert scored.failures == dict.fromkeys(
        (1, 2, 3), "no score"
    )  # an empty score, two with its id, and none
    (tmp_path / "s.csv").write_text("path,score\nother.wav,1\n")
    with pytest.raises(
        DataError, match=r"has a score; its first trial is LA_E_1, the first score is for other\.wav$"
    ):
        with_keys(read_scores(tmp_path / "s.csv"), keys)


def test_a_score_is_not_given_to_two_trials(tmp_path):
    """Numbered names in both classes: scores of one class must not stand for the other."""
    (tmp_path / "keys.csv").write_text("path,label\nReal/1.wav,real\nFake/1.wav,fake\nFake/2.wav,fake\n")
    keys = read_labels(tmp_path / "keys.csv")
    (tmp_path / "s.csv").write_text("path,score\n/data/Real/1.wav,1\n/data/Fake/2.wav,-1\n")
    scored, without = with_keys(read_scores(tmp_path / "s.csv"), keys)
    assert list(scored.failures) == [1]
    assert without == 0
    (tmp_path / "s.csv").write_text("path,score\nReal/1.wav,1\nFake/1.wav,-1\n2,-2\n")
    scored, _ = with_keys(read_scores(tmp_path / "s.csv"), keys)
    assert scored.scores.tolist() == [1, -1, -2]


def test_no_codec_is_a_codec(tmp_path):
    rows = "E_1 E_01 F C05 5 - AC1 A19 spoof -\nE_1 E_02 M - - - - bonafide bonafide -\n"
    (tmp_path / "ASVspoof5.eval.track_1.tsv").write_text(rows)
    first, second = read_labels(tmp_path / "ASVspoof5.eval.track_1.tsv").trials
    assert (first.name, first.label, second.label) == ("E_01", "spoof", "bonafide")
    expected = {"speaker": "E_1", "gender": "F", "codec": "C05", "codec_quality": "5", "attack_tag": "AC1"}
    assert first.columns == expected | {"attack": "A19"}
    assert second.columns == {"speaker": "E_1", "gender": "M", "codec": "none"}


def test_what_is_wrong_with_a_score_file_is_said_row_by_row(tmp_path):
    path = tmp_path / "s.csv"
    path.write_text(
        "path,score,label\na,1,real\nb,x,real\nc,nan,fake\nd,inf,\na,2,\ne,1,maybe\nf,1\ng,-1e308,\n"
    )
    with pytest.raises(DataError) as caught:
        read_scores(path)
    assert list(caught.value.args) == [
        f"{path}, row 3: the score 'x' is not a usable number",
        f"{path}, row 4: the score 'nan' is not a usable number",
        f"{path}, row 5: the score 'inf' is not a usable number",
        f"{path}, row 6: a is already in row 2",
        f"{path}, row 7: unknown label 'maybe'",
        f"{path}, row 8: 2 columns instead of 3",
        f"{path}, row 9: the score '-1e308' is not a usable number",
    ]
    for text in ("path,label\na,real\n", "one two three\n", "", "score,label\n1,real\n"):
        path.write_text(text)
        with pytest.raises(DataError, match=r"not a score file in a known format|is empty"):
            read_scores(path)


@pytest.fixture
def asvspoof_like(tmp_path, monkeypatch):
    """Scores and keys of 600 trials of 20 speakers, two attacks and two codecs; A08 is the harder one."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    rows = []
    for i in range(600):
        label, attack = (("bonafide", "-"), ("spoof", "A07"), ("spoof", "A08"))[i % 3]
        mean = {"-": 2, "A07": -1, "A08": 1}[attack]
        rows.append((f"LA_E_{i}", ("alaw", "none")[i % 2], attack, label, rng.normal(mean, 1)))
    keys = "".join(
        f"S{i // 30} {name} {codec} x {attack} {label} notrim eval\n"
        for i, (name, codec, attack, label, _) in enumerate(rows)
    )
    Path("keys.txt").write_text(keys, encoding="utf-8")
    Path("scores.txt").write_text("".join(f"{row[0]} {row[-1]}\n" for row in rows), encoding="utf-8")
    return rows


def test_the_command_on_scores_and_keys(asvspoof_like, capsys):
    assert main(["scores.txt", "--keys", "keys.txt", "--output", "out"]) == 0
    shown = capsys.readouterr().out
    assert "ASVspoof 2021 LA, 600 rows of phase eval (out of 600)" in shown
    written = json.loads(Path("out/metrics.json").read_text(encoding="utf-8"))
    scores = np.array([row[-1] for row in asvspoof_like])
    is_real = np.array([row[3] == "bonafide" for row in asvspoof_like])
    assert written["metrics"]["auc"] == pytest.approx(roc_auc_score(is_real, scores), abs=1e-12)
    for attack in ("A07", "A08"):  # an attack's fakes are compared with all real ones
        chosen = is_real | np.array([row[2] == attack for row in asvspoof_like])
        expected = roc_auc_score(is_real[chosen], scores[chosen])
        assert written["by"]["attack"][attack]["metrics"]["auc"] == pytest.approx(expected, abs=1e-12)
        assert re.search(rf"^{attack} +{expected:.4f} \[", shown, re.MULTILINE)
    for codec in ("alaw", "none"):  # each codec has both classes
        chosen = np.array([row[1] == codec for row in asvspoof_like])
        expected = roc_auc_score(is_real[chosen], scores[chosen])
        assert written["by"]["codec"][codec]["metrics"]["auc"] == pytest.approx(expected, abs=1e-12)
    assert all(Path("out", name).is_file() for name in ("roc.png", "det.png", "histogram.png", "scores.csv"))
    # what was written has everything that the keys said
    assert main(["out/scores.csv", "--by", "attack"]) == 0
    again = capsys.readouterr().out
    assert again[again.index("attack") :].splitlines()[:3] == shown[shown.index("attack") :].splitlines()[:3]


def test_a_reversed_file_is_announced(asvspoof_like, capsys):
    lines = Path("scores.txt").read_text(encoding="utf-8").split("\n")
    flipped = "\n".join(f"{line.split()[0]} {-float(line.split()[1])}" for line in lines if line)
    Path("flipped.txt").write_text(flipped, encoding="utf-8")
    assert main(["flipped.txt", "--keys", "keys.txt"]) == 0
    assert "below 0.5 by more than chance explains. Either" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["scores.txt"], "has no labels: name a list of labels with --keys"),
        (["gone.txt"], "error: gone.txt: No such file or directory\n"),
        (["header.csv"], "header.csv has a header but no rows"),
        (["scores.txt", "--keys", "keys.txt", "--output", "scores.csv"], "error: scores.csv: File exists\n"),
        (
            ["scores.txt", "--keys", "keys.txt", "--by", "vocoder"],
            "--by vocoder: there is no such column; choose from speaker, codec",
        ),
        (["scores.txt", "--keys", "keys.txt", "--phase", "hidden"], "no rows of phase hidden, only of eval"),
        (["scores.txt", "--keys", "real.txt"], "need scores of both real and fake"),
        (["scores.txt", "--phase", "eval"], "--phase selects a phase of the keys"),
        (["scores.txt", "--keys", "real.txt", "--phase", "eval"], "real.txt has no phases"),
        (
            ["scores.csv", "--output", "."],
            "scores.csv is in the folder of the results, which could overwrite it",
        ),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_code_2(args, words, asvspoof_like, capsys):
    Path("scores.csv").write_text("path,score,label\na,1,real\nb,2,fake\n", encoding="utf-8")
    Path("real.txt").write_text("LA_E_0\treal\nLA_E_3\treal\n", encoding="utf-8")
    Path("header.csv").write_text("path,score,label\n", encoding="utf-8")
    assert main(args) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert words in error


def test_failures_are_counted_of_the_whole_and_not_of_groups(asvspoof_like, capsys):
    lines = Path("scores.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    Path("fewer.txt").write_text("".join(lines[10:]), encoding="utf-8")
    assert main(["fewer.txt", "--keys", "keys.txt"]) == 0
    tables = re.findall(r"^\S+ +AUC.*$", capsys.readouterr().out, re.MULTILINE)
    assert [table.endswith("failed") for table in tables] == [True, False, False]


def test_a_file_is_named_only_if_it_is_written(asvspoof_like, capsys):
    lines = Path("scores.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    Path("fewer.txt").write_text("".join(lines[12:]), encoding="utf-8")
    assert main(["fewer.txt", "--keys", "keys.txt"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("\nnot scored: LA_E_") == 10
    assert "\n... and 2 more not scored; with --output, failures.csv lists them all\n" in shown
    assert main(["fewer.txt", "--keys", "keys.txt", "--output", "out"]) == 0
    assert "\n... and 2 more not scored; see failures.csv\n" in capsys.readouterr().out
    assert len(Path("out/failures.csv").read_text(encoding="utf-8").splitlines()) == 13


def test_metrics_is_a_command_from_any_folder(asvspoof_like):
    command = [
        sys.executable,
        ROOT / "antispoofing",
        "metrics",
        "scores.txt",
        "--keys",
        "keys.txt",
        "--threshold",
        "0.5",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "at threshold 0.5" in done.stdout


def test_a_detector_over_a_published_set_and_its_score_files(tmp_path, monkeypatch, capsys):
    """From ASVspoof's layout to scores by attack, in all formats, which all give the same figures."""
    monkeypatch.chdir(tmp_path)
    samples = ROOT / "samples" / "custom"
    rows = []
    Path("set/ASVspoof2021_LA_eval/flac").mkdir(parents=True)
    for i, path in enumerate(sorted(samples.glob("*/*-0[1-4].flac"))):
        label, attack = (
            ("bonafide", "-") if path.parent.name == "Real" else ("spoof", path.name.split("-")[0])
        )
        rows.append(f"S LA_E_{i} {('alaw', 'none')[i % 2]} x {attack} {label} notrim eval\n")
        Path(f"set/ASVspoof2021_LA_eval/flac/LA_E_{i}.flac").symlink_to(path)
    Path("set/keys/LA/CM").mkdir(parents=True)
    keys = Path("set/keys/LA/CM/trial_metadata.txt")
    keys.write_text("".join(rows), encoding="utf-8")
    detector = str(ROOT / "samples" / "detector.safetensors")
    args = ["--data", "set", "--checkpoint", detector, "--workers", "0", "--scores-as", *FORMATS]
    assert evaluate_custom.main(args) == 0
    assert "| attack" in capsys.readouterr().out
    folder = Path("results/custom/detector")
    expected = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["metrics"]
    for name in ("scores.txt", "scores.tsv", "scores_arena.txt", "scores.csv"):
        assert main([str(folder / name), "--keys", str(keys), "--output", "again"]) == 0
        again = json.loads(Path("again/metrics.json").read_text(encoding="utf-8"))
        assert again["metrics"] == expected
        assert again["by"].keys() == {"attack", "codec"}


def test_no_figure_depends_on_the_order():
    rng = np.random.default_rng(0)
    bonafide, spoof = rng.normal(1, 1, 80), rng.normal(0, 1, 90)
    expected, bounds = metrics.compute_metrics(bonafide, spoof), uncertainty.intervals(bonafide, spoof)
    for _ in range(20):
        shuffled = rng.permutation(bonafide), rng.permutation(spoof)
        assert metrics.compute_metrics(*shuffled) == expected
        assert uncertainty.intervals(*shuffled)["auc"] == pytest.approx(bounds["auc"], abs=1e-12)
        assert uncertainty.intervals(*shuffled)["eer"] == pytest.approx(bounds["eer"], abs=1e-12)


def test_our_own_scores_keep_their_verdicts(tmp_path, monkeypatch):
    """They are those of the detector's own rule, which these scores alone do not tell."""
    monkeypatch.chdir(tmp_path)
    Path("scores.csv").write_text(
        "path,label,score,spoof_logit,verdict,margin,rule,heard_seconds,note,speaker\n"
        "a.wav,bonafide,1.5,0.5,not sure,0.1,calibration,0.5000,too short,A\n"
        "b.wav,spoof,-1.0,2.0,fake,-3.0,calibration,4.0375,,A\nc.wav,spoof,,,,,,,,B\n",
        encoding="utf-8",
    )
    assert main(["scores.csv", "--output", "out"]) == 0
    with open("out/scores.csv", encoding="utf-8", newline="") as file:
        rows = [list(row.values()) for row in csv.DictReader(file)]
    assert rows == [
        ["a.wav", "bonafide", "1.5", "0.5", "not sure", "0.1", "calibration", "0.5000", "too short", "A"],
        ["b.wav", "spoof", "-1.0", "2.0", "fake", "-3.0", "calibration", "4.0375", "", "A"],
        ["c.wav", "spoof", "", "", "", "", "", "", "", "B"],
    ]
    found = json.loads(Path("out/metrics.json").read_text(encoding="utf-8"))
    assert found["scores_sha256"] == file_sha256("scores.csv")


def test_attacks_by_codecs_and_the_worst_of_them(asvspoof_like, capsys):
    assert main(["scores.txt", "--keys", "keys.txt"]) == 0
    shown = capsys.readouterr().out
    eers = {}
    for attack in ("A07", "A08"):
        for codec in ("alaw", "none"):
            chosen = [row for row in asvspoof_like if row[1] == codec and row[2] in ("-", attack)]
            real, fake = (
                [row[-1] for row in chosen if (row[3] == "bonafide") == is_real] for is_real in (1, 0)
            )
            eers[attack, codec] = metrics.compute_eer(real, fake).eer
    for attack in ("A07", "A08"):
        row = rf"^{attack} +{100 * eers[attack, 'alaw']:.2f} +{100 * eers[attack, 'none']:.2f}$"
        assert re.search(row, shown, re.MULTILINE)
    pooled = [
        metrics.compute_eer(
            [row[-1] for row in asvspoof_like if row[3] == "bonafide"],
            [row[-1] for row in asvspoof_like if row[2] == attack],
        ).eer
        for attack in ("A07", "A08")
    ]
    mean, highest = (f"{100 * eer:.2f} %" for eer in (sum(pooled) / 2, pooled[1]))
    assert f"mean EER of these 2: {mean}; the highest: A08, {highest}" in shown


def test_precision_where_few_clips_are_fake(asvspoof_like, capsys):
    args = ["scores.txt", "--keys", "keys.txt", "--threshold", "1", "--output", "out"]
    assert main([*args, "--prevalence", "0.02"]) == 0
    at = json.loads(Path("out/metrics.json").read_text(encoding="utf-8"))["at_threshold"]
    called = {True: [], False: []}
    for row in asvspoof_like:
        called[row[-1] >= 1].append(row[3] == "bonafide")
    n_real = sum(row[3] == "bonafide" for row in asvspoof_like)
    weights = {True: 0.98 / n_real, False: 0.02 / (len(asvspoof_like) - n_real)}
    for is_real, name in ((True, "bonafide"), (False, "spoof")):
        weight = [weights[true] for true in called[is_real]]
        right = [w for w, true in zip(weight, called[is_real], strict=True) if true == is_real]
        assert at["precision"][name] == pytest.approx(sum(right) / sum(weight))
    shown = capsys.readouterr().out
    assert (
        f"where 2 % of all clips are fake: of those called real, {100 * at['precision']['bonafide']:.1f} % "
        "are" in shown
    )
    with pytest.raises(SystemExit):
        main(["scores.txt", "--keys", "keys.txt", "--prevalence", "0.02"])
    assert "--prevalence needs --threshold" in capsys.readouterr().err
    for wrong in ("0", "1", "x"):
        with pytest.raises(SystemExit):
            main([*args, "--prevalence", wrong])


def test_several_files_are_compared_on_the_recordings_that_all_have(asvspoof_like, capsys):
    lines = Path("scores.txt").read_text(encoding="utf-8").splitlines()
    worse = [f"{name} {float(score) * (-1) ** i}" for i, (name, score) in enumerate(map(str.split, lines))]
    Path("worse.txt").write_text("\n".join(worse[100:]), encoding="utf-8")
    assert (
        main(["scores.txt", "worse.txt", "--keys", "keys.txt", "--output", "out", "--pictures", "svg"]) == 0
    )
    shown = " ".join(capsys.readouterr().out.split())
    assert "## worse against scores" in shown
    assert "on clips like these, scores is the better of the two" in shown
    for name in ("roc.svg", "det.svg", "scores/roc.svg", "worse/metrics.json", "worse/scores.csv"):
        assert Path("out", name).is_file()
    assert not list(Path("out").rglob("*.png"))
    with open("out/table.csv", encoding="utf-8", newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    for name in ("scores", "worse"):
        written = json.loads(Path(f"out/{name}/metrics.json").read_text(encoding="utf-8"))
        assert float(rows[name]["eer"]) == written["metrics"]["eer"]
        assert [float(rows[name][f"auc_{end}"]) for end in ("low", "high")] == written["intervals_95"]["auc"]
    latex = Path("out/table.tex").read_text(encoding="utf-8")
    assert latex.count("\\\\\n") == 3
    assert f"worse & {float(rows['worse']['auc']):.4f} [" in latex


def test_files_that_cannot_be_compared_are_named(asvspoof_like, capsys):
    Path("other.csv").write_text("path,score,label\na,1,real\nb,0,fake\n", encoding="utf-8")
    Path("two.csv").write_text("path,score,label\na,1,fake\nb,0,real\n", encoding="utf-8")
    Path("three.csv").write_text("path,score,label\nc,1,fake\nd,0,real\n", encoding="utf-8")
    Path("real.csv").write_text("path,score,label\na,1,real\ne,0,fake\n", encoding="utf-8")
    for other, why in (
        ("three", "no recording is in both files"),
        ("two", "a has another label in two than in other"),
        ("real", "no real, or no fake, recording has a score from both detectors"),
    ):
        assert main(["other.csv", f"{other}.csv"]) == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert f"## {other} against other No comparison: {why}." in shown
        assert f"{other} 0.0000" in shown or f"{other} 1.0000" in shown  # each has its own figures
    assert main(["other.csv", "./other.csv"]) == 2
    assert "the same file of scores is named twice" in capsys.readouterr().err


def test_each_pair_of_files_is_compared_on_its_own_clips_and_with_the_columns_of_all(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    labels, speakers = ["real", "fake"] * 100, [f"{i % 2}{i // 10}" for i in range(200)]
    scores = {name: rng.normal(np.arange(200) % 2 * -1.0, 1) for name in "abc"}
    for name in "abc":
        rows = ["path,score,label" + ",speaker" * (name == "b")]
        for i in range(12 if name == "c" else 200):
            rows.append(f"q{i},{scores[name][i]},{labels[i]}" + f",{speakers[i]}" * (name == "b"))
        Path(f"{name}.csv").write_text("\n".join(rows), encoding="utf-8")
    texts = []
    for order in ("abc", "cba"):
        assert main([f"{name}.csv" for name in order]) == 0
        texts.append(" ".join(capsys.readouterr().out.split()))
        assert texts[-1].count("(100 real, 100 fake)") == 1
        assert texts[-1].count("(6 real, 6 fake)") == 2
        assert "by speaker" in texts[-1]
        assert "taken as independent" not in texts[-1]
    for figures in (r"a +(0\.\d{4} \[[^]]*\])", r"b +(0\.\d{4} \[[^]]*\])"):
        assert len({re.search(figures, text)[1] for text in texts}) == 1


def test_a_label_that_one_file_lacks_is_taken_from_the_other(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("a.csv").write_text("path,score,label\nx,1,real\ny,0,fake\nz,2,real\n", encoding="utf-8")
    Path("b.csv").write_text("path,score,label\nx,1,real\ny,0,fake\nz,2,\n", encoding="utf-8")
    assert main(["a.csv", "b.csv"]) == 0
    assert "(2 real, 1 fake)" in " ".join(capsys.readouterr().out.split())


def test_what_the_figures_are_of_is_never_overwritten(asvspoof_like, capsys):
    Path("here").mkdir()
    scores = "path,score,label\na,1,real\nb,0,fake\n"
    for name in ("scores.csv", "table.csv", "other.csv"):
        Path("here", name).write_text(scores, encoding="utf-8")
        assert main([f"here/{name}", "--output", "here"]) == 2
        assert "name another --output" in capsys.readouterr().err
        assert Path("here", name).read_text(encoding="utf-8") == scores
    assert main(["scores.txt", "--keys", "keys.txt", "--output", "."]) == 2


@pytest.mark.parametrize("keys", [[], ["--keys", "keys.csv"]])
def test_verdicts_of_a_file_of_this_project_are_kept(keys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    decisions = {"a": ("not sure", "0.5", "calibration"), "b": ("fake", "-3.5", "calibration")}
    rows = ["path,label,score,spoof_logit,verdict,margin,rule"]
    rows += [
        f"{name},{label},1,0,{','.join(decisions[name])}" for name, label in (("a", "real"), ("b", "fake"))
    ]
    Path("scores.csv").write_text("\n".join(rows), encoding="utf-8")
    Path("keys.csv").write_text("path,label\na,real\nb,fake\n", encoding="utf-8")
    assert main(["scores.csv", *keys, "--output", "out"]) == 0
    with open("out/scores.csv", encoding="utf-8", newline="") as file:
        found = {row["path"]: (row["verdict"], row["margin"], row["rule"]) for row in csv.DictReader(file)}
    assert found == decisions


@pytest.mark.parametrize("number", ["1_0", "\u0661"])
def test_what_only_python_takes_for_a_number_is_refused(number, tmp_path):
    (tmp_path / "scores.csv").write_text(f"path,score\na,{number}\n", encoding="utf-8")
    with pytest.raises(DataError, match="is not a usable number"):
        read_scores(tmp_path / "scores.csv")


def test_a_name_of_a_file_of_scores_leads_nowhere_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("...csv", "roc.png.csv"):
        Path(name).write_text("path,score,label\na,1,real\nb,0,fake\n", encoding="utf-8")
    assert main(["...csv", "roc.png.csv", "--output", "under/out"]) == 0
    assert [path.name for path in Path("under").iterdir()] == ["out"]
    assert {path.name for path in Path("under/out").iterdir() if path.is_dir()} == {"scores", "roc-png"}


def test_names_of_files_are_told_apart_and_stay_in_the_folder(tmp_path, monkeypatch, capsys):
    scores = "path,score,label\na,1,real\nb,0,fake\nc,2,real\n"
    for folder, name in (
        ("x", "b-2.csv"),
        ("x", "b.csv"),
        ("y", "b.csv"),
        ("z/deep", "s.csv"),
        ("z", "scores.csv"),
    ):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / name).write_text(scores, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert main(["x/b-2.csv", "x/b.csv", "y/b.csv", "--output", "out"]) == 0
    assert {path.name for path in Path("out").iterdir() if path.is_dir()} == {"b-2", "b", "b-3"}
    monkeypatch.chdir(tmp_path / "z" / "deep")
    assert main(["../scores.csv", "s.csv", "--output", str(tmp_path / "new")]) == 0
    assert {path.name for path in (tmp_path / "new").iterdir() if path.is_dir()} == {"z", "s"}


def test_results_of_one_file_do_not_stay_beside_those_of_several(asvspoof_like, capsys):
    lines = Path("scores.txt").read_text(encoding="utf-8").splitlines()
    Path("half.txt").write_text("\n".join(lines[300:]), encoding="utf-8")
    assert main(["scores.txt", "--keys", "keys.txt", "--output", "out", "--pictures", "svg", "pdf"]) == 0
    assert main(["scores.txt", "half.txt", "--keys", "keys.txt", "--output", "out"]) == 0
    assert sorted(path.name for path in Path("out").iterdir()) == [
        *("det.png", "half", "roc.png", "scores", "table.csv", "table.tex"),
    ]


def test_scores_that_are_all_equal_say_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("same.csv").write_text("path,score,label\na,1,real\nb,1,fake\nc,1,real\n", encoding="utf-8")
    assert main(["same.csv", "--output", "out"]) == 0
    assert "same: all scores are equal, so this detector says nothing" in capsys.readouterr().out
    Path("near.csv").write_text("path,score,label\na,1,real\nb,0.9999999999999999,fake\n", encoding="utf-8")
    assert main(["near.csv", "--output", "out"]) == 0


def test_a_name_means_nothing_to_latex():
    assert results._latex("[a]") == "{[}a]"
    assert results._latex("a_b$1%\\x~") == "a\\_b\\$1\\%\\textbackslash{}x\\textasciitilde{}"
