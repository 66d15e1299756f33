"""README and docs: commands work, lists of options are up to date, pages are short, links lead somewhere."""

import argparse
import dataclasses
import importlib
import re
import shlex
import shutil
import textwrap
import zipfile
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from family_files import CASES, TOY, file_of
from helpers import ROOT, filled

import antispoofing.__main__
import evaluate_custom
import evaluate_custom_for
import fine_tune_for
from antispoofing.data.sets import SETS
from antispoofing.detectors import families, heads, loading
from antispoofing.detectors.checkpoints import FRONT

README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [README, *DOCS]
SCRIPTS = {
    "evaluate_custom.py": evaluate_custom.main,
    "fine_tune_for.py": fine_tune_for.main,
    "evaluate_custom_for.py": evaluate_custom_for.main,
    "-m antispoofing": antispoofing.__main__.main,
}
# Commands that are run elsewhere: how they begin, the file that runs them, and a word in that file.
ELSEWHERE = [
    ("python3 -m venv .venv", ".ci/run", "^python3 -m venv"),
    ("python -m pytest", ".ci/run", "pytest"),
    ("python app.py", "tests/serving.py", "app.py"),
    ("python benchmarks/", "tests/optional/test_benchmarks.py", "benchmarks"),
    ("torchrun --nproc-per-node", "tests/test_torchrun.py", "--nproc-per-node"),
    ("torchrun --nnodes", "tests/test_torchrun.py", "--nnodes"),
    ("accelerate launch --multi_gpu", "tests/test_torchrun.py", "--multi_gpu"),
    ("python -m antispoofing download", "tests/test_data_download.py", "command.main("),
    ("python fine_tune_for.py --download", "tests/test_data_download.py", "--download"),
    ("python evaluate_custom.py --checkpoint hub:", "tests/test_data_download.py", "hub:owner/one"),
    ("at=http://127.0.0.1", "tests/test_app.py", "as curl does it"),
]


ANTIDEEPFAKE = {"proj_fc.weight", "proj_fc.bias"}  # the back end of AntiDeepfake's files


def blocks(page: Path, language: str) -> list[str]:
    """Return the code blocks of a page."""
    text = page.read_text(encoding="utf-8")
    return [
        textwrap.dedent(code) for code in re.findall(rf"^ *```{language}\n(.*?)^ *```$", text, re.M | re.S)
    ]


def commands(page: Path) -> list[str]:
    """Return a page's commands, one line each; a block that sets variables counts as one command."""
    found = []
    for block in blocks(page, "sh"):
        lines = block.replace("\\\n", " ").splitlines()
        found += [block] if "$" in block else [" ".join(line.split()) for line in lines if line]
    return found


ALL = sorted({command for page in PAGES for command in commands(page)})
RUN_HERE = [c for c in ALL if not any(c.startswith(beginning) for beginning, *_ in ELSEWHERE)]


def program(command: str) -> tuple[str, list[str]]:
    """Return the program that a command starts, and its arguments."""
    words = shlex.split(command.removeprefix("python "))
    return (" ".join(words[:2]), words[2:]) if words[0] == "-m" else (words[0], words[1:])


@pytest.fixture(scope="module")
def small(small_config):
    """A network that takes no time."""
    return dataclasses.replace(small_config, clip_samples=8000)


def speech(folder: Path, *names: str) -> None:
    """Write recordings of one second."""
    rng = np.random.default_rng(len(names))
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        tone = np.sin(np.arange(16000) * rng.uniform(0.05, 0.3)) * 0.3
        soundfile.write(path, tone + 0.02 * rng.standard_normal(16000), 16000)


def write(path: Path, rows: Iterable[str]) -> None:
    """Write a text file with these rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")


def furnish(home: Path, official: dict[str, torch.Tensor]) -> None:
    """Fill a folder with toy versions of the files that the pages mention."""
    shapes = {name: tuple(tensor.shape) for name, tensor in official.items()}
    for seed, name in enumerate(("LA_model.pth", "Best_LA_model_for_DF.pth")):
        torch.save(filled(shapes, seed), home / name)
    front_end = {k.removeprefix(FRONT): v for k, v in official.items() if k.startswith(FRONT)}
    torch.save({"model": front_end}, home / "xlsr2_300m.pt")
    speech(home, "suspicious.mp3", "clip.mp3", "long.wav")
    for folder in ("my_folder", "Dataset_Speech_Assignment"):
        speech(home / folder, *(f"{label}/{i}.wav" for label in ("Real", "Fake") for i in range(4)))
    for split in ("training", "validation", "testing"):
        names = (f"{label}/{i}.wav" for label in ("real", "fake") for i in range(4))
        speech(home / "for-2seconds" / split, *names)
    with zipfile.ZipFile(home / "my_recordings.zip", "w") as archive:
        for path in (home / "my_folder").rglob("*.wav"):
            archive.write(path, path.relative_to(home))

    labels = ["bonafide", "spoof"] * 4
    wild = home / "release_in_the_wild"
    speech(wild, *(f"{i}.wav" for i in range(8)))
    write(
        wild / "meta.csv", ["file,speaker,label", *(f"{i}.wav,S{i // 2},{x}" for i, x in enumerate(labels))]
    )
    la, asv = home / "LA", "ASVspoof2019.LA.cm"
    for part, end in (("train", "trn"), ("dev", "trl")):
        speech(la / f"ASVspoof2019_LA_{part}/flac", *(f"LA_{part}_{i}.flac" for i in range(8)))
        rows = (f"LA_00{i} LA_{part}_{i} - - {x}" for i, x in enumerate(labels))
        write(la / "ASVspoof2019_LA_cm_protocols" / f"{asv}.{part}.{end}.txt", rows)
    speech(home / "ASVspoof2021_DF_eval/flac", *(f"DF_E_{i}.flac" for i in range(8)))
    ids = [f"X DF_E_{i} mp3 vcc A1 {x} notrim eval v T t F E" for i, x in enumerate(labels)]
    write(home / "keys/DF/CM/trial_metadata.txt", ids)
    ids = [f"X LA_E_{i} alaw loc A0{i} {x} notrim eval" for i, x in enumerate(labels)]
    write(home / "keys/LA/CM/trial_metadata.txt", ids)
    write(home / "scores.txt", (f"LA_E_{i} {(i * 5) % 8}" for i in range(8)))
    ids = [f"X E_{i} F C05 5 - AC1 A19 {x} -" for i, x in enumerate(labels)]
    write(home / "ASVspoof5.eval.track_1.tsv", ids)
    write(home / "scores.tsv", ["filename\tcm-score", *(f"E_{i}\t{(i * 3) % 8}" for i in range(8))])


@pytest.fixture(scope="module")
def furnished(tmp_path_factory, small, small_official) -> Path:
    """Make a folder with these files, and with the results of scripts that later commands need."""
    home = tmp_path_factory.mktemp("docs")
    furnish(home, small_official)
    with pytest.MonkeyPatch.context() as patch:
        as_small(patch, home, small)
        assert fine_tune_for.main(["--epochs", "1"]) == 0
        assert evaluate_custom.main([]) == 0
    return home


def as_small(monkeypatch: pytest.MonkeyPatch, home: Path, config) -> None:
    """Change to a folder, and take official files for small networks instead of XLS-R 300M."""
    monkeypatch.chdir(home)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    for name in ("check_detector", "load_detector", "load_front_end"):
        function = partial(getattr(loading, name), config=config)
        monkeypatch.setattr(loading, name, function)


@pytest.mark.parametrize("command", RUN_HERE)
def test_a_command_works(command, furnished, small, tmp_path, monkeypatch, capsys):
    home = shutil.copytree(furnished, tmp_path / "home")  # what a command leaves there concerns no other
    as_small(monkeypatch, home, small)
    name, arguments = program(command)
    assert SCRIPTS[name](arguments) == 0, capsys.readouterr().err


def test_every_other_command_is_run_elsewhere():
    for command in set(ALL) - set(RUN_HERE):
        places = [(file, word) for beginning, file, word in ELSEWHERE if command.startswith(beginning)]
        assert all(word in (ROOT / file).read_text(encoding="utf-8") for file, word in places), command
    assert all(any(c.startswith(beginning) for c in ALL) for beginning, *_ in ELSEWHERE)


@pytest.mark.parametrize("command", sorted(set(ALL) - set(RUN_HERE)))
def test_a_command_that_is_run_elsewhere_names_a_program_and_arguments_that_it_takes(command):
    words = shlex.split(command.splitlines()[0].rpartition("&& ")[2].removeprefix("python "))
    if words[:2] == ["-m", "antispoofing"]:
        importlib.import_module(f"antispoofing.commands.{words[2]}").parse_args(words[3:])
    elif words[:2] == ["-m", "pytest"]:
        assert all((ROOT / word).exists() for word in words if word.startswith("tests/"))
    elif words[0].startswith("benchmarks/"):
        text = (ROOT / words[0]).read_text(encoding="utf-8")
        assert all(f'"{word}"' in text for word in words if word.startswith("--"))
    elif scripts := [i for i, word in enumerate(words) if word.endswith(".py")]:
        script, arguments = words[scripts[0]], words[scripts[0] + 1 :]
        importlib.import_module(script.removesuffix(".py")).parse_args(arguments)
    else:
        assert words[0].startswith("at=")  # tests/test_app.py has the same calls


@pytest.mark.parametrize("page", ["README.md", "docs/detectors.md"])
def test_the_python_works(page, furnished, small, monkeypatch, capsys):
    as_small(monkeypatch, furnished, small)
    code = blocks(ROOT / page, "python")[-1]
    code = code.replace('"samples/', f'"{ROOT}/samples/')
    exec(compile(code, page, "exec"), {})
    if page == "README.md":
        assert len([line for line in code.splitlines() if line]) <= 10
        assert "'auc': 0.959" in capsys.readouterr().out


def test_the_family_of_the_example_is_found_and_scores(tmp_path, monkeypatch):
    example, _ = blocks(ROOT / "docs/detectors.md", "python")
    (tmp_path / "hidden_layer.py").write_text(example, encoding="utf-8")
    monkeypatch.setattr(heads, "__path__", [*heads.__path__, str(tmp_path)])
    before = families.FAMILIES
    monkeypatch.setattr(families, "FAMILIES", families.find_families())
    (family,) = (family for family in families.FAMILIES if family.head not in {f.head for f in before})
    weights = {
        "hidden.weight": torch.randn(8, 64),
        "hidden.bias": torch.randn(8),
        "out.weight": torch.randn(2, 8),
        "out.bias": torch.randn(2),
    }
    front_end = {k: v for k, v in file_of(CASES["antideepfake_toy"]).items() if k not in ANTIDEEPFAKE}
    tensors = {k.replace("m_ssl.model.", "ssl_model.model."): v for k, v in front_end.items()} | weights
    torch.save(tensors, tmp_path / "theirs.pth")
    detector = loading.load_detector(tmp_path / "theirs.pth", device="cpu", config=TOY)
    assert families.recognise(tensors) is family
    assert detector.config.head_sizes == {"hidden": 8}
    wave = torch.from_numpy(
        detector.config.prepare(np.random.default_rng(0).standard_normal(20000, np.float32))
    )
    assert len(wave) == 20000
    with torch.inference_mode():
        mean = detector.features(wave[None]).mean(1)
        expected = (mean @ weights["hidden.weight"].T + weights["hidden.bias"]).relu() @ weights[
            "out.weight"
        ].T
        logits = loading.for_scoring(detector)(wave[None])
    torch.testing.assert_close(logits, expected + weights["out.bias"], atol=1e-5, rtol=0)


class _Built(Exception):
    """Raised with a finished parser instead of parsing."""


def parser_of(name: str, monkeypatch: pytest.MonkeyPatch) -> argparse.ArgumentParser:
    """Return the parser of a script, or of a command of `python -m antispoofing`."""

    def tell(parser, *args):
        raise _Built(parser)

    is_script = (ROOT / f"{name}.py").is_file()
    module = importlib.import_module(name if is_script else f"antispoofing.commands.{name}")
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", tell)
    monkeypatch.delenv("GRADIO_SERVER_NAME", raising=False)
    with pytest.raises(_Built) as built:
        module.parse_args([])
    return built.value.args[0]


def listed_options(parser: argparse.ArgumentParser) -> str:
    """Return a parser's arguments and options as a Markdown list, group by group."""
    formatter, lines = parser._get_formatter(), []
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if action.help != argparse.SUPPRESS]
        actions = [action for action in actions if not isinstance(action, argparse._HelpAction)]
        if actions and group.title not in ("options", "positional arguments"):
            lines.append(f"\n{group.title.capitalize()}:\n")
        for action in actions:
            value = formatter._format_args(action, formatter._get_default_metavar_for_optional(action))
            value = re.sub(r"(\w+) \[\1 \.\.\.\]", r"\1 ...", value) if action.nargs != 0 else ""
            names = f"{action.option_strings[-1]} {value}".strip() if action.option_strings else action.dest
            text = f"- `{names}`: {formatter._expand_help(action)}"
            wrapped = textwrap.wrap(
                text, 118, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
            )
            lines.append("\n".join(wrapped))
    return "\n".join(lines).strip()


MARKED = re.compile(r"<!-- options: (\w+) -->\n(.*?)<!-- end -->", re.S)


SETS_MARKED = re.compile(r"<!-- sets -->\n(.*?)<!-- end -->", re.S)


def test_the_data_sets_are_listed_as_the_table_has_them(request):
    page = ROOT / "docs" / "data.md"
    rows = [f"| [{s.name}]({s.source}) | {s.layout} | {s.licence} |" for s in SETS]
    table = "\n".join(["| data set | layout | licence |", "|---|---|---|", *rows])
    text = page.read_text(encoding="utf-8")
    right = SETS_MARKED.sub(lambda _: f"<!-- sets -->\n\n{table}\n\n<!-- end -->", text)
    if request.config.getoption("--write-docs"):
        page.write_text(right, encoding="utf-8")
    assert "<!-- sets -->" in right
    assert page.read_text(encoding="utf-8") == right, "run this test with --write-docs to update the page"


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_options_are_listed_as_the_programs_have_them(page, monkeypatch, request):
    text = page.read_text(encoding="utf-8")

    def made(match: re.Match) -> str:
        with monkeypatch.context() as patch:
            options = listed_options(parser_of(match[1], patch))
        return f"<!-- options: {match[1]} -->\n\n{options}\n\n<!-- end -->"

    right = MARKED.sub(made, text)
    if request.config.getoption("--write-docs"):
        page.write_text(right, encoding="utf-8")
    assert page.read_text(encoding="utf-8") == right, (
        "to update the page: python -m pytest tests/test_docs.py --write-docs"
    )


def test_every_program_has_its_options_listed():
    names = {name for page in DOCS for name, _ in MARKED.findall(page.read_text(encoding="utf-8"))}
    scripts = {path.stem for path in ROOT.glob("*.py")} - {"model", "data_utils"}
    assert names == scripts | antispoofing.__main__.COMMANDS.keys()


# Options of torchrun, accelerate and pytest that the pages name.
OTHERS = {"--nproc-per-node", "--nnodes", "--node-rank", "--master-addr", "--master-port", "--multi_gpu"}
OTHERS |= {"--num_processes", "--dist", "--kills", "--write-docs"}


def test_every_option_that_is_named_exists(monkeypatch):
    names = {name for page in DOCS for name, _ in MARKED.findall(page.read_text(encoding="utf-8"))}
    known = set(OTHERS)
    for name in names:
        with monkeypatch.context() as patch:
            known |= set(parser_of(name, patch)._option_string_actions)
    for page in PAGES:
        assert set(re.findall(r"(?<![\w-])--[a-z][\w-]*", page.read_text(encoding="utf-8"))) <= known


def test_code_is_marked_as_what_is_tested():
    languages = {
        lang for page in PAGES for lang in re.findall(r"^ *```(\w+)", page.read_text(encoding="utf-8"), re.M)
    }
    assert languages == {"sh", "python"}
    with_python = {page.name for page in PAGES if blocks(page, "python")}
    assert with_python == {"README.md", "detectors.md", "page.md"}  # the last one's calls: tests/test_app.py


def test_the_readme_is_short():
    assert len(README.read_bytes()) <= 9000


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_has_no_long_line_and_links_that_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if len(line) > 160] == []
    for link in re.findall(r"\]\(([^)]+)\)", text):
        target, _, anchor = link.partition("#")
        if target.startswith("http"):
            continue
        path = (page.parent / target) if target else page
        assert path.exists(), link
        if anchor:
            titles = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.M)
            assert anchor in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}, (
                link
            )


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_a_page_opens_with_one_command(page):
    title, _, opening, *_ = page.read_text(encoding="utf-8").splitlines()
    assert title.startswith("# ")
    assert opening == "```sh"
    assert len(blocks(page, "sh")[0].splitlines()) == 1


def test_every_module_has_its_line():
    text = (ROOT / "docs" / "development.md").read_text(encoding="utf-8")
    room, listed = "", set()
    for line in text.splitlines():
        if found := re.match(r"\| \*\*`([\w/]+)/`\*\*", line):
            room = "antispoofing" if found[1] == "antispoofing" else f"antispoofing/{found[1]}"
        elif line.startswith("| `"):
            listed |= {
                f"{room}/{name}".lstrip("/") for name in re.findall(r"`([\w.]+\.py)`", line.split("|")[1])
            }
        elif listed and not line.startswith("|"):
            break
    paths = [*ROOT.glob("*.py"), *ROOT.glob("antispoofing/**/*.py")]
    there = {path.relative_to(ROOT).as_posix() for path in paths}
    assert listed == {path for path in there if not re.search(r"/\w+/__init__\.py$", path)}
