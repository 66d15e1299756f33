"""What a user can mend, said in one line."""


class UserError(ValueError):
    """The base of errors whose message is one line for the user; scripts end with exit code 2.

    Of several arguments each is a line: what is wrong with several rows of one file.

    Attributes:
        process: the one that raised it, where it is raised on all of a group (`distributed.on_all_ranks`).
    """

    process: int | None = None

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))


class DataError(UserError):
    """Data that cannot be used as given."""


class CheckpointError(UserError):
    """A detector file that cannot be used."""


class FairseqError(UserError):
    """fairseq is asked for, and cannot be used here."""


class DeviceError(UserError):
    """A device that is not there."""


class ProcessError(UserError):
    """Processes that cannot work together."""


class TrainingError(UserError):
    """A training that cannot go on."""


class DownloadError(UserError):
    """A file that cannot be fetched, or is not the one it should be."""
