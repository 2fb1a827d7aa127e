"""Cleaning of text and splitting into sentences; a document leaves as a list of sentences.

Rules, not a model: a sentence ends behind `.`, `!` or `?` (with closing quotes and brackets) when white space and then
something that can begin a sentence follow, unless the word before the full stop is an abbreviation or an initial; and
behind the CJK stops in any case. One compiled expression finds the candidates, so the text is scanned once, in C.
"""

import re
import unicodedata

# Control and format characters other than white space; soft hyphens and zero-width marks would split words later.
_DROPPED = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufffd\ud800-\udfff]"
)

# The candidates; a class of three characters in front lets the engine skip quickly to the next one.
_END = re.compile(r"([.!?]+)[\"'”’»)\]]*( )(?=[\"'“‘«(\[¿¡]*[^\W_a-z])")
_CJK_STOP = re.compile("[。！？｡]")
_CJK_END = re.compile(r"(?<=[。！？｡])(?![。！？｡」』”’）】》])|(?<=[。！？｡][」』”’）】》])(?![」』”’）】》])")

# Words that end in a full stop within a sentence, lower case, without it.
_ABBREVIATIONS = frozenset(
    re.findall(
        r"\S+",
        "mr mrs ms dr prof st sr jr rev hon gen col capt lt sgt maj gov sen rep pres messrs mme mlle mt ft "
        "vs e.g i.e eg ie cf ca c viz approx est vol vols no nos pp p ch fig figs sec ed eds trans "
        "jan feb mar apr jun jul aug sep sept oct nov dec bros dept univ assn ave blvd u.s u.k u.n d.c",
    )
)


def clean(text: str) -> list[str]:
    """Return the lines of a text in NFC, stripped and without control characters; white space is one blank."""
    lines = text.split("\n")
    # A text with nothing to clean, which is the usual one, is known by a few scans in C, not line by line.
    if text.isascii() and "".join(lines).isprintable() and not any(odd in text for odd in ("  ", " \n", "\n ")):
        lines[0], lines[-1] = lines[0].lstrip(), lines[-1].rstrip()
        return lines
    return [_clean_line(line) for line in lines]


def _clean_line(line: str) -> str:
    if not line.isascii() and not unicodedata.is_normalized("NFC", line):
        line = unicodedata.normalize("NFC", line)
    # Characters that are to go, and white space other than a blank, are not printable; this scan is 10 times faster
    # than an expression's.
    if line.isprintable() and "  " not in line:
        return line.strip()
    return " ".join(_DROPPED.sub("", line).split())


def split_sentences(paragraph: str) -> list[str]:
    """Split one cleaned paragraph into its sentences.

    Example:
        "Mr. Smith left. He ran!" gives ["Mr. Smith left.", "He ran!"].
    """
    if not paragraph.isascii() and _CJK_STOP.search(paragraph):
        return [sentence for part in _CJK_END.split(paragraph) for sentence in _split_spaced(part)]
    return _split_spaced(paragraph)


def _split_spaced(paragraph: str) -> list[str]:
    sentences = []
    start = 0
    for match in _END.finditer(paragraph):
        stop, gap = match.span(1)[0], match.start(2)
        if match[1] == "." and not _ends_sentence(paragraph, start, stop):
            continue
        sentences.append(paragraph[start:gap])
        start = gap + 1
    rest = paragraph[start:].strip()
    if rest:
        sentences.append(rest)
    return sentences


def _ends_sentence(paragraph: str, start: int, stop: int) -> bool:
    """Tell whether the full stop at `stop` ends the sentence that begins at `start`."""
    word = paragraph[max(start, paragraph.rfind(" ", start, stop) + 1) : stop]
    if word.isalpha() and len(word) > 6:
        return True  # the usual case, without the rest
    word = word.lstrip("\"'“‘«([")
    if len(word) == 1:
        return not word.isupper() or word == "I"  # an initial, as in "J. Smith"
    word = word.lower()
    return word not in _ABBREVIATIONS


def document_sentences(text: str, sentences_given: bool, verbatim: bool = False) -> list[str]:
    """Return a document's sentences; none is empty.

    Args:
        text: one paragraph a line, or one sentence a line.
        sentences_given: each line is a sentence already.
        verbatim: do not clean the lines beyond stripping them (and dropping U+0001, which means nothing to WordPiece).
    """
    if verbatim:  # noqa: SIM108 (too long for one line)
        lines = [line.strip() for line in text.replace("\x01", "").split("\n")]
    else:
        lines = clean(text)
    if sentences_given:
        return [line for line in lines if line]
    return [sentence for line in lines if line for sentence in split_sentences(line)]
