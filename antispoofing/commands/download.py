"""Fetch what the project needs: the data set, the published detectors, any detector on the Hugging Face Hub.

python -m antispoofing download for-2sec                   # Fake-or-Real's two-second clips, extracted
python -m antispoofing download LA_model.pth --output detectors
python -m antispoofing download hub:SpeechAntiSpoofingBenchmarks/W2V2-AASIST:LA_model.pth
"""

from __future__ import annotations

import argparse
from pathlib import Path

from antispoofing.commands.run import run_script
from antispoofing.project import Invocation
from antispoofing.published import HUB_FORM, HUB_SPEC, PUBLISHED


def parse_args(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m antispoofing download", description="Fetch data and detectors."
    )
    parser.add_argument(
        "names",
        nargs="+",
        type=_name,
        metavar="NAME",
        help=f"{', '.join(PUBLISHED)}, or a file of the Hugging Face Hub: {HUB_FORM}",
    )
    parser.add_argument("--output", type=Path, default=Path(), metavar="DIR", help="default: here")
    return parser.parse_args(argv)


def _name(text: str) -> str:
    if text not in PUBLISHED and not HUB_SPEC.fullmatch(text):
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(PUBLISHED)}, nor {HUB_FORM}")
    return text


def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0, or 2 after one line on stderr that says what cannot be fetched."""
    return run_script("-m antispoofing download", run, parse_args, argv)


def run(args: argparse.Namespace, invocation: Invocation) -> int:
    """Fetch what is named and say where it is. Raises DownloadError."""
    from antispoofing.data import download  # and all that fetching needs: half a second

    for name in args.names:
        path = download.fake_or_real(args.output) if name == "for-2sec" else download.get(name, args.output)
        print(path)
    return 0
