"""MediaWiki XML dumps: articles as wikitext in this process, their prose in the workers.

Source: Devlin et al. 2019 §3.1: of Wikipedia "we extract only the text passages and ignore lists, tables, and
headers". The markup is parsed by `mwparserfromhell`; what is kept of it is decided here.
Differs: templates are dropped but for a few whose arguments are the text; so are references, galleries and formulas.
"""

import re
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

from bert_jax.corpus.documents import Document, InputLog, SourceConfig, read_blocks
from bert_jax.corpus.remote import AnyPath

_DROPPED_TAGS = frozenset(
    re.findall(
        r"\S+",
        "ref references table gallery math chem score timeline syntaxhighlight source pre imagemap graph "
        "templatestyles mapframe nowiki hiero section noinclude includeonly",
    )
)
_LIST_TAGS = frozenset(("li", "dt", "dd"))
# Templates that stand for their own arguments: name → which of them.
_KEPT_TEMPLATES = {"lang": (2,), "nowrap": (1,), "convert": (1, 2), "transl": (2,), "ipa": ()}

_NAMESPACE_LINK = re.compile(r"^[^:|\s][^:|]*:\S")
_FILE = re.compile(r"\.(?:jpe?g|png|svg|gif|tiff?|webp|ogg|oga|ogv|webm|wav|mp3|pdf|djvu)\s*$", re.IGNORECASE)
_DROP_LINE = "\x00"  # stands in a line that is a list item or a table's rest
_QUOTES = re.compile(r"'{2,5}")
_MAGIC_WORD = re.compile(r"__[A-Z]+__")
_EMPTY_BRACKETS = re.compile(r"\s*\(\s*(?:[,;:]\s*)*\)")
_OPEN_BRACKETS = re.compile(r"\((?:\s*[,;])+\s*")
_SPACE_BEFORE_MARK = re.compile(r" +([,.;])")


def read_mediawiki(path: AnyPath, source: SourceConfig, log: InputLog) -> Iterator[Document]:
    """Yield the articles of a `pages-articles` dump: namespace 0, wikitext, no redirects."""
    parser = ElementTree.XMLPullParser(("start", "end"))
    reader = _PageReader(path)
    try:
        for block in read_blocks(path, log):
            parser.feed(block)
            yield from reader.documents(parser)
        parser.close()
        yield from reader.documents(parser)
    except ElementTree.ParseError as error:
        # In mode "skip" a damaged compressed file comes here too, as a dump that ends early.
        log.corrupt(f"{path}, behind the page {reader.last_title!r} (page {reader.num_pages})", f"not XML: {error}")


class _PageReader:
    """Takes finished <page> elements out of a growing tree, and empties the tree behind itself."""

    def __init__(self, path: AnyPath) -> None:
        self.path = path
        self.num_pages = 0
        self.last_title = ""
        self._root: Any = None

    def documents(self, parser: "ElementTree.XMLPullParser[Any]") -> Iterator[Document]:
        """Yield the documents that are complete by now."""
        events: Any = parser.read_events()
        for event, element in events:
            if event == "start":
                self._root = element if self._root is None else self._root
            elif element.tag.endswith("}page") or element.tag == "page":
                self.num_pages += 1
                yield from self._document(element)
                self._root.clear()

    def _document(self, page: Any) -> Iterator[Document]:
        values = {element.tag.rpartition("}")[2]: element for element in page.iter()}
        self.last_title = _text_of(values.get("title"))
        is_article = _text_of(values.get("ns")) in ("", "0") and "redirect" not in values
        if is_article and _text_of(values.get("model")) in ("", "wikitext"):
            text = _text_of(values.get("text"))
            yield Document(text, self.last_title, f"{self.path}, page {self.num_pages} {self.last_title!r}")


def _text_of(element: Any) -> str:
    return "" if element is None else element.text or ""


def extract_mediawiki(document: Document, log: InputLog) -> Document:
    """Return an article's passages, one paragraph a line, without markup."""
    return Document(strip_markup(document.text), document.title, document.origin)


def strip_markup(wikitext: str) -> str:
    r"""Return the prose of wikitext, one paragraph a line.

    Example:
        "== A ==\\n'''Ab''' is [[big|large]].{{cite}}\\n* item" gives "Ab is large."
    """
    import mwparserfromhell  # here, not above: most corpora do without, and each worker would wait for it

    pieces: list[str] = []
    _collect(mwparserfromhell.parse(_QUOTES.sub("", wikitext), skip_style_tags=True), pieces)
    lines = []
    for line in "".join(pieces).split("\n"):
        line = _MAGIC_WORD.sub("", line).strip()
        if not line or _DROP_LINE in line or line[0] in "|!{}*#:;=":
            continue
        line = _OPEN_BRACKETS.sub("(", _EMPTY_BRACKETS.sub("", line))
        lines.append(_SPACE_BEFORE_MARK.sub(r"\1", line))
    return "\n".join(lines)


def _collect(wikicode: Any, pieces: list[str]) -> None:
    from mwparserfromhell import nodes

    siblings = wikicode.nodes
    for index, node in enumerate(siblings):
        if isinstance(node, nodes.Text):
            pieces.append(node.value)
        elif isinstance(node, nodes.Wikilink):
            if not _is_beside_the_text(node, siblings, index):
                _collect(node.title if node.text is None else node.text, pieces)
        elif isinstance(node, nodes.Tag):
            _collect_tag(node, pieces)
        elif isinstance(node, nodes.Template):
            _collect_template(node, pieces)
        elif isinstance(node, nodes.HTMLEntity):
            pieces.append(_entity(node))
        elif isinstance(node, nodes.ExternalLink):
            if node.title is not None:
                _collect(node.title, pieces)
        elif isinstance(node, nodes.Heading):
            pieces.append("\n")
        # What is left are comments and arguments of templates.


def _entity(node: Any) -> str:
    try:
        return node.normalize()
    except (ValueError, OverflowError):  # a number that is no character
        return ""


def _collect_tag(node: Any, pieces: list[str]) -> None:
    name = str(node.tag).strip().lower()
    if name == "br":
        pieces.append("\n")
    elif name in _LIST_TAGS and node.wiki_markup:
        pieces.append(_DROP_LINE)
    elif name not in _DROPPED_TAGS and node.contents is not None:
        _collect(node.contents, pieces)


def _collect_template(node: Any, pieces: list[str]) -> None:
    for number in _KEPT_TEMPLATES.get(str(node.name).strip().lower(), ()):
        if node.has(number):
            _collect(node.get(number).value, pieces)
            pieces.append(" ")


def _is_beside_the_text(link: Any, siblings: list[Any], index: int) -> bool:
    """Tell whether a link is a picture, a category or a link to another language, in any language's words."""
    target = str(link.title)
    if not _NAMESPACE_LINK.match(target):
        return False
    if link.text is None or _FILE.search(target):
        return True
    before = str(siblings[index - 1]) if index else "\n"
    behind = str(siblings[index + 1]) if index + 1 < len(siblings) else "\n"
    return before.endswith("\n") and behind.startswith("\n")  # alone in its line: a category with a sort key
