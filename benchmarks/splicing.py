"""Measure how well a detector's windows find a synthetic stretch in a real recording.

    python benchmarks/splicing.py                         # the bundled samples and the stand-in detector
    python benchmarks/splicing.py --data my_folder --checkpoint LA_model.pth

Each recording is made by joining clips of one person and inserting a stretch of one synthetic voice between
two of them. Its windows are scored, and the AUC is the chance that a window without any synthetic sample has
a higher margin (more likely real) than one whose middle is synthetic. The interval allows for windows of the
same recording, but recordings share clips, people and synthetic voices, so it is too narrow.

A clip's voice is the speaker that a list of labels names, or else the file's name without its final number.
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

HERE = Path(__file__).resolve().parent  # not on the path, since coverage.py would hide the package coverage
sys.path[:] = [str(HERE.parent), *(path for path in sys.path if Path(path).resolve() != HERE)]

from antispoofing import metrics, project, uncertainty
from antispoofing.commands import tasks
from antispoofing.data.recordings import Utterance, find_recordings
from antispoofing.detectors.loading import for_scoring, load_detector
from antispoofing.scoring.decision import Rule
from antispoofing.scoring.score import score_windows
from antispoofing.scoring.timeline import Timeline
from antispoofing.text import auc_text
from data_utils import load_audio


@dataclass(frozen=True)
class Spliced:
    """A recording with a synthetic stretch.

    Attributes:
        wave: float32 [n], the samples.
        start: The index of the first synthetic sample.
        end: The index after the last synthetic sample.
    """

    wave: np.ndarray
    start: int
    end: int

    def synthetic(self, timeline: Timeline, sample_rate: int) -> tuple[np.ndarray, np.ndarray]:
        """Return two masks [n] of windows: those with a synthetic middle, and those entirely real."""
        starts, ends = timeline.starts * sample_rate, timeline.ends * sample_rate
        middles = (starts + ends) / 2
        return (middles >= self.start) & (middles < self.end), (ends <= self.start) | (starts >= self.end)


def voice(utterance: Utterance) -> str:
    """Return the name of the voice in a clip."""
    speaker = utterance.columns.get("speaker")
    return speaker or re.sub(r"[-_ ]*\d+$", "", PurePosixPath(utterance.name).stem)


def clips_of(utterances: list[Utterance], label: str, sample_rate: int) -> dict[str, list[np.ndarray]]:
    """Load the clips with this label, by voice."""
    clips = defaultdict(list)
    for utterance in utterances:
        if utterance.label == label:
            clips[voice(utterance)].append(load_audio(utterance.path, sample_rate))
    return clips


def draw(clips: list[np.ndarray], n_samples: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Draw clips in random order, at least two, until they have n_samples together or none is left."""
    drawn: list[np.ndarray] = []
    for i in rng.permutation(len(clips)):
        if len(drawn) > 1 and sum(map(len, drawn)) >= n_samples:
            break
        drawn.append(clips[i])
    return drawn


def splice(
    people: dict[str, list[np.ndarray]],
    synthetic_voices: dict[str, list[np.ndarray]],
    n_samples: int,
    n_spliced: int,
    rng: np.random.Generator,
) -> Spliced:
    """Make a recording of a random person, with a stretch of a random synthetic voice between two clips.

    Args:
        people: The real clips of each person, at least two.
        synthetic_voices: The clips of each synthetic voice.
        n_samples: The least length of the real part, if there are enough clips.
        n_spliced: The exact length of the stretch, for which each synthetic voice must have enough clips.
        rng: The source of randomness.
    """
    person, synthetic_voice = rng.choice(sorted(people)), rng.choice(sorted(synthetic_voices))
    real = draw(people[person], n_samples, rng)
    fake = np.concatenate(draw(synthetic_voices[synthetic_voice], n_spliced, rng))[:n_spliced]
    at = rng.integers(1, len(real))
    before = np.concatenate(real[:at])
    return Spliced(np.concatenate([before, fake, *real[at:]]), len(before), len(before) + len(fake))


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--data",
        nargs="+",
        default=[project.SAMPLES / "custom"],
        metavar="PATH",
        help="labelled recordings (default: the bundled samples)",
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        default=tasks.STAND_IN,
        metavar="PATH",
        help="detector file (default: the stand-in)",
    )
    parser.add_argument(
        "--recordings",
        type=int,
        default=100,
        help="recordings for each length of stretch (default: %(default)s)",
    )
    parser.add_argument(
        "--seconds", type=float, default=20, help="real speech in each recording (default: %(default)s)"
    )
    parser.add_argument(
        "--stretches",
        type=float,
        nargs="+",
        default=[2, 4, 8],
        metavar="SECONDS",
        help="lengths of the synthetic stretch (default: 2 4 8)",
    )
    parser.add_argument(
        "--hop", type=float, metavar="SECONDS", help="from one window to the next (default: half a window)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of all random choices (default: %(default)s)"
    )
    return parser.parse_args()


def main() -> None:
    """Make recordings with stretches of each length, score them, and print the AUC of their windows."""
    args = parse_args()
    detector = for_scoring(load_detector(args.checkpoint))
    rule, rate = Rule.from_detector(detector), detector.config.sample_rate
    utterances = find_recordings(args.data).utterances
    people, synthetic_voices = (clips_of(utterances, label, rate) for label in ("bonafide", "spoof"))
    print(
        f"people: {len(people)}; synthetic voices: {len(synthetic_voices)}; detector: {args.checkpoint.name}"
    )
    people = {name: clips for name, clips in people.items() if len(clips) > 1}
    for seconds in args.stretches:
        if min(sum(map(len, clips)) for clips in synthetic_voices.values()) < seconds * rate:
            sys.exit(f"a stretch of {seconds:g} s is too long: a synthetic voice has fewer seconds of clips")
        rng = np.random.default_rng(args.seed)
        inside, outside, found = [], [], 0
        for _ in tqdm(range(args.recordings), unit="recording", disable=None, leave=False):
            made = splice(people, synthetic_voices, round(args.seconds * rate), round(seconds * rate), rng)
            timeline = score_windows(detector, made.wave, rule, args.hop)
            synthetic, real = made.synthetic(timeline, rate)
            inside.append(timeline.margins[synthetic])
            outside.append(timeline.margins[real])
            found += not real[timeline.margins.argmin()]
        counts = sum(map(len, inside)), sum(map(len, outside))
        if 0 in counts:
            sys.exit(
                f"a stretch of {seconds:g} s: no AUC, since there are {counts[0]} windows with a synthetic "
                f"middle and {counts[1]} real ones; make more recordings, or choose a shorter --hop"
            )
        scores = np.concatenate(outside), np.concatenate(inside)
        of_recordings = tuple(
            np.repeat(np.arange(len(of)), [len(windows) for windows in of]) for of in (outside, inside)
        )
        interval = uncertainty.intervals(*scores, of_recordings)["auc"]
        auc = auc_text(metrics.compute_auc(*scores), interval)
        print(
            f"a stretch of {seconds:g} s: AUC of windows {auc} ({counts[0]} with a synthetic middle, "
            f"{counts[1]} real); the most suspicious window overlaps the stretch in {found} of "
            f"{args.recordings} recordings"
        )


if __name__ == "__main__":
    main()
