"""Which clips are taken as belonging together."""

import numpy as np
import pytest

from antispoofing.data.recordings import Utterance
from antispoofing.scoring.clusters import FILE_NAMES, find_clusters, unlabelled
from antispoofing.scoring.scored import Scored
from antispoofing.uncertainty import intervals


def recordings(real, fake, **columns):
    """Return recordings by their names; columns have values for the real ones, then for the fake ones."""
    named = [*((name, "bonafide") for name in real), *((name, "spoof") for name in fake)]
    return [
        Utterance(name, name, label, columns={key: value[i] for key, value in columns.items() if value[i]})
        for i, (name, label) in enumerate(named)
    ]


def groups(clustering, n) -> list[list[int]]:
    numbers = clustering.among(np.ones(n, bool))
    return sorted(np.flatnonzero(numbers == number).tolist() for number in set(numbers.tolist()))


@pytest.mark.parametrize(
    ("real", "fake", "told_by", "expected"),
    [
        # by the beginning of names, without counters, separators, labels and suffixes
        (["p1_01.wav", "p1_02.wav", "p2_1.wav", "p3_1.wav"], ["x.wav", "y.wav"],
         (True, False), [[0, 1], [2], [3], [4], [5]]),
        (["Real/a-1.flac", "Real/b 2.mp3", "Real/b.3.ogg", "Real/c9"], ["Fake/tts1"],
         (True, False), [[0], [1, 2], [3], [4]]),
        (["s1/real/1.wav", "s1/real/2.wav", "s2/real/1.wav", "s3/real/1.wav"],
         ["s1/fake/9.wav", "s2/fake/9.wav"] * 2, (True, True), [[0, 1, 4, 6], [2, 5, 7], [3]]),
        (["p225_001_mic1.flac", "p225_002_mic2.flac", "p226_001_mic1.flac", "p226_1_mic1.flac"], ["x", "y"],
         (True, False), [[0, 1], [2, 3], [4], [5]]),  # as in VCTK
        # all begin alike, or each in its own way: that tells nothing
        (["LA_E_1", "LA_E_2", "LA_E_3"], ["LA_E_4", "LA_E_5"], None, None),
        (["utt1", "utt2", "utt3", "noise1", "noise2"], ["a", "b"], None, None),  # mostly alike
        (["real/1.wav", "real/2.wav"], ["fake/1.wav", "fake/2.wav"], None, None),
        (["ann.wav", "bob.wav"], ["cid.wav", "dee.wav"], None, None),
    ],
)  # fmt: skip
def test_file_names(real, fake, told_by, expected):
    clustering = find_clusters(recordings(real, fake))
    if expected is None:
        assert not clustering.is_known
        assert clustering.among(np.ones(len(real + fake), bool)) is None
        return
    assert groups(clustering, len(real + fake)) == expected
    assert [bool(by) for by in clustering.told_by.values()] == list(told_by)
    assert set(clustering.told_by.values()) <= {FILE_NAMES, ""}


@pytest.mark.parametrize("title", ["speaker", "Speaker ID", "spk_id", "source"])
def test_columns(title):
    names = [f"x{i}" for i in range(6)]
    clustering = find_clusters(recordings(names[:3], names[3:], **{title: ["a", "a", "b", "b", "c", "c"]}))
    assert groups(clustering, 6) == [[0, 1], [2, 3], [4, 5]]  # b is in both classes
    assert clustering.told_by == {"bonafide": title, "spoof": title}


def test_the_speaker_comes_before_the_system_and_both_before_names():
    names = [f"{'ab'[i % 2]}{i}" for i in range(8)]
    values = {"attack": ["", "", "", "", "A1", "A1", "A2", "A2"], "speaker": list("ssttssuu")}
    clustering = find_clusters(recordings(names[:4], names[4:], **values))
    assert groups(clustering, 8) == [[0, 1, 4, 5], [2, 3], [6, 7]]
    values["speaker"] = list("sstt") + [""] * 4
    clustering = find_clusters(recordings(names[:4], names[4:], **values))
    assert clustering.told_by == {"bonafide": "speaker", "spoof": "attack"}
    assert groups(clustering, 8) == [[0, 1], [2, 3], [4, 5], [6, 7]]
    without = find_clusters(recordings(names[:4], names[4:], **values), without=["attack"])
    assert without.told_by == {"bonafide": "speaker", "spoof": ""}  # names may say the same as the column


def test_a_system_tells_of_fakes_only():
    names = [f"x{i}" for i in range(6)]
    columns = {"system": ["human"] * 3 + ["A", "A", "B"]}
    clustering = find_clusters(recordings(names[:3], names[3:], **columns))
    assert groups(clustering, 6) == [[0], [1], [2], [3, 4], [5]]
    assert clustering.told_by == {"bonafide": "", "spoof": "system"}
    assert not find_clusters(recordings(names[:3], names[3:], **columns), without=["system"]).is_known


def test_unequal_groups_are_worth_fewer():
    names = [f"p_{i}" for i in range(2)] + ["q_1", "r_1", "s_1"]
    found = recordings(names, ["a", "b"])
    scored = Scored(found, np.ones((7, 2)), {})
    assert "form 4 groups, worth 3.6 of equal size, by" in find_clusters(found).describe(scored)


def test_clips_that_are_each_by_themselves_need_not_be_many():
    found = recordings([f"p{i}_{j}" for i in "abcdefghij" for j in range(2)], ["a", "b", "c", "d", "e"])
    real, fake = find_clusters(found).of(Scored(found, np.ones((25, 2)), {}))
    assert intervals(np.arange(20), np.arange(5), (real, fake))["auc"]
    assert intervals(np.arange(20), np.arange(5), (real // 2 * 2, fake))["auc"] is None  # pairs of speakers


def test_a_column_with_gaps_leaves_those_clips_by_themselves():
    names = [str(i) for i in range(20)]
    speakers = ["a"] * 10 + ["b"] * 9 + [""]
    clustering = find_clusters(recordings(names, [], speaker=speakers))
    assert groups(clustering, 20) == [list(range(10)), list(range(10, 19)), [19]]
    scored = Scored(recordings(names, [], speaker=speakers), np.ones((20, 2)), {})
    assert "3 groups, worth 2.2 of equal size, by speaker (each of the 1 without one by itself)" in (
        clustering.describe(scored)
    )
    mostly_empty = ["a"] * 5 + [""] * 15
    assert not find_clusters(recordings(names, [], speaker=mostly_empty)).is_known


def test_one_speaker_is_a_cluster():
    clustering = find_clusters(recordings(["a", "b"], ["c", "d"], speaker=["x"] * 4))
    assert groups(clustering, 4) == [[0, 1, 2, 3]]


def test_what_is_said_counts_the_clips_that_have_a_score():
    found = recordings(["p1_1", "p1_2", "p2_1", "p2_2"], ["q", "r"])
    logits = np.array([[0, 1.0], [0, 1], [0, np.nan], [0, np.nan], [0, 1], [0, 1]])
    scored = Scored(found, logits, {2: "x", 3: "x"})
    clustering = find_clusters(found)
    assert clustering.describe(scored) == (
        "the 2 real clips form 1 group by how their file names begin; it is not known which of the 2 fake "
        "clips belong together"
    )
    chosen = np.array([True, False, True, False, True, False])
    assert len(clustering.subset(chosen).among(np.ones(3, bool))) == 3


def test_folders_without_those_that_name_a_label():
    assert unlabelled("training/fake/en") == "training/en"
    assert unlabelled("Real") == ""
