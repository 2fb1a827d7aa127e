"""Every kind of source on a real sample: counts that are known, and text that looks like text."""

import pytest

from bert_jax.corpus.documents import InputLog, SourceConfig
from bert_jax.corpus.sentences import document_sentences
from bert_jax.corpus.sources import extract, list_inputs, read_input

pytestmark = pytest.mark.shared


def sentences_of(source, on_error="stop"):
    log = InputLog(on_error)
    found = []
    for path in list_inputs(source):
        for document in read_input(source, path, log):
            extracted = extract(source, document, log)
            found.append(document_sentences(extracted.text, extracted.sentences_given))
    return found, log


@pytest.mark.parametrize(
    ("kind", "path", "num_documents", "words_a_sentence"),
    [
        ("sentences", "fixtures/bert_sample_text.txt", 3, (10, 30)),
        ("books", "books/gutenberg_raw", 13, (12, 25)),
        ("books", "books/classic/A*.md.gz", 9, (12, 35)),
        ("jsonl", "wiki/json_sample/wiki_00.jsonl.gz", 35, (12, 30)),
        ("wikiextractor", "wiki_xml/viwiki-sample.extracted.txt", 9, (15, 35)),
        ("mediawiki", "wiki_xml/*table-markup.xml.bz2", 5, (12, 35)),
        ("wikiextractor", "zh/zhwiki2023", None, (1, 3)),
    ],
)
def test_samples_become_sentences(kind, path, num_documents, words_a_sentence, shared_data):
    documents, _ = sentences_of(SourceConfig(kind, str(shared_data / path)))
    assert num_documents is None or len(documents) == num_documents
    sentences = [sentence for document in documents for sentence in document]
    words = sum(len(sentence.split()) for sentence in sentences)
    assert words_a_sentence[0] < words / len(sentences) < words_a_sentence[1]
    text = "\n".join(sentences)
    for leftover in ("Gutenberg-tm", "<doc", "</doc>", "{{", "\r", "\ufeff"):
        assert leftover not in text


def test_a_truncated_dump_is_skipped_and_counted(shared_data):
    documents, log = sentences_of(
        SourceConfig("mediawiki", str(shared_data / "wiki_xml" / "viwiki-sample.xml")), "skip"
    )
    assert (len(documents), log.num_corrupt) == (6, 1)
