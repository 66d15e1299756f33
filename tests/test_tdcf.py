"""The min t-DCF against the figures of the official code of ASVspoof 2019 and 2021, read from their files."""

import json
from pathlib import Path

import numpy as np
import pytest
from weights import REFERENCE

from antispoofing.commands.metrics import main
from antispoofing.errors import DataError
from antispoofing.scoring.asv_scores import read_asv_rates
from antispoofing.tdcf import ASVSPOOF_2019, ASVSPOOF_2021, AsvRates, asv_rates, min_tdcf

# What the official evaluation packages give for the scores in tdcf.npz.
OFFICIAL = {
    "2019": 0.31931106629764916,
    "eval": 0.34593878703863745,
    "progress": 0.38200574127889453,
}
OFFICIAL_ASV = {
    "eval": (1.916194, 0.020440251572327043, 0.021688613477924088, 0.7242169595110771),
    "progress": (1.93055, 0.014084507042253521, 0.025477707006369428, 0.710691823899371),
}
MADE = np.load(REFERENCE / "tdcf.npz")


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Write the made scores in the official files' forms, below the current folder."""
    monkeypatch.chdir(tmp_path)
    Path("ASV/Kaldi").mkdir(parents=True)
    asv = list(zip(*(MADE[f"asv_{name}"] for name in ("key", "phase", "score")), strict=True))
    cm = list(zip(*(MADE[f"cm_{name}"] for name in ("label", "phase", "score")), strict=True))
    write("ASV/trial_metadata.txt", (f"S E_{i} - - - {k} notrim {p}" for i, (k, p, _) in enumerate(asv)))
    write("ASV/Kaldi/score.txt", (f"S E_{i} {score}" for i, (_, _, score) in enumerate(asv)))
    write("asv_2019.txt", (f"E_{i} {k} {score}" for i, (k, _, score) in enumerate(asv)))
    write("keys.txt", (f"S T_{i} none - - {k} notrim {p}" for i, (k, p, _) in enumerate(cm)))
    write("cm.txt", (f"T_{i} {score}" for i, (_, _, score) in enumerate(cm)))
    write("cm_2019.txt", (f"T_{i} - {k} {score}" for i, (k, _, score) in enumerate(cm)))


def write(name, lines):
    Path(name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def test_the_cost_is_the_official_one(files, capsys):
    cases = {
        "2019": ["cm_2019.txt", "--asv-scores", "asv_2019.txt"],
        "eval": ["cm.txt", "--keys", "keys.txt", "--asv-scores", "ASV/Kaldi/score.txt"],
    }
    cases["progress"] = [*cases["eval"], "--phase", "progress"]
    for name, args in cases.items():
        assert main([*args, "--output", "out"]) == 0
        found = json.loads(Path("out/metrics.json").read_text(encoding="utf-8"))
        assert found["min_tdcf"]["value"] == pytest.approx(OFFICIAL[name], abs=1e-12)
        year = "2019" if name == "2019" else "2021"
        assert found["min_tdcf"]["formula"] == f"ASVspoof {year}"
        assert len(found["asv_scores_sha256"]) == 64
        assert f"min t-DCF {OFFICIAL[name]:.4f} (ASVspoof {year}'s formula)" in capsys.readouterr().out


@pytest.mark.parametrize("phase", OFFICIAL_ASV)
def test_the_asv_systems_rates_are_the_official_ones(phase, files):
    rates, formula = read_asv_rates(Path("ASV/Kaldi/score.txt"), phase)
    assert formula == ASVSPOOF_2021
    assert tuple(rates) == pytest.approx(OFFICIAL_ASV[phase], abs=1e-12)


def test_a_countermeasure_that_errs_never_leaves_the_asv_systems_own_cost():
    asv = AsvRates(0.0, 0.1, 0.02, 0.5)
    perfect = [1.0, 2.0], [-1.0, 0.0]
    assert min_tdcf(*perfect, asv, ASVSPOOF_2019) == 0
    own = 0.95 * 0.99 * 0.1 + 10 * 0.95 * 0.01 * 0.02
    assert min_tdcf(*perfect, asv, ASVSPOOF_2021) == pytest.approx(own / (own + 10 * 0.05 * 0.5))
    useless = [0.0, 1.0], [0.0, 1.0]
    for formula in (ASVSPOOF_2019, ASVSPOOF_2021):
        assert min_tdcf(*useless, asv, formula) == pytest.approx(1)


def test_an_asv_system_that_makes_the_cost_undefined_is_named(files, capsys):
    with pytest.raises(ValueError, match="accepts too many nontargets"):
        min_tdcf([1.0], [0.0], AsvRates(0.0, 1.0, 1.0, 0.5), ASVSPOOF_2021)
    with pytest.raises(ValueError, match="accepts no spoofed trial"):
        min_tdcf([1.0], [0.0], AsvRates(0.0, 0.0, 0.0, 0.0), ASVSPOOF_2019)
    write("asv.txt", ["a target 1", "b nontarget 0", "c spoof -9"])
    assert main(["cm_2019.txt", "--asv-scores", "asv.txt"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: asv.txt: the t-DCF is undefined: ")
    assert error.count("\n") == 1


def test_perfect_asv_scores_have_a_threshold():
    assert asv_rates([2.0, 3.0], [0.0, 1.0], [1.5, 0.5]) == (1.0, 0.0, 0.5, 0.5)
    assert asv_rates([0.0], [0.0], [0.0]).threshold == pytest.approx(-0.001)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], "asv.txt is empty"),
        (["a target"], "asv.txt, row 1: 2 columns instead of 3"),
        (["a target 1", "b"], "asv.txt, row 2: 1 column instead of 3"),
        (["a target 1", "b nontarget x"], "asv.txt, row 2: the score 'x' is not a usable number"),
        (["a target 1", "b nontarget inf"], "asv.txt, row 2: the score 'inf' is not a usable number"),
        (["a target 1", "b nontarget 0"], "asv.txt has no scores of spoof trials"),
        (["S E_0 1"], "there is no trial_metadata.txt (ASVspoof 2021) beside it or one folder up"),
    ],
)
def test_what_is_wrong_with_asv_scores_is_said(lines, words, tmp_path):
    write(tmp_path / "asv.txt", lines)
    with pytest.raises(DataError) as caught:
        read_asv_rates(tmp_path / "asv.txt")
    assert words in str(caught.value)


def test_asv_scores_that_are_no_text_are_named(tmp_path):
    (tmp_path / "asv.txt").write_bytes("a target 1\n".encode("utf-16"))
    with pytest.raises(DataError, match=r"asv\.txt is not a text file in UTF-8"):
        read_asv_rates(tmp_path / "asv.txt")


def test_a_phase_without_trials_is_named(files):
    with pytest.raises(DataError, match=r"trial_metadata\.txt has no trials of phase dev"):
        read_asv_rates(Path("ASV/Kaldi/score.txt"), "dev")
