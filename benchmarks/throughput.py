"""How fast recordings are scored, against the original way and what the machine can do, in one run.

    python benchmarks/throughput.py                                # XLS-R 300M of random weights, noise
    python benchmarks/throughput.py --checkpoint LA_model.pth --data my_folder --json throughput.json

The original way: fairseq (where it is not installed, transformers) in fp32, each recording decoded whole by
librosa, one clip at a time. Every round runs each way over the same clips, in turn; figures are medians over
the rounds, ratios are taken within a round. The machine's peak is its fastest matrix product, of several that
occur in the 300M network, measured in each round; the fraction of it that is reached is of the network alone,
with four clips for each core, in memory.
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

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from antispoofing import text
from antispoofing.data.recordings import Utterance, find_recordings
from antispoofing.detectors.loading import load_detector, save_detector
from antispoofing.detectors.packed import Int8Linear, Linear, for_scoring
from antispoofing.report.comparison import compare
from antispoofing.scoring.score import parallel_batches, score_recordings
from antispoofing.scoring.scored import Scored
from data_utils import CLIP_SAMPLES, SAMPLE_RATE, load_audio, pad
from model import Detector

SCRIPT = Path(__file__).resolve().parents[1] / "evaluate_custom.py"
ORIGINAL = "original"
PRECISIONS = ("fp32", "bf16", "int8")
# Rows, inputs, outputs of products in XLS-R 300M: the transformer's for a clip and for four, a convolution's.
SIZES = ((1024, 1024), (1024, 3072), (1024, 4096), (4096, 1024))
SHAPES = (*((rows, *sizes) for rows in (201, 804) for sizes in SIZES), (6459, 1536, 512))
DRIFT_CLIPS = 8  # whose features are compared


# ------------------------------------------------------------------- what is timed


def load(way: str, checkpoint: Path) -> Detector:
    if way != ORIGINAL:
        return for_scoring(load_detector(checkpoint, device="cpu", precision=way))
    plain = load_detector(checkpoint, device="cpu")
    if not plain.has_official_names or find_spec("fairseq") is None:
        return plain
    return load_detector(checkpoint, device="cpu", engine="fairseq")


def score(way: str, detector: Detector, utterances: list[Utterance], workers: int | None) -> Scored:
    """As the scripts do, or in the original way."""
    if way != ORIGINAL:
        return score_recordings(detector, utterances, workers=workers)
    logits = np.full((len(utterances), 2), np.nan)
    with torch.inference_mode():
        for i, utterance in enumerate(utterances):
            wave = pad(_whole_by_librosa(utterance.path))
            logits[i] = detector(torch.from_numpy(wave)[None])[0].numpy()
    return Scored(utterances, logits, {})


def _whole_by_librosa(path: Path) -> np.ndarray:
    import librosa

    return librosa.load(path, sr=SAMPLE_RATE)[0]


def seconds(work: Callable, *args) -> float:
    started = time.perf_counter()
    work(*args)
    return time.perf_counter() - started


@torch.inference_mode()
def matrix_peak(precision: str, repeats: int = 5) -> float:
    """GFLOP/s of the fastest product: of SHAPES, and of PyTorch's linear layer and the packed one."""
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
            middle = statistics.median(seconds(product, x) for _ in range(repeats))
            best = max(best, 2e-9 * rows * inputs * outputs / middle)
    return best


def network_seconds(detector: Detector, clips: int = 4, repeats: int = 3) -> float:
    """For a clip, of batches in memory: two for each core."""
    waves = 0.1 * torch.randn(clips, detector.config.clip_samples)
    with parallel_batches(detector) as (compute, streams):

        def on_all_cores() -> None:
            for _ in compute((None, waves) for _ in range(2 * streams)):
                pass

        return statistics.median(seconds(on_all_cores) for _ in range(repeats)) / (2 * clips * streams)


def gflop_per_clip(detector: Detector) -> float:
    """What the network computes for a clip in matrix products, convolutions and attention."""
    # Attention as plain products, for a CPU's fused one is not counted; inference_mode breaks the counter.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        detector(torch.zeros(1, detector.config.clip_samples))
    return counter.get_total_flops() / 1e9


def peak_memory(way: str, checkpoint: Path, utterances: list[Utterance], workers: int | None) -> float:
    """GB of a fresh process that loads the detector and scores (on Linux); its workers are not counted."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as fresh:
        return fresh.submit(_load_and_score, way, checkpoint, utterances, workers).result()


def _load_and_score(way: str, checkpoint: Path, utterances: list[Utterance], workers: int | None) -> float:
    score(way, load(way, checkpoint), utterances, workers)
    return peak_memory_gb()


def peak_memory_gb() -> float:
    """Of this process so far, on Linux."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")  # getrusage's may be its parent's
    return 1024e-9 * int(re.search(r"VmHWM:\s*(\d+) kB", status)[1])


def command_seconds(precision: str, checkpoint: Path, recording: Path, output: Path) -> float:
    """From the start of evaluate_custom.py to its end, with one recording."""
    script = [sys.executable, str(SCRIPT), "--device", "cpu", "--precision", precision]
    options = ["--data", recording, "--checkpoint", checkpoint, "--output", output]
    started = time.perf_counter()
    subprocess.run([*script, *map(str, options)], check=True, capture_output=True)
    return time.perf_counter() - started


def decoding(folder: Path, rounds: int) -> dict[str, dict]:
    """Clips a second on one core: the clip's part of a file, against the whole by librosa."""
    result = {}
    rng = np.random.default_rng(0)
    for length, rate, suffix in ((4, 16000, "flac"), (600, 16000, "flac"), (600, 44100, "mp3")):
        path = folder / f"{length}s-{rate}.{suffix}"
        soundfile.write(path, 0.1 * rng.standard_normal(length * rate), rate)
        times = {"librosa": [], "here": []}
        for number in range(rounds + 1):
            whole = seconds(_whole_by_librosa, path)
            part = statistics.median(seconds(load_audio, path, SAMPLE_RATE, CLIP_SAMPLES) for _ in range(9))
            if number:  # the first fills the disk's cache
                times["librosa"].append(whole)
                times["here"].append(part)
        result[f"{length} s, {suffix}, {rate} Hz"] = {
            name: {"clips_per_second": 1 / statistics.median(values)} for name, values in times.items()
        } | {"ratio": ratio(times["librosa"], times["here"])}
        path.unlink()
    return result


def ratio(a: list[float], b: list[float]) -> dict[str, float]:
    ratios = [x / y for x, y in zip(a, b, strict=True)]
    return {"median": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios)}


def drift(exact: Detector, lower: Detector, scores: tuple[Scored, Scored], waves: torch.Tensor) -> dict:
    """How far a precision moves features, logits and, of labelled recordings, the figures."""
    with torch.inference_mode():
        expected, features = exact.features(waves), lower.features(waves)
    moved = np.abs(scores[1].logits - scores[0].logits)
    result = {
        "features_moved_of_mean_magnitude": float((features - expected).abs().mean() / expected.abs().mean()),
        "logits_moved": {"mean": float(np.nanmean(moved)), "most": float(np.nanmax(moved))},
        "scores_standard_deviation": float(np.nanstd(scores[0].scores)),
    }
    if {u.label for u in scores[0].utterances} >= {"bonafide", "spoof"}:
        paired = compare(*scores)
        result |= {name: paired[name] for name in ("counts", "spearman", "auc", "eer")}
    return result


# ------------------------------------------------------------------------ the run


def make_clips(folder: Path, n: int) -> list[Utterance]:
    rng = np.random.default_rng(0)
    for i in range(n):
        soundfile.write(folder / f"{i:04d}.flac", 0.1 * rng.standard_normal(CLIP_SAMPLES), SAMPLE_RATE)
    return find_recordings([folder]).utterances


def random_detector(folder: Path) -> Path:
    torch.manual_seed(0)
    save_detector(Detector(), folder / "random.safetensors")
    return folder / "random.safetensors"


@dataclass
class Timed:
    """What a way needed, a value for each round; and what it scored."""

    seconds_per_clip: list[float] = field(default_factory=list)
    network_seconds: list[float] = field(default_factory=list)  # these two of our own ways only
    matrix_peak: list[float] = field(default_factory=list)
    scored: Scored | None = None


def run_rounds(
    detectors: dict[str, Detector], utterances: list[Utterance], rounds: int, workers: int | None
) -> dict[str, Timed]:
    for way, detector in detectors.items():  # to warm up
        score(way, detector, utterances[:2], workers)
    timed = {way: Timed() for way in detectors}
    for number in range(1, rounds + 1):
        for way, detector in detectors.items():
            of_way = timed[way]
            started = time.perf_counter()
            of_way.scored = score(way, detector, utterances, workers)
            of_way.seconds_per_clip.append((time.perf_counter() - started) / len(utterances))
            if way != ORIGINAL:
                of_way.matrix_peak.append(matrix_peak(way))
                of_way.network_seconds.append(network_seconds(detector))
            print(f"round {number}: {way} {of_way.seconds_per_clip[-1]:.4f} s a clip", file=sys.stderr)
    return timed


def figures(timed: dict[str, Timed], work: float) -> dict[str, dict]:
    """Of each way; `work` is in GFLOP a clip."""
    result = {}
    for way, of_way in timed.items():
        result[way] = {
            "clips_per_second": 1 / statistics.median(of_way.seconds_per_clip),
            "against_original": ratio(timed[ORIGINAL].seconds_per_clip, of_way.seconds_per_clip),
        }
        if way != ORIGINAL:
            result[way] |= {
                "network_seconds_per_clip": statistics.median(of_way.network_seconds),
                "matrix_peak_gflop_per_second": statistics.median(of_way.matrix_peak),
                "fraction_of_peak": ratio([work / t for t in of_way.network_seconds], of_way.matrix_peak),
            }
    return result


def measure(args: argparse.Namespace, folder: Path) -> dict:
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
    detectors.clear()  # before others need the memory
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
    return {
        "processor": torch.cpu.get_capabilities().get("cpu_name", platform.processor()),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def table(result: dict) -> str:
    machine = result["machine"]
    rows = [("way", "clips/s", "of original", "matrix peak", "reached", "memory", "1 clip")]
    words = []
    for way, entry in result["ways"].items():
        against, moved = entry["against_original"], entry.get("drift")
        row = (way, f"{entry['clips_per_second']:.2f}")
        row += (f"{against['median']:.2f} ({against['lowest']:.2f} to {against['highest']:.2f})",)
        if way == ORIGINAL:
            row += ("", "")
        else:
            row += (f"{entry['matrix_peak_gflop_per_second']:.0f} GFLOP/s",)
            row += (f"{100 * entry['fraction_of_peak']['median']:.0f} %",)
        row += (f"{entry['peak_memory_gb']:.2f} GB",)
        rows.append((*row, "" if way == ORIGINAL else f"{entry['one_recording_command_seconds']:.1f} s"))
        if moved:
            words.append(f"{way} against fp32: {described(moved)}")
    decoded = [("decoding, on one core", "clips/s", "librosa, whole", "ratio")]
    for what, entry in result["decoding"].items():
        speeds = (f"{entry[name]['clips_per_second']:.3g}" for name in ("here", "librosa"))
        decoded.append((what, *speeds, f"{entry['ratio']['median']:.1f}"))
    about = (
        f"{machine['processor']}, {machine['threads']} threads, torch {machine['torch']}; {result['clips']} "
        f"clips of {result['gflop_per_clip']:.1f} GFLOP; medians of {result['rounds']} rounds\n"
        f"original: {result['original']}, whole files by librosa, one clip at a time"
    )
    return "\n\n".join([about, text.aligned(rows), *words, text.aligned(decoded)])


def described(moved: dict) -> str:
    logits = moved["logits_moved"]
    words = f"features moved by {100 * moved['features_moved_of_mean_magnitude']:.2f} % of their magnitude, "
    words += (
        f"logits by {logits['mean']:.3g} (at most {logits['most']:.3g}; the scores' standard deviation is "
    )
    words += f"{moved['scores_standard_deviation']:.3g})"
    if "eer" not in moved:
        return words
    low, high = (100 * x for x in moved["eer"]["interval"])
    words += f"; Spearman {moved['spearman']:.4f}, EER {100 * moved['eer']['difference']:+.2f} points "
    return words + f"[{low:+.2f}, {high:+.2f}] on {sum(moved['counts'].values())} clips"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", type=Path, help="default: XLS-R 300M + AASIST of random weights")
    parser.add_argument("--data", nargs="+", metavar="PATH", help="default: noise of the clip's length")
    parser.add_argument("--clips", type=int, default=12, help="of noise (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--workers", type=int, help="that decode ahead (default: as the scripts)")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--json", type=Path, help="also write all of it here")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(args, Path(folder))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(table(result))


if __name__ == "__main__":
    main()
