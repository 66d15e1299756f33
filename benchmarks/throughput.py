"""Measure how fast recordings are scored, compared with the original way and with the machine's peak.

    python benchmarks/throughput.py                  # XLS-R 300M with random weights, on clips of noise
    python benchmarks/throughput.py --checkpoint LA_model.pth --data my_folder --json throughput.json

The original way is fairseq (transformers if fairseq is not installed) in fp32; librosa decodes each recording
whole, and one clip is scored at a time. In every round each way scores the same clips in turn. Figures are
medians over the rounds, and ratios are taken within a round. The machine's peak is its fastest matrix product
of several that occur in the 300M network, and is measured in each round. The fraction of the peak is that of
the network alone, which computes batches of four clips in memory, two batches for each core.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

HERE = Path(__file__).resolve().parent  # not on the path, since coverage.py would hide the package coverage
sys.path[:] = [str(HERE.parent), *(path for path in sys.path if Path(path).resolve() != HERE)]

from antispoofing import text
from antispoofing.data.recordings import Utterance, find_recordings
from antispoofing.detectors.loading import for_scoring, load_detector, save_detector
from antispoofing.detectors.packed import Int8Linear, Linear
from antispoofing.report.comparison import compare
from antispoofing.scoring.clusters import find_clusters
from antispoofing.scoring.score import parallel_batches, score_recordings
from antispoofing.scoring.scored import Scored
from antispoofing.text import with_interval
from data_utils import CLIP_SAMPLES, SAMPLE_RATE, load_audio, pad
from model import Detector

SCRIPT = Path(__file__).resolve().parents[1] / "evaluate_custom.py"
ORIGINAL = "original"
PRECISIONS = ("fp32", "bf16", "int8")
# Rows, inputs and outputs of matrix products in XLS-R 300M: the transformer's for one clip and for four, and
# one of a convolution.
SIZES = ((1024, 1024), (1024, 3072), (1024, 4096), (4096, 1024))
SHAPES = (*((rows, *sizes) for rows in (201, 804) for sizes in SIZES), (6459, 1536, 512))
DRIFT_CLIPS = 8  # how many clips' features are compared between precisions


def load(way: str, checkpoint: Path) -> Detector:
    """Load the detector as a way needs it: the original, or one of PRECISIONS."""
    if way != ORIGINAL:
        return for_scoring(load_detector(checkpoint, device="cpu", precision=way))
    plain = load_detector(checkpoint, device="cpu")
    if not plain.has_official_names or find_spec("fairseq") is None:
        return plain
    return load_detector(checkpoint, device="cpu", engine="fairseq")


def score(way: str, detector: Detector, utterances: list[Utterance], workers: int | None) -> Scored:
    """Score recordings as the scripts do, or in the original way."""
    if way != ORIGINAL:
        return score_recordings(detector, utterances, workers=workers)
    logits = np.full((len(utterances), 2), np.nan)
    with torch.inference_mode():
        for i, utterance in enumerate(utterances):
            wave = pad(_whole_by_librosa(utterance.path))
            logits[i] = detector(torch.from_numpy(wave)[None])[0].numpy()
    return Scored(utterances, logits, {})


def _whole_by_librosa(path: str | Path) -> np.ndarray:
    import librosa

    return librosa.load(path, sr=SAMPLE_RATE)[0]


def seconds(work: Callable, *args) -> float:
    """Return how many seconds a call takes."""
    started = time.perf_counter()
    work(*args)
    return time.perf_counter() - started


@torch.inference_mode()
def matrix_peak(precision: str, repeats: int = 5) -> float:
    """Return the GFLOP/s of the fastest matrix product.

    The products have the sizes in SHAPES, and are computed by PyTorch's linear layer and by the packed one.
    """
    best = 0.0
    for rows, inputs, outputs in SHAPES:
        layer, x = torch.nn.Linear(inputs, outputs), torch.randn(1, rows, inputs)
        if precision == "int8":
            layers = [Int8Linear(layer.weight, layer.bias)]
        else:
            dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
            layer, x = layer.to(dtype), x.to(dtype)
            layers = [layer, Linear(layer.weight, layer.bias, dtype)]
        for product in layers:
            product(x)
            median = statistics.median(seconds(product, x) for _ in range(repeats))
            best = max(best, 2e-9 * rows * inputs * outputs / median)
    return best


def network_seconds(detector: Detector, clips: int = 4, repeats: int = 3) -> float:
    """Return the seconds that the network takes for a clip, with two batches in memory for each core."""
    waves = 0.1 * torch.randn(clips, detector.config.clip_samples)
    with parallel_batches(detector) as (compute, streams):

        def on_all_cores() -> None:
            for _ in compute((None, waves) for _ in range(2 * streams)):
                pass

        return statistics.median(seconds(on_all_cores) for _ in range(repeats)) / (2 * clips * streams)


def gflop_per_clip(detector: Detector) -> float:
    """Return the GFLOP of matrix products, convolutions and attention that a clip takes."""
    # Attention is computed as plain products, since the counter misses a CPU's fused one; inference_mode
    # breaks the counter.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        detector(torch.zeros(1, detector.config.clip_samples))
    return counter.get_total_flops() / 1e9


def peak_memory(way: str, checkpoint: Path, utterances: list[Utterance], workers: int | None) -> float:
    """Return the peak memory, in GB, of a fresh process that loads the detector and scores (on Linux).

    Its worker processes are not counted.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as fresh:
        return fresh.submit(_load_and_score, way, checkpoint, utterances, workers).result()


def _load_and_score(way: str, checkpoint: Path, utterances: list[Utterance], workers: int | None) -> float:
    score(way, load(way, checkpoint), utterances, workers)
    return peak_memory_gb()


def peak_memory_gb() -> float:
    """Return the peak memory of this process so far, in GB (on Linux)."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")  # getrusage may report its parent's peak
    return 1024e-9 * int(re.search(r"VmHWM:\s*(\d+) kB", status)[1])


def command_seconds(precision: str, checkpoint: Path, recording: str | Path, output: Path) -> float:
    """Return the seconds that evaluate_custom.py takes for one recording, from start to end."""
    script = [sys.executable, str(SCRIPT), "--device", "cpu", "--precision", precision]
    options = ["--data", recording, "--checkpoint", checkpoint, "--output", output]
    started = time.perf_counter()
    subprocess.run([*script, *map(str, options)], check=True, capture_output=True)
    return time.perf_counter() - started


def decoding(folder: Path, rounds: int) -> dict[str, dict]:
    """Measure decoding on one core: the clip's part of a file here, and the whole file by librosa.

    Returns:
        By kind of file, the clips per second of each, and the ratio.
    """
    result = {}
    rng = np.random.default_rng(0)
    for length, rate, suffix in ((4, 16000, "flac"), (600, 16000, "flac"), (600, 44100, "mp3")):
        path = folder / f"{length}s-{rate}.{suffix}"
        soundfile.write(path, 0.1 * rng.standard_normal(length * rate), rate)
        times = {"librosa": [], "here": []}
        for number in range(rounds + 1):
            whole = seconds(_whole_by_librosa, path)
            part = statistics.median(seconds(load_audio, path, SAMPLE_RATE, CLIP_SAMPLES) for _ in range(9))
            if number:  # the first round fills the disk cache
                times["librosa"].append(whole)
                times["here"].append(part)
        result[f"{length} s, {suffix}, {rate} Hz"] = {
            name: {"clips_per_second": 1 / statistics.median(values)} for name, values in times.items()
        } | {"ratio": ratio(times["librosa"], times["here"])}
        path.unlink()
    return result


def ratio(a: list[float], b: list[float]) -> dict[str, float]:
    """Return the median, lowest and highest of the ratios a / b, one for each round."""
    ratios = [x / y for x, y in zip(a, b, strict=True)]
    return {"median": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios)}


def drift(exact: Detector, lower: Detector, scores: tuple[Scored, Scored], waves: torch.Tensor) -> dict:
    """Measure how far a lower precision moves features, logits and, if there are labels, AUC and EER.

    Args:
        exact: The detector in fp32.
        lower: The detector in the lower precision.
        scores: The scores that each of them gave.
        waves: float32 [B, T], the clips whose features are compared.
    """
    with torch.inference_mode():
        expected, features = exact.features(waves), lower.features(waves)
    moved = np.abs(scores[1].logits - scores[0].logits)
    result = {
        "features_moved_of_mean_magnitude": float((features - expected).abs().mean() / expected.abs().mean()),
        "logits_moved": {"mean": float(np.nanmean(moved)), "most": float(np.nanmax(moved))},
        "scores_standard_deviation": float(np.nanstd(scores[0].scores)),
    }
    if {u.label for u in scores[0].utterances} >= {"bonafide", "spoof"}:
        paired = compare(*scores, find_clusters(scores[0].utterances))
        result |= {name: paired[name] for name in ("counts", "spearman", "auc", "eer")}
    return result


def make_clips(folder: Path, n: int) -> list[Utterance]:
    """Write n clips of noise, and return them as recordings."""
    rng = np.random.default_rng(0)
    for i in range(n):
        soundfile.write(folder / f"{i:04d}.flac", 0.1 * rng.standard_normal(CLIP_SAMPLES), SAMPLE_RATE)
    return find_recordings([folder]).utterances


def random_detector(folder: Path) -> Path:
    """Write an XLS-R 300M + AASIST detector with random weights, and return its path."""
    torch.manual_seed(0)
    save_detector(Detector(), folder / "random.safetensors")
    return folder / "random.safetensors"


@dataclass
class Timed:
    """The measurements of a way, a value for each round.

    Attributes:
        seconds_per_clip: From file to score.
        network_seconds: The network's seconds per clip; not measured for the original way.
        matrix_peak: The machine's peak in GFLOP/s; not measured for the original way.
        scored: The scores of the last round.
    """

    seconds_per_clip: list[float] = field(default_factory=list)
    network_seconds: list[float] = field(default_factory=list)
    matrix_peak: list[float] = field(default_factory=list)
    scored: Scored | None = None


def run_rounds(
    detectors: dict[str, Detector], utterances: list[Utterance], rounds: int, workers: int | None
) -> dict[str, Timed]:
    """Score the recordings in every way, round after round.

    Args:
        detectors: The detector of each way.
        utterances: The recordings.
        rounds: How many rounds to time, after a few clips to warm up.
        workers: How many processes decode ahead; None is what suits the device.

    Returns:
        The measurements of each way.
    """
    for way, detector in detectors.items():  # to warm up
        score(way, detector, utterances[:2], workers)
    timed = {way: Timed() for way in detectors}
    for number in range(1, rounds + 1):
        for way, detector in detectors.items():
            entry = timed[way]
            started = time.perf_counter()
            entry.scored = score(way, detector, utterances, workers)
            entry.seconds_per_clip.append((time.perf_counter() - started) / len(utterances))
            if way != ORIGINAL:
                entry.matrix_peak.append(matrix_peak(way))
                entry.network_seconds.append(network_seconds(detector))
            print(f"round {number}, {way}: {entry.seconds_per_clip[-1]:.4f} s/clip", file=sys.stderr)
    return timed


def figures(timed: dict[str, Timed], work: float) -> dict[str, dict]:
    """Return the figures of each way.

    Args:
        timed: The measurements of each way.
        work: What the network computes for a clip, in GFLOP.
    """
    result = {}
    for way, entry in timed.items():
        result[way] = {
            "clips_per_second": 1 / statistics.median(entry.seconds_per_clip),
            "against_original": ratio(timed[ORIGINAL].seconds_per_clip, entry.seconds_per_clip),
        }
        if way != ORIGINAL:
            result[way] |= {
                "network_seconds_per_clip": statistics.median(entry.network_seconds),
                "matrix_peak_gflop_per_second": statistics.median(entry.matrix_peak),
                "fraction_of_peak": ratio([work / t for t in entry.network_seconds], entry.matrix_peak),
            }
    return result


def measure(args: argparse.Namespace, folder: Path) -> dict:
    """Measure everything that the command line asks for, with a folder for temporary files."""
    checkpoint = args.checkpoint or random_detector(folder)
    (folder / "clips").mkdir()
    found = find_recordings(args.data).utterances if args.data else None
    utterances = found or make_clips(folder / "clips", args.clips)
    detectors = {way: load(way, checkpoint) for way in (ORIGINAL, *args.precisions)}
    timed = run_rounds(detectors, utterances, args.rounds, args.workers)
    plain = detectors[ORIGINAL]
    work = gflop_per_clip(plain)
    ways = figures(timed, work)
    some = [load_audio(u.path, SAMPLE_RATE, CLIP_SAMPLES) for u in utterances[:DRIFT_CLIPS]]
    waves = torch.from_numpy(np.stack([pad(wave) for wave in some]))
    for way in {"bf16", "int8"} & ways.keys() if "fp32" in ways else ():
        pair = (timed["fp32"].scored, timed[way].scored)
        ways[way]["drift"] = drift(detectors["fp32"], detectors[way], pair, waves)
    original = f"{plain.engine if plain.has_official_names else 'this network'}, fp32"
    del plain
    detectors.clear()  # the processes below need the memory
    for way in ways:
        ways[way]["peak_memory_gb"] = peak_memory(way, checkpoint, utterances, args.workers)
        if way != ORIGINAL:
            command = command_seconds(way, checkpoint, utterances[0].path, folder / "results")
            ways[way]["one_recording_command_seconds"] = command
    return {
        "machine": machine(),
        "clips": len(utterances),
        "rounds": args.rounds,
        "gflop_per_clip": work,
        "original": original,
        "ways": ways,
        "decoding": decoding(folder, args.rounds),
    }


def machine() -> dict:
    """Describe the machine that the figures were measured on."""
    return {
        "processor": torch.cpu.get_capabilities().get("cpu_name", platform.processor()),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def table(result: dict) -> str:
    """Return the result of `measure` as text."""
    machine = result["machine"]
    rows = [("way", "clips/s", "ratio to original", "matrix peak", "reached", "peak memory", "one recording")]
    drifts = []
    for way, entry in result["ways"].items():
        against = entry["against_original"]
        row = (way, f"{entry['clips_per_second']:.2f}")
        row += (f"{against['median']:.2f} ({against['lowest']:.2f} to {against['highest']:.2f})",)
        if way == ORIGINAL:
            row += ("", "")
        else:
            row += (f"{entry['matrix_peak_gflop_per_second']:.0f} GFLOP/s",)
            row += (f"{100 * entry['fraction_of_peak']['median']:.0f} %",)
        row += (f"{entry['peak_memory_gb']:.2f} GB",)
        rows.append((*row, "" if way == ORIGINAL else f"{entry['one_recording_command_seconds']:.1f} s"))
        if "drift" in entry:
            drifts.append(f"{way} compared with fp32: {describe_drift(entry['drift'])}")
    decoded = [("decoding, on one core", "clips/s", "librosa, whole file", "ratio")]
    for what, entry in result["decoding"].items():
        speeds = (f"{entry[name]['clips_per_second']:.3g}" for name in ("here", "librosa"))
        decoded.append((what, *speeds, f"{entry['ratio']['median']:.1f}"))
    about = (
        f"{machine['processor']}, threads: {machine['threads']}, torch {machine['torch']}\n"
        f"clips: {result['clips']}, {result['gflop_per_clip']:.1f} GFLOP each; figures are medians; "
        f"rounds: {result['rounds']}\n"
        f"original: {result['original']}; librosa decodes whole files, and one clip is scored at a time"
    )
    return "\n\n".join([about, text.aligned(rows), *drifts, text.aligned(decoded)])


def describe_drift(moved: dict) -> str:
    """Return the result of `drift` in words."""
    logits = moved["logits_moved"]
    words = (
        f"features moved by {100 * moved['features_moved_of_mean_magnitude']:.2f} % of their mean magnitude, "
        f"logits by {logits['mean']:.3g} on average and {logits['most']:.3g} at most (the scores' standard "
        f"deviation is {moved['scores_standard_deviation']:.3g})"
    )
    if "eer" not in moved:
        return words
    points = f"{100 * moved['eer']['difference']:+.2f} percentage points"
    eer = with_interval(points, moved["eer"]["interval"], lambda bound: f"{100 * bound:+.2f}")
    words += f"; Spearman correlation {moved['spearman']:.4f}, EER {eer}"
    return f"{words}; clips: {sum(moved['counts'].values())}"


def main() -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--checkpoint",
        type=Path,
        metavar="PATH",
        help="detector file (default: XLS-R 300M + AASIST with random weights)",
    )
    parser.add_argument(
        "--data", nargs="+", metavar="PATH", help="recordings to score (default: clips of noise)"
    )
    parser.add_argument("--clips", type=int, default=12, help="clips of noise to make (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds to time (default: %(default)s)")
    parser.add_argument(
        "--workers", type=int, help="processes that decode ahead, 0 for none (default: as in the scripts)"
    )
    parser.add_argument(
        "--precisions",
        nargs="+",
        choices=PRECISIONS,
        default=PRECISIONS,
        help="precisions to measure (default: all)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures to this file")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(args, Path(folder))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(table(result))


if __name__ == "__main__":
    main()
