"""Options that several command lines share, their argparse types, and the settings they make up."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from antispoofing.data.archives import is_archive
from antispoofing.data.labels import COLUMNS, EVAL, PHASES, Reading
from antispoofing.data.recordings import LABEL_SUFFIXES
from antispoofing.data.words import Words
from antispoofing.detectors.devices import ENGINES, PRECISIONS
from antispoofing.errors import DataError
from antispoofing.project import NAME, version
from antispoofing.published import CONFIG, DETECTOR_SUFFIXES
from antispoofing.report.results import PICTURE_FORMATS
from data_utils import AUDIO_SUFFIXES


@dataclass(frozen=True)
class ScoringOptions:
    """How detectors are loaded and recordings scored.

    Attributes:
        device: See `detectors.devices.resolve_device`.
        precision: See `detectors.devices.resolve_precision`.
        engine: The library that computes XLS-R, see `detectors.loading.load_detector`.
        batch_size: Clips in a batch; None to choose for the device.
        workers: Processes that decode audio in advance; None to choose for the device.
    """

    device: str = "auto"
    precision: str = "fp32"
    engine: str = "transformers"
    batch_size: int | None = None
    workers: int | None = None

    @classmethod
    def from_args(cls, args: argparse.Namespace) -> ScoringOptions:
        """Take the options of `add_machine_options` from a parsed command line."""
        return cls(args.device, args.precision, args.frontend, args.batch_size, args.workers)


def finite(text: str) -> float:
    """Parse a number that is neither infinite nor NaN, as an argparse type.

    Raises:
        argparse.ArgumentTypeError: If the text is no such number.
    """
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number")
    return number


def positive(text: str) -> float:
    """Parse a finite number above 0, as an argparse type.

    Raises:
        argparse.ArgumentTypeError: If the text is no such number.
    """
    if finite(text) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not above 0")
    return finite(text)


def share(text: str) -> float:
    """Parse a share between 0 and 1, both excluded, as an argparse type.

    Raises:
        argparse.ArgumentTypeError: If the text is no such number.
    """
    number = finite(text)
    if not 0 < number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return number


def not_negative(text: str) -> float:
    """Parse a finite number that is 0 or above, as an argparse type.

    Raises:
        argparse.ArgumentTypeError: If the text is no such number.
    """
    if finite(text) < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is below 0")
    return finite(text)


def fraction(text: str) -> float:
    """Parse a number above 0 and at most 0.5, as an argparse type.

    Raises:
        argparse.ArgumentTypeError: If the text is no such number.
    """
    if not 0 < finite(text) <= 0.5:
        raise argparse.ArgumentTypeError(f"{text!r} is not above 0 and at most 0.5")
    return finite(text)


def whole(minimum: int, maximum: int = 2**31 - 1) -> Callable[[str], int]:
    """Return an argparse type that parses a whole number from `minimum` to `maximum`."""

    def parse(text: str) -> int:
        if not (text.isdecimal() and minimum <= int(text) <= maximum):
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {minimum} to {maximum}")
        return int(text)

    return parse


def add_data_options(
    parser: argparse.ArgumentParser, what: str, required: bool = False, positional: bool = False
) -> None:
    """Add --data, --root, --phase and the options of `add_reading_options`.

    Args:
        parser: The parser to add them to.
        what: The help text of --data.
        required: Whether --data must be given.
        positional: Whether data can be named without --data, too.
    """
    if positional:
        parser.add_argument(
            "data",
            nargs="*",
            action="extend",
            metavar="PATH",
            help="the same as --data; to be named before the options",
        )
    parser.add_argument("--data", nargs="+", action="extend", metavar="PATH", help=what, required=required)
    parser.add_argument(
        "--root",
        type=Path,
        metavar="DIR",
        help="folder of the recordings that a list of labels names (default: they are searched for beside "
        "the list)",
    )
    parser.add_argument(
        "--phase",
        choices=PHASES,
        help=f"which phase of a data set with phases to use (default: {EVAL}, as in published results)",
    )
    add_reading_options(parser)


def add_reading_options(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add --real-words, --fake-words, --columns and --separator, of which `reading` makes a `Reading`."""
    for word in ("real", "fake"):
        parser.add_argument(
            f"--{word}-words",
            nargs="+",
            action="extend",
            default=[],
            metavar="WORD",
            help=f"further words that label {word} recordings, as names of folders and in lists; also 0 or "
            "1, if that is what they mean",
        )
    parser.add_argument(
        "--columns",
        nargs="+",
        action="extend",
        type=column,
        default=[],
        metavar="WHAT=NAME",
        help="which columns of a list are the path and the label, by name or number: path=utt label=4 "
        "(default: told by the header, or by the content)",
    )
    parser.add_argument(
        "--separator",
        type=separator,
        metavar="CHARACTER",
        help="what separates the columns of a list: comma, tab, blank or any character (default: found)",
    )


def reading(args: argparse.Namespace) -> Reading:
    """Return what the options of `add_reading_options` say.

    Raises:
        DataError: If a word is to mean both real and fake, or a column is named twice.
    """
    columns = dict(args.columns)
    if len(columns) < len(args.columns):
        raise DataError("--columns: name each column once")
    return Reading(Words.of(args.real_words, args.fake_words), columns, args.separator or "")


def column(text: str) -> tuple[str, str]:
    """Parse "path=NAME", as an argparse type.

    Raises:
        argparse.ArgumentTypeError: If it is something else.
    """
    what, _, name = text.partition("=")
    if what not in COLUMNS or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not {' or '.join(f'{c}=NAME' for c in COLUMNS)}")
    return what, name


def separator(text: str) -> str:
    """Parse a separator, as an argparse type.

    Raises:
        argparse.ArgumentTypeError: If it is no single character, and none of the words for one.
    """
    character = {"comma": ",", "tab": "\t", "\\t": "\t", "blank": " ", "semicolon": ";"}.get(text, text)
    if len(character) != 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a single character")
    return character


def detector_path(text: str) -> Path:
    """Parse the path of a detector, as an argparse type.

    Raises:
        argparse.ArgumentTypeError: If it is data's, which an option with several values has swallowed.
    """
    path = Path(text)
    is_data = path.suffix.lower() in {*AUDIO_SUFFIXES, *LABEL_SUFFIXES} or is_archive(path)
    if path.is_dir() and not (path / CONFIG).is_file():
        is_data = not any(inside.suffix.lower() in DETECTOR_SUFFIXES for inside in path.iterdir())
    if is_data:
        raise argparse.ArgumentTypeError(
            f"{text} is no detector; name recordings before the options, or with --data"
        )
    return path


def add_checkpoints_option(parser: argparse.ArgumentParser, default: str) -> None:
    """Add --checkpoint, which takes any number of detectors.

    Args:
        parser: The parser to add it to.
        default: Which detectors are used without it, for the help text.
    """
    parser.add_argument(
        "--checkpoint",
        nargs="+",
        action="extend",
        type=detector_path,
        metavar="PATH",
        help="detector files, folders of classifiers of transformers, or hub:<owner/repo>[@revision][:file] "
        f"(default: {default})",
    )


def add_output_option(parser: argparse.ArgumentParser, default: Path) -> None:
    """Add --output, a folder."""
    parser.add_argument(
        "--output",
        type=Path,
        default=default,
        metavar="DIR",
        help="folder to write the results to (default: %(default)s)",
    )


def add_threshold_option(parser: argparse.ArgumentParser, *, several: bool = False) -> None:
    """Add --threshold, with `several` one for each detector."""
    parser.add_argument(
        "--threshold",
        type=finite,
        nargs="+" if several else None,
        action="extend" if several else "store",
        metavar="X",
        help="decision threshold, chosen on other data"
        + (", one for each detector, in their order" if several else "")
        + ": a recording with score >= X is called real; adds accuracy and a confusion table (default: none; "
        "write a negative one as --threshold=-1e-3"
        + (", and repeat the option for the next)" if several else ")"),
    )


def add_pictures_option(parser: argparse.ArgumentParser) -> None:
    """Add --pictures."""
    parser.add_argument(
        "--pictures",
        nargs="+",
        choices=PICTURE_FORMATS,
        default=PICTURE_FORMATS[:1],
        metavar="FORMAT",
        help=f"file formats of the plots: {', '.join(PICTURE_FORMATS)} (default: {PICTURE_FORMATS[0]})",
    )


def add_timeline_options(parser: argparse.ArgumentParser) -> None:
    """Add --offset, --timeline and --hop, which say what part of a recording is scored."""
    parser.add_argument(
        "--offset",
        type=not_negative,
        default=0.0,
        metavar="SECONDS",
        help="where in each recording the scored clip begins, in seconds (default: 0, as published)",
    )
    parser.add_argument(
        "--timeline",
        action="store_true",
        help="also score each recording in full, window by window, to show where it sounds synthetic",
    )
    parser.add_argument(
        "--hop",
        type=positive,
        metavar="SECONDS",
        help="time from one window of --timeline to the next, measured between their starts (default: half a "
        "window)",
    )


def add_scores_as_option(parser: argparse.ArgumentParser, formats: Collection[str]) -> None:
    """Add --scores-as, which takes any number of formats."""
    parser.add_argument(
        "--scores-as",
        nargs="+",
        action="extend",
        choices=formats,
        default=[],
        metavar="FORMAT",
        help=f"also write the scores in these formats, which other programs read: {', '.join(formats)} "
        "(default: none)",
    )


def add_device_options(parser: argparse.ArgumentParser, precisions: Sequence[str] = PRECISIONS) -> None:
    """Add --device and --precision.

    Args:
        parser: The parser to add them to.
        precisions: The choices of --precision besides auto.
    """
    parser.add_argument(
        "--device",
        default="auto",
        help="device to compute on: cpu, cuda, cuda:1, mps; or auto, which is cuda if available, else mps, "
        "else cpu (default: auto)",
    )
    parser.add_argument(
        "--precision",
        choices=(*precisions, "auto"),
        default="fp32",
        help="number format in which the front end computes; auto is bf16 where the device computes it fast, "
        "else fp32 (default: fp32, as published)",
    )


def add_machine_options(
    parser: argparse.ArgumentParser, precisions: Sequence[str] = PRECISIONS, batch_size: int | None = None
) -> None:
    """Add --device, --precision, --frontend, --batch-size and --workers.

    Args:
        parser: The parser to add them to.
        precisions: The choices of --precision besides auto.
        batch_size: The default of --batch-size, for training; None to choose for the device, for scoring.
    """
    clips = "number of clips that are scored together (default: 4 on a CPU, up to 64 on a GPU)"
    if batch_size:
        clips = f"number of clips in a training step, over all processes (default: {batch_size})"
    add_device_options(parser, precisions)
    parser.add_argument(
        "--frontend",
        choices=ENGINES,
        default="transformers",
        help="library that computes XLS-R; both give the same scores, but fairseq must be installed as "
        "requirements-fairseq.txt says (default: %(default)s)",
    )
    parser.add_argument(
        "--batch-size",
        type=whole(1),
        default=batch_size,
        metavar="N",
        help=clips,
    )
    parser.add_argument(
        "--workers",
        type=whole(0),
        metavar="N",
        help="number of processes that decode audio in advance, 0 for none (default: chosen for the device)",
    )


def add_version(parser: argparse.ArgumentParser) -> None:
    """Add --version."""
    words = "print the project's version and exit"
    parser.add_argument("--version", action="version", version=f"{NAME} {version()}", help=words)


def add_general_options(parser: argparse.ArgumentParser) -> None:
    """Add --quiet, which `run.run_script` follows, and --version."""
    parser.add_argument(
        "-q",
        "--quiet",
        action="store_true",
        help="print warnings and errors only; the results are in the output folder",
    )
    add_version(parser)


def add_audit_option(parser: argparse.ArgumentParser) -> None:
    """Add --no-audit."""
    parser.add_argument("--no-audit", action="store_true", help="do not search for duplicate recordings")
