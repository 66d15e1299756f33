"""Fetch the data set, the published detectors, or any detector on the Hugging Face Hub.

python -m antispoofing download for-2sec                   # Fake-or-Real's two-second clips, extracted
python -m antispoofing download LA_model.pth --output detectors
python -m antispoofing download hub:SpeechAntiSpoofingBenchmarks/W2V2-AASIST:LA_model.pth
"""

from __future__ import annotations

import argparse
from pathlib import Path

from antispoofing.commands import options
from antispoofing.commands.run import run_script
from antispoofing.project import Invocation
from antispoofing.published import HUB_FORM, HUB_SPEC, PUBLISHED


def parse_args(argv: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m antispoofing download",
        description="Fetch Fake-or-Real, the published detectors, or any detector on the Hugging Face Hub.",
    )
    parser.add_argument(
        "names",
        nargs="+",
        type=_name,
        metavar="NAME",
        help=f"what to fetch: {', '.join(PUBLISHED)}, or a detector on the Hugging Face Hub: {HUB_FORM}",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="folder to download to (default: the current one)",
    )
    options.add_version(parser)
    return parser.parse_args(argv)


def _name(text: str) -> str:
    if text not in PUBLISHED and not HUB_SPEC.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is neither one of {', '.join(PUBLISHED)} nor {HUB_FORM}")
    return text


def main(argv: list[str] | None = None) -> int:
    """Run the command; return 0, or 2 after one line on stderr that says what cannot be fetched."""
    return run_script("-m antispoofing download", run, parse_args, argv)


def run(args: argparse.Namespace, invocation: Invocation) -> int:
    """Fetch each named file and print where it is; return the exit code.

    Raises:
        DownloadError: If a file cannot be fetched, or is not the one it should be.
    """
    from antispoofing.data import download  # takes half a second to import

    for name in args.names:
        path = download.fake_or_real(args.output) if name == "for-2sec" else download.get(name, args.output)
        print(path)
    return 0
