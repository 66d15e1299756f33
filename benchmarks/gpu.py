"""Measure scoring and fine-tuning with XLS-R 300M on a GPU, and check the results against the reference.

    python benchmarks/gpu.py                             # everything, in five minutes at most
    python benchmarks/gpu.py --only parity network --json gpu.json
    python benchmarks/gpu.py --dry-run                   # every part at toy size, on the CPU

The weights are those of the reference outputs in tests/reference; nothing is downloaded. Each part runs in a
process of its own and prints each figure once it is measured; what fails in one part does not affect the
others. The parts need torch, transformers, numpy, safetensors, soundfile, soxr and tqdm; `lora` also needs
peft, and `command` what evaluate_custom.py needs.

The original way is transformers (as fast as fairseq) in fp32 without TF32: for scoring one clip at a time,
for fine-tuning Adam on all weights. Times are medians after two warm-up rounds.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib import metadata
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

HERE = Path(__file__).resolve().parent  # not on the path, since coverage.py would hide the package coverage
sys.path[:] = [str(HERE.parent), *(path for path in sys.path if Path(path).resolve() != HERE)]
sys.path.insert(0, str(HERE.parent / "tests"))

from weights import fill, reference

from antispoofing import text
from antispoofing.data.recordings import Utterance
from antispoofing.detectors.batched import BatchedXLSR
from antispoofing.detectors.checkpoints import official_name
from antispoofing.detectors.devices import resolve_device
from antispoofing.detectors.loading import for_scoring, save_detector
from antispoofing.scoring.score import score_recordings
from antispoofing.training.convolutions import BatchedConvolutionStack
from antispoofing.training.recipe import TrainingConfig
from antispoofing.training.step import MicroBatch, Optimization
from model import DTYPES, Detector, DetectorConfig, XLSRConfig

SCRIPT = Path(__file__).resolve().parents[1] / "evaluate_custom.py"
GFLOP = 146.8  # of matrix products, convolutions and attention that a clip takes XLS-R 300M + AASIST
TOY = XLSRConfig(conv_channels=32, width=64, layers=2, heads=4, ffn=128, pos_kernel=16, pos_groups=4)
WAYS = ("plain", "fast")  # PyTorch's own modules under autocast; what the scripts score with
PRECISIONS = ("fp32", "bf16", "fp16")
THEIRS = ", transformers' convolutions"  # a way of training beside the faster one


class Bench:
    """What a part measures with.

    Args:
        weights: The detector's tensors by name.
        dry_run: Measure toys on the CPU.
        seconds: How much time a part may take.
        say: A function that takes one line of figures.
    """

    def __init__(
        self, weights: dict[str, torch.Tensor], dry_run: bool, seconds: float, say: Callable[[dict], None]
    ):
        self.weights, self.dry_run, self.say = weights, dry_run, say
        self.deadline = time.monotonic() + seconds
        self.device = resolve_device("cpu" if dry_run else "cuda")
        self.precisions = ("fp32", "bf16") if dry_run else PRECISIONS

    def detector(self, precision: str = "fp32", way: str = "plain") -> Detector:
        """Return the detector on the device, in evaluation mode."""
        config = DetectorConfig(front_end=TOY) if self.dry_run else DetectorConfig()
        with torch.device("meta"):
            detector = Detector(config, precision)
        detector.load_state_dict({k: v.clone() for k, v in self.weights.items()}, assign=True)
        detector.to(self.device).eval()
        if way == "fast" and self.dry_run:
            detector.front_end = BatchedXLSR(detector.front_end, DTYPES[precision])
        elif way == "fast":
            for_scoring(detector)
        return detector

    def waves(self, count: int) -> torch.Tensor:
        """Return clips of noise, in pinned memory where there is a GPU."""
        waves = 0.1 * torch.randn(count, 64600, generator=torch.Generator().manual_seed(count))
        return waves if self.dry_run else waves.pin_memory()

    def seconds(self, work: Callable[[], object], about: float = 1.0) -> float:
        """Return the median seconds of a call, of three at least, repeated for about so many seconds."""
        about = 0.0 if self.dry_run else about
        times: list[float] = []
        for number in range(1000):
            self.wait()
            started = time.perf_counter()
            work()
            self.wait()
            if number >= 2:
                times.append(time.perf_counter() - started)
            if len(times) >= 3 and (sum(times) > about or self.is_over()):
                break
        return statistics.median(times)

    def wait(self) -> None:
        """Wait until the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def is_over(self) -> bool:
        """Check whether the time of this part is over."""
        return time.monotonic() > self.deadline

    def peak_gb(self) -> float | None:
        """Return the most GPU memory, in GB, that tensors took since the last call; None on a CPU."""
        if self.device.type != "cuda":
            return None
        peak = torch.cuda.max_memory_allocated() / 1e9
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return peak


def parity(bench: Bench) -> None:
    """Compare features and logits with the published implementation's."""
    expected = reference("small" if bench.dry_run else "xlsr300m")
    waves = torch.from_numpy(expected["waves"])
    for precision in bench.precisions:
        for way in WAYS:
            detector = bench.detector(precision, way)
            with torch.inference_mode():
                for _ in range(3):  # the third time from a CUDA graph
                    features = detector.features(waves)
                    logits = detector.back_end(features).cpu().numpy()
            moved = np.abs(features[:, ::20, ::8].cpu().numpy() - expected["features"])
            bench.say(
                {
                    "what": f"{way}, {precision}",
                    "features, most": float(moved.max()),
                    "features, mean/magnitude": float(moved.mean() / np.abs(expected["features"]).mean()),
                    "logits, most": float(np.abs(logits - expected["logits"]).max()),
                    "right": bool(max(moved.max(), np.abs(logits - expected["logits"]).max()) < 1e-4)
                    if precision == "fp32"
                    else None,
                }
            )


def network(bench: Bench) -> None:
    """Measure the network alone, on clips in memory."""
    peak = matrix_peak(bench)
    bench.say({"what": "bf16 matrix peak", "TFLOP/s": peak})
    sizes = (1, 2) if bench.dry_run else (1, 8, 64, 128)
    before = 1 / _seconds_of_a_clip(bench, bench.detector())
    bench.say({"what": "original", "batch": 1, "clips/s": before})
    bench.peak_gb()
    for precision in ("bf16", *(p for p in bench.precisions if p != "bf16")):
        for way in WAYS:
            if bench.is_over():
                raise TimeoutError("out of time")
            detector = bench.detector(precision, way)
            for size in sizes if precision == "bf16" else sizes[-2:-1]:
                waves = bench.waves(size)
                started = time.perf_counter()
                with torch.inference_mode():
                    detector(waves)
                bench.wait()
                first = time.perf_counter() - started
                time_of = {
                    "both": bench.seconds(lambda d=detector, w=waves: d.score(w), 0.6),
                    "front end": bench.seconds(lambda d=detector, w=waves: _features(d, w), 0.3),
                }
                rate = size / time_of["both"]
                bench.say(
                    {
                        "what": f"{way}, {precision}",
                        "batch": size,
                        "clips/s": rate,
                        "of the original": rate / before,
                        "of the bf16 peak": rate * GFLOP / 1e3 / peak,
                        "front end, of the peak": size / time_of["front end"] * GFLOP / 1e3 / peak,
                        "first call, s": first,
                        "peak GB": bench.peak_gb(),
                    }
                )
            del detector


def _seconds_of_a_clip(bench: Bench, detector: Detector) -> float:
    wave = bench.waves(1)
    return bench.seconds(lambda: detector.score(wave))


@torch.inference_mode()
def _features(detector: Detector, waves: torch.Tensor) -> torch.Tensor:
    return detector.features(waves)


def matrix_peak(bench: Bench) -> float:
    """Return the TFLOP/s of the fastest bf16 matrix product of some sizes."""
    best = 0.0
    sizes = ((256, 256, 256),)
    if not bench.dry_run:
        sizes = ((8192, 8192, 8192), (12864, 1024, 4096), (25728, 4096, 1024))
    for rows, inputs, outputs in sizes:
        a, b = (
            torch.randn(*size, device=bench.device, dtype=torch.bfloat16)
            for size in ((rows, inputs), (inputs, outputs))
        )

        def products(a: torch.Tensor = a, b: torch.Tensor = b) -> None:
            for _ in range(20):
                a @ b

        best = max(best, 20 * 2e-12 * rows * inputs * outputs / bench.seconds(products, 0.5))
    return best


def profile(bench: Bench) -> None:
    """Show which kernels take the time of a batch in bf16."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    waves = bench.waves(2 if bench.dry_run else 64)
    kinds = [ProfilerActivity.CPU] + ([] if bench.dry_run else [ProfilerActivity.CUDA])
    for way in WAYS:
        detector = bench.detector("bf16", way)
        for _ in range(3):
            detector.score(waves)
        with profiler(activities=kinds) as found:
            detector.score(waves)
            bench.wait()
        events = [e for e in found.key_averages() if e.self_device_time_total > 0] or found.key_averages()
        events = sorted(events, key=lambda e: -e.self_device_time_total)[:25]
        for event in events:
            milliseconds = event.self_device_time_total / 1e3
            if bench.dry_run or event.device_type.name == "CUDA":
                bench.say({"what": way, "ms": milliseconds, "calls": event.count, "kernel": event.key[:90]})


def files(bench: Bench) -> None:
    """Measure scoring from files, as evaluate_custom.py does it, beside the same clips in memory."""
    count = 8 if bench.dry_run else 4096
    with tempfile.TemporaryDirectory() as folder:
        for suffix in ("flac", "mp3"):
            with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("fork")) as pool:
                names = [str(Path(folder, f"{i}.{suffix}")) for i in range(count)]
                list(pool.map(_write_clip, names, chunksize=64))
            utterances = [Utterance(name, name, None) for name in names]
            for way in WAYS:
                detector = bench.detector("bf16", way)
                size = 2 if bench.dry_run else 64
                waves = bench.waves(size)
                in_memory = size / bench.seconds(lambda d=detector, w=waves: d.score(w))
                for workers in (0,) if bench.dry_run else (8, 14):
                    if bench.is_over():
                        raise TimeoutError("out of time")
                    score_recordings(detector, utterances[:size], batch_size=size, workers=workers)
                    started = time.perf_counter()
                    scored = score_recordings(detector, utterances, batch_size=size, workers=workers)
                    rate = count / (time.perf_counter() - started)
                    bench.say(
                        {
                            "what": f"{suffix}, {way}, bf16",
                            "workers": workers,
                            "clips/s": rate,
                            "of in memory": rate / in_memory,
                            "card waits": max(0.0, 1 - rate / in_memory),
                            "failures": len(scored.failures),
                        }
                    )


def _write_clip(name: str) -> None:
    import soundfile

    rng = np.random.default_rng(int(Path(name).stem))
    noise = np.convolve(rng.standard_normal(64600), np.ones(8) / 8, "same")
    soundfile.write(name, 0.2 * noise * np.sin(np.arange(64600) / 2000) ** 2, 16000)


def training(bench: Bench) -> None:
    """Measure a step of fine-tuning all weights."""
    base = TrainingConfig()
    saving = TrainingConfig(gradient_checkpointing=True)
    ways = {
        "original": ("fp32", None),
        "bf16": ("bf16", base),
        "fp32": ("fp32", base),
        "bf16, checkpointing": ("bf16", saving),
        "fp16": ("fp16", base),
    }
    theirs = {f"{k}{THEIRS}": v for k, v in ways.items() if k != "original"}
    _steps(bench, {k: v for k, v in (ways | theirs).items() if v[0] in bench.precisions})


def gradients(bench: Bench) -> None:
    """Compare the gradients of all weights with those of the original way, and with PyTorch's modules.

    Each figure is the norm of the difference relative to the norm of the gradients of the original way, of
    all weights and of the convolutions' alone.
    """
    exact = _gradients(bench, "fp32", False)
    for precision in bench.precisions:
        for name, stacked in ((f"{precision}{THEIRS}", False), (precision, True)):
            found = _gradients(bench, precision, stacked)
            convolutions = {name for name in exact if ".feature_extractor." in name}
            apart = {
                "all": _apart(found, exact, set(exact)),
                "convolutions": _apart(found, exact, convolutions),
                "worst tensor": max(_apart(found, exact, {name}) for name in convolutions),
            }
            right = max(apart.values()) < 1e-3 if precision == "fp32" else None
            bench.say({"what": name, **apart, "right": right})


def _apart(found: dict[str, torch.Tensor], exact: dict[str, torch.Tensor], names: set[str]) -> float:
    apart = sum((found[name] - exact[name]).double().square().sum() for name in names)
    return float((apart / sum(exact[name].double().square().sum() for name in names)).sqrt())


def _gradients(bench: Bench, precision: str, stacked: bool) -> dict[str, torch.Tensor]:
    """Return the gradients of the loss of four clips by weight, without dropout."""
    detector = bench.detector(precision)
    if stacked:
        model = detector.front_end.model
        model.set_submodule("feature_extractor", BatchedConvolutionStack(model.feature_extractor, False))
    waves = bench.waves(4).to(bench.device)
    scale = 1024 if precision == "fp16" else 1  # as a gradient scaler does
    loss = F.cross_entropy(detector(waves), torch.arange(4, device=bench.device) % 2)
    (loss * scale).backward()
    return {name: p.grad.float() / scale for name, p in detector.named_parameters() if p.grad is not None}


def lora(bench: Bench) -> None:
    """Measure a step of fine-tuning with LoRA."""
    _steps(
        bench,
        {
            "bf16, LoRA": ("bf16", TrainingConfig(lora=8)),
            "bf16, LoRA, checkpointing": ("bf16", TrainingConfig(lora=8, gradient_checkpointing=True)),
            f"bf16, LoRA{THEIRS}": ("bf16", TrainingConfig(lora=8)),
        },
    )


def _steps(bench: Bench, ways: dict[str, tuple[str, TrainingConfig | None]]) -> None:
    """Measure steps of fine-tuning at two sizes of batches, in each way."""
    for size in (2,) if bench.dry_run else (16, 64):
        original = None
        for way, (precision, config) in ways.items():
            if bench.is_over():
                raise TimeoutError("out of time")
            step = None  # frees what the last way left
            try:
                step = _step(bench, bench.detector(precision), config, size, way.endswith(THEIRS))
                bench.peak_gb()
                losses: list[float] = []
                seconds = bench.seconds(lambda s=step, kept=losses: kept.append(s()), 1.5)
            except torch.cuda.OutOfMemoryError as error:
                bench.say({"what": way, "batch": size, "why": str(error).split(".")[0]})
                bench.peak_gb()
                continue
            original = seconds if way == "original" else original
            bench.say(
                {
                    "what": way,
                    "batch": size,
                    "s/step": seconds,
                    "of the original": original and seconds / original,
                    "peak GB": bench.peak_gb(),
                    "first loss": losses[0],
                    "last loss": losses[-1],
                }
            )


def _step(
    bench: Bench, detector: Detector, config: TrainingConfig | None, size: int, theirs: bool
) -> Callable[[], float]:
    """Return a function that takes one step and returns its loss; the original way without a recipe."""
    waves, targets = bench.waves(size), torch.arange(size) % 2
    if config is not None:
        model = detector.front_end.model
        extractor = model.feature_extractor
        optimization = Optimization(detector, config)
        if theirs:
            model.set_submodule("feature_extractor", extractor)
        optimization.train_mode()
        part = MicroBatch(waves, targets, [str(i) for i in range(size)])

        def step() -> float:
            result = optimization.step([part], 1, 0, 1e-6)
            assert result is not None  # there are clips
            return result.loss

        return step
    optimizer = torch.optim.Adam([p for p in detector.parameters() if p.requires_grad], lr=1e-6)
    detector.train()

    def original() -> float:
        optimizer.zero_grad()
        loss = F.cross_entropy(detector(waves), targets.to(detector.device))
        loss.backward()
        optimizer.step()
        return loss.item()

    return original


def command(bench: Bench) -> None:
    """Measure evaluate_custom.py over a few thousand made clips, from start to end."""
    count = 8 if bench.dry_run else 4000
    with tempfile.TemporaryDirectory() as folder:
        names = []
        for kind in ("real", "fake"):
            Path(folder, "data", kind).mkdir(parents=True)
            names += [str(Path(folder, "data", kind, f"{i}.flac")) for i in range(count // 2)]
        with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("fork")) as pool:
            list(pool.map(_write_clip, names, chunksize=64))
        save_detector(bench.detector(), Path(folder, "detector.safetensors"))
        script = [sys.executable, str(SCRIPT), "--data", f"{folder}/data", "--precision", "bf16"]
        options = ["--checkpoint", f"{folder}/detector.safetensors", "--output", f"{folder}/results"]
        options += ["--device", bench.device.type]
        started = time.perf_counter()
        done = subprocess.run([*script, *options], capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - started
        if done.returncode:
            raise RuntimeError(done.stderr.strip().splitlines()[-1])
        bench.say({"what": f"{count} FLAC files, bf16", "s": seconds, "clips/s": count / seconds})


PARTS: dict[str, Callable[[Bench], None]] = {
    "parity": parity,
    "network": network,
    "training": training,
    "gradients": gradients,
    "lora": lora,
    "files": files,
    "command": command,
    "profile": profile,
}


class Machine(NamedTuple):
    """What the figures were measured on."""

    card: str
    versions: dict[str, str]


def machine(dry_run: bool) -> Machine:
    """Describe the card and the versions of what computes."""
    names = ("torch", "transformers", "numpy", "soundfile", "soxr", "peft", "triton")
    versions = {"python": platform.python_version()}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    versions |= {"cuda": str(torch.version.cuda), "cores": str(os.cpu_count())}
    if dry_run:
        return Machine("none (dry run)", versions)
    # PyTorch could tell as well, but then CUDA would be in use when the parts are forked.
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        card = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        card = f"unknown card ({error})"
    return Machine(card, versions)


def run_part(name: str, weights: dict, dry_run: bool, seconds: float, results: Connection) -> None:
    """Run a part in this process, and send each of its lines."""
    if dry_run:
        torch.set_num_threads(1)
    try:
        PARTS[name](Bench(weights, dry_run, seconds, results.send))
    except Exception as error:  # of any kind: it is reported, and the other parts go on
        traceback.print_exc()
        results.send({"what": "failed", "why": f"{type(error).__name__}: {error}".splitlines()[0]})


def run(names: list[str], dry_run: bool, seconds: float) -> dict[str, list[dict]]:
    """Run parts one after the other, and return the lines of each; what takes too long is ended."""
    end = time.monotonic() + seconds
    with torch.device("meta"):
        detector = Detector(DetectorConfig(front_end=TOY) if dry_run else DetectorConfig())
    weights = {
        key: torch.from_numpy(fill(official_name(key), tuple(value.shape)))
        for key, value in detector.state_dict().items()
    }
    context = multiprocessing.get_context("fork")  # which shares the weights; CUDA is not yet in use
    lines: dict[str, list[dict]] = {}
    for number, name in enumerate(names):
        lines[name] = []
        left = end - time.monotonic()
        share = left if number + 1 == len(names) else left * 0.6
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=run_part, args=(name, weights, dry_run, 0.8 * share, sender))
        process.start()
        sender.close()
        while receiver.poll(max(0.0, min(share, end - time.monotonic()))):
            try:
                line = receiver.recv()
            except EOFError:
                break
            lines[name].append(line)
            print(f"{name}: {shown(line)}", flush=True)
        else:
            lines[name].append({"what": "ended", "why": "it took too long"})
            print(f"{name}: ended, it took too long", flush=True)
            process.kill()
        process.join()
        if process.exitcode and lines[name][-1:] != [{"what": "ended", "why": "it took too long"}]:
            lines[name].append({"what": "ended", "why": f"exit status {process.exitcode}"})
    return lines


def shown(line: dict) -> str:
    """Return a line of figures as text."""
    return ", ".join(f"{name} {_number(value)}" for name, value in line.items() if value is not None)


def _number(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def table(lines: dict[str, list[dict]]) -> str:
    """Return all figures as text, a table for each part."""
    parts = []
    for name, found in lines.items():
        columns = list(dict.fromkeys(column for line in found for column in line))
        rows = [tuple(columns)]
        rows += [tuple(_number(line.get(column)) for column in columns) for line in found]
        parts.append(f"{name}\n{text.aligned(rows)}")
    return "\n\n".join(parts)


def main() -> None:
    """Run the parts, and print and write their figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to run (default: all)"
    )
    parser.add_argument(
        "--seconds", type=float, default=300, help="seconds after which to stop (default: %(default)s)"
    )
    parser.add_argument("--dry-run", action="store_true", help="run every part at toy size on the CPU")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all figures to this file")
    args = parser.parse_args()
    about = machine(args.dry_run)
    print(about.card, *(f"{name} {version}" for name, version in about.versions.items()), sep=", ")
    lines = run(args.only, args.dry_run, args.seconds)
    print(f"\n{about.card}\n\n{table(lines)}")
    if args.json:
        result = about._asdict() | {"parts": lines}
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    found = [line for part in lines.values() for line in part]
    if any(line["what"] in ("failed", "ended") or line.get("right") is False for line in found):
        sys.exit("error: something is missing or wrong, see above")


if __name__ == "__main__":
    main()
