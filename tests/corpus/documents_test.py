import bz2
import gzip
import json

import pytest

from bert_jax.corpus import documents
from bert_jax.corpus.documents import CorruptInputError, InputLog, SourceConfig
from bert_jax.corpus.sources import estimate_text_bytes, list_inputs, read_input

WIKI = """<doc id="1" url="u" title="One">
One

First paragraph. Still.
Second.
</doc>
<doc id="2" url="u" title="Two">
Two

Other.
</doc>
"""


def read(kind, path, on_error="stop", **options):
    log = InputLog(on_error)
    return list(read_input(SourceConfig(kind, **options), path, log)), log


@pytest.mark.parametrize(("suffix", "pack"), [("", bytes), (".gz", gzip.compress), (".bz2", bz2.compress)])
def test_blank_lines_separate_documents_of_given_sentences(tmp_path, suffix, pack):
    path = tmp_path / f"a.txt{suffix}"
    path.write_bytes(pack(b"\xef\xbb\xbfa b.\r\nc\r\n\r\n \t\n\nd\n\n"))
    found, log = read("sentences", path)
    assert [document.text.split() for document in found] == [["a", "b.", "c"], ["d"]]
    assert [document.origin for document in found] == [f"{path}:1", f"{path}:6"]
    assert all(document.sentences_given for document in found)
    assert log.bytes_read == path.stat().st_size


def test_documents_do_not_depend_on_the_size_of_blocks(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("".join(f"line {i}\n" + "\n" * (i % 3) for i in range(50)))
    whole, _ = read("sentences", path)
    for size in (1, 2, 7, 64):
        monkeypatch.setattr(documents, "BLOCK_BYTES", size)
        assert read("sentences", path)[0] == whole


def test_text_without_blank_lines_names_the_kind_for_it(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "MAX_DOCUMENT_BYTES", 10)
    path = tmp_path / "a.txt"
    path.write_text("a long line\nanother\n")
    with pytest.raises(ValueError, match="kind=lines"):
        read("sentences", path)
    found, _ = read("lines", path, rows_per_document=1)
    assert [document.text for document in found] == ["a long line", "another"]


def test_a_book_too_large_for_a_document_names_the_kinds_for_it(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "MAX_DOCUMENT_BYTES", 10)
    path = tmp_path / "a.txt"
    path.write_text("a long line\nanother\n")
    with pytest.raises(ValueError, match=r"kind=sentences.* or kind=lines"):
        read("books", path)


def test_bytes_that_are_not_utf8_are_named_or_skipped(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"good\n\nb\xffd\n\nlast\n")
    with pytest.raises(CorruptInputError, match=rf"{path}:3, byte 1.*on_error=skip"):
        read("sentences", path)
    found, log = read("sentences", path, "skip")
    assert [document.text.strip() for document in found] == ["good", "last"]
    assert log.num_corrupt == 1


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress)])
def test_a_truncated_file_is_named_with_its_position(tmp_path, suffix, pack):
    path = tmp_path / f"a.txt{suffix}"
    path.write_bytes(pack(b"a b c\n\n" * 2000)[:-12])
    with pytest.raises(CorruptInputError, match=rf"{path}, byte \d+ of the decompressed text"):
        read("sentences", path)
    assert read("sentences", path, "skip")[1].num_corrupt == 1


def test_a_book_is_one_document_in_any_of_two_encodings(tmp_path):
    path = tmp_path / "caf.txt"
    path.write_bytes("Café.\n\nEnd.".encode("latin-1"))
    found, _ = read("books", path)
    assert [(document.title, document.text) for document in found] == [("caf", "Café.\n\nEnd.")]


def test_jsonl_takes_text_and_title(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "A.", "title": "T"}) + "\n\n" + json.dumps({"text": "B."}) + "\n")
    found, _ = read("jsonl", path)
    assert [(document.text, document.title, document.origin) for document in found] == [
        ("A.", "T", f"{path}:1"),
        ("B.", "", f"{path}:3"),
    ]


@pytest.mark.parametrize("line", ['{"text": ', '{"body": "x"}', '["text"]', '{"text": 3}'])
def test_a_bad_json_line_is_named_or_skipped(tmp_path, line):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "A."}\n' + line + '\n{"text": "B."}\n')
    with pytest.raises(CorruptInputError, match=f"{path}:2"):
        read("jsonl", path)
    found, log = read("jsonl", path, "skip")
    assert [document.text for document in found] == ["A.", "B."]
    assert log.num_corrupt == 1


def test_wikiextractor_drops_the_title_line(tmp_path):
    path = tmp_path / "wiki_00"
    path.write_text(WIKI)
    found, _ = read("wikiextractor", path)
    assert [(document.title, document.text.split("\n")) for document in found] == [
        ("One", ["", "", "First paragraph. Still.", "Second."]),
        ("Two", ["", "", "Other."]),
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (WIKI.removesuffix("</doc>\n"), "ends within"),
        ("stray\n" + WIKI, "outside of <doc>"),
        (WIKI.replace("</doc>\n<doc", "<doc", 1), "not closed"),
    ],
)
def test_wikiextractor_reports_broken_documents(tmp_path, text, reason):
    path = tmp_path / "wiki_00"
    path.write_text(text)
    with pytest.raises(CorruptInputError, match=reason):
        read("wikiextractor", path)
    found, log = read("wikiextractor", path, "skip")
    assert log.num_corrupt == 1
    assert found


def test_the_text_of_a_source_is_estimated_from_its_files(tmp_path):
    for name in ("a.xml", "b.xml.bz2"):
        (tmp_path / name).write_bytes(bytes(1000))
    assert estimate_text_bytes(SourceConfig("mediawiki", str(tmp_path))) == 2500
    assert estimate_text_bytes(SourceConfig("sentences", f"{tmp_path}/a.xml")) == 1000


def test_inputs_are_files_directories_and_globs_in_order(tmp_path):
    for name in ("b.txt", "a.txt.gz", "sub/c.md", "note.pdf", ".hidden.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")

    def names(path):
        return [str(found.relative_to(tmp_path)) for found in list_inputs(SourceConfig("books", path))]

    assert names(str(tmp_path)) == ["a.txt.gz", "b.txt", "sub/c.md"]
    assert names(f"{tmp_path}/b.txt,{tmp_path}/*.gz") == ["b.txt", "a.txt.gz"]


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (SourceConfig("book", "x"), ValueError, "did you mean 'books'"),
        (SourceConfig("books", "/nowhere/*.txt"), FileNotFoundError, "matches no file"),
        (SourceConfig("books"), ValueError, "has no path"),
    ],
)
def test_sources_that_are_not_there_are_refused(source, error, message):
    with pytest.raises(error, match=message):
        list_inputs(source)
