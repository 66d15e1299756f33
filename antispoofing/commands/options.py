"""What the scripts' command lines share: options, their types, and what scoring makes of them."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from antispoofing.data.labels import EVAL, PHASES
from antispoofing.detectors.devices import ENGINES, PRECISIONS


@dataclass(frozen=True)
class ScoringOptions:
    """How detectors are loaded and recordings scored.

    Attributes:
        device: see `detectors.devices.resolve_device`.
        precision: see `detectors.devices.resolve_precision`.
        engine: what computes XLS-R, see `detectors.loading.load_detector`.
        batch_size: clips computed together; None for what suits the device.
        workers: processes that decode ahead; None for what suits the device.
        seed: of the bootstrap.
    """

    device: str = "auto"
    precision: str = "fp32"
    engine: str = "transformers"
    batch_size: int | None = None
    workers: int | None = None
    seed: int = 0

    @classmethod
    def from_args(cls, args: argparse.Namespace) -> ScoringOptions:
        """Take them from a command line with the options of `add_machine_options` and --seed."""
        return cls(args.device, args.precision, args.frontend, args.batch_size, args.workers, args.seed)


def finite(text: str) -> float:
    """An argparse type: a number that is not NaN or infinite."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return number


def positive(text: str) -> float:
    """An argparse type: a finite number above 0."""
    if finite(text) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not above 0")
    return finite(text)


def not_negative(text: str) -> float:
    """An argparse type: a finite number from 0."""
    if finite(text) < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is below 0")
    return finite(text)


def fraction(text: str) -> float:
    """An argparse type: a number above 0, up to a half."""
    if not 0 < finite(text) <= 0.5:
        raise argparse.ArgumentTypeError(f"{text!r} is not above 0 and at most 0.5")
    return finite(text)


def whole(minimum: int) -> Callable[[str], int]:
    """An argparse type: a whole number from `minimum`."""

    def parse(text: str) -> int:
        if not (text.isdecimal() and minimum <= int(text) < 2**31):
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {minimum}")
        return int(text)

    return parse


def add_data_options(parser: argparse.ArgumentParser, what: str, required: bool = False) -> None:
    """--data, --root, --phase.

    Args:
        what: the data may be, and are where nothing is named.
    """
    parser.add_argument("--data", nargs="+", action="extend", metavar="PATH", help=what, required=required)
    parser.add_argument(
        "--root",
        type=Path,
        metavar="DIR",
        help="where the recordings of a list of labels are (default: they are looked for beside it)",
    )
    parser.add_argument(
        "--phase", choices=PHASES, help=f"of ASVspoof's sets (default: {EVAL}, as in the published figures)"
    )


def add_checkpoints_option(parser: argparse.ArgumentParser, default: str) -> None:
    """--checkpoint, any number of detectors."""
    parser.add_argument(
        "--checkpoint",
        nargs="+",
        action="extend",
        type=Path,
        metavar="PATH",
        help="detector files, .pth or .safetensors, or hub:<owner/repo>[@revision][:file] "
        f"(default: {default})",
    )


def add_output_option(parser: argparse.ArgumentParser, default: Path) -> None:
    """--output, a folder."""
    parser.add_argument(
        "--output",
        type=Path,
        default=default,
        metavar="DIR",
        help="where results go (default: %(default)s)",
    )


def add_threshold_option(parser: argparse.ArgumentParser) -> None:
    """--threshold."""
    parser.add_argument(
        "--threshold",
        type=finite,
        metavar="X",
        help="a threshold chosen on other data: score >= X is called real (--threshold=-1e-3 for such a one)",
    )


def add_timeline_options(parser: argparse.ArgumentParser) -> None:
    """--offset, --timeline, --hop: which part of a recording is heard."""
    parser.add_argument(
        "--offset",
        type=not_negative,
        default=0.0,
        metavar="SECONDS",
        help="where in each recording its clip begins (default: 0, as published)",
    )
    parser.add_argument(
        "--timeline",
        action="store_true",
        help="also score each whole recording window by window: where it sounds synthetic",
    )
    parser.add_argument(
        "--hop",
        type=positive,
        metavar="SECONDS",
        help="of --timeline, from one window to the next (default: half a window)",
    )


def add_scores_as_option(parser: argparse.ArgumentParser, formats: Collection[str]) -> None:
    """--scores-as, any number of formats."""
    parser.add_argument(
        "--scores-as",
        nargs="+",
        action="extend",
        choices=formats,
        default=[],
        metavar="FORMAT",
        help=f"also write the scores in these formats of the field: {', '.join(formats)}",
    )


def add_seed_option(parser: argparse.ArgumentParser) -> None:
    """--seed, of the bootstrap."""
    parser.add_argument("--seed", type=whole(0), default=0, metavar="N", help="of the bootstrap (default: 0)")


def add_device_options(parser: argparse.ArgumentParser, precisions: Sequence[str] = PRECISIONS) -> None:
    """--device, --precision.

    Args:
        precisions: that can be asked for, beside auto.
    """
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: auto)")
    parser.add_argument(
        "--precision",
        choices=(*precisions, "auto"),
        default="fp32",
        help="of the front end; auto: bf16 where the device is fast at it (default: fp32, as published)",
    )


def add_machine_options(
    parser: argparse.ArgumentParser, precisions: Sequence[str] = PRECISIONS, batch_size: int | None = None
) -> None:
    """--device, --precision, --frontend, --batch-size, --workers.

    Args:
        precisions: that can be asked for, beside auto.
        batch_size: None for what suits the device.
    """
    add_device_options(parser, precisions)
    parser.add_argument(
        "--frontend",
        choices=ENGINES,
        default="transformers",
        help="what computes XLS-R, with the same scores; fairseq needs requirements-fairseq.txt "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--batch-size",
        type=whole(1),
        default=batch_size,
        metavar="N",
        help=f"clips (default: {batch_size or '4 on a CPU, 32 on a GPU'})",
    )
    parser.add_argument(
        "--workers",
        type=whole(0),
        metavar="N",
        help="processes that decode ahead, 0 for none (default: what suits the device)",
    )


def add_audit_option(parser: argparse.ArgumentParser) -> None:
    """--no-audit."""
    parser.add_argument(
        "--no-audit", action="store_true", help="do not look for the same audio twice before the work"
    )
