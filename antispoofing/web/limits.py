"""What strangers may ask of the page: sizes, minutes, files, and the seconds that reading them may take."""

from __future__ import annotations

from dataclasses import dataclass

REQUEST_BYTES = 2**20  # of a request, but for uploads, which gradio limits by `Limits.megabytes`
UPLOAD_SECONDS = 600  # that an uploaded file is kept
UPLOAD_BYTES = 5e9  # of all uploads together; then the oldest go


@dataclass(frozen=True)
class Limits:
    """What one request may ask for.

    Attributes:
        megabytes: of a file.
        minutes: of a recording that is heard in full.
        files: at once, or in an archive.
        seconds_per_file: to read it; an archive is one file.
        seconds: to read all files of a request.
        unpacked_megabytes: of an archive.
    """

    megabytes: float = 100
    minutes: float = 10
    files: int = 200
    seconds_per_file: float = 20
    seconds: float = 60
    unpacked_megabytes: float = 500
