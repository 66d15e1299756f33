"""Files that others have published and this project uses: where they are and how to recognise them."""

from __future__ import annotations

import re
from dataclasses import dataclass

# The folder of the detectors' authors on Google Drive, and a file there, by its id.
DRIVE = "https://drive.google.com/drive/folders/1c4ywztEVlYVijfwbGLl9OEa1SNtFKppB"
DRIVE_FILE = "https://drive.google.com/uc?id="

# How to name a file of the Hugging Face Hub.
HUB = "hub:"
HUB_FORM = "hub:<owner/repo>[@revision][:file]"
HUB_SPEC = re.compile(r"hub:(?P<repo>[^/@:]+/[^/@:]+)(@(?P<revision>[^:]+))?(:(?P<file>.+))?")

DETECTOR_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")

# What a folder of a model for transformers holds: its configuration, and how clips are prepared; and one of
# the files of weights.
CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class PublishedFile:
    """One published file.

    Attributes:
        name: Its file name.
        source: Its URL, or that of the Google Drive folder that holds it.
        size: Its size in bytes, if known.
        sha256: The beginning of its SHA-256 in hexadecimal, if known.
        error_rate: For a detector, the EER that its authors published; "" for other files.
        elsewhere: For a detector, its EER on data of other kinds, as others have measured it.
        trained_on: For a detector, the data that it was trained on, and by whom.
    """

    name: str
    source: str
    size: int | None = None
    sha256: str | None = None
    error_rate: str = ""
    elsewhere: str = ""
    trained_on: str = "ASVspoof 2019 LA, by Tak et al. (Odyssey 2022)"


# The repository of AASIST's authors.
_RAW_AASIST = "https://raw.githubusercontent.com/clovaai/aasist/main/models/weights"
NOT_MEASURED = "not known; detectors trained on ASVspoof 2019 alone fail on newer fakes"

# The files by the names that `python -m antispoofing download` gives them.
PUBLISHED = {
    "for-2sec": PublishedFile("for-2sec.tar.gz", "https://www.eecs.yorku.ca/~bil/Datasets/for-2sec.tar.gz"),
    "LA_model.pth": PublishedFile(
        "LA_model.pth",
        DRIVE,
        1271633441,
        "bd6f3609",
        "EER 0.82 % on ASVspoof 2021 LA, evaluation phase",
        "11.2 % on In-the-Wild, 16.3 % on ASVspoof 5, 38.6 % on CD-ADD, 46.1 % on SONAR; 23.6 % on average "
        "over eight sets other than ASVspoof 2019 and 2021 (Speech Anti-Spoofing Arena)",
    ),
    "Best_LA_model_for_DF.pth": PublishedFile(
        "Best_LA_model_for_DF.pth",
        DRIVE,
        1271642081,
        "1cf904f1",
        "EER 2.85 % on ASVspoof 2021 DF, evaluation phase",
        "not published for this file; LA_model.pth, made in the same way, errs on 23.6 % on average over "
        "eight sets other than ASVspoof 2019 and 2021 (Speech Anti-Spoofing Arena)",
    ),
    "AASIST.pth": PublishedFile(
        "AASIST.pth",
        f"{_RAW_AASIST}/AASIST.pth",
        1281532,
        "51d2d9cf",
        "EER 0.83 % on ASVspoof 2019 LA",
        NOT_MEASURED,
        "ASVspoof 2019 LA, by Jung et al. (ICASSP 2022)",
    ),
    "AASIST-L.pth": PublishedFile(
        "AASIST-L.pth",
        f"{_RAW_AASIST}/AASIST-L.pth",
        426428,
        "814331d0",
        "EER 0.99 % on ASVspoof 2019 LA",
        NOT_MEASURED,
        "ASVspoof 2019 LA, by Jung et al. (ICASSP 2022)",
    ),
    "xlsr2_300m.pt": PublishedFile(
        "xlsr2_300m.pt",
        "https://dl.fbaipublicfiles.com/fairseq/wav2vec/xlsr2_300m.pt",
        3808868242,
        "b0892759",
    ),
}

# The published detectors' file names, in the order in which they are reported.
DETECTOR_NAMES = (
    "best_la_model.pth",  # this name is the assignment's
    "LA_model.pth",
    "Best_LA_model_for_DF.pth",
    "best_SSL_model_LA.pth",  # this name and the next are from the authors' README
    "best_SSL_model_DF.pth",
    "AASIST.pth",
    "AASIST-L.pth",
)


def claimed_name(name: str, sha256: str) -> str | None:
    """Return a published detector's name that a file bears without being that file; None if it does not."""
    if name not in DETECTOR_NAMES:
        return None
    known = published_detector(sha256)
    if known is None or (name in PUBLISHED and known.name != name):
        return name
    return None


def published_detector(sha256: str) -> PublishedFile | None:
    """Return the published detector whose file has this SHA-256; None for any other file."""
    for file in PUBLISHED.values():
        if file.error_rate and file.sha256 and sha256.startswith(file.sha256):
            return file
    return None
