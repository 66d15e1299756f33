"""Measure how long the audit for duplicates takes, compared with decoding the recordings once.

    python benchmarks/audit.py                  # 10,000 clips of noise, wav and flac, 2 s each
    python benchmarks/audit.py --data my_folder

Each round decodes every recording as the audit does, and then runs the audit; both use one thread.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

HERE = Path(__file__).resolve().parent  # not on the path, since coverage.py would hide the package coverage
sys.path[:] = [str(HERE.parent), *(path for path in sys.path if Path(path).resolve() != HERE)]

from antispoofing.data import duplicates
from antispoofing.data.recordings import Utterance, find_recordings
from data_utils import open_audio


def write_clips(folder: Path, n: int) -> None:
    """Write n clips of noise, each 2 s at 16 kHz, alternately as wav and flac."""
    rng = np.random.default_rng(0)
    for i in tqdm(range(n), desc="writing", disable=None):
        samples = (3000 * rng.standard_normal(32000)).astype(np.int16)
        soundfile.write(folder / f"{i}.{('wav', 'flac')[i % 2]}", samples, 16000)


def decode(utterances: list[Utterance]) -> None:
    """Decode as much of each recording as the audit does."""
    for utterance in utterances:
        with open_audio(utterance.path) as file:
            file.read(0, duplicates.DECODED_SECONDS * file.info.sample_rate)


def main() -> None:
    """Time both in turn, and print the medians and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--data", nargs="+", metavar="PATH", help="recordings to audit (default: clips of noise)"
    )
    parser.add_argument(
        "--clips", type=int, default=10000, help="clips of noise to make (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds to time (default: %(default)s)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if not args.data:
            write_clips(Path(folder), args.clips)
        utterances = find_recordings(args.data or [folder]).utterances
        seconds: dict[str, list[float]] = {"decoding once": [], "audit": []}
        for number in range(args.rounds + 1):
            for name, work in (
                ("decoding once", lambda: decode(utterances)),
                ("audit", lambda: duplicates.find_duplicates({"": utterances}, threads=1)),
            ):
                started = time.perf_counter()
                work()
                if number:  # the first round fills the disk cache
                    seconds[name].append(time.perf_counter() - started)
    for name, values in seconds.items():
        print(f"{name}: median {statistics.median(values):.2f} s (recordings: {len(utterances)})")
    ratios = [b / a for a, b in zip(*seconds.values(), strict=True)]
    print(f"ratio: median {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
