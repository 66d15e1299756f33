"""How often intervals cover the truth, and how often sentences of the analysis are wrong, by simulation.

    python benchmarks/coverage.py                           # all of it: half an hour or more on two cores
    python benchmarks/coverage.py --sets 300 --claims 100   # roughly

Scores are normal. Where clips belong together, each speaker shifts all of his or her clips' scores, and the
ICC is the share of the variance that is the speakers'. A sentence is looked for in the texts that the scripts
print.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

HERE = Path(__file__).resolve().parent  # not on the path, since coverage.py would hide the package coverage
sys.path[:] = [str(HERE.parent), *(path for path in sys.path if Path(path).resolve() != HERE)]

from antispoofing import metrics, uncertainty
from antispoofing.data.recordings import Utterance
from antispoofing.report.analysis import analyse
from antispoofing.report.comparison import change, compare, difference
from antispoofing.report.groups import clip_properties
from antispoofing.report.screen import timeline_lines
from antispoofing.report.summary import summarise
from antispoofing.scoring.calibration import Calibration
from antispoofing.scoring.clusters import find_clusters
from antispoofing.scoring.decision import FAKE, REAL, Rule
from antispoofing.scoring.scored import Scored
from antispoofing.scoring.timeline import Timeline
from antispoofing.text import aligned
from antispoofing.training.history import validation_figures

SIZES, AUCS = (20, 50, 200, 1000), (0.6, 0.9, 0.97, 0.998)
WINDOWS = (7, 16, 30, 150, 300)  # 16 s, half a minute, one, five and ten minutes
PAIRS = ((0.9, 0.9), (0.9, 0.97), (0.97, 0.998))
CALIBRATED_ON, SPREADS = (18, 20, 50, 200), ((1.0, 1.0), (2.0, 0.5), (0.5, 2.0))
SPEAKERS, ICCS, CLUSTERED_AUCS, CLIPS = (20, 60), (0.0, 0.1, 0.3), (0.6, 0.9, 0.97), 25


class Voices(NamedTuple):
    """How many clips there are of each class, and whose.

    Attributes:
        speakers: How many there are in a class; 0 if each clip is by itself.
        clips: How many clips there are of each speaker; without speakers, of each class.
        icc: The share of the variance that is the speakers'.
        in_both: Whether the speakers of one class are also those of the other.
        rare: Whether the speakers are of two kinds, of which one, a tenth of them, is much harder to judge.
    """

    speakers: int
    clips: int
    icc: float = 0.0
    in_both: bool = False
    rare: bool = False

    @property
    def clusters(self) -> uncertainty.Clusters | None:
        """Which clips belong together."""
        if not self.speakers:
            return None
        of_class = np.repeat(np.arange(self.speakers), self.clips)
        return of_class, of_class if self.in_both else of_class + self.speakers

    def draw(self, rng: np.random.Generator, detectors: int = 1, correlation: float = 0.0) -> np.ndarray:
        """Return scores [detectors, 2 (spoof, bona fide), n] without any difference between the classes."""
        shared, own = np.sqrt(correlation), np.sqrt(1 - correlation)

        def values(*shape: int) -> np.ndarray:
            return shared * rng.standard_normal(shape) + own * rng.standard_normal((detectors, *shape))

        if not self.speakers:
            return values(2, self.clips)
        if self.rare:
            of_speakers = np.where(rng.random((1, 2, self.speakers)) < 0.1, -3.0, 1 / 3)
            of_speakers[:, 0] *= -1  # a fake that sounds real
        else:
            of_speakers = values(2, self.speakers)
        if self.in_both:
            of_speakers[:, 0] = of_speakers[:, 1]
        of_clips = values(2, self.speakers, self.clips)
        scores = np.sqrt(self.icc) * of_speakers[..., None] + np.sqrt(1 - self.icc) * of_clips
        return scores.reshape(detectors, 2, -1)

    def truth(self, auc: float) -> tuple[float, float, float]:
        """Return how far apart the classes' means are for an AUC, and the true AUC and EER.

        With speakers that are hard, the AUC is that of others with the same distance.
        """
        from scipy.optimize import brentq
        from scipy.stats import norm

        distance = norm.ppf(auc) * np.sqrt(2)
        if not self.rare:
            return distance, auc, norm.cdf(-distance / 2)
        shifts, spread = np.sqrt(self.icc) * np.array([-3.0, 1 / 3]), np.sqrt(1 - self.icc)
        weights = np.array([0.1, 0.9])
        sums = shifts if self.in_both else shifts[:, None] + shifts  # of a bona fide and a spoof speaker
        odds = weights if self.in_both else weights[:, None] * weights
        within = (distance + (0 if self.in_both else sums)) / (np.sqrt(2) * spread)
        auc = float((norm.cdf(within) * odds).sum())

        def frr(at: float) -> float:
            return float(norm.cdf((at - distance - shifts) / spread) @ weights)

        def far(at: float) -> float:
            sign = 1 if self.in_both else -1
            return float(norm.sf((at - sign * shifts) / spread) @ weights)

        at = brentq(lambda x: frr(x) - far(x), -10, 10)
        return distance, auc, frr(at)

    def __str__(self) -> str:
        if not self.speakers:
            return f"{self.clips} clips, independent"
        kind = ", the same in both classes" if self.in_both else ""
        rare = ", one in ten hard" if self.rare else ""
        return f"{self.speakers} speakers x {self.clips}, ICC {self.icc:g}{kind}{rare}"


def coverage(voices: Voices, auc: float, sets: int, seed: int = 0) -> dict[str, float]:
    """Return how often the 95 % intervals of AUC and EER cover the truth, and how wide they are.

    Args:
        voices: The clips.
        auc: The true AUC.
        sets: How many sets to draw.
        seed: The seed of the drawing.

    Returns:
        "auc" and "eer", shares of the sets that have an interval; "auc_width" and "eer_width", means; and
        "without", the share of the sets without intervals, whose clusters are too few.
    """
    rng = np.random.default_rng(seed)
    distance, true_auc, true_eer = voices.truth(auc)
    truth, found, without = {"auc": true_auc, "eer": true_eer}, {"auc": [], "eer": []}, 0
    for _ in range(sets):
        spoof, bonafide = voices.draw(rng)[0]
        intervals = uncertainty.intervals(bonafide + distance, spoof, voices.clusters)
        without += intervals["auc"] is None
        for name, interval in intervals.items():
            if interval is not None:
                found[name].append(interval)
    result = {"without": without / sets}
    for name, bounds in found.items():
        if bounds:
            low, high = np.array(bounds).T
            result[name] = float(((low <= truth[name]) & (truth[name] <= high)).mean())
            result[f"{name}_width"] = float((high - low).mean())
    return result


def differences(voices: Voices, aucs: tuple[float, float], sets: int, seed: int = 0) -> dict[str, float]:
    """Return how often the 95 % intervals of a difference of AUC or EER cover the truth.

    Args:
        voices: The clips.
        aucs: The true AUCs of two detectors, whose scores are correlated by 0.5.
        sets: How many sets to draw.
        seed: The seed of the drawing.

    Returns:
        "auc" and "eer", of two detectors on the same clips; "separate_auc" and "separate_eer", of two
        detectors on clips of their own; each a share of the sets that have an interval.
    """
    rng = np.random.default_rng([seed, 1])
    distances, *truths = zip(*(voices.truth(auc) for auc in aucs), strict=True)
    truth = {name: after - before for name, (before, after) in zip(("auc", "eer"), truths, strict=True)}
    covered: dict[str, list[bool]] = {}

    def add(name: str, interval: uncertainty.Interval | None, true: float) -> None:
        if interval is not None:
            covered.setdefault(name, []).append(interval[0] <= true <= interval[1])

    for _ in range(sets):
        same = [
            (bonafide + d, spoof)
            for (spoof, bonafide), d in zip(voices.draw(rng, 2, 0.5), distances, strict=True)
        ]
        for name, found in uncertainty.paired_differences(*same, voices.clusters).items():
            add(name, found["interval"], truth[name])
        spoof, bonafide = voices.draw(rng)[0]
        separate = (same[0], (bonafide + distances[1], spoof))
        intervals = [uncertainty.intervals(*scores, voices.clusters) for scores in separate]
        figures = [
            {"auc": metrics.compute_auc(*scores), "eer": metrics.compute_eer(*scores).eer}
            for scores in separate
        ]
        for name, true in truth.items():
            before, after = (
                (of[name], interval[name]) for of, interval in zip(figures, intervals, strict=True)
            )
            if before[1] is not None and after[1] is not None:
                add(f"separate_{name}", uncertainty.difference_interval(*before, *after), true)
    return {name: float(np.mean(inside)) for name, inside in covered.items()}


def scored(voices: Voices, scores: np.ndarray, codecs: np.ndarray) -> Scored:
    """Return scores [2, n] as those of recordings that have a codec and, if there are any, a speaker."""
    utterances = []
    for of_class, label in enumerate(("spoof", "bonafide")):
        for i, codec in enumerate(codecs[of_class]):
            columns = {"codec": str(codec)}
            if voices.speakers:
                who = i // voices.clips
                columns["speaker"] = f"{label * (not voices.in_both)}{who}"
            name = f"{label}/{i}.wav"
            utterances.append(Utterance(name, name, label, name, columns))
    bonafide_logits = scores.ravel()
    return Scored(utterances, np.stack([-bonafide_logits, bonafide_logits], axis=1), {})


class Claim(NamedTuple):
    """A sentence of the analysis.

    Attributes:
        words: What it contains.
        alternative: When it is true, in words.
        text: Draws a set in which it is not true, or with True, in which it is, and returns the analysis.
    """

    words: str
    alternative: str
    text: Callable[[Voices, np.random.Generator, bool], str]


def _analysis(
    voices: Voices,
    rng: np.random.Generator,
    is_true: bool,
    *,
    distance: float = 2.0,
    more: float = 0.0,
    shift: float = 0.0,
    bad_codec: float = 0.0,
    unlike: float = 0.0,
) -> str:
    scores = voices.draw(rng)[0]
    n = scores.shape[1]
    codecs = rng.integers(0, 4, (2, n))
    scores[1] += distance + more * is_true
    scores += shift * is_true
    scores[0, codecs[0] == 1] += bad_codec * is_true
    if is_true and unlike:
        codecs[1, rng.random(n) < unlike] = 0
    outcome = scored(voices, scores - distance / 2, codecs)
    clustering = find_clusters(outcome.utterances)
    return analyse("x", outcome, summarise(outcome, clustering), _codecs(outcome), Rule())


def _codecs(scored: Scored) -> dict[str, list[str]]:
    """Return the codecs; not the speakers, who do differ from each other."""
    return {"codec": clip_properties(scored)["codec"]}


def _comparison(voices: Voices, rng: np.random.Generator, is_true: bool) -> str:
    scores = voices.draw(rng, 2, 0.5)
    scores[:, 1] += 2.0
    scores[1, 1] += 0.75 * is_true
    codecs = rng.integers(0, 4, scores[0].shape)
    before, after = (scored(voices, of_detector, codecs) for of_detector in scores)
    clustering = find_clusters(after.utterances)
    text = difference("before", "after", compare(before, after, clustering))
    summary = summarise(after, clustering)
    return text + change(before, after, summary, _codecs(after), _epoch(voices, rng, 2.0))


def _carried_over(voices: Voices, rng: np.random.Generator, is_true: bool, worse: float = 0.6) -> str:
    scores = voices.draw(rng)[0]
    scores[1] += 2.5 - worse * is_true
    outcome = scored(voices, scores, rng.integers(0, 4, scores.shape))
    summary = summarise(outcome, find_clusters(outcome.utterances))
    return change(outcome, outcome, summary, {}, _epoch(voices, rng, 2.5))


def _epoch(voices: Voices, rng: np.random.Generator, distance: float) -> dict:
    """Return the figures of a validation split: independent clips, or as many speakers as here."""
    there = voices if voices.speakers else Voices(0, 200)
    scores = there.draw(rng)[0]
    scores[1] += distance
    return validation_figures(scored(there, scores, np.zeros(scores.shape, int)))


CLAIMS = (
    Claim(
        "on this data, the detector can tell",
        "AUC 0.64, not 0.5",
        partial(_analysis, distance=0.0, more=0.5),
    ),
    Claim("point the wrong way", "AUC 0.36, not 0.5", partial(_analysis, distance=0.0, more=-0.5)),
    Claim("leans towards calling clips real", "all scores higher by 0.5", partial(_analysis, shift=0.5)),
    Claim("leans towards calling clips fake", "all scores lower by 0.5", partial(_analysis, shift=-0.5)),
    Claim(
        "These groups stand out", "33 % instead of 16 % errors in a codec", partial(_analysis, bad_codec=0.6)
    ),
    Claim("A caution about the data", "15 % of real clips in another codec", partial(_analysis, unlike=0.15)),
    Claim("after is the better", "AUC 0.97, not 0.92", _comparison),
    Claim("before is the better", "-", _comparison),
    Claim("more than chance explains: McNemar", "AUC 0.97, not 0.92", _comparison),
    Claim("(better)", "AUC 0.97, not 0.92, in each codec", _comparison),
    Claim("(worse)", "-", _comparison),
    Claim("carries over only in part", "AUC 0.91, not 0.96", _carried_over),
    Claim("these clips are easier", "-", _carried_over),
    Claim("the threshold does not hold here", "22 % instead of 11 % rejected", _carried_over),
)
CLAIM_VOICES = (
    Voices(0, 100),
    Voices(0, 400),
    Voices(20, 25, 0.3),
    Voices(60, 25, 0.3),
    Voices(20, 25, 0.3, True),
    Voices(10, 30, 0.45),
)


def claimed(
    voices: Voices, text: Callable, words: Sequence[str], sets: int, seed: int = 0
) -> dict[str, tuple[float, float]]:
    """Return how often a kind of text contains each of some words where they are false, and where true."""
    shares = []
    for is_true in (False, True):
        rng = np.random.default_rng([seed, is_true])
        texts = [text(voices, rng, is_true) for _ in range(sets)]
        shares.append([sum(claim in text for text in texts) / sets for claim in words])
    return dict(zip(words, zip(*shares, strict=True), strict=True))


def mixed(windows: int, is_true: bool, sets: int, seed: int = 0) -> float:
    """Return how often a recording is called mixed, of one voice or with a third of it by another.

    Windows overlap by half, and a voice shifts all of its windows' scores (ICC 0.3). The EER of windows is
    5 %, and the calibration is fitted on 200 real and 200 fake windows of as many recordings.

    Args:
        windows: How many windows the recording has.
        is_true: Whether a third of the recording is of the other class.
        sets: How many recordings to draw, half of them of people.
        seed: The seed of the drawing.
    """
    rng, distance, count = np.random.default_rng([seed, windows, is_true]), 3.29, 0
    starts = 2.0 * np.arange(windows)
    for i in range(sets):
        if i % 20 == 0:
            fitted = Calibration.fit(rng.normal(distance, 1, 200), rng.normal(0, 1, 200), "")
        noise = rng.standard_normal(windows + 1)
        voices = np.sqrt(0.3) * rng.standard_normal(2) + np.array([0, distance])
        of_class = np.full(windows, i % 2)
        if is_true:
            of_class[windows // 3 : 2 * windows // 3] = 1 - i % 2
        scores = voices[of_class] + np.sqrt(0.35) * (noise[1:] + noise[:-1])
        logits = np.stack([np.zeros(windows), scores], axis=1)
        timeline = Timeline(starts, starts + 4, logits, Rule(calibration=fitted))
        count += "MIXED" in timeline_lines("x", timeline, [])[0]
    return count / sets


def wrong_if_sure(clips: int, spreads: tuple[float, float], sets: int, seed: int = 0) -> tuple[float, float]:
    """Return how often new clips that are surely real, or surely fake, are not, and how many are sure.

    Args:
        clips: How many of each class the calibration is fitted on.
        spreads: The standard deviations of spoof and bona fide scores; their means are 4 apart.
        sets: How many calibrations to fit; each judges 1000 new clips of each class.
        seed: The seed of the drawing.

    Returns:
        The share of errors, of the verdict that errs more, and the share of all clips that are sure.
    """
    rng, given, wrong = np.random.default_rng([seed, clips]), Counter(), Counter()
    for _ in range(sets):
        spoof, bonafide = (rng.normal(4 * i, spreads[i], clips) for i in (0, 1))
        fitted = Calibration.fit(bonafide, spoof, "")
        for i, verdict in ((0, FAKE), (1, REAL)):
            scores = rng.normal(4 * i, spreads[i], 1000)
            verdicts = Rule(calibration=fitted).verdicts(np.stack([scores, scores], axis=1))
            given.update(verdicts)
            wrong.update(found for found in verdicts if found != verdict)
    sure = given[REAL] + given[FAKE]
    return max(wrong[v] / max(given[v], 1) for v in (REAL, FAKE)), sure / (2000 * sets)


def cells() -> Iterator[tuple[Voices, float]]:
    """Yield the clips and the true AUC of each cell of the table of intervals."""
    for n in SIZES:
        for auc in AUCS:
            yield Voices(0, n), auc
    for in_both in (False, True):
        for speakers in SPEAKERS:
            for icc in ICCS:
                for auc in CLUSTERED_AUCS:
                    yield Voices(speakers, CLIPS, icc, in_both), auc
    for speakers in (5, 10, 20, 40):  # 5 are too few, and have no interval
        yield Voices(speakers, CLIPS, 0.3, rare=True), 0.9


def pairs() -> Iterator[tuple[Voices, tuple[float, float]]]:
    """Yield the clips and the two true AUCs of each cell of the table of differences."""
    clustered = [Voices(n, CLIPS, 0.3, in_both) for in_both in (False, True) for n in SPEAKERS]
    for voices in (*(Voices(0, n) for n in SIZES), *clustered):
        for aucs in PAIRS:
            yield voices, aucs


def main() -> None:
    """Run the simulations in several processes; print and write what they found."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--sets", type=int, default=5000, help="sets of each cell of intervals (default: 5000)"
    )
    parser.add_argument("--claims", type=int, default=1000, help="sets of each sentence (default: 1000)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    table: list[tuple[str, ...]] = [
        ("clips of each class", "AUC", "covers AUC", "width", "covers EER", "width")
    ]
    results: dict[str, list] = {"intervals": [], "differences": [], "claims": [], "mixed": [], "sure": []}
    texts = list(dict.fromkeys(claim.text for claim in CLAIMS))
    with ProcessPoolExecutor() as pool:
        of_cells = [(cell, pool.submit(coverage, *cell, args.sets)) for cell in cells()]
        of_pairs = [(pair, pool.submit(differences, *pair, args.sets)) for pair in pairs()]
        of_claims = [
            (
                voices,
                pool.submit(claimed, voices, text, [c.words for c in CLAIMS if c.text is text], args.claims),
            )
            for voices in CLAIM_VOICES
            for text in texts
        ]
        for (voices, auc), future in of_cells:
            found = future.result()
            figures = (found.get(name) for name in ("auc", "auc_width", "eer", "eer_width"))
            table.append((str(voices), f"{auc:g}", *("none" if x is None else f"{x:.3f}" for x in figures)))
            results["intervals"].append({"clips": str(voices), "true_auc": auc} | found)
            print("  ".join(table[-1]), flush=True)
        print(f"\n{aligned(table)}\n\n{args.sets} sets a line\n", flush=True)
        kinds = ("auc", "eer", "separate_auc", "separate_eer")
        table = [("clips of each class", "AUCs", "same clips: AUC", "EER", "others: AUC", "EER")]
        for (voices, aucs), future in of_pairs:
            found = future.result()
            shown = (f"{found[kind]:.3f}" if kind in found else "none" for kind in kinds)
            table.append((str(voices), "{:g}, {:g}".format(*aucs), *shown))
            results["differences"].append({"clips": str(voices), "true_aucs": aucs} | found)
            print("  ".join(table[-1]), flush=True)
        print(f"\n{aligned(table)}\n\n{args.sets} sets a line\n", flush=True)
        of_windows = {
            n: [pool.submit(mixed, n, is_true, args.claims) for is_true in (False, True)] for n in WINDOWS
        }
        of_sure = {
            (clips, spreads): pool.submit(wrong_if_sure, clips, spreads, max(1, args.claims // 10))
            for clips in CALIBRATED_ON
            for spreads in SPREADS
        }
        shares = {
            (str(voices), words): share
            for voices, future in of_claims
            for words, share in future.result().items()
        }
    table = [("sentence", "true where", *(f"{voices}: false, true" for voices in CLAIM_VOICES))]
    for claim in CLAIMS:
        of_claim = [shares[str(voices), claim.words] for voices in CLAIM_VOICES]
        results["claims"].append(
            {"words": claim.words, "shares": dict(zip(map(str, CLAIM_VOICES), of_claim, strict=True))}
        )
        table.append(
            (claim.words, claim.alternative, *(f"{false:.3f}, {true:.2f}" for false, true in of_claim))
        )
    print(f"{aligned(table)}\n\n{args.claims} sets a figure\n")
    table = [("windows of a recording", "called mixed, of one voice", "a third of it by another")]
    for windows, futures in of_windows.items():
        of_one, of_two = (future.result() for future in futures)
        table.append((str(windows), f"{of_one:.3f}", f"{of_two:.2f}"))
        results["mixed"].append({"windows": windows, "one_voice": of_one, "two_voices": of_two})
    print(f"{aligned(table)}\n")
    table = [("calibrated on clips of each class", "spread of fake, real", "wrong if sure", "sure")]
    for (clips, spreads), future in of_sure.items():
        wrong, sure = future.result()
        table.append((str(clips), "{:g}, {:g}".format(*spreads), f"{wrong:.3f}", f"{sure:.2f}"))
        results["sure"].append({"clips": clips, "spreads": spreads, "wrong": wrong, "sure": sure})
    print(aligned(table))
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
