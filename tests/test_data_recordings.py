"""Finding recordings and their labels: folders of every shape, lists, and the published data sets."""

import csv
import io
import json
import os
import shutil
import sys
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest
import soundfile
import torch
from helpers import PRESETS, tone, touch, write_lists

import evaluate_custom
from antispoofing.data.layouts import SPLITS
from antispoofing.data.recordings import find_recordings, find_splits
from antispoofing.detectors.loading import save_detector
from antispoofing.errors import DataError
from data_utils import load_audio, pad
from model import Detector


def found(*paths):
    result = find_recordings(paths)
    return {u.name: u.label for u in result.utterances}, {Path(path).name for path in result.ignored}


def test_labels_come_from_folder_names_in_any_case_and_nesting(tmp_path):
    touch(
        tmp_path,
        "Set/Set/Real/a.wav",
        "Set/Set/FAKE/b.MP3",
        "x/bona-fide/deep/er/c.flac",
        "x/Bona_Fide/d.ogg",
        "x/bonafide/e.opus",
        "genuine/f.wav",
        "spoof/g.wav",
        "other/really/h.wav",
        "i.wav",
    )
    labels, _ = found(tmp_path)
    assert labels == {
        "Set/Set/Real/a.wav": "bonafide",
        "Set/Set/FAKE/b.MP3": "spoof",
        "x/bona-fide/deep/er/c.flac": "bonafide",
        "x/Bona_Fide/d.ogg": "bonafide",
        "x/bonafide/e.opus": "bonafide",
        "genuine/f.wav": "bonafide",
        "spoof/g.wav": "spoof",
        "other/really/h.wav": "",
        "i.wav": "",
    }


def test_what_is_not_a_recording_is_left_out_and_named(tmp_path):
    touch(tmp_path, "a.wav", "notes.txt", ".hidden.wav", "__MACOSX/._a.wav", ".cache/b.wav", "c.m4a")
    assert found(tmp_path) == ({"a.wav": "", "c.m4a": ""}, {"notes.txt"})


def test_files_and_lists_of_files(tmp_path):
    touch(tmp_path, "Real/a.wav", "Real/b.wav", "Fake/c.wav", "odd.bin")
    real, fake = tmp_path / "Real", tmp_path / "Fake"
    assert found(real / "a.wav")[0] == {"a.wav": ""}
    assert found(real)[0] == {"a.wav": "", "b.wav": ""}
    assert found(real / "a.wav", fake / "c.wav")[0] == {"Real/a.wav": "bonafide", "Fake/c.wav": "spoof"}
    assert found(real, fake, real / "a.wav")[0].keys() == {"Real/a.wav", "Real/b.wav", "Fake/c.wav"}
    assert found(tmp_path / "odd.bin")[0] == {"odd.bin": ""}  # since it was named


def test_the_root_folders_own_name_is_not_a_label(tmp_path):
    touch(tmp_path, "fake or real/fake/a.wav", "fake/real/b.wav")
    assert found(tmp_path / "fake or real")[0] == {"fake/a.wav": "spoof"}
    assert found(tmp_path / "fake")[0] == {"real/b.wav": "bonafide"}
    with pytest.raises(DataError, match="ambiguous"):
        find_recordings([tmp_path])


def test_missing_and_empty_data(tmp_path):
    with pytest.raises(DataError, match="nowhere: no such"):
        find_recordings([tmp_path / "nowhere"])
    with pytest.raises(DataError, match="no recordings"):
        find_recordings([tmp_path])
    with pytest.raises(DataError, match="empty path"):
        find_recordings([""])


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")
def test_linked_folders_are_followed_but_not_in_cycles(tmp_path):
    touch(tmp_path, "data/real/a.wav", "elsewhere/b.wav")
    (tmp_path / "data" / "fake").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "real" / "up").symlink_to(tmp_path / "data")
    assert found(tmp_path / "data")[0] == {"real/a.wav": "bonafide", "fake/b.wav": "spoof"}


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")
def test_a_file_reached_twice_counts_once_with_its_label(tmp_path):
    touch(tmp_path, "data/real/a.wav", "data/fake/b.wav")
    (tmp_path / "data" / "all").symlink_to(tmp_path / "data" / "real")
    assert found(tmp_path / "data")[0] == {"real/a.wav": "bonafide", "fake/b.wav": "spoof"}
    write_lists(
        tmp_path, {"real.csv": "path,label\ndata/all/a.wav,real\n", "fake.csv": "data/real/a.wav,fake\n"}
    )
    assert found(tmp_path / "data", tmp_path / "real.csv")[0]["data/real/a.wav"] == "bonafide"
    with pytest.raises(DataError, match="labelled both real and fake"):
        find_recordings([tmp_path / "real.csv", tmp_path / "fake.csv"])


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege on Windows")
def test_linked_files_are_recordings_of_their_own(tmp_path):
    """A cache keeps files of equal content as links to one file; a copy of it is the same data set."""
    touch(tmp_path, "blobs/1", "blobs/2", "set/real/a.wav")
    for name, blob in {"real/b": 1, "real/again": 1, "fake/c": 1, "fake/d": 2}.items():
        (tmp_path / "set" / "fake").mkdir(exist_ok=True)
        (tmp_path / f"set/{name}.wav").symlink_to(tmp_path / f"blobs/{blob}")
    shutil.copytree(tmp_path / "set", tmp_path / "copy")
    assert found(tmp_path / "set") == found(tmp_path / "copy")
    assert len(find_recordings([tmp_path / "set"]).utterances) == 5
    rows = "".join(
        f"{label}/{name}.wav,{label}\n" for label, name in [("real", "b"), ("real", "again"), ("fake", "c")]
    )
    write_lists(tmp_path, {"set/l.csv": f"path,label\n{rows}"})
    assert len(find_recordings([tmp_path / "set/l.csv"]).utterances) == 3


def test_two_lists_of_one_recording_add_up(tmp_path):
    lists = {
        "speakers.csv": "path,label,speaker,codec\na.wav,real,eve,g722\n",
        "labels.csv": "path,label,speaker\na.wav,real,adam\nb.wav,fake,eve\n",
    }
    write_lists(tmp_path, lists, "a.wav", "b.wav")
    first, second = find_recordings([tmp_path / "labels.csv", tmp_path / "speakers.csv"]).utterances
    assert (first.name, first.label) == ("a.wav", "bonafide")
    assert first.columns == {"speaker": "adam", "codec": "g722"}  # the first list's cells come first
    assert second.columns == {"speaker": "eve"}
    (with_label,) = find_recordings([tmp_path / "a.wav", tmp_path / "speakers.csv"]).utterances
    assert (with_label.label, with_label.trial) == ("bonafide", "a.wav")


COMPOSED, DECOMPOSED = "réel", "re\u0301el"


def test_a_list_in_other_letters_finds_its_recordings(tmp_path):
    """Archives made on macOS have decomposed names, lists typed elsewhere composed ones."""
    rows = (
        f"path,label\n{COMPOSED}/{COMPOSED}0.wav,real\n{DECOMPOSED}/b.wav,fake\nnichts/{COMPOSED}.wav,fake\n"
    )
    write_lists(tmp_path, {"l.csv": rows}, f"{DECOMPOSED}/{DECOMPOSED}0.wav", f"{DECOMPOSED}/b.wav")
    result = find_recordings([tmp_path / "l.csv"])
    names = [u.name for u in result.utterances]
    assert names == [f"nichts/{COMPOSED}.wav", f"{COMPOSED}/b.wav", f"{COMPOSED}/{COMPOSED}0.wav"]
    assert [Path(u.path).is_file() for u in result.utterances] == [False, True, True]
    assert len(result.notes) == 2
    write_lists(tmp_path, {"ids.csv": f"path,label\n{COMPOSED}1,real\n"}, f"flac/{DECOMPOSED}1.flac")
    assert find_recordings([tmp_path / "ids.csv"]).utterances[0].name == f"{COMPOSED}1.flac"


@pytest.mark.skipif(sys.platform == "darwin", reason="there both forms name one file")
def test_names_stay_different_where_only_their_letters_composition_differs(tmp_path):
    touch(tmp_path, f"{COMPOSED}.wav", f"{DECOMPOSED}.wav")
    names = {u.name for u in find_recordings([tmp_path]).utterances}
    assert names == {f"{COMPOSED}.wav", f"{DECOMPOSED}.wav"}


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a name is always text, without backslashes")
def test_names_stay_different_where_one_looks_as_another_is_written(tmp_path):
    for name in (rb"\xe4.wav", b"\xe4.wav", b" x.wav", rb"\x20x.wav", b"a\nb.wav"):
        Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name))).touch()
    names = [u.name for u in find_recordings([tmp_path]).utterances]
    assert len(set(names)) == 5
    assert all(name.encode().isascii() and name.split() == [name] for name in names)


@pytest.mark.skipif(sys.platform == "win32", reason="there a backslash is a slash")
def test_paths_from_windows_are_found(tmp_path):
    write_lists(
        tmp_path,
        {"l.csv": "path,label\nreal\\a.wav,real\nfake\\sub\\b.wav,fake\n"},
        "real/a.wav",
        "fake/sub/b.wav",
    )
    assert found(tmp_path / "l.csv")[0] == {"real/a.wav": "bonafide", "fake/sub/b.wav": "spoof"}


def test_a_file_named_in_two_ways_counts_once(tmp_path):
    write_lists(
        tmp_path,
        {"l.csv": "path,label\nreal//a.wav,real\n./x/../fake/b.wav,fake\n"},
        "real/a.wav",
        "fake/b.wav",
    )
    (tmp_path / "x").mkdir()
    utterances = find_recordings([tmp_path / "l.csv", tmp_path / "real", tmp_path / "fake"]).utterances
    assert [(u.name, u.trial) for u in utterances] == [
        ("fake/b.wav", "./x/../fake/b.wav"),
        ("real/a.wav", "real//a.wav"),
    ]


def test_a_recording_takes_little_memory(tmp_path):
    """It takes its path, its name, and at most 250 bytes for everything else."""
    touch(tmp_path, *(f"{label}/speaker/{i:05}.wav" for label in ("real", "fake") for i in range(500)))
    find_recordings([tmp_path])
    tracemalloc.start()
    utterances = find_recordings([tmp_path]).utterances
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < sum(len(u.path) + len(u.name) + 250 for u in utterances)


def test_rows_of_a_list_share_equal_columns(tmp_path):
    rows = "".join(f"{i}.wav,real,{'ab'[i % 2]}\n" for i in range(4))
    write_lists(tmp_path, {"l.csv": f"path,label,speaker\n{rows}"}, *(f"{i}.wav" for i in range(4)))
    utterances = find_recordings([tmp_path / "l.csv"]).utterances
    assert [u.columns["speaker"] for u in utterances] == ["a", "b", "a", "b"]
    assert len({id(u.columns) for u in utterances}) == 2


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path, monkeypatch):
    touch(tmp_path, "a/x.wav", "b/y.wav")
    listing = os.scandir

    def scandir(folder):
        if Path(folder).name == "b":
            raise PermissionError(13, "Permission denied")
        return listing(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DataError, match="b cannot be searched: Permission denied"):
        find_recordings([tmp_path])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux allows names that are not valid text")
def test_names_that_are_not_valid_text_are_escaped(tmp_path):
    touch(tmp_path, os.fsdecode(b"real/\xff\xfe.wav"), "fake/b.wav")
    assert found(tmp_path)[0] == {"real/\\xff\\xfe.wav": "bonafide", "fake/b.wav": "spoof"}
    with_sound(tmp_path)
    assert all(len(load_audio(u.path)) for u in find_recordings([tmp_path]).utterances)


def in_the_wild(root):
    meta = "file,speaker,label\n0.wav,Alec Guinness,spoof\n1.wav,Alec Guinness,bona-fide\n"
    write_lists(
        root, {"release_in_the_wild/meta.csv": meta}, "release_in_the_wild/0.wav", "release_in_the_wild/1.wav"
    )


PROTOCOLS_2019 = "LA/ASVspoof2019_LA_cm_protocols/ASVspoof2019.LA.cm"


def asvspoof_2019(root):
    write_lists(
        root,
        {
            f"{PROTOCOLS_2019}.train.trn.txt": "LA_0079 LA_T_1 - - bonafide\nLA_0098 LA_T_2 - A01 spoof\n",
            f"{PROTOCOLS_2019}.dev.trl.txt": "LA_0069 LA_D_1 - - bonafide\n",
            f"{PROTOCOLS_2019}.eval.trl.txt": "LA_0039 LA_E_1 - A11 spoof\nLA_0039 LA_E_2 - - bonafide\n",
        },
        *(f"LA/ASVspoof2019_LA_train/flac/LA_T_{i}.flac" for i in (1, 2)),
        "LA/ASVspoof2019_LA_dev/flac/LA_D_1.flac",
        *(f"LA/ASVspoof2019_LA_eval/flac/LA_E_{i}.flac" for i in (1, 2)),
    )


def asvspoof_2021_la(root):
    keys = (
        "LA_0009 LA_E_1 alaw ita_tx A07 spoof notrim eval\n"
        "LA_0009 LA_E_2 alaw ita_tx bonafide bonafide notrim eval\n"
        "LA_0020 LA_E_3 g722 loc_tx A17 spoof notrim progress\n"
        "LA_0020 LA_E_4 none - - bonafide trim hidden\n"
    )
    asv = "LA_0007-alaw-ita_tx LA_E_9-alaw-ita_tx alaw ita_tx bonafide nontarget notrim eval\n"
    write_lists(
        root,
        {"keys/LA/CM/trial_metadata.txt": keys, "keys/LA/ASV/trial_metadata.txt": asv},
        *(f"ASVspoof2021_LA_eval/flac/LA_E_{i}.flac" for i in range(1, 5)),
    )


def asvspoof_2021_df(root):
    """Lay out ASVspoof 2021 DF, whose recordings come in four archives with the same folder in each."""
    rows = (
        "LA_0023 DF_E_1 nocodec asvspoof A14 spoof notrim progress traditional_vocoder - - - -\n"
        "TEF2 DF_E_2 low_m4a vcc2020 Task1-team20 spoof notrim eval neural_vocoder_autoregressive "
        "Task1 team20 FF E\n"
        "VCC2TM2 DF_E_3 mp3m4a vcc2018 - bonafide notrim eval bonafide - - - -\n"
    )
    write_lists(
        root,
        {"keys/DF/CM/trial_metadata.txt": rows},
        *(f"part0{i}/ASVspoof2021_DF_eval/flac/DF_E_{i}.flac" for i in (1, 2, 3)),
    )


def asvspoof_5(root):
    lists = "ASVspoof5_protocols/ASVspoof5"
    write_lists(
        root,
        {
            f"{lists}.train.tsv": "T_4850 T_0000000001 F - - - AC3 A05 spoof -\n",
            f"{lists}.dev.track_1.tsv": "D_1 D_0000000001 F - - - - bonafide bonafide -\n",
            f"{lists}.eval.track_1.tsv": (
                "E_1607 E_0000000001 F C05 5 E_0000000003 AC1 A19 spoof -\n"
                "E_0755 E_0000000002 M - - - - bonafide bonafide -\n"
            ),
        },
        "flac_T/T_0000000001.flac",
        "flac_D/D_0000000001.flac",
        *(f"flac_E_eval/E_000000000{i}.flac" for i in (1, 2)),
    )


@pytest.mark.parametrize(
    ("lay_out", "labels", "of_phases"),
    [
        (in_the_wild, {"0.wav": "spoof", "1.wav": "bonafide"}, {}),
        (
            asvspoof_2019,
            {"LA_E_1.flac": "spoof", "LA_E_2.flac": "bonafide"},
            {"train": 2, "dev": 1, "eval": 2, "all": 5},
        ),
        (
            asvspoof_2021_la,
            {"LA_E_1.flac": "spoof", "LA_E_2.flac": "bonafide"},
            {"eval": 2, "progress": 1, "hidden": 1, "all": 4},
        ),
        (
            asvspoof_2021_df,
            {
                "part02/ASVspoof2021_DF_eval/flac/DF_E_2.flac": "spoof",
                "part03/ASVspoof2021_DF_eval/flac/DF_E_3.flac": "bonafide",
            },
            {"eval": 2, "progress": 1, "all": 3},
        ),
        (
            asvspoof_5,
            {"E_0000000001.flac": "spoof", "E_0000000002.flac": "bonafide"},
            {"train": 1, "dev": 1, "eval": 2, "all": 4},
        ),
    ],
)
def test_a_published_set_is_read_by_its_own_list(lay_out, labels, of_phases, tmp_path):
    lay_out(tmp_path)
    result = find_recordings([tmp_path])
    assert {u.name: u.label for u in result.utterances} == labels
    assert all(Path(u.path).is_file() for u in result.utterances)
    assert len(result.notes) == 1  # it says what was read
    for phase, count in of_phases.items():
        assert len(find_recordings([tmp_path], phase=phase).utterances) == count


@pytest.mark.parametrize(("lay_out", "phase"), [(asvspoof_2019, "progress"), (asvspoof_2021_la, "train")])
def test_a_missing_phase_is_refused(lay_out, phase, tmp_path):
    lay_out(tmp_path)
    with pytest.raises(DataError, match=f"no (rows of )?phase {phase}, only"):
        find_recordings([tmp_path], phase=phase)


def arena(root):
    rows = "".join(f"{root}/audio/{n}.flac,{label}\n" for n, label in (("a", "spoof"), ("b", "bonafide")))
    write_lists(root, {"metadata.csv": f"file_name,label\n{rows}"}, "audio/a.flac", "audio/b.flac")


def listed(root):
    write_lists(
        root,
        {"metadata.csv": "filename,label,language\na.mp3,fake,de\nb/c.ogg,real,en\n"},
        "a.mp3",
        "b/c.ogg",
    )


def with_sound(root):
    """Make each empty recording a real one, in the format that its name says."""
    for i, path in enumerate(
        sorted(p for p in root.rglob("*") if p.suffix in (".wav", ".flac", ".mp3", ".ogg"))
    ):
        soundfile.write(
            file := io.BytesIO(), tone(1 + i / 4, 16000 + 1000 * i), 16000, format=path.suffix[1:]
        )
        path.write_bytes(file.getvalue())


@pytest.mark.parametrize(
    "lay_out", [in_the_wild, asvspoof_2019, asvspoof_2021_la, asvspoof_2021_df, asvspoof_5, arena, listed]
)
def test_a_published_set_is_scored_by_the_command(lay_out, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lay_out(tmp_path / "set")
    with_sound(tmp_path / "set")
    torch.manual_seed(0)
    detector = Detector(PRESETS["small"]).eval()
    save_detector(detector, "detector.safetensors")
    args = ["--data", "set", "--checkpoint", "detector.safetensors", "--workers", "0"]
    assert evaluate_custom.main(args) == 0
    assert "2 recordings: 1 real, 1 fake" in capsys.readouterr().out
    with open("results/custom/detector/scores.csv", encoding="utf-8", newline="") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    for u in find_recordings(["set"]).utterances:
        expected = detector.score(torch.from_numpy(pad(load_audio(u.path)))[None])
        assert float(rows[u.name]["score"]) == pytest.approx(float(expected), abs=1e-4)  # the batch differs
        assert rows[u.name]["label"] == u.label
        assert {name: rows[u.name][name] for name in u.columns} == u.columns


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux allows names that are not valid text")
def test_columns_and_folders_with_awkward_names_reach_the_results(tmp_path, monkeypatch):
    """A list may have a column called score, and be in a folder whose name is not valid text."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / os.fsdecode(b"\xff")
    write_lists(folder, {"l.csv": "path,label,score\na.wav,real,400\nb.wav,fake,500\n"}, "a.wav", "b.wav")
    with_sound(folder)
    save_detector(Detector(PRESETS["small"]), "detector.safetensors")
    args = ["--data", str(folder / "l.csv"), "--checkpoint", "detector.safetensors", "--workers", "0"]
    assert evaluate_custom.main(args) == 0
    with open("results/custom/detector/scores.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["list_score"] for row in rows] == ["400", "500"]
    assert all(abs(float(row["score"])) < 100 for row in rows)
    written = json.loads(Path("results/custom/detector/metrics.json").read_text(encoding="utf-8"))
    assert written["data_root"] == str(folder)


# The names of folders and recordings in the four versions of Fake-or-Real.
FAKE_OR_REAL = {
    "for-2sec": ("for-2seconds", "file{}.wav_16k.wav_norm.wav_mono.wav_silence.wav_2sec.wav"),
    "for-norm": ("for-norm", "file{}.wav_16k.wav_norm.wav_mono.wav_silence.wav"),
    "for-rerec": ("for-rerecorded", "recording{}.wav_norm.wav"),
    "for-original": ("for-original", "file{}.mp3"),
}


@pytest.mark.parametrize("version", FAKE_OR_REAL)
def test_every_version_of_fake_or_real(version, tmp_path):
    inner, name = FAKE_OR_REAL[version]
    for split in SPLITS:
        for label in ("fake", "real"):
            folder = tmp_path / version / inner / split / label
            touch(folder, name.format(1), "file7.wav")
    with_sound(tmp_path)
    (tmp_path / version / inner / "training" / "fake" / "file9.mp3").write_bytes(b"unreadable")
    folder = find_splits(tmp_path)
    assert folder == tmp_path / version / inner
    for split in SPLITS:
        utterances = find_recordings([folder / split]).utterances
        counts = Counter(u.label for u in utterances)
        assert counts == {"bonafide": 2, "spoof": 3 if split == "training" else 2}
        assert all(len(load_audio(u.path)) for u in utterances if not u.path.endswith("file9.mp3"))


def test_the_columns_of_the_keys_are_kept(tmp_path):
    asvspoof_2021_df(tmp_path)
    spoof, bonafide = find_recordings([tmp_path]).utterances
    assert spoof.trial == "DF_E_2"
    assert spoof.columns == {
        "speaker": "TEF2",
        "codec": "low_m4a",
        "source": "vcc2020",
        "attack": "Task1-team20",
        "trim": "notrim",
        "phase": "eval",
        "vocoder": "neural_vocoder_autoregressive",
        "task": "Task1",
        "team": "team20",
        "pair": "FF",
        "language": "E",
    }
    assert "attack" not in bonafide.columns
    assert "vocoder" not in bonafide.columns


def test_a_list_may_be_elsewhere(tmp_path):
    asvspoof_2021_la(tmp_path / "set")
    (tmp_path / "keys.txt").write_text((tmp_path / "set/keys/LA/CM/trial_metadata.txt").read_text())
    result = find_recordings([tmp_path / "keys.txt"], root=tmp_path / "set")
    assert [u.name for u in result.utterances] == ["LA_E_1.flac", "LA_E_2.flac"]
    assert result.root == tmp_path / "set/ASVspoof2021_LA_eval/flac"
    with pytest.raises(DataError, match=r"none of its recordings are in .*LA_E_1.*--root"):
        find_recordings([tmp_path / "keys.txt"], root=tmp_path / "set/keys")
    with pytest.raises(DataError, match="no list was given"):
        find_recordings([tmp_path / "set/ASVspoof2021_LA_eval/flac"], root=tmp_path)


def test_ids_of_another_set_are_not_taken_for_missing_ones(tmp_path):
    """ASVspoof 2019 and 2021 have similar ids: a missing recording must not come from the other set."""
    ids = range(300)
    keys = "".join(f"S LA_E_{i} alaw x A07 spoof notrim eval\n" for i in ids)
    write_lists(
        tmp_path,
        {"keys/LA/CM/trial_metadata.txt": keys},
        *(f"ASVspoof2021_LA_eval/flac/LA_E_{i}.flac" for i in ids if i > 20),
        *(f"LA/ASVspoof2019_LA_eval/flac/LA_E_{i}.flac" for i in ids[:4]),
    )
    result = find_recordings([tmp_path / "keys/LA/CM/trial_metadata.txt"])
    assert sum(Path(u.path).is_file() for u in result.utterances) == 279
    assert len(result.notes) == 1 + 21
    other = tmp_path / "LA/ASVspoof2019_LA_eval/flac"
    assert result.notes[0].endswith(f"; not used, since that seems to be another data set: {other}")


@pytest.mark.parametrize("total", [60, 3000])
def test_recordings_are_found_in_a_small_part(total, tmp_path):
    ids = [f"DF_E_{i:04}" for i in range(total)]
    places = ["part01" if i in (7, total - 2) else "part00" for i in range(total)]
    write_lists(
        tmp_path,
        {"l.csv": "path,label\n" + "".join(f"{id_},real\n" for id_ in ids)},
        *(f"{place}/flac/{id_}.flac" for place, id_ in zip(places, ids, strict=True)),
    )
    result = find_recordings([tmp_path / "l.csv"])
    assert all(Path(u.path).is_file() for u in result.utterances)
    assert [u.name for u in result.utterances if "part01" in u.name] == [
        f"part01/flac/DF_E_{i:04}.flac" for i in (7, total - 2)
    ]
    assert result.notes == [
        f"{tmp_path}/l.csv: list of labels, {total} rows, {total} of them in "
        f"{tmp_path}/part00/flac, {tmp_path}/part01/flac"
    ]


@pytest.mark.parametrize(("speakers", "of_each"), [(30, 4), (250, 2)])
def test_each_speaker_may_have_a_folder(speakers, of_each, tmp_path):
    ids = [(speaker, f"{speaker}_{i}") for speaker in range(speakers) for i in range(of_each)]
    rows = "".join(f"{id_},real\n" for _, id_ in ids)
    recordings = [f"speaker{speaker}/wav/{id_}.wav" for speaker, id_ in ids]
    write_lists(tmp_path, {"labels.csv": f"path,label\n{rows}"}, *recordings)
    result = find_recordings([tmp_path / "labels.csv"])
    assert [u.name for u in result.utterances] == sorted(recordings)
    assert len(result.notes) == 1


def test_an_id_in_two_places_is_not_guessed(tmp_path):
    asvspoof_2021_la(tmp_path)
    touch(tmp_path, *(f"LA/ASVspoof2019_LA_eval/flac/LA_E_{i}.flac" for i in (1, 2)))
    keys = tmp_path / "keys/LA/CM/trial_metadata.txt"
    with pytest.raises(DataError, match=r"row 1: LA_E_1 is in several places .*2021.*2019.*--root"):
        find_recordings([keys])
    assert len(find_recordings([keys], root=tmp_path / "ASVspoof2021_LA_eval").utterances) == 2


def test_ids_are_not_looked_for_far_above_a_list(tmp_path):
    asvspoof_2021_la(tmp_path)
    (tmp_path / "below").mkdir()
    (tmp_path / "keys").rename(tmp_path / "below/keys")
    with pytest.raises(DataError, match="none of its recordings"):
        find_recordings([tmp_path / "below/keys/LA/CM/trial_metadata.txt"])


def test_ids_of_a_plain_list_are_not_looked_for_elsewhere(tmp_path):
    write_lists(tmp_path, {"a/labels.csv": "path,label\n1,real\n2,fake\n"}, "b/wav/1.wav", "b/wav/2.wav")
    with pytest.raises(DataError, match="none of its recordings"):
        find_recordings([tmp_path / "a/labels.csv"])


def test_a_partial_download_is_used_and_its_gaps_are_named(tmp_path):
    asvspoof_2019(tmp_path)
    rows = "".join(f"S LA_E_{i} - A11 spoof\n" for i in range(10, 60))
    (tmp_path / f"{PROTOCOLS_2019}.eval.trl.txt").write_text(rows)
    touch(tmp_path, *(f"LA/ASVspoof2019_LA_eval/flac/LA_E_{i}.flac" for i in range(40, 60)))
    result = find_recordings([tmp_path])
    assert sum(Path(u.path).is_file() for u in result.utterances) == 20
    assert "50 rows, 20 of them in" in result.notes[0]
    (tmp_path / "LA/ASVspoof2019_LA_train").rename(
        tmp_path / "elsewhere"
    )  # so the audio of one phase is missing
    assert len(find_recordings([tmp_path / "LA"], phase="all").utterances) == 53


def test_keys_may_be_unpacked_beside_the_recordings(tmp_path):
    asvspoof_2021_df(tmp_path)
    (tmp_path / "DF-keys-full.tar.gz.extracted").mkdir()
    (tmp_path / "keys").rename(tmp_path / "DF-keys-full.tar.gz.extracted/keys")
    assert len(find_recordings([tmp_path]).utterances) == 2


def test_a_recording_listed_by_two_names_is_refused(tmp_path):
    write_lists(tmp_path, {"l.csv": "path,label\na.wav,real\n./a.wav,real\n"}, "a.wav")
    with pytest.raises(DataError, match=r"\./a.wav is listed twice"):
        find_recordings([tmp_path / "l.csv"])


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        (
            "path,label,phase\na.wav,real,1\nb.wav,fake,\n",
            {"phase": "1"},
        ),  # a column of phases that are not ASVspoof's
        ("utterance,path,label\n7,a.wav,real\n8,b.wav,fake\n", {"utterance (2)": "7"}),
    ],
)
def test_columns_that_happen_to_have_our_names(text, columns, tmp_path):
    write_lists(tmp_path, {"l.csv": text}, "a.wav", "b.wav")
    first, _ = find_recordings([tmp_path / "l.csv"]).utterances
    assert (first.name, first.label, first.columns) == ("a.wav", "bonafide", columns)


def test_a_column_of_paths_alone(tmp_path):
    write_lists(tmp_path, {"l.csv": "path\na.wav\n", "bom.txt": "\ufeffb.wav\n"}, "a.wav", "b.wav")
    assert found(tmp_path / "l.csv")[0] == {"a.wav": ""}
    assert found(tmp_path / "bom.txt")[0] == {"b.wav": ""}


def test_the_root_must_be_a_folder(tmp_path):
    write_lists(tmp_path, {"l.csv": "path,label\na.wav,real\n"}, "a.wav")
    for root in ("a.wav", "gone"):
        with pytest.raises(DataError, match="no such folder"):
            find_recordings([tmp_path / "l.csv"], root=tmp_path / root)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("real/a.wav,0", "row 2: unknown label '0'"),
        ("real/a.wav,", "row 2: unknown label ''"),
        ("real/a.wav", "row 2: 1 column instead of 2"),
        ("real/a.wav,real\nreal/a.wav,real", "row 3: real/a.wav is already in row 2"),
    ],
)
def test_a_published_list_that_is_wrong_is_an_error_and_not_left_out(row, words, tmp_path):
    write_lists(tmp_path, {"metadata.csv": f"file_name,label\n{row}\n"}, "real/a.wav", "fake/b.wav")
    with pytest.raises(DataError, match=words):
        find_recordings([tmp_path])


def test_a_file_that_only_has_the_name_of_a_list_is_said_not_to_be_used(tmp_path):
    write_lists(tmp_path, {"metadata.csv": "file_name,emotion\na.wav,joy\n"}, "real/a.wav", "fake/b.wav")
    assert found(tmp_path)[0] == {"real/a.wav": "bonafide", "fake/b.wav": "spoof"}
    (note,) = find_recordings([tmp_path]).notes
    assert note.startswith(
        f"not used as a list of labels: {tmp_path}/metadata.csv: none of its columns is called"
    )


def test_a_list_in_a_subfolder_does_not_hide_what_is_beside_it(tmp_path):
    in_the_wild(tmp_path)
    touch(tmp_path, "Real/a.wav", "Fake/b.wav")
    assert found(tmp_path)[0].keys() >= {"Real/a.wav", "Fake/b.wav", "release_in_the_wild/0.wav"}


def test_a_phase_is_refused_where_there_are_none(tmp_path):
    in_the_wild(tmp_path)
    with pytest.raises(DataError, match="these data have no phases"):
        find_recordings([tmp_path], phase="progress")


PATHS = ("Real/a.wav", "Fake/b, c.wav", "d.mp3")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", 'path,label\nReal/a.wav,real\n"Fake/b, c.wav",Fake\nd.mp3,bona-fide\n'),
        ("bom.csv", '\ufeffPath,Label\r\nReal/a.wav,real\r\n"Fake/b, c.wav",fake\r\n\r\nd.mp3,genuine\r\n'),
        (
            "a.tsv",
            "label\tfile_name\tattack\nreal\tReal/a.wav\t-\nspoof\tFake/b, c.wav\tA1\nreal\td.mp3\t-\n",
        ),
        ("plain.csv", 'Real/a.wav,BONAFIDE\n"Fake/b, c.wav",SPOOF\nd.mp3,Real\n'),
        ("plain.txt", "Real/a.wav\tbonafide\nFake/b, c.wav\tspoof\nd.mp3\treal\n"),
        ("semicolon.csv", "filename;key\nReal/a.wav;real\nFake/b, c.wav;fake\nd.mp3;real\n"),
    ],
)
def test_csv_and_tsv_of_path_and_label(name, text, tmp_path):
    write_lists(tmp_path, {name: text}, *PATHS)
    expected = dict(zip(PATHS, ("bonafide", "spoof", "bonafide"), strict=True))
    assert found(tmp_path / name)[0] == expected
    (tmp_path / "lists").mkdir()
    (tmp_path / name).rename(tmp_path / "lists" / name)
    result = find_recordings([tmp_path / "lists" / name], root=tmp_path)
    assert {u.name: u.label for u in result.utterances} == expected


def test_speech_df_arenas_absolute_paths(tmp_path):
    arena(tmp_path)
    (tmp_path / "lists").mkdir()
    (tmp_path / "metadata.csv").rename(tmp_path / "lists" / "metadata.csv")
    result = find_recordings([tmp_path / "lists"])
    assert {u.name: u.label for u in result.utterances} == {"a.flac": "spoof", "b.flac": "bonafide"}
    assert result.utterances[0].trial == f"{tmp_path}/audio/a.flac"


def test_a_list_of_something_else_is_not_a_list_of_labels(tmp_path):
    write_lists(tmp_path, {"meta.csv": "file,duration\na.wav,3\n"}, "real/a.wav", "fake/b.wav")
    labels, ignored = found(tmp_path)
    assert labels == {"real/a.wav": "bonafide", "fake/b.wav": "spoof"}
    assert ignored == {"meta.csv"}


def test_a_list_without_labels(tmp_path):
    name = "ASVspoof2021_LA_eval/ASVspoof2021.LA.cm.eval.trl.txt"
    write_lists(
        tmp_path, {name: "LA_E_1\nLA_E_3\n"}, *(f"ASVspoof2021_LA_eval/flac/LA_E_{i}.flac" for i in (1, 2, 3))
    )
    assert found(tmp_path / name)[0] == {"LA_E_1.flac": "", "LA_E_3.flac": ""}


def test_the_faults_of_a_list_are_reported_row_by_row(tmp_path):
    touch(tmp_path, "a.wav", "b.wav")
    (tmp_path / "l.csv").write_text("path,label\na.wav,real\nb.wav,1\na.wav,fake\n,real\nc.wav\n")
    with pytest.raises(DataError) as caught:
        find_recordings([tmp_path / "l.csv"])
    place = f"{tmp_path / 'l.csv'}, row "
    assert list(caught.value.args) == [
        place + "3: unknown label '1' (known are real, bonafide, genuine, fake, spoof, ...)",
        place + "4: a.wav is already in row 2",
        place + "5: no recording is named",
        place + "6: 1 column instead of 2",
        "what 1 means, say with --real-words and --fake-words",
    ]
    (tmp_path / "l.csv").write_text("path,label\n" + "a.wav,maybe\n" * 30)
    with pytest.raises(DataError) as caught:
        find_recordings([tmp_path / "l.csv"])
    assert len(caught.value.args) == 12
    assert caught.value.args[-2] == "... and 20 more such rows"


def test_a_missing_recording_is_noted_and_kept(tmp_path):
    write_lists(tmp_path, {"l.csv": "path,label\na.wav,real\ngone.wav,fake\nb.wav,fake\n"}, "a.wav", "b.wav")
    result = find_recordings([tmp_path / "l.csv"])
    assert [u.name for u in result.utterances] == ["a.wav", "b.wav", "gone.wav"]
    assert result.notes[1:] == [f"{tmp_path / 'l.csv'}, row 3: there is no recording gone.wav"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"path,label\n", "a header but no rows"),
        (b"path,score\na.wav,1\n", "is called label"),
        (b"label,score\nreal,1\n", "is called path"),
        (b"one two three\n", "3 columns, no header, and which of them names the recordings .*--columns"),
        (b"label\nreal\n", "is called path"),
        (b"\xff\xfe\x00", "not a table of text"),
        (b'path,label\n"a.wav,real\n', "not a table of text"),
        (b"a\0.wav\n", "not a table of text"),
        (b"path,label\n" + b"a" * 200000 + b",real\n", "not a table of text"),
    ],
)
def test_a_file_that_is_not_a_list_is_refused(content, words, tmp_path):
    (tmp_path / "l.csv").write_bytes(content)
    with pytest.raises(DataError, match=words):
        find_recordings([tmp_path / "l.csv"])


def test_two_sets_in_one_folder_are_not_mixed(tmp_path):
    asvspoof_2021_la(tmp_path)
    asvspoof_2021_df(tmp_path)
    with pytest.raises(DataError, match="contains several lists of labels"):
        find_recordings([tmp_path])
    assert len(find_recordings([tmp_path / "keys/DF"]).utterances) == 2


def test_splits_are_found_in_the_folder_or_below_it(tmp_path):
    inner = tmp_path / "for-2sec" / "for-2seconds"
    for name in SPLITS:
        (inner / name).mkdir(parents=True)
    assert find_splits(tmp_path) == find_splits(inner) == inner
    assert find_splits(inner / "training") is None
    for name in SPLITS:
        (tmp_path / "for-2sec" / "copy" / name).mkdir(parents=True)
    with pytest.raises(DataError, match="contains several data sets"):
        find_splits(tmp_path)
