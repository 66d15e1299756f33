"""Limits on what strangers may ask of the page."""

from __future__ import annotations

from dataclasses import dataclass

REQUEST_BYTES = 2**20  # the largest request, except for uploads, which gradio limits to `Limits.megabytes`
UPLOAD_SECONDS = 600  # how long an uploaded file is kept
UPLOAD_BYTES = 5e9  # the most that all uploads together may take; beyond that the oldest are removed


@dataclass(frozen=True)
class Limits:
    """Upper limits of one request.

    Attributes:
        megabytes: Size of a file.
        minutes: Length of a recording that is judged in full.
        files: Number of files at once, or in an archive.
        seconds_per_file: Time to read a file; an archive counts as one file.
        seconds: Time to read all files of a request.
        unpacked_megabytes: Size of what an archive contains.
    """

    megabytes: float = 100
    minutes: float = 10
    files: int = 200
    seconds_per_file: float = 20
    seconds: float = 60
    unpacked_megabytes: float = 500
