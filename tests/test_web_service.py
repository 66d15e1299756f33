"""Strangers' recordings, scored within limits."""

import zipfile
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch
from helpers import PRESETS, tone, write_bad_files, write_zip

from antispoofing.commands.tasks import STAND_IN
from antispoofing.data.recordings import Utterance
from antispoofing.detectors.loading import load_detector
from antispoofing.errors import DataError
from antispoofing.sandbox import Sandbox
from antispoofing.scoring.decision import FAKE, NOT_SURE, REAL
from antispoofing.scoring.score import score_recordings
from antispoofing.web import api, service
from antispoofing.web.limits import Limits
from antispoofing.web.service import Service
from data_utils import load_audio, pad
from model import Detector

CALIBRATION = {"slope": 2.0, "intercept": -1.0, "bound": 5.0, "fitted_on": "some clips"}


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(["data_utils"]) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def detectors():
    torch.manual_seed(0)
    calibrated = Detector(PRESETS["small"]).eval()
    calibrated.provenance, calibrated.sha256 = {"calibration": CALIBRATION}, "ab" * 32
    return {"stand-in": load_detector(STAND_IN, device="cpu"), "calibrated": calibrated}


@pytest.fixture
def served(sandbox, detectors):
    return Service(detectors, sandbox, Limits())


def limited(served, **limits):
    served.limits = replace(served.limits, **limits)
    return served


def test_a_short_recording_has_the_score_of_the_command_line(served, detectors, tmp_path):
    soundfile.write(tmp_path / "a b.mp3", tone(3, 44100, channels=2), 44100)
    heard = served.hear(tmp_path / "a b.mp3", ["stand-in", "calibrated"])
    assert (heard.name, heard.info.format, heard.info.sample_rate) == ("a b.mp3", "MP3", 44100)
    utterance = Utterance(str(tmp_path / "a b.mp3"), "a b.mp3", "")
    for name, detector in detectors.items():
        scored = score_recordings(detector, [utterance])
        assert heard.timelines[name].scores == pytest.approx(scored.scores, abs=1e-5)
        of_many = served.score(served.uploaded([tmp_path / "a b.mp3"]), [name])[name]
        assert of_many.scores == pytest.approx(scored.scores, abs=1e-5)


def test_a_long_recording_is_heard_in_full(served, tmp_path):
    soundfile.write(tmp_path / "long.flac", tone(30, 16000), 16000)
    timeline = served.hear(tmp_path / "long.flac", ["stand-in"]).timelines["stand-in"]
    assert (timeline.starts[0], timeline.ends[-1]) == (0, 30)
    assert len(timeline.scores) == 14


def test_a_recording_may_be_as_long_as_the_limit_but_no_longer(served, tmp_path):
    limited(served, minutes=0.1)
    soundfile.write(tmp_path / "a.wav", tone(6, 8000), 8000)
    soundfile.write(tmp_path / "b.wav", np.append(tone(6, 8000), 0.0), 8000)
    assert len(served.hear(tmp_path / "a.wav", ["stand-in"]).wave) == 6 * 16000
    with pytest.raises(DataError, match=r"b\.wav is longer than 0\.1 minutes, the limit here"):
        served.hear(tmp_path / "b.wav", ["stand-in"])


def test_bad_files_are_named_without_their_folder(served, tmp_path):
    reasons = write_bad_files(tmp_path)
    reasons.pop("dangling.wav", None)
    for name in reasons:
        with pytest.raises(DataError, match="cannot be read: ") as caught:
            served.hear(tmp_path / name, ["stand-in"])
        assert str(caught.value).startswith(name)
        assert str(tmp_path) not in str(caught.value)
        assert "\n" not in str(caught.value)
    scored = served.score(served.uploaded([tmp_path / name for name in reasons]), ["stand-in"])["stand-in"]
    assert len(scored.failures) == len(reasons)
    assert not any(str(tmp_path) in reason for reason in scored.failures.values())


def test_a_file_that_was_deleted_is_to_be_uploaded_again(served, tmp_path):
    for ask in (
        lambda: served.hear(tmp_path / "a.wav", ["stand-in"]),
        lambda: served.uploaded([tmp_path / "a.wav"]),
    ):
        with pytest.raises(DataError, match=r"^a\.wav is no longer here: upload it again$"):
            ask()


def test_a_large_file_is_refused(served, tmp_path):
    limited(served, megabytes=0.001)
    soundfile.write(tmp_path / "a.wav", tone(1, 8000), 8000)
    write_zip(tmp_path / "a.zip")
    for ask in (
        lambda: served.hear(tmp_path / "a.wav", ["stand-in"]),
        lambda: served.uploaded([tmp_path / "a.wav"]),
        lambda: served.unpacked(tmp_path / "a.wav").__enter__(),
    ):
        with pytest.raises(DataError, match=r"a\.wav is larger than 0\.001 MB, the limit here"):
            ask()


def test_too_many_files_are_refused(served):
    limited(served, files=2)
    with pytest.raises(DataError, match="3 recordings, but the limit here is 2"):
        served.score([Utterance("a", "a", "")] * 3, ["stand-in"])


def test_a_file_that_stalls_costs_no_other(served, tmp_path, monkeypatch):
    """The function that reads files is replaced by one that sleeps for files of that name."""
    monkeypatch.setattr(service, "load_with_info", slow_load)
    limited(served, seconds_per_file=3)
    for name in ("a.wav", "sleeps.wav", "z.wav"):
        soundfile.write(tmp_path / name, tone(1, 8000), 8000)
    paths = [tmp_path / name for name in ("a.wav", "sleeps.wav", "z.wav")]
    scored = served.score(served.uploaded(paths), ["stand-in"])["stand-in"]
    assert scored.failures == {1: "it takes more than 3 s to read"}
    assert np.isfinite(scored.scores[[0, 2]]).all()
    with pytest.raises(DataError, match=r"sleeps\.wav cannot be read: it takes more than 3 s"):
        served.hear(tmp_path / "sleeps.wav", ["stand-in"])


def test_files_that_stall_one_after_the_other_do_not_add_up(served, tmp_path, monkeypatch):
    monkeypatch.setattr(service, "load_with_info", slow_load)
    limited(served, seconds_per_file=3, seconds=5)
    soundfile.write(tmp_path / "a.wav", tone(1, 8000), 8000)
    paths = [tmp_path / name for name in ("sleeps1.wav", "sleeps2.wav", "sleeps3.wav", "a.wav")]
    scored = served.score([Utterance(str(p), p.name, "") for p in paths], ["stand-in"])["stand-in"]
    assert scored.failures[0] == "it takes more than 3 s to read"
    assert scored.failures[3] == "no time left to read it: the files before it took 5 s, the limit here"


def slow_load(path, *args):
    """Read a file, but sleep first if its name says so; this runs in another process."""
    if "sleeps" in path:
        import time

        time.sleep(60)
    from data_utils import load_with_info

    return load_with_info(path, *args)


def test_an_archive_is_unpacked_and_removed(served, tmp_path):
    archive = write_zip(tmp_path / "set.zip")
    before = set(tmp_path.rglob("*"))
    with served.unpacked(archive) as found:
        assert {u.label for u in found.utterances} == {"bonafide", "spoof"}
        scored = served.score(found.utterances, ["stand-in"])["stand-in"]
        assert not scored.failures
        root = found.root
    assert not root.exists()
    assert set(tmp_path.rglob("*")) == before


def test_a_hostile_archive_is_refused_without_naming_a_folder(served, tmp_path):
    soundfile.write(tmp_path / "secret.wav", np.zeros(100), 16000)
    clip = (tmp_path / "secret.wav").read_bytes()
    secret = str(tmp_path / "secret.wav")
    hostile = {
        "outside.zip": {"../a.wav": clip},
        "asking.zip": {"metadata.csv": f"file_name,label\n{secret}x,real\n".encode(), "a.wav": clip},
        "ids.zip": {"meta.csv": b"file,label\n../../etc/passwd,real\n", "a.wav": clip},
        "name.zip": {"a" * 300 + ".wav": clip},
        "list.zip": {"metadata.csv": f"file_name,label\n{secret},real\n".encode(), "a.wav": clip},
        "missing.zip": {"metadata.csv": b"file_name,label\nb.wav,real\n", "a.wav": clip},
        "nothing.zip": {"a.pdf": b"x"},
        "both.zip": {"Real/Fake/a.wav": clip, "Fake/Real/a.wav": clip},
        "many.zip": {f"{i}.wav": clip for i in range(12)},
        "bomb.zip": {"a.wav": bytes(3_000_000)},
    }
    limited(served, files=10, unpacked_megabytes=2)
    for name, files in hostile.items():
        write_zip(tmp_path / name, files, compression=zipfile.ZIP_DEFLATED)
    (tmp_path / "damaged.zip").write_bytes(b"PK nothing")
    for name in [*hostile, "damaged.zip"]:
        with pytest.raises(DataError) as caught, served.unpacked(tmp_path / name):
            pass
        words = str(caught.value)
        assert words.startswith(name) or name in words
        assert "/tmp" not in words.replace(secret, "")
        assert ".extracted" not in words
        if name in ("list.zip", "asking.zip", "ids.zip"):  # whether that file exists is not disclosed
            assert "is refused: its list of labels names" in words


def test_detectors_are_chosen_by_name(served):
    assert [named.name for named in served.chosen(["calibrated", "stand-in"])] == ["stand-in", "calibrated"]
    for names, words in (
        (["other"], "no detector 'other'"),
        ([], "choose a detector"),
        (None, "choose a detector"),
    ):
        with pytest.raises(DataError, match=words):
            served.chosen(names)


def test_an_output_that_is_not_a_number_is_an_error(served, detectors, tmp_path):
    broken = Detector(PRESETS["small"]).eval()
    broken.back_end.out_layer.bias.data[:] = np.nan
    soundfile.write(tmp_path / "a.wav", tone(1, 8000), 8000)
    with pytest.raises(DataError, match="not a number"):
        Service({"broken": broken}, served.sandbox, Limits()).hear(tmp_path / "a.wav", ["broken"])


def test_programs_get_scores_as_json_types(served, detectors, tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(1, 8000), 8000)
    (tmp_path / "b.wav").write_text("no audio")
    first, second = api.score(served, [tmp_path / "a.wav", tmp_path / "b.wav"], list(detectors))
    assert (first["file"], second["file"]) == ("a.wav", "b.wav")
    clip = torch.from_numpy(pad(load_audio(tmp_path / "a.wav")))[None]
    for answer, (name, detector) in zip(first["results"], detectors.items(), strict=True):
        with torch.inference_mode():
            spoof, bonafide = detector(clip)[0].tolist()
        assert (answer["detector"], answer["sha256"]) == (name, detector.sha256)
        assert answer["score"] == pytest.approx(bonafide, abs=1e-5)
        margin = 2 * bonafide - 1 if name == "calibrated" else bonafide - spoof
        assert answer["threshold"] == pytest.approx(0.5 if name == "calibrated" else spoof, abs=1e-5)
        assert answer["margin"] == pytest.approx(margin, abs=1e-4)
        assert answer["verdict"] in (REAL, FAKE, NOT_SURE)
        probability = 1 / (1 + np.exp(-margin)) if name == "calibrated" else None
        assert answer["probability_real"] == pytest.approx(probability, abs=1e-4)
    assert all("Format not recognised" in answer["error"] for answer in second["results"])
    with pytest.raises(DataError, match="upload a recording"):
        api.score(served, [], ["stand-in"])


def test_programs_get_timelines_as_json_types(served, tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(9, 8000), 8000)
    answer = api.timeline(served, tmp_path / "a.wav", ["calibrated"])
    assert (answer["file"], answer["seconds"]) == ("a.wav", 9)
    (result,) = answer["results"]
    heard = served.hear(tmp_path / "a.wav", ["calibrated"]).timelines["calibrated"]
    assert [window["score"] for window in result["windows"]] == pytest.approx(heard.scores.tolist())
    assert (result["overall"], result["rule"]) == (heard.overall, heard.rule.basis)
    assert len(result["stretches"]) == len(heard.suspicious())
    with pytest.raises(DataError, match="upload a recording"):
        api.timeline(served, None, ["calibrated"])
