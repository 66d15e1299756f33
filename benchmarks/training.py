"""Measure the time and memory of a step of fine-tuning, compared with the original way.

    python benchmarks/training.py                      # XLS-R 300M with random weights, batches of 4
    python benchmarks/training.py --checkpoint LA_model.pth --rounds 3 --json training.json

The original way is fairseq (transformers if fairseq is not installed) in fp32, with Adam on all weights. In
every round each way runs in a fresh process, one after the other, on the same noise: a step to warm up, and
then the steps that are timed. Figures are medians over the rounds, and ratios are taken within a round.
Memory is the process's peak (on Linux). What a way keeps for its backward pass is that peak minus the
weights, the gradients and the optimizer's state, and minus what Python and its libraries take before that.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch.nn import functional as F

HERE = Path(__file__).resolve().parent  # not on the path, since coverage.py would hide the package coverage
sys.path[:] = [str(HERE.parent), *(path for path in sys.path if Path(path).resolve() != HERE)]

from antispoofing import text
from antispoofing.detectors.loading import load_detector
from antispoofing.training.recipe import TrainingConfig
from antispoofing.training.step import MicroBatch, Optimization
from benchmarks.throughput import machine, peak_memory_gb, random_detector, ratio

ORIGINAL = "original"
BASE = TrainingConfig()
WAYS = {  # the precision and the recipe of each way
    ORIGINAL: ("fp32", BASE),
    "fp32": ("fp32", BASE),
    "bf16": ("bf16", BASE),
    "fp32, checkpointing": ("fp32", dataclasses.replace(BASE, gradient_checkpointing=True)),
    "bf16, checkpointing": ("bf16", dataclasses.replace(BASE, gradient_checkpointing=True)),
    "fp32, LoRA, checkpointing": ("fp32", dataclasses.replace(BASE, gradient_checkpointing=True, lora=8)),
    "bf16, LoRA, checkpointing": ("bf16", dataclasses.replace(BASE, gradient_checkpointing=True, lora=8)),
}


@dataclass(frozen=True)
class Measured:
    """The measurements of one process.

    Attributes:
        seconds: The median time of a step, in seconds.
        peak_gb: The process's peak memory, in GB.
        state_gb: The weights, the gradients and the optimizer's state, in GB.
        libraries_gb: Python and its libraries, in GB.
    """

    seconds: float
    peak_gb: float
    state_gb: float
    libraries_gb: float

    @property
    def kept_gb(self) -> float:
        """What is kept for the backward pass, in GB."""
        return self.peak_gb - self.state_gb - self.libraries_gb


def measure(way: str, checkpoint: Path, batch_size: int, steps: int) -> Measured:
    """Measure steps of a way in a fresh process."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as fresh:
        return fresh.submit(_take_steps, way, checkpoint, batch_size, steps).result()


def _take_steps(way: str, checkpoint: Path, batch_size: int, steps: int) -> Measured:
    precision, config = WAYS[way]
    libraries = peak_memory_gb()
    detector = load_detector(checkpoint, device="cpu", precision=precision)
    if way == ORIGINAL and detector.has_official_names and find_spec("fairseq"):
        del detector  # so that memory never holds both
        detector = load_detector(checkpoint, device="cpu", engine="fairseq")
    torch.manual_seed(0)
    waves = 0.1 * torch.randn(batch_size, detector.config.clip_samples)
    targets = torch.arange(batch_size) % 2
    if way == ORIGINAL:
        optimizer = torch.optim.Adam([p for p in detector.parameters() if p.requires_grad], lr=1e-6)
        detector.train()

        def step(number: int) -> None:
            optimizer.zero_grad()
            F.cross_entropy(detector(waves), targets).backward()
            optimizer.step()

    else:
        optimization = Optimization(detector, config)
        optimizer = optimization.optimizer
        optimization.train_mode()
        part = MicroBatch(waves, targets, [str(i) for i in range(batch_size)])

        def step(number: int) -> None:
            optimization.step([part], 1, number, 1e-6)

    times = []
    for number in range(steps + 1):
        started = time.perf_counter()
        step(number)
        times.append(time.perf_counter() - started)
    tensors = [*detector.parameters(), *(p.grad for p in detector.parameters() if p.grad is not None)]
    tensors += [v for values in optimizer.state.values() for v in values.values()]
    state = sum(tensor.nbytes for tensor in tensors) / 1e9
    return Measured(statistics.median(times[1:]), peak_memory_gb(), state, libraries)


def figures(measured: dict[str, list[Measured]]) -> dict[str, dict]:
    """Return the figures of each way, with its ratios to other ways in the same rounds."""
    result = {}
    for way, rounds in measured.items():
        kept = [m.kept_gb for m in rounds]
        entry = {
            "seconds_per_step": statistics.median(m.seconds for m in rounds),
            "time_of_original": ratio([m.seconds for m in rounds], [m.seconds for m in measured[ORIGINAL]]),
            "kept_of_original": ratio(kept, [m.kept_gb for m in measured[ORIGINAL]]),
            "peak_gb": statistics.median(m.peak_gb for m in rounds),
            "state_gb": statistics.median(m.state_gb for m in rounds),
            "kept_gb": statistics.median(kept),
        }
        full = measured.get(way.partition(",")[0])
        if "," in way and full:
            entry["peak_of_full"] = ratio([m.peak_gb for m in rounds], [m.peak_gb for m in full])
            entry["kept_of_full"] = ratio(kept, [m.kept_gb for m in full])
        result[way] = entry
    return result


def table(result: dict) -> str:
    """Return the figures as text."""
    rows = [
        (
            "way",
            "s/step",
            "ratio to original",
            "peak GB",
            "state GB",
            "kept GB",
            "peak, ratio to full",
            "kept, ratio to full",
        )
    ]
    for way, entry in result["ways"].items():
        time_ratio = entry["time_of_original"]
        row = (way, f"{entry['seconds_per_step']:.2f}")
        row += (f"{time_ratio['median']:.2f} ({time_ratio['lowest']:.2f} to {time_ratio['highest']:.2f})",)
        row += tuple(f"{entry[name]:.2f}" for name in ("peak_gb", "state_gb", "kept_gb"))
        row += tuple(
            f"{entry[name]['median']:.2f}" if name in entry else ""
            for name in ("peak_of_full", "kept_of_full")
        )
        rows.append(row)
    about = result["machine"]
    return (
        f"{about['processor']}, threads: {about['threads']}, torch {about['torch']}; batches of "
        f"{result['batch_size']}\n"
        f"figures are medians; rounds: {result['rounds']}; steps in each: {result['steps']}\n"
        f"original: {result['original']}, fp32; full: the same precision without checkpointing or LoRA\n\n"
        f"{text.aligned(rows)}"
    )


def main() -> None:
    """Measure every way in every round, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="PATH",
        help="detector file (default: XLS-R 300M + AASIST with random weights)",
    )
    parser.add_argument("--batch-size", type=int, default=4, help="clips in a batch (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds to time (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=2, help="steps to time in each (default: %(default)s)")
    parser.add_argument(
        "--ways", nargs="+", choices=WAYS, default=list(WAYS), help="ways to measure (default: all)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures to this file")
    args = parser.parse_args()
    ways = list(dict.fromkeys([ORIGINAL, *args.ways]))
    measured: dict[str, list[Measured]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = args.checkpoint or random_detector(Path(folder))
        for number in range(1, args.rounds + 1):
            for way in ways:
                measured[way].append(measure(way, checkpoint, args.batch_size, args.steps))
                print(f"round {number}: {way} {measured[way][-1]}", file=sys.stderr)
    has_fairseq = load_detector(checkpoint).has_official_names if args.checkpoint else True
    result = {
        "machine": machine(),
        "batch_size": args.batch_size,
        "rounds": args.rounds,
        "steps": args.steps,
        "original": "fairseq" if has_fairseq and find_spec("fairseq") else "this network",
        "ways": figures(measured),
    }
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(table(result))


if __name__ == "__main__":
    main()
