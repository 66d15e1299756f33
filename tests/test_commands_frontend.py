"""`--frontend fairseq` without fairseq, or where it is no use; `optional/test_fairseq.py` tests fairseq."""

import sys

import pytest
from helpers import PRESETS

import evaluate_custom
import evaluate_custom_for
import fine_tune_for
from antispoofing import project
from antispoofing.commands import tasks
from antispoofing.detectors.fairseq import FairseqXLSR
from antispoofing.detectors.loading import load_detector, save_detector
from antispoofing.errors import FairseqError
from model import Detector

SCRIPTS = {
    evaluate_custom: ("--data", project.SAMPLES / "custom"),
    evaluate_custom_for: ("--data", project.SAMPLES / "custom"),
    fine_tune_for: ("--data", project.SAMPLES / "for-2seconds", "--no-wandb"),
}


@pytest.fixture(params=SCRIPTS, ids=lambda script: script.__name__)
def run(request, tmp_path, monkeypatch):
    """A script with data to work on and `--frontend fairseq`, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def main(*args) -> int:
        args = (*SCRIPTS[request.param], "--frontend", "fairseq", "--workers", "0", *args)
        return request.param.main([*map(str, args)])

    return main


@pytest.fixture
def no_fairseq(monkeypatch):
    monkeypatch.setitem(sys.modules, "fairseq", None)


def test_a_missing_fairseq_is_an_error_in_one_line(run, no_fairseq, small_config, capsys):
    save_detector(Detector(small_config), "xlsr.safetensors")
    assert run("--checkpoint", "xlsr.safetensors") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: fairseq cannot be imported (")
    assert error.endswith("); requirements-fairseq.txt says how to install it\n")
    assert error.count("\n") == 1


def test_a_spectrogram_is_not_passed_off_as_fairseq(run, capsys):
    assert run("--checkpoint", tasks.STAND_IN) == 2
    reason = "its front end is not XLS-R, so fairseq cannot compute it: leave out --frontend fairseq"
    assert capsys.readouterr().err == f"error: {tasks.STAND_IN}: {reason}\n"


def test_a_fairseq_that_does_not_import(small_config, tmp_path, monkeypatch):
    (tmp_path / "fairseq.py").write_text("raise ValueError('mutable default')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "fairseq", raising=False)
    with pytest.raises(FairseqError, match=r"\(mutable default\); requirements-fairseq\.txt"):
        FairseqXLSR(small_config.front_end)


def test_other_names_are_refused(small_pth, small_config):
    with pytest.raises(ValueError, match=r"^engine must be one of transformers, fairseq, not 'jax'"):
        load_detector(small_pth, config=small_config, engine="jax")
    with pytest.raises(ValueError, match=r"^precision must be one of fp32, .* and auto, not 'fp8'"):
        load_detector(small_pth, config=small_config, precision="fp8")


def test_results_say_what_computed_them(small_config):
    assert Detector(small_config).describe()["frontend"] == "transformers"
    assert Detector(PRESETS["small"]).describe()["frontend"] is None
