"""The standard library's own documentation, as a corpus that comes with every Python.

Two parts: the language reference's chapters in `pydoc_data/topics.py`, each one a document, and the docstrings of the
library's modules, a module one document. Both are taken from source files with `ast`; nothing is imported.
"""

import ast
import re
import sysconfig
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path

from bert_jax.corpus.documents import Document, InputLog, SourceConfig

TOPICS = "pydoc_data/topics.py"
_NO_PROSE = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__", "_vendor", "_bundled"}

_UNDERLINE = re.compile(r"^([=\-~^*#\"'+.])\1{2,}\s*$")
_ROLE = re.compile(r":(?:[a-z]+:)?[a-z]+:`~?([^`<]*?)(?:\s*<[^`>]*>)?`")
_LINK = re.compile(r"`([^`<]+?)\s*<[^`>]+>`__?")
_BULLET = re.compile(r"^(?:[*+\-•]|\d+[.)]|\([a-z\d]\)|#\.)\s+")
_DIRECTIVE = re.compile(r"^\.\.(?:\s+[\w-]+::.*)?$")
_CODE = re.compile(
    r"^(?:>>>|\.\.\.(?:\s|$)|[$%]\s|\|)|[{}=]\s*$|^[\w.\[\]\"']+\s*[-+*/|&]?=\s|^(?:import|from|def|class)\s+\w+[\s:(]"
)


def list_python_docs(path: str = "") -> list[Path]:
    """Return the source files of the running Python's standard library, or of the one at `path`."""
    root = Path(path or sysconfig.get_paths()["stdlib"])
    if not (root / TOPICS).exists():
        raise FileNotFoundError(f"{root} is not a Python standard library with {TOPICS}; give its directory as path")
    return sorted(file for file in root.rglob("*.py") if not _NO_PROSE.intersection(file.relative_to(root).parts))


def read_python_docs(path: Path, source: SourceConfig, log: InputLog) -> Iterator[Document]:
    """Yield a module's source as one document (each topic of `topics.py` as one, in its own words)."""
    data = path.read_bytes()
    log.bytes_read += len(data)
    if not path.as_posix().endswith(TOPICS):
        yield Document(data.decode("utf-8", "replace"), path.stem, f"{path}:1")
        return
    for node in ast.parse(data).body:
        if isinstance(node, ast.Assign):
            for name, text in ast.literal_eval(node.value).items():
                yield Document(text, f"{name}.topic", f"{path}, topic {name}")


def extract_python_docs(document: Document, log: InputLog) -> Document:
    """Return the prose of a module's docstrings, or of a topic: one paragraph a line."""
    if document.title.endswith(".topic"):
        texts = [document.text]
    else:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # invalid escapes in old modules' strings
                tree = ast.parse(document.text)
        except (SyntaxError, ValueError) as error:  # templates and the like that end in .py
            log.corrupt(document.origin, f"not Python source ({error})")
            tree = ast.Module([], [])
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        texts = [ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, kinds)]
    paragraphs = [paragraph for text in texts for paragraph in prose_paragraphs(text)]
    return Document("\n".join(paragraphs), document.title, document.origin)


def prose_paragraphs(text: str) -> Iterator[str]:
    r"""Yield the paragraphs of a docstring, unwrapped, without code, rules and reST marks.

    Example:
        "Return x.\n\n  >>> f(1)\n\nSee :class:`Foo`\nfor more." gives "Return x.", "See Foo for more."
    """
    for block in re.split(r"\n\s*\n", textwrap.dedent(text.expandtabs())):
        lines: list[str] = []
        for line in block.splitlines():
            line = line.strip()
            if not line or _UNDERLINE.match(line) or _DIRECTIVE.match(line) or _CODE.search(line):
                continue
            bullet = _BULLET.match(line)
            if bullet and lines:
                yield from _prose(lines)
                lines = []
            lines.append(line[bullet.end() :] if bullet else line)
        yield from _prose(lines)


def _prose(lines: list[str]) -> Iterator[str]:
    paragraph = " ".join(lines)
    paragraph = _LINK.sub(r"\1", _ROLE.sub(r"\1", paragraph)).replace("``", "").replace("**", "")
    paragraph = paragraph.removesuffix("::").rstrip() + (":" if paragraph.endswith("::") else "")
    words = paragraph.split()
    # Signatures, tables and grammar are no prose: most of their "words" are not words.
    if len(words) >= 3 and sum(word.strip("\"'`(),.:;").isalpha() for word in words) >= 0.6 * len(words):
        yield paragraph
