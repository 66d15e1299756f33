"""Measure how fast detectors of each family score, compared with the plain modules that they consist of.

    python benchmarks/families.py
    python benchmarks/families.py --families spectra-0 raw-aasist --precisions fp32 --json families.json

Each family has its full size and random weights, and computes clips of noise from memory: in its plain form
(the front end by transformers' modules, the rest by PyTorch's, in fp32, one clip at a time), and as the
scripts score them, in each precision. In every round each way scores the same clips in turn. Figures are
medians over the rounds, and ratios are taken within a round. Random weights take the same time as others.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).resolve().parent  # not on the path, since coverage.py would hide the package coverage
sys.path[:] = [str(HERE.parent), *(path for path in sys.path if Path(path).resolve() != HERE)]

from antispoofing import text
from antispoofing.detectors import layers
from antispoofing.detectors.families import FAMILIES, by_head
from antispoofing.detectors.heads import raw_aasist
from antispoofing.detectors.loading import for_scoring
from antispoofing.scoring.score import score_waves
from benchmarks.throughput import machine, ratio
from data_utils import CLIP_SAMPLES
from model import Detector, DetectorConfig, XLSRConfig

PLAIN = "plain"
PRECISIONS = ("fp32", "bf16", "int8")
HEADS = {family.head: family.name for family in FAMILIES}
SIZES = {"hugging-face": {"projection": 256, "real": 1}}  # of back ends that have no usual ones
TOY = XLSRConfig(32, 64, 2, 4, 128, 16, 4)


def build(head: str, precision: str, toy: bool) -> Detector:
    """Return a detector of a family, with random weights."""
    torch.manual_seed(0)
    family = by_head(head)
    front_end = family.front_end_config()
    config = DetectorConfig(
        TOY if toy and isinstance(front_end, XLSRConfig) else front_end,
        head=head,
        head_sizes=SIZES.get(head, {}),
        **family.settings,
    )
    back_end = family.build(config.front_end.width, **config.head_sizes)
    return Detector(config, precision, back_end=back_end).eval()


def plainly(detector: Detector, waves: list[np.ndarray]) -> None:
    """Score waves one at a time, without what makes heads faster on a CPU."""
    pieces = raw_aasist.PIECE, layers.ROWS
    raw_aasist.PIECE, layers.ROWS = CLIP_SAMPLES * 3, 2**30  # more than there are
    try:
        for wave in waves:
            detector.score(torch.from_numpy(detector.config.prepare(wave))[None])
    finally:
        raw_aasist.PIECE, layers.ROWS = pieces


def measure(args: argparse.Namespace, head: str) -> dict:
    """Measure one family; return the figures of each way."""
    rng = np.random.default_rng(0)
    waves = [0.1 * rng.standard_normal(CLIP_SAMPLES, np.float32) for _ in range(args.clips)]
    plain = build(head, "fp32", args.toy)
    ways: dict[str, Callable[[], object]] = {PLAIN: lambda: plainly(plain, waves)}
    for precision in args.precisions if plain.is_xlsr else PRECISIONS[:1]:
        fast = for_scoring(build(head, precision, args.toy))
        ways[precision] = lambda detector=fast: score_waves(detector, waves)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(args.rounds + 1):  # the first warms up
        for way, work in ways.items():
            started = time.perf_counter()
            work()
            if number:
                seconds[way].append(time.perf_counter() - started)
    return {
        way: {
            "clips_per_second": len(waves) / statistics.median(times),
            "against_plain": ratio(seconds[PLAIN], times),
        }
        for way, times in seconds.items()
    }


def table(result: dict) -> str:
    """Return the figures as text."""
    rows = [("family", "way", "clips/s", "ratio to plain")]
    for head, ways in result["families"].items():
        for way, entry in ways.items():
            against = entry["against_plain"]
            times = f"{against['median']:.2f} ({against['lowest']:.2f} to {against['highest']:.2f})"
            rows.append((HEADS[head], way, f"{entry['clips_per_second']:.2f}", times))
    about = (
        f"{result['machine']['processor']}, threads: {result['machine']['threads']}, torch "
        f"{result['machine']['torch']}; clips: {result['clips']}, rounds: {result['rounds']}"
    )
    return f"{about}\n\n{text.aligned(rows)}"


def main() -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--families", nargs="+", choices=HEADS, default=list(HEADS), help="families (default: all)"
    )
    parser.add_argument(
        "--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS, help="precisions (default: all)"
    )
    parser.add_argument("--clips", type=int, default=8, help="clips to score (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds to time (default: %(default)s)")
    parser.add_argument("--toy", action="store_true", help="with a front end of toy size, to try this out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures to this file")
    args = parser.parse_args()
    families = {}
    for head in args.families:
        families[head] = measure(args, head)
        print(f"{head}: done", file=sys.stderr)
    result = {"machine": machine(), "clips": args.clips, "rounds": args.rounds, "families": families}
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(table(result))


if __name__ == "__main__":
    main()
