"""The Python interface: the names in `antispoofing.__all__`, imported when they are first used."""

import os
import subprocess
import sys

import numpy as np
import pytest
from helpers import ROOT

import antispoofing
from antispoofing import (
    find_recordings,
    for_scoring,
    load_audio,
    load_detector,
    score_recordings,
    score_waves,
)
from antispoofing.commands.tasks import STAND_IN
from antispoofing.project import SAMPLES


def test_about_a_dozen_names_and_no_others():
    assert len(antispoofing.__all__) <= 15
    assert all(callable(getattr(antispoofing, name)) for name in antispoofing.__all__)
    assert set(antispoofing.__all__) <= set(dir(antispoofing))
    with pytest.raises(AttributeError, match="module 'antispoofing' has no attribute 'score_everything'"):
        _ = antispoofing.score_everything


def test_importing_the_package_loads_nothing():
    code = "import sys, antispoofing; print(*{'torch', 'numpy', 'data_utils'} & sys.modules.keys())"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""


def test_arrays_get_the_scores_of_their_files():
    detector = for_scoring(load_detector(STAND_IN, device="cpu"))
    recordings = find_recordings([SAMPLES / "custom"]).utterances[::20]
    waves = [load_audio(recording.path) for recording in recordings]
    expected = score_recordings(detector, recordings).scores
    assert expected.std() > 1
    np.testing.assert_allclose(score_waves(detector, waves), expected, atol=1e-5, rtol=0)
    assert score_waves(detector, []).shape == (0,)
    with pytest.raises(ValueError, match="without samples"):
        score_waves(detector, [np.zeros(0, np.float32)])
