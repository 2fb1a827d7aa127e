import gzip
from pathlib import Path

import pytest

from bert_jax.corpus.documents import CorruptInputError, InputLog, SourceConfig
from bert_jax.corpus.mediawiki import read_mediawiki, strip_markup

PAGE = (
    "<page><title>{title}</title><ns>{ns}</ns>{more}"
    "<revision><model>{model}</model><text>{text}</text></revision></page>"
)
DUMPS = Path(__file__).parents[2].parent / "shared" / "data" / "wiki_xml"


def dump(*pages, end="</mediawiki>"):
    filled = [
        PAGE.format(**{"title": "T", "ns": 0, "more": "", "model": "wikitext", "text": "x"} | page) for page in pages
    ]
    return '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/">' + "".join(filled) + end


def read(path, on_error="stop"):
    log = InputLog(on_error)
    return list(read_mediawiki(path, SourceConfig("mediawiki"), log)), log


def test_only_articles_are_read(tmp_path):
    path = tmp_path / "dump.xml.gz"
    pages = [
        {"title": "One"},
        {"title": "Talk:One", "ns": 1},
        {"title": "Uno", "more": '<redirect title="One" />'},
        {"title": "Style", "model": "css"},
        {"title": "Two", "text": "a &lt;b&gt;"},
    ]
    path.write_bytes(gzip.compress(dump(*pages).encode()))
    found, _ = read(path)
    assert [(document.title, document.text) for document in found] == [("One", "x"), ("Two", "a <b>")]


def test_a_truncated_dump_is_named_with_its_last_page(tmp_path):
    path = tmp_path / "dump.xml"
    path.write_text(dump({"title": "One"}, {"title": "Two"}, end="<page><title>"))
    with pytest.raises(CorruptInputError, match=rf"{path}, behind the page 'Two' \(page 2\): not XML"):
        read(path)
    found, log = read(path, "skip")
    assert [document.title for document in found] == ["One", "Two"]
    assert log.num_corrupt == 1


@pytest.mark.parametrize(
    ("wikitext", "text"),
    [
        ("'''Ab''' is [[big|large]] and [[small]].{{cite|x}}", "Ab is large and small."),
        ("== Heading ==\nText.<ref>no</ref>\n* item\n# item\n: indented", "Text."),
        ("a\n{| class=x\n! h\n|-\n| cell\n|}\nb", "a\nb"),
        ("[[File:X.jpg|thumb|A [[caption]]]]Text [[Datei:y.PNG|a]]", "Text"),
        ("Text.\n[[Category:C]]\n[[Kategorie:C|sort]]\n[[fr:Texte]]", "Text."),
        ("See [[Star Wars: A|it]], [[wikt:word|word]], [http://x y].", "See it, word, y."),
        ("5&nbsp;km &amp; {{convert|3|mi|km}}", "5\xa0km & 3 mi"),
        ("A ({{lang-el|x}}; {{lang|fr|mot}}) b {{x}}, c ( ).", "A (mot ) b, c."),
        ("a<br />b<!-- no -->c __NOTOC__", "a\nbc"),
        ("unclosed {{template | [[link", "unclosed {{template | [[link"),
    ],
)
def test_markup_is_stripped(wikitext, text):
    assert strip_markup(wikitext) == text


@pytest.mark.shared
@pytest.mark.skipif(not DUMPS.exists(), reason="needs the shared data")
def test_dump_samples():
    for name, articles in (("tinywiki-latest-pages-articles.xml", 8), ("enwiki-table-markup.xml.bz2", 5)):
        found, _ = read(DUMPS / name)
        assert len(found) == articles
        for document in found:
            text = strip_markup(document.text)
            assert text or document.text.startswith("#REDIRECT")
            assert "[[" not in text
            assert "{|" not in text
    found, log = read(DUMPS / "viwiki-sample.xml", "skip")
    assert (len(found), log.num_corrupt) == (6, 1)
