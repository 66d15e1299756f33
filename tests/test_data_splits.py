"""Training, validation and testing splits: the published ones, and those held out by speaker or attack."""

import ntpath
from collections import Counter
from pathlib import PureWindowsPath
from types import SimpleNamespace

import pytest
from helpers import touch, write_lists

from antispoofing.data import splits as splits_module
from antispoofing.data.layouts import SPLITS
from antispoofing.data.recordings import Utterance
from antispoofing.data.splits import EACH, find_training_data, hold_out, shared_values
from antispoofing.errors import DataError


def fake_or_real(root, n=2):
    touch(
        root,
        *(f"{split}/{label}/{i}.wav" for split in SPLITS for label in ("real", "fake") for i in range(n)),
    )


def asvspoof_2019(root, eval_audio=True):
    lists, recordings = {}, []
    for folder, name, letter in (
        ("train", "train.trn", "T"),
        ("dev", "dev.trl", "D"),
        ("eval", "eval.trl", "E"),
    ):
        rows = [f"{letter}9 LA_{letter}_1 - - bonafide", f"{letter}9 LA_{letter}_2 - A01 spoof"]
        lists[f"LA/ASVspoof2019_LA_cm_protocols/ASVspoof2019.LA.cm.{name}.txt"] = "\n".join(rows) + "\n"
        if folder != "eval" or eval_audio:
            recordings += [f"LA/ASVspoof2019_LA_{folder}/flac/LA_{letter}_{i}.flac" for i in (1, 2)]
    write_lists(root, lists, *recordings)


def in_the_wild(root, speakers=10, of_each=4):
    rows = [
        (f"{i}.wav", f"speaker {i % speakers}", ("spoof", "bona-fide")[i // speakers % 2])
        for i in range(speakers * of_each)
    ]
    write_lists(
        root,
        {"meta.csv": "file,speaker,label\n" + "".join(",".join(row) + "\n" for row in rows)},
        *(row[0] for row in rows),
    )


def names(utterances) -> list[str]:
    return [u.name for u in utterances]


def test_fake_or_real_has_its_own_splits(tmp_path):
    fake_or_real(tmp_path / "for-2seconds")
    splits = find_training_data([tmp_path])
    assert (
        names(splits.training)
        == names(splits.validation)
        == ["fake/0.wav", "fake/1.wav", "real/0.wav", "real/1.wav"]
    )
    assert all("training" in u.path for u in splits.training)
    assert all("validation" in u.path for u in splits.validation)
    assert list(splits.testing) == [tmp_path.name]
    assert all("testing" in u.path for u in splits.testing[tmp_path.name].utterances)
    assert splits.groups() == [(0, "spoof")] * 2 + [(0, "bonafide")] * 2
    assert splits.notes == []


def test_asvspoofs_phases_are_splits(tmp_path):
    asvspoof_2019(tmp_path / "set")
    splits = find_training_data([tmp_path / "set"])
    assert names(splits.training) == ["LA_T_1.flac", "LA_T_2.flac"]
    assert names(splits.validation) == ["LA_D_1.flac", "LA_D_2.flac"]
    assert names(splits.testing["set"].utterances) == ["LA_E_1.flac", "LA_E_2.flac"]
    assert len(splits.notes) == 3


def test_asvspoof_can_be_trained_on_without_its_test_recordings(tmp_path):
    folder = tmp_path / "far" / "from" / "others"  # since ids are looked for above the list, too
    asvspoof_2019(folder, eval_audio=False)
    splits = find_training_data([folder])
    assert splits.testing == {}
    assert any(
        note.startswith("nothing to test on:") and "none of its recordings" in note for note in splits.notes
    )


def test_several_sets_at_once(tmp_path):
    fake_or_real(tmp_path / "a" / "set")
    asvspoof_2019(tmp_path / "b" / "set")
    in_the_wild(tmp_path / "wild")
    splits = find_training_data(
        [tmp_path / "a" / "set", tmp_path / "b" / "set", tmp_path / "wild"], "speaker"
    )
    assert names(splits.training)[:6] == [
        "a-set/fake/0.wav",
        "a-set/fake/1.wav",
        "a-set/real/0.wav",
        "a-set/real/1.wav",
        "b-set/LA_T_1.flac",
        "b-set/LA_T_2.flac",
    ]
    assert {name.split("/")[0] for name in names(splits.validation)} == {"a-set", "b-set", "wild"}
    assert splits.testing.keys() == {"a-set", "b-set"}
    assert Counter(splits.groups()) == {
        (0, "spoof"): 2,
        (0, "bonafide"): 2,
        (1, "spoof"): 1,
        (1, "bonafide"): 1,
        (2, "spoof"): 16,
        (2, "bonafide"): 16,
    }
    with pytest.raises(DataError, match="named twice"):
        find_training_data([tmp_path / "wild", tmp_path / "a" / ".." / "wild"], "speaker")
    in_the_wild(tmp_path / "wild" / "inside")
    splits = find_training_data([tmp_path / "wild/inside", tmp_path / "wild"], "speaker")
    assert {name.split("/")[0] for name in names(splits.training)} == {"wild", "wild-inside"}


def test_data_sets_on_different_drives_have_different_names(monkeypatch):
    monkeypatch.setattr(splits_module, "os", SimpleNamespace(path=ntpath, sep=ntpath.sep))
    for paths, expected in (
        (["C:/data/for", "D:/data/for"], ["C-data-for", "D-data-for"]),
        (["C:/data/for", "C:/data/wild/in"], ["for", "wild-in"]),
        (["C:/data", "C:/data/for"], ["data", "data-for"]),
    ):
        assert splits_module._names([PureWindowsPath(path) for path in paths]) == expected


def test_a_set_without_splits_is_split_by_speaker(tmp_path):
    in_the_wild(tmp_path)
    splits = find_training_data([tmp_path], "speaker", fraction=0.2, seed=1)
    assert Counter(u.label for u in splits.training) == {"spoof": 16, "bonafide": 16}
    assert Counter(u.label for u in splits.validation) == {"spoof": 4, "bonafide": 4}
    assert shared_values(splits.training, splits.validation, "speaker") == set()
    assert splits.testing == {}
    again = find_training_data([tmp_path], "speaker", fraction=0.2, seed=1)
    assert names(again.validation) == names(splits.validation)
    drawn = [find_training_data([tmp_path], "speaker", seed=seed).validation for seed in range(5)]
    assert len({tuple(names(utterances)) for utterances in drawn}) > 1


def recordings(**columns) -> list[Utterance]:
    """Return 12 real recordings without an attack, and 12 fake ones of 4 attacks."""
    return [
        Utterance(
            f"{i}.wav",
            f"{i}.wav",
            "spoof" if i % 2 else "bonafide",
            columns={"attack": f"A{i % 8}"} if i % 2 else {},
        )
        for i in range(24)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_held_out_recordings_have_other_attacks(seed):
    training, validation = hold_out(recordings(), "attack", 0.25, seed)
    assert shared_values(training, validation, "attack") == set()
    assert Counter(u.label for u in validation) == {
        "spoof": 3,
        "bonafide": 3,
    }  # one attack; and single recordings without an attack
    assert sorted(names(training) + names(validation)) == sorted(names(recordings()))


def test_single_recordings_can_be_held_out():
    training, validation = hold_out(recordings(), EACH, 0.25, seed=0)
    assert Counter(u.label for u in validation) == {"spoof": 3, "bonafide": 3}
    assert shared_values(training, validation, "attack")
    assert names(training) == sorted(names(training), key=names(recordings()).index)  # their order is kept
    assert names(hold_out(recordings(), EACH, 0.25, seed=0)[1]) == names(validation)
    assert names(hold_out(recordings(), EACH, 0.25, seed=1)[1]) != names(validation)


def spoken(speakers: dict[str, tuple[int, int]]) -> list[Utterance]:
    """Return so many real and so many fake recordings of each speaker."""
    return [
        Utterance("", f"{speaker}-{label}-{i}.wav", label, columns={"speaker": speaker})
        for speaker, numbers in speakers.items()
        for label, n in zip(("bonafide", "spoof"), numbers, strict=True)
        for i in range(n)
    ]


@pytest.mark.parametrize(
    ("fraction", "n"), [(0.5, 6), (0.4, 6), (0.3, 4), (0.25, 3), (0.17, 2), (0.08, 1), (0.01, 1)]
)
@pytest.mark.parametrize("by", ["speaker", EACH])
def test_the_fraction_is_rounded_to_one_over_an_integer(by, fraction, n):
    """There are 12 speakers with as many recordings each; at least one speaker is held out."""
    of_each = {"speaker": (2, 3), EACH: (1, 1)}[by]
    _, validation = hold_out(spoken({f"s{i}": of_each for i in range(12)}), by, fraction, seed=0)
    assert Counter(u.label for u in validation) == {"bonafide": n * of_each[0], "spoof": n * of_each[1]}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    "speakers",
    [
        {"a": (1, 1), "b": (1, 1)},  # fewer speakers than folds
        {"a": (9, 0), "b": (2, 0), "c": (0, 5), "d": (0, 1)},  # no speaker has both classes
        {"a": (1, 0), "b": (1, 0), **{f"s{i}": (0, 40) for i in range(20)}},  # a rare class
        {"a": (100, 1), "b": (1, 100), "c": (1, 1)},
    ],
)
def test_few_speakers_are_split_with_both_classes_on_both_sides(speakers, seed):
    training, validation = hold_out(spoken(speakers), "speaker", 0.2, seed)
    assert shared_values(training, validation, "speaker") == set()
    for part in (training, validation):
        assert {u.label for u in part} == {"bonafide", "spoof"}
    assert sorted(names(training) + names(validation)) == sorted(names(spoken(speakers)))


@pytest.mark.parametrize(
    "speakers",
    [
        {"a": (5, 5)},
        {"a": (5, 0), "b": (0, 5)},
        {"a": (5, 0), "b": (0, 5), "c": (0, 5), "d": (0, 5)},  # one speaker has all real recordings
        {"a": (9, 9), "b": (9, 0)},
        {"a": (1, 0), "b": (0, 1)},  # one recording in each class
        {"a": (5, 0), "b": (5, 0)},
    ],
)
def test_a_class_of_one_speaker_cannot_be_split(speakers):
    with pytest.raises(DataError, match="--validation-split speaker: too few values to have real and fake"):
        hold_out(spoken(speakers), "speaker", 0.2, seed=0)


def test_what_cannot_be_split_is_refused(tmp_path):
    in_the_wild(tmp_path / "wild", speakers=1)
    fake_or_real(tmp_path / "for")
    touch(tmp_path / "one" / "real", "a.wav")
    touch(tmp_path / "unlabelled", "real/a.wav", "real/b.wav", "fake/c.wav", "fake/d.wav", "other/e.wav")
    for paths, by, words in (
        (["wild"], None, "to hold out a part for validation, use --validation-split with a column"),
        (["wild"], "speaker", "too few values"),
        (["wild"], "attack", "choose from speaker, recording"),
        (["for"], "speaker", "already come with a validation split"),
        (["one"], EACH, "one needs both real and fake recordings, all with labels"),
        (["unlabelled"], EACH, "unlabelled needs both real and fake recordings, all with labels"),
    ):
        with pytest.raises(DataError, match=words):
            find_training_data([tmp_path / path for path in paths], by)
    for path in (tmp_path / "for" / "validation" / "fake").iterdir():
        path.unlink()
    with pytest.raises(DataError, match="validation needs both real and fake recordings"):
        find_training_data([tmp_path / "for"])
