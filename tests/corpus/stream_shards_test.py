import dataclasses
import json
from collections import Counter

import numpy as np
import pytest

from bert_jax.corpus import pipeline, stream_shards
from bert_jax.corpus.buckets import read_bucket
from bert_jax.corpus.instances import InstanceConfig
from bert_jax.corpus.pipeline import prepare
from bert_jax.corpus.records import read_manifest
from bert_jax.corpus.shards import verify_shards
from bert_jax.corpus.streams import StreamConfig, read_in_order, read_stream_manifest
from bert_jax.corpus.word_vocabulary import WordVocabulary
from bert_jax.input.instances import open_windows
from tests.corpus.pipeline_test import make_config, write_inputs

STREAM = StreamConfig("stream-4", 4, vocab_size=30, min_count=1)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return write_inputs(tmp_path_factory.mktemp("streams") / "inputs")


def stream_config(inputs, **overrides):
    return make_config(inputs, **{"instances": (), "streams": (STREAM,), **overrides})


@pytest.fixture(scope="module")
def finished(inputs, tmp_path_factory):
    corpus = tmp_path_factory.mktemp("streams") / "corpus"
    prepare(stream_config(inputs), corpus, num_processes=1)
    return corpus


def hashes(corpus):
    return read_stream_manifest(corpus / "instances" / "stream-4").splits


def test_the_windows_hold_the_documents_of_every_bucket_in_order(finished):
    for split in ("train", "validation"):
        windows = open_windows(finished, "stream-4", split)
        words = np.array(windows.read(np.arange(len(windows)))).reshape(-1, 2, 5)[:, :, :4]
        expected: list[list[str]] = [[], []]
        for path in sorted((finished / "documents").glob(f"{split}-*")):
            for found, direction in zip(expected, read_in_order(read_bucket(path), "basic")[:2], strict=True):
                found += direction[: len(direction) // 4 * 4]
        assert [list(words[:, direction].ravel()) for direction in range(2)] == expected


def test_the_vocabulary_is_of_the_train_split_and_counts_are_its_frequencies(finished):
    directory = finished / "instances" / "stream-4"
    vocabulary, counts = WordVocabulary.load(directory / "tokenizer"), np.load(directory / "token_counts.npy")
    assert vocabulary.vocab_size == len(counts) == 30
    text = " ".join(path.read_text() for path in (finished / "documents").glob("train-*")).split()
    found: Counter[str] = Counter(text)
    assert [found[word] for word in vocabulary.words[3:]] == list(counts[3:])
    assert sorted(counts[3:], reverse=True) == list(counts[3:])
    assert counts[2] == len(text) - counts[3:].sum()
    assert counts[1] == read_stream_manifest(directory).counts["train"]["sequences"]


def test_a_corpus_of_streams_alone_has_no_word_pieces_until_a_set_wants_them(inputs, finished, tmp_path):
    assert not (finished / "tokenizer").exists()
    assert json.loads((finished / "manifest.json").read_text())["instances"] == ["stream-4"]
    prepare(stream_config(inputs), tmp_path, num_processes=1)
    both = stream_config(inputs, instances=(InstanceConfig("nsp-16", sequence_length=16),))
    prepare(both, tmp_path, num_processes=1)
    assert read_manifest(tmp_path / "instances" / "nsp-16").num_records("train")
    assert hashes(tmp_path) == hashes(finished)


def test_streams_are_added_to_a_corpus_and_not_changed(inputs, tmp_path):
    prepare(stream_config(inputs), tmp_path, num_processes=1)
    more = dataclasses.replace(STREAM, name="stream-6", words_per_window=6)
    prepared = prepare(stream_config(inputs, streams=(more,)), tmp_path, num_processes=1)
    assert [manifest.name for manifest in prepared.instances] == ["stream-4", "stream-6"]
    other = dataclasses.replace(STREAM, min_count=7)
    with pytest.raises(ValueError, match=r"streams\.stream-4\.min_count: 1 there, 7 now"):
        prepare(stream_config(inputs, streams=(other,)), tmp_path, num_processes=1)


def test_the_result_does_not_depend_on_where_a_run_stopped(inputs, finished, tmp_path, monkeypatch):
    build, calls = stream_shards.build_window_bucket, []

    def stop(config, stream, bucket):
        if bucket == 1:
            raise KeyboardInterrupt
        calls.append(bucket)
        build(config, stream, bucket)

    with monkeypatch.context() as patched:
        patched.setattr(stream_shards, "build_window_bucket", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare(stream_config(inputs), tmp_path, num_processes=1)
    assert calls == [0]
    prepare(stream_config(inputs), tmp_path, num_processes=1)
    assert hashes(tmp_path) == hashes(finished)
    assert verify_shards(tmp_path)[1] == []


def test_kinds_are_not_mixed_up(finished):
    with pytest.raises(ValueError, match="of kind 'stream'; 'bert' is read here"):
        read_manifest(finished / "instances" / "stream-4")


def test_a_corpus_wants_a_set_and_names_of_their_own(inputs):
    with pytest.raises(ValueError, match="one instance set or more"):
        stream_config(inputs, streams=())
    with pytest.raises(ValueError, match="each takes a name of its own"):
        stream_config(inputs, streams=(STREAM, STREAM))
    assert pipeline.CorpusConfig.streams == ()
