"""The words of the analysis follow the intervals."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import soundfile
from helpers import PRESETS, write_by_ffmpeg

from antispoofing.data.recordings import Utterance, find_recordings
from antispoofing.errors import DataError
from antispoofing.report import screen
from antispoofing.report.analysis import analyse, doubtful
from antispoofing.report.comparison import change, compare, compare_all, difference, shown_side
from antispoofing.report.groups import clip_properties, is_whole, property_groups, with_other_class
from antispoofing.report.summary import summarise
from antispoofing.report.wording import hundredths, misjudged, share
from antispoofing.scoring.calibration import Calibration
from antispoofing.scoring.clusters import find_clusters
from antispoofing.scoring.decision import Rule
from antispoofing.scoring.score import score_recordings
from antispoofing.scoring.scored import Scored
from antispoofing.training.history import validation_figures
from model import Detector


def scored_of(bonafide, spoof, folders=("",)) -> Scored:
    """Logit 0 is 0, so that the network's own decision is at score 0."""
    utterances = [
        Utterance(
            f"{label}{i}.wav",
            "/".join(filter(None, (word, folders[i % len(folders)], f"{i}.wav"))),
            label,
        )
        for label, word, scores in (("bonafide", "Real", bonafide), ("spoof", "Fake", spoof))
        for i in range(len(scores))
    ]
    scores = np.concatenate([bonafide, spoof])
    return Scored(utterances, np.stack([np.zeros_like(scores), scores], axis=1), {})


def normal(mean, n, seed):
    return np.random.default_rng(seed).normal(mean, 1, n)


def properties_of(scored, **values) -> dict[str, list[str]]:
    return {"format": ["WAV"] * len(scored.utterances)} | values


def summary_of(scored) -> dict:
    return summarise(scored, find_clusters(scored.utterances))


def compared(before, after) -> dict:
    return compare(before, after, find_clusters(before.utterances))


def words_on(scored, properties=None, threshold=None) -> str:
    text = analyse("d", scored, summary_of(scored), properties or properties_of(scored), Rule(threshold))
    return " ".join(text.split())


@pytest.mark.parametrize(
    ("bonafide", "spoof", "said", "not_said"),
    [
        (
            normal(2, 60, 0),
            normal(0, 60, 1),
            "on this data, the detector can tell real from fake",
            "do not show",
        ),
        (
            normal(0.2, 20, 0),
            normal(0, 20, 1),
            "do not show that the detector can tell real from fake",
            "more than chance explains",
        ),
        (normal(0, 60, 0), normal(2, 60, 1), "the scores point the wrong way", "can tell real from fake"),
        ([-1.0, -2.0], [1.0, 2.0], "There are too few clips", "point the wrong way"),
        (np.arange(4.0), np.arange(4.0) - 9, "With fewer than 5 clips in a class", "on this data, the"),
        (np.arange(5.0), np.arange(5.0) - 9, "on this data, the detector can tell", "With fewer"),
        (np.arange(6) % 2, np.arange(6) % 3, "where equal scores count as half a case (AUC", "cases (AUC"),
        (
            [0.0] * 10 + [1.0] * 10,
            [0.0] * 20,
            "No threshold makes both kinds of error equally frequent: where they differ least, 50.0 % of the "
            "real clips are rejected and 0.0 % of the fake ones accepted, on average 25.00 %",
            "of each class are misjudged",
        ),
    ],
)
def test_how_good_it_is_follows_the_interval(bonafide, spoof, said, not_said):
    words = words_on(scored_of(bonafide, spoof))
    assert said in words
    assert not_said not in words


def test_only_all_is_rounded_to_all_and_only_nothing_to_nothing():
    parts = (0, 1e-6, 0.0051, 0.5, 0.994, 0.9951, 1 - 1e-6, 1)
    rounded = ["0", "less than 1", "1", "50", "99", "more than 99", "more than 99", "100"]
    assert [hundredths(part) for part in parts] == rounded
    hits = np.arange(600) > 0
    assert share(hits, np.ones(600, bool), find_clusters([])) == "599 of 600 (more than 99 % [99, 100])"
    almost = scored_of(np.r_[np.full(99, 1.0), -2.0], np.full(100, -1.0))
    almost.logits[0, 1] = -0.5
    assert "in 99 of 100 cases (AUC 0.9900," in words_on(almost)
    almost = scored_of(np.r_[np.full(99, 1.0), -2.0], np.r_[-3.0 * np.ones(99), -1.0])
    assert "in more than 99 of 100 cases (AUC 0.9999," in words_on(almost)


def test_decisions_count_both_errors_and_lean_only_beyond_chance():
    real, fake = [-1.0] * 12 + [1.0] * 48, [-1.0] * 58 + [1.0] * 2
    words = words_on(scored_of(real, fake))
    low, high = scipy.stats.binomtest(12, 60).proportion_ci(method="wilson")
    assert (
        f"of the real clips, 12 of 60 (20 % [{int(100 * low)}, {int(100 * high) + 1}]) are called fake"
        in words
    )
    assert "of the fake clips, 2 of 60 (3 % [0, 12]) are called real." in words
    assert "The detector leans towards calling clips fake." in words
    words = words_on(scored_of(real, fake), threshold=0.5)
    assert (
        "(real if score >= 0.5, the threshold given, otherwise fake; uncalibrated: this does not say" in words
    )
    words = words_on(scored_of([-1.0] * 2 + [1.0] * 10, [-1.0] * 11 + [1.0]))
    assert "do not show that one kind of error is more frequent" in words


def test_what_may_be_chance_is_not_claimed():
    """Each of these has p values between the nominal level and the corrected one, or just above it."""
    words = words_on(scored_of([-1.0] * 8 + [1.0] * 52, [-1.0] * 58 + [1.0] * 2))  # p = 0.095
    assert "do not show that one kind of error is more frequent" in words
    real = [-1.0] * 4 + [1.0] * 16 + [-1.0] * 2 + [1.0] * 58  # 4 of 20 and 2 of 60: p = 0.032
    scored = scored_of(real, np.full(80, -1.0))
    formats = ["MP3"] * 20 + ["WAV"] * 60
    words = words_on(scored, properties_of(scored, format=formats + ["WAV"] * 80), threshold=0.0)
    assert "These groups stand out (Fisher's exact test at 5 %):" in words
    words = words_on(scored, properties_of(scored, format=formats * 2), threshold=0.0)
    assert "No group stands out" in words
    here = scored_of([-1.0] * 7 + [1.0] * 73, [-1.0] * 80)  # 7 of 80 and 4 of 200: p = 0.015
    assert "that may be chance, so these clips do not show" in words_on_change(here, here)


def test_clips_that_are_not_sure_are_counted_apart():
    scored = scored_of([9.0] * 50 + [1.0] * 10, [-9.0] * 40 + [9.0] * 2 + [0.0] * 18)
    rule = Rule(calibration=Calibration(1.0, 0.0, 9.0, "x", real_from=0.0, fake_to=0.0))
    counted = summarise(scored, find_clusters(scored.utterances), rule=rule)["calibrated"]
    assert (counted["sure"], counted["wrong"], counted["fitted_on_these_clips"]) == (92, 2, False)
    text = analyse("d", scored, summary_of(scored), properties_of(scored), rule)
    words = " ".join(text.split())
    assert "of the real clips, 0 of 60 (0 % [0, 7]) are called fake; of the fake clips, 2 of 60" in words
    assert 'Of all clips, 28 of 120 (23 % [16, 32]) get the verdict "not sure".' in words


def test_a_group_stands_out_only_beyond_chance():
    real = np.r_[np.full(20, -5.0), np.full(60, 5.0)]  # the first 20 are on the wrong side
    scored = scored_of(real, np.full(80, -6.0))
    formats = ["MP3"] * 20 + ["WAV"] * 60 + (["MP3"] * 20 + ["WAV"] * 60)
    words = words_on(scored, properties_of(scored, format=formats), threshold=0.0)
    assert (
        "- format MP3: of its real clips, 20 of 20 (100 % [83, 100]) are rejected; of all other real clips, "
        "0 of 60 (0 % [0, 7])." in words
    )
    assert "Fisher's exact test at 5 %, Bonferroni-corrected for 2 comparisons" in words
    assert "format MP3: of its fake clips" not in words  # no difference among the fake ones
    assert "A caution about the data" not in words
    scattered = (["MP3", "WAV"] * 80)[:160]
    words = words_on(scored, properties_of(scored, format=scattered), threshold=0.0)
    assert "No group stands out" in words
    assert "Where it fails" not in words_on(scored)  # one format, nothing to compare


def test_a_single_comparison_needs_no_correction():
    scored = scored_of(normal(1, 40, 0), normal(0, 40, 1))
    attacks = [""] * 40 + ["A07", "A08"] * 20
    words = words_on(scored, properties_of(scored, attack=attacks))
    assert "beyond chance (Fisher's exact test at 5 %)." in words
    assert "Half of the groups are so small that only an error rate of" in words


def test_a_bad_group_beside_a_good_one_is_not_passed_over():
    """Two groups are each compared with all other clips, unless they are each other's rest."""
    scored = scored_of(np.r_[np.full(16, -5.0), np.full(4, 5.0), np.full(220, 5.0)], np.full(60, -6.0))
    channels = ["B"] * 20 + ["A"] * 20 + [""] * 200 + [""] * 60
    words = words_on(scored, properties_of(scored, channel=channels), threshold=0.0)
    assert "- channel B: of its real clips, 16 of 20" in words
    assert "Bonferroni-corrected for 2 comparisons" in words
    channels = ["B"] * 20 + ["A"] * 220 + [""] * 60
    words = words_on(scored, properties_of(scored, channel=channels), threshold=0.0)
    assert "Fisher's exact test at 5 %)" in words


def test_groups_are_compared_by_speakers_where_these_are_known():
    scored = scored_of(np.r_[np.full(10, -5.0), np.full(230, 5.0)], np.full(240, -6.0))
    for i, utterance in enumerate(scored.utterances):
        columns = {"speaker": f"{i // 10}", "codec": "ab"[i % 240 >= 120]}
        scored.utterances[i] = replace(utterance, columns=columns)
    words = words_on(scored, {"codec": [u.columns["codec"] for u in scored.utterances]}, threshold=0.0)
    assert "No group stands out" in words  # all 10 errors are one speaker's, of 12 in each group
    assert "the 240 real clips form 24 groups by speaker" in words


def test_too_few_speakers_have_no_interval_and_the_words_say_so():
    scored = scored_of(normal(2, 60, 0), normal(0, 60, 1))
    for i, utterance in enumerate(scored.utterances):
        scored.utterances[i] = replace(utterance, columns={"speaker": f"{i // 20}"})
    words = words_on(scored)
    assert "(AUC 0.9" in words
    assert "95 % interval" not in words
    assert "**AUC and EER have no interval**: the 60 real clips form 3 groups by speaker" in words
    assert "too few speakers, sources or systems to tell whether one kind of error" in words
    figures = screen.results({"d": summary_of(scored)})
    assert "d: no intervals: the 60 real clips form 3 groups by speaker" in figures
    assert "[0." not in figures


def test_properties_that_go_with_the_class_are_named():
    scored = scored_of(normal(1, 40, 0), normal(0, 40, 1))
    mostly = ["MP3"] * 35 + ["WAV"] * 5 + ["WAV"] * 40
    values = {"format": mostly, "subfolder": mostly, "speaker": mostly, "Attack": mostly}
    words = words_on(scored, properties_of(scored, **values))
    v = scipy.stats.contingency.association([[35, 0], [5, 40]])
    assert f"clips differ in format (Cramér's V {v:.2f}). Cramér's V is 0" in words
    split = ["MP3"] * 40 + ["WAV"] * 40  # each group holds one class, as a column of file names would
    assert "A caution" not in words_on(scored, properties_of(scored, format=split))
    assert "subfolder (Cramér's" not in words  # since subfolders often name the synthesis system


def test_the_worst_clips_are_named_with_their_scores():
    words = words_on(scored_of([-3.0, 1.0, 1.0], [2.0, -1.0, -1.0]), threshold=0.0)
    assert "real clips rejected and farthest from the threshold: `Real/0.wav` (-3)" in words
    assert "fake clips accepted and farthest from the threshold: `Fake/0.wav` (2)" in words
    assert "No clip lies on the wrong side of the threshold" in words_on(
        scored_of([1.0, 1.0], [-1.0, -1.0]), threshold=0.0
    )


def test_a_group_of_one_class_is_held_against_all_of_the_other():
    scored = scored_of([1.0, 2.0, 3.0], [0.0, 2.5, 5.0, 6.0], folders=("a", "b"))
    properties = clip_properties(scored)
    assert properties["format"] == [""] * 7  # no file was read
    fake_only = np.array([False] * 4 + [True] + [False] * 2)
    assert with_other_class(scored, fake_only).tolist() == [True] * 3 + [False, True, False, False]
    both = np.array([True, False, False, True, False, False, False])
    assert with_other_class(scored, both).tolist() == both.tolist()
    groups = property_groups(scored, properties)
    assert list(groups) == ["subfolder"]
    assert groups["subfolder"]["a"].tolist() == [True, False, True, True, False, True, False]
    assert misjudged(scored, 2.0).tolist() == [True, False, False, False, True, True, True]


@pytest.mark.parametrize("workers", [0, 2])
def test_properties_come_from_the_files(workers, tmp_path):
    for name, rate, seconds in (
        ("Fake/c.mp3", 44100, 5),
        ("Real/x/a.wav", 8000, 1),
        ("y/Fake/b.flac", 16000, 3),
        ("y/Fake/edge.flac", 16000, 4.0375),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / name, np.zeros(int(rate * seconds)), rate)
    (tmp_path / "Real" / "bad.wav").write_bytes(b"bad")
    write_by_ffmpeg(tmp_path / "y" / "Fake" / "a.mka", 2)
    utterances = find_recordings([tmp_path]).utterances
    detector = Detector(PRESETS["small"]).eval()
    scored = score_recordings(detector, utterances, batch_size=2, workers=workers)
    assert clip_properties(scored) == {
        "format": ["MP3", "", "WAV", "MATROSKA", "FLAC", "FLAC"],
        "sample rate": ["44100 Hz", "", "8000 Hz", "44100 Hz", "16000 Hz", "16000 Hz"],
        "duration": ["4.0 s and more", "", "0 to 2.0 s", *["2.0 to 4.0 s"] * 3],
        "subfolder": ["(none)", "(none)", "x", "y", "y", "y"],
    }


def test_the_largest_groups_are_kept_and_in_natural_order():
    many = scored_of(np.arange(15.0), np.arange(15.0))
    rates = [f"{1000 * i} Hz" for i in range(15)] + ["16000 Hz"] * 15
    groups = property_groups(many, {"sample rate": rates})["sample rate"]
    assert len(groups) == 13
    assert groups["4 others"].sum() == 4
    assert list(groups)[-2:] == ["16000 Hz", "4 others"]
    assert list(groups)[1] == "1000 Hz"
    assert "1 other" in property_groups(many, {"sample rate": rates}, most=15)["sample rate"]


# ------------------------------------------------------------------ two detectors


def pair(shift_real, shift_fake, n=80, noise=0.1):
    before = scored_of(normal(0.5, n, 0), normal(0, n, 1))
    shift = np.r_[np.full(n, shift_real), np.full(n, shift_fake)] + noise * normal(0, 2 * n, 2)
    after = Scored(before.utterances, before.logits + np.stack([np.zeros(2 * n), shift], axis=1), {})
    return before, after


EPOCH = {
    "validation_auc": 0.99,
    "validation_auc_low": 0.98,
    "validation_auc_high": 1.0,
    "validation_eer": 0.02,
    "validation_threshold": 0.0,
    "validation_bonafide": 200,
    "validation_spoof": 200,
    "validation_rejected": 4,
    "validation_accepted": 4,
}


def words_on_change(before, after, properties=None, **epoch) -> str:
    text = change(before, after, summary_of(after), properties or properties_of(before), EPOCH | epoch)
    return " ".join(text.split())


@pytest.mark.parametrize(
    ("shifts", "n", "said"),
    [
        ((2, 0), 80, "more than chance explains: on clips like these, B is the better of the two."),
        ((0, 2), 80, "more than chance explains: on clips like these, A is the better of the two."),
        ((3, 3), 80, "By AUC, these clips do not show that either is better"),
        ((9, 0), 1, "There are too few clips, or groups of clips that belong together, to tell which"),
    ],
)
def test_a_difference_is_claimed_only_beyond_chance(shifts, n, said):
    before, after = pair(*shifts, n=n)
    paired = compared(before, after)
    assert said in difference("A", "B", paired)
    assert paired["auc"]["after"] - paired["auc"]["before"] == pytest.approx(paired["auc"]["difference"])


def test_of_several_comparisons_each_must_hold_against_all():
    values = {"difference": 0.1, "p_value": 0.03}
    assert [shown_side(values, comparisons) for comparisons in (1, 2)] == [1, 0]
    assert shown_side({"difference": -0.1, "p_value": 0.001}, 10) == -1
    assert shown_side({"difference": -0.1, "p_value": None}, 1) is None
    before, after = pair(2, 0)
    sections = compare_all({"A": before, "B": after, "C": before})
    assert [section.splitlines()[0] for section in sections] == [
        "## B against A",
        "## C against A",
        "## C against B",
    ]
    assert (
        "more than chance explains (at 5 %, Bonferroni-corrected for 3 comparisons): on clips like these, B "
        "is the better of the two." in sections[0]
    )
    assert "do not show that either is better" in sections[1]


def test_a_comparison_counts_clips_both_scored_and_changed_verdicts():
    before = scored_of([1.0, 2.0, 3.0, -9.0], [-1.0, -2.0, -3.0, 9.0])
    after = scored_of([1.0, 2.0, 3.0, 4.0], [-1.0, -2.0, -3.0, -4.0])
    after.logits[0] = np.nan
    paired = compared(before, after)
    assert paired["counts"] == {"bonafide": 3, "spoof": 4}
    assert paired["errors"] == {"mended": 2, "made": 0, "p_value": 0.5}
    assert (
        "With each at its own EER threshold, the clips misjudged by A alone are 2, and those by B alone 0 "
        "(which may be chance: McNemar's test, p = 0.5)."
    ) in difference("A", "B", paired)
    both = [1, 2, 3, 4, 5, 6, 7]
    rank = scipy.stats.spearmanr(before.scores[both], after.scores[both]).statistic
    assert paired["spearman"] == pytest.approx(rank)
    assert compared(before, before)["errors"] == {"mended": 0, "made": 0, "p_value": 1.0}
    constant = scored_of([1.0, 1.0], [1.0, 1.0])
    assert compared(constant, constant)["spearman"] is None
    with pytest.raises(ValueError, match="same recordings"):
        compared(before, scored_of([1.0], [0.0]))
    before.logits[1:4] = np.nan
    with pytest.raises(DataError, match="has a score from both"):
        compared(before, after)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.95, 0.99, "what it learnt carries over only in part"),
        (0.5, 0.55, "these clips are easier for it"),
        (0.6, 0.99, "no loss is shown"),
    ],
)
def test_carrying_over_follows_the_interval_of_the_difference(low, high, said):
    before, after = pair(1, 0)
    there = {"validation_auc": (low + high) / 2, "validation_auc_low": low, "validation_auc_high": high}
    assert said in words_on_change(before, after, **there)
    _, chance = pair(-0.5, 0)
    assert "these clips do not show that it can tell real from fake at all" in words_on_change(before, chance)


def test_a_threshold_holds_unless_the_error_rates_differ_beyond_chance():
    before, after = pair(1, 0)
    words = words_on_change(before, after, validation_threshold=-9.0)
    assert (
        "(-9), 0 of 80 (0 % [0, 5]) of the real clips are rejected (there, 4 of 200), and 80 of 80" in words
    )
    assert (
        "for fake clips, that differs by more than chance explains, so the threshold does not hold here"
        in words
    )
    threshold = summary_of(after)["metrics"]["threshold_at_eer_chosen_on_this_set"]
    wrong = misjudged(after, threshold)
    rejected, accepted = int(wrong[:80].sum()), int(wrong[80:].sum())
    there = {"validation_bonafide": 80, "validation_spoof": 80}
    there |= {"validation_rejected": rejected, "validation_accepted": accepted}
    words = words_on_change(before, after, validation_threshold=threshold, **there)
    assert "that may be chance, so these clips do not show that the threshold is off" in words


def test_a_file_without_counts_of_errors_leaves_open_whether_its_threshold_holds():
    """As earlier versions wrote it."""
    before, after = pair(1, 0)
    earlier = {name: value for name, value in EPOCH.items() if name.count("_") == 1 or "auc" in name}
    earlier.pop("validation_rejected"), earlier.pop("validation_accepted")
    text = change(before, after, summary_of(after), properties_of(before), earlier)
    assert "so whether the threshold holds is not known" in " ".join(text.split())


def test_a_validation_split_of_few_speakers_leaves_open_what_carries_over():
    before, after = pair(1, 0)
    speakers = [f"{'rf'[i // 80]}{i % 4}" for i in range(160)]
    clips = [replace(u, columns={"speaker": s}) for u, s in zip(after.utterances, speakers, strict=True)]
    there = validation_figures(Scored(clips, after.logits, {}))
    assert there["validation_auc_low"] is there["validation_auc_high"] is None
    assert there["validation_bonafide_worth"] == there["validation_spoof_worth"] == 0
    words = words_on_change(before, after, **there)
    assert "There, there are too few clips, or groups of clips that belong together, to tell" in words
    assert "whether the threshold holds here cannot be told from so little" in words


def test_a_validation_split_of_many_speakers_counts_for_less_than_its_clips():
    before, after = pair(1, 0)
    speakers = [f"{'rf'[i // 80]}{i // 4}" for i in range(160)]
    clips = [replace(u, columns={"speaker": s}) for u, s in zip(after.utterances, speakers, strict=True)]
    shifts = np.repeat(normal(0, 40, 3), 4)
    there = validation_figures(Scored(clips, after.logits + np.outer(shifts, [0, 1]), {}))
    alone = validation_figures(Scored(after.utterances, after.logits + np.outer(shifts, [0, 1]), {}))
    for name in ("bonafide", "spoof"):
        assert there[f"validation_{name}_worth"] < 70 < alone[f"validation_{name}_worth"] == 80
    widths = [of["validation_auc_high"] - of["validation_auc_low"] for of in (there, alone)]
    assert widths[0] > 1.2 * widths[1]
    words = words_on_change(before, after, **there)
    assert "(on the validation split, the 80 real clips form 20 groups by speaker; the 80 fake" in words


def test_where_it_changed_names_the_groups_that_are_shown_to_have():
    before, after = pair(0, 0, noise=0)
    formats = (["MP3"] * 40 + ["WAV"] * 40) * 2
    properties = properties_of(before, format=formats)
    words = words_on_change(before, after, properties)
    assert "in which a change can be told: 2. A change in AUC (at 5 %, Bonferroni" in words
    assert "is shown in none of them." in words
    after.logits[:40, 1] += 3
    words = words_on_change(before, after, properties)
    assert "for 2 comparisons) is shown in format MP3 (better)." in words
    assert "| MP3 | 40 | 40 |" in words
    by_class = properties_of(before, format=["MP3"] * 80 + ["WAV"] * 80)
    assert "can be told: 0." in words_on_change(before, after, by_class)  # each is the whole set over again
    assert is_whole(after, np.ones(160, bool))


def test_where_it_changed_counts_the_clips_that_its_auc_is_of():
    before, after = pair(1, 0)
    before.logits[:5] = np.nan  # these five real clips have a score only after fine-tuning
    words = words_on_change(before, after, properties_of(before, format=(["MP3"] * 40 + ["WAV"] * 40) * 2))
    assert "| MP3 | 35 | 40 |" in words
    assert "| WAV | 40 | 40 |" in words


def test_names_do_not_break_the_tables():
    before, after = pair(0, 0, noise=0)
    words = words_on_change(before, after, properties_of(before, subfolder=["a|b", "c\nd"] * 80))
    assert r"| a\|b |" in words
    assert r"| c\nd |" in words


def test_doubtful_clips_are_named_with_the_reason():
    scored = scored_of(normal(1, 20, 0), normal(0, 20, 1))
    assert doubtful(scored) == ""
    scored.notes = {i: f"reason {i}" for i in (3, 21, 22, 23, 24, 25, 26)}
    found = " ".join(doubtful(scored).split())
    assert "**Doubtful clips** (7 of 40): - `Real/3.wav`: reason 3 - `Fake/1.wav`: reason 21 - " in found
    assert found.endswith("- `Fake/4.wav`: reason 24 - ... and 2 more; see the column note of scores.csv")
