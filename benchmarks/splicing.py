"""How well windows find a synthetic stretch in a real recording.

    python benchmarks/splicing.py                                       # the bundled samples, the stand-in
    python benchmarks/splicing.py --data my_folder --checkpoint LA_model.pth

A recording is made of clips of one person, joined, with a stretch of one synthesis system's clips between two
of them. Its windows are scored, and the AUC is the chance that one without any synthetic sample has a higher
margin (more likely real) than one whose middle is synthetic. Its interval resamples whole recordings, which
share clips, people and systems: it is narrower than the truth.

Who speaks is what a list of labels tells (speaker), else the file's name without the number at its end.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from antispoofing import metrics, project
from antispoofing.commands import tasks
from antispoofing.data.recordings import Utterance, find_recordings
from antispoofing.detectors.loading import load_detector
from antispoofing.detectors.packed import for_scoring
from antispoofing.scoring.decision import Rule
from antispoofing.scoring.score import score_windows
from antispoofing.scoring.timeline import Timeline
from data_utils import load_audio


@dataclass(frozen=True)
class Spliced:
    """A recording: its samples, and from which on to which the synthetic stretch is."""

    wave: np.ndarray
    start: int
    end: int

    def synthetic(self, timeline: Timeline, sample_rate: int) -> tuple[np.ndarray, np.ndarray]:
        """Which windows [n] have a synthetic middle, and which have no synthetic sample."""
        starts, ends = timeline.starts * sample_rate, timeline.ends * sample_rate
        middles = (starts + ends) / 2
        return (middles >= self.start) & (middles < self.end), (ends <= self.start) | (starts >= self.end)


def voice(utterance: Utterance) -> str:
    told = utterance.columns.get("speaker")
    return told or re.sub(r"[-_ ]*\d+$", "", PurePosixPath(utterance.name).stem)


def clips_of(utterances: list[Utterance], label: str, sample_rate: int) -> dict[str, list[np.ndarray]]:
    clips = defaultdict(list)
    for utterance in utterances:
        if utterance.label == label:
            clips[voice(utterance)].append(load_audio(utterance.path, sample_rate))
    return clips


def draw(clips: list[np.ndarray], n_samples: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Different clips, in random order, two or more, of at least so many samples; or all there are."""
    drawn: list[np.ndarray] = []
    for i in rng.permutation(len(clips)):
        if len(drawn) > 1 and sum(map(len, drawn)) >= n_samples:
            break
        drawn.append(clips[i])
    return drawn


def splice(
    people: dict[str, list[np.ndarray]],
    systems: dict[str, list[np.ndarray]],
    n_samples: int,
    n_spliced: int,
    rng: np.random.Generator,
) -> Spliced:
    """A recording of a random person with a stretch of a random system, cut to length, between two clips."""
    person, system = rng.choice(sorted(people)), rng.choice(sorted(systems))
    real = draw(people[person], n_samples, rng)
    fake = np.concatenate(draw(systems[system], n_spliced, rng))[:n_spliced]
    at = rng.integers(1, len(real))
    before = np.concatenate(real[:at])
    return Spliced(np.concatenate([before, fake, *real[at:]]), len(before), len(before) + len(fake))


def auc_by_recording(inside: list[np.ndarray], outside: list[np.ndarray], seed: int) -> tuple[float, ...]:
    """AUC of all windows, and its 95 % percentile interval over resampled recordings.

    A resample without windows of one kind says nothing and is passed over.
    """

    def auc(chosen: np.ndarray) -> float:
        synthetic, real = (np.concatenate([scores[i] for i in chosen]) for scores in (inside, outside))
        if len(synthetic) == 0 or len(real) == 0:
            return np.nan
        return metrics.compute_metrics(real, synthetic)["auc"]

    rng = np.random.default_rng(seed)
    resampled = [auc(rng.integers(0, len(inside), len(inside))) for _ in range(metrics.N_RESAMPLES)]
    return auc(np.arange(len(inside))), *np.nanquantile(resampled, [0.025, 0.975])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", nargs="+", default=[project.SAMPLES / "custom"], metavar="PATH")
    parser.add_argument("--checkpoint", type=Path, default=tasks.STAND_IN, metavar="PATH")
    parser.add_argument("--recordings", type=int, default=100, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=20, help="of person (default: %(default)s)")
    parser.add_argument(
        "--stretches", type=float, nargs="+", default=[2, 4, 8], help="seconds of machine (default: 2 4 8)"
    )
    parser.add_argument("--hop", type=float, help="seconds (default: half a window)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    detector = for_scoring(load_detector(args.checkpoint))
    rule, rate = Rule.from_detector(detector), detector.config.sample_rate
    utterances = find_recordings(args.data).utterances
    people, systems = (clips_of(utterances, label, rate) for label in ("bonafide", "spoof"))
    print(f"{len(people)} people, {len(systems)} systems or voices of them; detector {args.checkpoint.name}")
    people = {name: clips for name, clips in people.items() if len(clips) > 1}
    for seconds in args.stretches:
        if min(sum(map(len, clips)) for clips in systems.values()) < seconds * rate:
            sys.exit(f"a stretch of {seconds:g} s: not every system has as much")
        rng = np.random.default_rng(args.seed)
        inside, outside, found = [], [], 0
        for _ in tqdm(range(args.recordings), unit="recording", disable=None, leave=False):
            made = splice(people, systems, round(args.seconds * rate), round(seconds * rate), rng)
            timeline = score_windows(detector, made.wave, rule, args.hop)
            synthetic, real = made.synthetic(timeline, rate)
            inside.append(timeline.margins[synthetic])
            outside.append(timeline.margins[real])
            found += not real[timeline.margins.argmin()]
        counts = sum(map(len, inside)), sum(map(len, outside))
        if 0 in counts:
            sys.exit(
                f"a stretch of {seconds:g} s: of {counts[0]} synthetic and {counts[1]} real windows no AUC"
            )
        auc, low, high = auc_by_recording(inside, outside, args.seed)
        print(
            f"a stretch of {seconds:g} s in each of {args.recordings} recordings: AUC of windows {auc:.3f} "
            f"[{low:.3f}, {high:.3f}] ({counts[0]} with a synthetic middle, {counts[1]} real); the most "
            f"suspicious window is on the stretch in {found} of {args.recordings}"
        )


if __name__ == "__main__":
    main()
