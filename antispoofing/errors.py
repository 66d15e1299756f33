"""Errors that a user can fix, explained without a traceback."""

import os


class UserError(ValueError):
    """Base of the errors that a script reports by their message alone, ending with exit code 2.

    The message is one line for each argument, usually one, or for instance one for each faulty row of a file.

    Attributes:
        process: If all processes of a group raise the error, and only one message is to be printed: the rank
            of the process where it happened (`distributed.on_all_ranks`), or 0 if it concerns all. Otherwise
            None.
    """

    process: int | None = None

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))


class DataError(UserError):
    """Data that cannot be used as given."""


class CheckpointError(UserError):
    """A detector file that cannot be used."""


class FairseqError(UserError):
    """fairseq was asked for, but cannot be used here."""


class DeviceError(UserError):
    """A device that is not available, or cannot compute at the precision asked for."""


class ProcessError(UserError):
    """A group of processes that cannot be formed, has lost a process, or cannot share this work."""


class TrainingError(UserError):
    """A training run that cannot start, resume or continue."""


class DownloadError(UserError):
    """A file that cannot be downloaded, is not the expected one, or is in the way of a download."""


def describe(error: Exception) -> str:
    """Return an error as text; an `OSError` as "path: reason"."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    paths = [
        os.fsdecode(p) for p in (error.filename, error.filename2) if isinstance(p, str | bytes | os.PathLike)
    ]
    return ": ".join([" -> ".join(paths), error.strerror] if paths else [error.strerror])
