"""Errors that a user can fix, each explained in one line."""


class UserError(ValueError):
    """Base of the errors whose message is one line for the user; a script then ends with exit code 2.

    With several arguments, each is a line of its own, for instance one for each faulty row of a file.

    Attributes:
        process: The rank of the process where it happened, if all processes of a group raise it
            (`distributed.on_all_ranks`).
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
    """A device that is not available."""


class ProcessError(UserError):
    """Processes that cannot work together."""


class TrainingError(UserError):
    """A training run that cannot continue."""


class DownloadError(UserError):
    """A file that cannot be downloaded, or is not the expected one."""
