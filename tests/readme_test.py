"""What the documents tell a reader to type or to open is there."""

import ast
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from launch import demo

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
MODULES = sorted(path for path in (ROOT / "bert_jax").rglob("*.py") if path.name != "__init__.py")

# Flags are parsed and configs built, in a fork for each command, since they are global.
PARSE = """
import importlib, json, os, sys
from absl import flags
importlib.import_module("launch." + sys.argv[1])
for command in json.loads(sys.argv[2]):
    child = os.fork()
    if not child:
        try:
            sys.argv = [sys.argv[1], *command]  # where config flags look for their overrides
            rest = flags.FLAGS(sys.argv)[1:]
            takes_words = sys.argv[0] == "benchmark" or "--" in command  # a stage; a job's own flags
            assert takes_words or not rest, f"{rest} are no flags"
        except BaseException as error:
            print(command, error, file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        sys.exit(1)
"""


def texts() -> list[str]:
    """Return the documents, the docstrings at the head of launchers and configs, and the end of the demo."""
    sources = [*(ROOT / "launch").glob("*.py"), *(ROOT / "configs").rglob("*.py")]
    heads = [ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) for path in sorted(sources)]
    return [*(path.read_text(encoding="utf-8") for path in DOCUMENTS), *filter(None, heads), demo.NEXT]


def launcher_commands() -> dict[str, list[list[str]]]:
    """Return the arguments of every `python -m launch.NAME …` in the texts, by launcher; `…` stands for some."""
    commands: dict[str, list[list[str]]] = {}
    for command in (demo.PREPARE, demo.PRETRAIN, demo.FILL_MASK):
        commands.setdefault(command[0].removeprefix("launch."), []).append(list(command[1:]))
    for text in texts():
        for found in re.finditer(r"python -m launch\.(\w+)((?:\\\n|[^\n`])*)", text):
            line = found[2].replace("\\\n", " ")
            if "…" in line:
                continue
            words = shlex.split(re.split(r"\s+[<>|]\s|\s+#", line)[0], comments=True)
            commands.setdefault(found[1], []).append(
                [word for word in words if word.startswith("--") or word.isalpha()]
            )
    return commands


COMMANDS = launcher_commands()


def test_the_quickstart_is_found() -> None:
    assert {"prepare", "pretrain", "evaluate", "fill_mask"} <= COMMANDS.keys()


@pytest.mark.entry
@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_documented_commands_parse(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PARSE, name, json.dumps(COMMANDS[name])],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_documented_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for text in texts():
        for line in re.findall(r"(?:^|`|\n)make ([a-z -]+)", text):
            assert set(line.split()) <= targets, line


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    headings = {
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.+)", text, re.M)
    }
    for target in re.findall(r"\]\(([^)]+)\)", text):
        file, _, anchor = target.partition("#")
        if "://" in target:
            continue
        assert (path.parent / file).exists(), target
        assert file or anchor in headings, target


def test_the_readme_stays_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


def test_the_architecture_names_every_module() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    missing = [
        str(path.relative_to(ROOT)) for path in MODULES if f"`{path.relative_to(ROOT / 'bert_jax')}`" not in text
    ]
    assert not missing, f"docs/architecture.md has no line for {missing}"
