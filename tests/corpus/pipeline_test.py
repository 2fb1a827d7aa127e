import dataclasses
import gzip
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bert_jax.corpus import pipeline
from bert_jax.corpus.buckets import read_bucket
from bert_jax.corpus.documents import CorruptInputError, SourceConfig
from bert_jax.corpus.instances import InstanceConfig
from bert_jax.corpus.pipeline import CorpusConfig, TokenizerConfig, prepare
from bert_jax.corpus.records import read_manifest

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def write_inputs(directory, num_files=3, documents_a_file=12):
    """Write Google's format: documents of a few sentences of words w0 … w39, and a vocabulary for them."""
    directory.mkdir(exist_ok=True)
    rng = random.Random(0)
    for file in range(num_files):
        documents = [
            "\n".join(" ".join(f"w{rng.randrange(40)}" for _ in range(rng.randrange(3, 9))) for _ in range(6))
            for _ in range(documents_a_file)
        ]
        (directory / f"{file}.txt").write_text("\n\n".join(documents) + "\n")
    vocab = directory / "vocab.vocab"
    vocab.write_text("\n".join([*SPECIALS, *(f"w{k}" for k in range(40))]) + "\n")
    return directory


def make_config(inputs, **overrides):
    config = CorpusConfig(
        sources=(SourceConfig("sentences", str(inputs)),),
        instances=(InstanceConfig("nsp-16", sequence_length=16), InstanceConfig("none-32", "none", 32)),
        tokenizer=TokenizerConfig(vocab_file=str(inputs / "vocab.vocab")),
        num_buckets=3,
        validation_fraction=0.25,
    )
    return dataclasses.replace(config, **overrides)


def shard_hashes(corpus):
    return {
        f"{name}/{shard.file}": shard.sha256
        for name in ("nsp-16", "none-32")
        for shards in read_manifest(corpus / "instances" / name).splits.values()
        for shard in shards
    }


def files(corpus):
    return sorted(str(path.relative_to(corpus)) for path in corpus.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return write_inputs(tmp_path_factory.mktemp("pipeline") / "inputs")


@pytest.fixture(scope="module")
def finished(inputs, tmp_path_factory):
    """A corpus that was made without interruption."""
    corpus = tmp_path_factory.mktemp("pipeline") / "corpus"
    prepare(make_config(inputs), corpus, num_processes=1)
    return corpus


def test_a_corpus_is_made_of_documents_tokenizer_and_sets(finished):
    manifest = json.loads((finished / "manifest.json").read_text())
    (source,) = manifest["documents"]["sources"]
    assert (source["documents"], source["sentences"]) == (36, 216)
    assert source["train_documents"] + source["validation_documents"] == 36
    assert manifest["tokenizer"]["vocab_size"] == 45
    assert manifest["tokenizer"]["unknown_rate"] == 0
    assert manifest["instances"] == ["nsp-16", "none-32"]
    train = [name for name in files(finished) if "nsp-16/train" in name]
    assert train == [f"instances/nsp-16/train-{bucket:05d}-of-00003.array_record" for bucket in range(3)]
    assert not [name for name in files(finished) if "tmp" in name or "bucket-" in name or "scatter" in name]


def test_documents_keep_their_text_and_splits_are_disjoint(inputs, finished):
    def read(pattern):
        return {tuple(text) for path in (finished / "documents").glob(pattern) for text in read_bucket(path)}

    train, validation = read("train-*"), read("validation-*")
    given = {
        tuple(text.split("\n")) for path in inputs.glob("*.txt") for text in path.read_text().strip().split("\n\n")
    }
    assert train | validation == given
    assert not train & validation


def test_token_counts_are_of_the_train_rows(finished):
    counts = np.load(finished / "instances" / "nsp-16" / "token_counts.npy")
    train = read_manifest(finished / "instances" / "nsp-16").counts["train"]
    specials = train["sequences"]  # each sequence has a [CLS], and two [SEP] or, without a partner, one
    assert counts.dtype == np.int64
    assert counts[:5].sum() == 0
    assert train["real_tokens"] - 3 * specials <= counts.sum() <= train["real_tokens"] - 2 * specials


def test_the_result_does_not_depend_on_the_number_of_processes(inputs, finished, tmp_path):
    prepare(make_config(inputs), tmp_path, num_processes=2)
    assert shard_hashes(tmp_path) == shard_hashes(finished)
    assert files(tmp_path) == files(finished)


# A run that dies at the n-th of the renames by which every step ends; small chunks, so that there are many steps.
KILLED_RUN = """
import os, signal, sys
from pathlib import Path
from bert_jax.corpus import buckets
from tests.corpus.pipeline_test import make_config, prepare

rename, left = os.replace, int(sys.argv[3])
def replace(*names):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    rename(*names)
os.replace = replace
buckets.CHUNK_CHARACTERS, buckets.COMMIT_BYTES = 700, 1500
prepare(make_config(Path(sys.argv[1])), Path(sys.argv[2]), 1)
"""


# 0 config, 1-4 journal, 5-13 settled buckets, 14 documents, 15 tokenizer, 16-33 shards and notes, 34.. manifests
@pytest.mark.parametrize("renames", [2, 4, 8, 15, 20, 30])
def test_a_killed_run_is_continued_to_the_same_corpus(inputs, finished, tmp_path, renames):
    command = [sys.executable, "-c", KILLED_RUN, inputs, tmp_path, str(renames)]
    killed = subprocess.run(list(map(str, command)), capture_output=True, cwd=Path(__file__).parents[2], check=False)
    assert killed.returncode == -9, killed.stderr.decode()
    assert not (tmp_path / "manifest.json").exists()
    assert [name for name in files(tmp_path) if name.endswith(".tmp")]
    prepare(make_config(inputs), tmp_path, num_processes=1)
    assert shard_hashes(tmp_path) == shard_hashes(finished)
    assert files(tmp_path) == files(finished)
    assert json.loads((tmp_path / "documents" / "manifest.json").read_text()) == json.loads(
        (finished / "documents" / "manifest.json").read_text()
    )


def test_a_finished_corpus_is_left_alone(inputs, finished):
    before = {path: path.stat().st_mtime_ns for path in (finished / "instances").rglob("*")}
    prepare(make_config(inputs), finished, num_processes=1)
    assert {path: path.stat().st_mtime_ns for path in (finished / "instances").rglob("*")} == before


def test_another_config_is_refused_with_the_difference(inputs, finished):
    with pytest.raises(ValueError, match=r"validation_fraction: 0.25 there, 0.5 now"):
        prepare(make_config(inputs, validation_fraction=0.5), finished, num_processes=1)
    changed = (InstanceConfig("nsp-16", sequence_length=20), InstanceConfig("none-32", "none", 32))
    with pytest.raises(ValueError, match=r"instances.nsp-16.sequence_length: 16 there, 20 now"):
        prepare(make_config(inputs, instances=changed), finished, num_processes=1)


def test_a_set_can_be_added(inputs, tmp_path):
    config = make_config(inputs, instances=(InstanceConfig("nsp-16", sequence_length=16),))
    prepare(config, tmp_path, num_processes=1)
    hashes = [shard.sha256 for shard in read_manifest(tmp_path / "instances" / "nsp-16").splits["train"]]
    prepare(make_config(inputs), tmp_path, num_processes=1)
    assert (tmp_path / "instances" / "none-32" / "manifest.json").exists()
    assert [shard.sha256 for shard in read_manifest(tmp_path / "instances" / "nsp-16").splits["train"]] == hashes


def test_the_number_of_buckets_goes_by_the_size_of_the_inputs(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "BUCKET_BYTES", 1000)
    prepare(make_config(inputs, num_buckets=0), tmp_path, num_processes=1)
    assert json.loads((tmp_path / "config.json").read_text())["num_buckets"] == 8  # 4.3 kB of text
    monkeypatch.undo()
    prepared = prepare(make_config(inputs, num_buckets=0), tmp_path, num_processes=1)
    assert prepared.continued
    assert len(prepared.instances[0].splits["train"]) == 8


def test_buckets_that_would_not_fit_into_memory_are_refused(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "MAX_BUCKET_BYTES", 1000)
    with pytest.raises(ValueError, match=r"num_buckets is 3, .* set it to 5 or more, or to 0"):
        prepare(make_config(inputs), tmp_path / "corpus", num_processes=1)
    assert not (tmp_path / "corpus").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"sources": (SourceConfig("sentences", "/nowhere"),)}, "'/nowhere' .* matches no file"),
        ({"sources": (SourceConfig("tfds", "nothing", data_dir="/nowhere"),)}, "no dataset nothing"),
        ({"tokenizer": TokenizerConfig("/nowhere/vocab.txt")}, "/nowhere/vocab.txt does not exist"),
    ],
)
def test_what_is_missing_is_said_before_anything_is_written(inputs, tmp_path, overrides, message):
    with pytest.raises(FileNotFoundError, match=message):
        prepare(make_config(inputs, **overrides), tmp_path / "corpus", num_processes=1)
    assert not (tmp_path / "corpus").exists()


def test_a_directory_of_something_else_is_refused_and_left_alone(inputs, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"data": {"corpus": "data/x"}, "seed": 0}))
    with pytest.raises(ValueError, match=r"config.json is no corpus' config.*--corpus"):
        prepare(make_config(inputs), tmp_path, num_processes=1)
    assert files(tmp_path) == ["config.json"]


def test_only_our_own_temporaries_are_removed(inputs, tmp_path):
    others = ["mine.tmp", "documents/notes.tmp", "photos/a.1.tmp", "instances/b.2.tmp"]
    ours = ["config.7.tmp", "documents/train-00000-of-00003.7.tmp", "instances/nsp-16/manifest.7.tmp"]
    for name in others + ours:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    prepare(make_config(inputs), tmp_path, num_processes=1)
    assert sorted(name for name in files(tmp_path) if name.endswith(".tmp")) == sorted(others)


def test_everything_may_be_corrected_before_anything_was_read(tmp_path):
    inputs = write_inputs(tmp_path / "inputs")
    (inputs / "0.txt").write_bytes(b"\xff")
    with pytest.raises(CorruptInputError):
        prepare(make_config(inputs, num_buckets=0), tmp_path / "corpus", num_processes=1)
    sources = (SourceConfig("sentences", f"{inputs}/[12].txt"),)
    prepared = prepare(make_config(inputs, sources=sources, seed=3), tmp_path / "corpus", num_processes=1)
    assert prepared.manifest["documents"]["sources"][0]["documents"] == 24
    assert not prepared.continued
    assert prepared.instances[0].seed == 3


def test_the_vocabulary_may_be_corrected_before_there_is_one(inputs, tmp_path):
    with pytest.raises(ValueError, match=r"use vocab_size=1\d\d"):
        prepare(make_config(inputs, tokenizer=TokenizerConfig(vocab_size=5000)), tmp_path, num_processes=1)
    with pytest.raises(ValueError, match=r"config:\n  seed: 0 there, 1 now\nuse"):
        prepare(make_config(inputs, tokenizer=TokenizerConfig(vocab_size=160), seed=1), tmp_path, num_processes=1)
    prepare(make_config(inputs, tokenizer=TokenizerConfig(vocab_size=160)), tmp_path, num_processes=1)
    shutil.rmtree(tmp_path / "documents")  # which needs no other vocabulary
    with pytest.raises(ValueError, match=r"tokenizer.vocab_size: 160 there, 150 now"):
        prepare(make_config(inputs, tokenizer=TokenizerConfig(vocab_size=150)), tmp_path, num_processes=1)


def test_a_config_key_that_came_later_has_its_default(inputs, tmp_path):
    prepare(make_config(inputs), tmp_path, num_processes=1)
    stored = json.loads((tmp_path / "config.json").read_text())
    del stored["seed"], stored["sources"][0]["data_dir"], stored["instances"][0]["whole_word"]
    (tmp_path / "config.json").write_text(json.dumps(stored))
    sets = (
        InstanceConfig("nsp-16", sequence_length=16, short_sequence_probability=0.1),  # what None meant there
        InstanceConfig("none-32", "none", 32),
    )
    assert prepare(make_config(inputs, instances=sets), tmp_path, num_processes=1).continued
    with pytest.raises(ValueError, match="seed: 0 there, 1 now"):
        prepare(make_config(inputs, seed=1), tmp_path, num_processes=1)


def test_two_runs_in_one_directory_are_refused(inputs, tmp_path):
    with pipeline.only_process(tmp_path), pytest.raises(RuntimeError, match="another process prepares"):
        prepare(make_config(inputs), tmp_path, num_processes=1)
    prepare(make_config(inputs), tmp_path, num_processes=1)


def test_changed_inputs_are_refused_while_reading_goes_on(tmp_path):
    inputs = write_inputs(tmp_path / "inputs")
    (inputs / "3.txt").write_bytes(b"\xff")
    with pytest.raises(CorruptInputError):
        prepare(make_config(inputs), tmp_path / "corpus", num_processes=1)
    journal = tmp_path / "corpus" / "documents" / "scatter" / "journal.json"
    journal.write_text(json.dumps({"inputs": [["gone.txt"]], "finished": False}))
    with pytest.raises(ValueError, match="source files are not those"):
        prepare(make_config(inputs), tmp_path / "corpus", num_processes=1)


@pytest.mark.parametrize("num_processes", [1, 2])
def test_a_corrupt_input_stops_or_is_counted(tmp_path, num_processes):
    inputs = write_inputs(tmp_path / "inputs", num_files=1)
    packed = gzip.compress(("other words here\n\n" * 3000).encode())
    (inputs / "b.txt.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(CorruptInputError, match=r"b.txt.gz, byte \d+ of the decompressed text"):
        prepare(make_config(inputs), tmp_path / "corpus", num_processes)
    prepared = prepare(make_config(inputs, on_error="skip"), tmp_path / "corpus", num_processes)
    documents = prepared.manifest["documents"]
    assert documents["sources"][0]["corrupt"] == 1
    assert "b.txt.gz" in documents["corrupt"][0]


def test_duplicates_are_dropped_and_counted_by_source(tmp_path):
    inputs = write_inputs(tmp_path / "inputs", num_files=1)
    (inputs / "again.jsonl").write_text(
        json.dumps({"text": (inputs / "0.txt").read_text().split("\n\n")[0]}) + "\n" + json.dumps({"text": " "})
    )
    sources = (
        SourceConfig("sentences", f"{inputs}/0.txt", "first"),
        SourceConfig("jsonl", f"{inputs}/again.jsonl", "second"),
    )
    prepared = prepare(make_config(inputs, sources=sources), tmp_path / "corpus", num_processes=1)
    first, second = prepared.manifest["documents"]["sources"]
    assert (first["name"], first["documents"], first.get("duplicates", 0)) == ("first", 12, 0)
    assert (second.get("documents", 0), second["duplicates"], second["empty"]) == (0, 1, 1)


def test_a_vocabulary_is_trained_on_the_train_split(inputs, tmp_path):
    config = make_config(inputs, tokenizer=TokenizerConfig(vocab_size=160))
    first = prepare(config, tmp_path / "a", num_processes=1)
    prepare(config, tmp_path / "b", num_processes=1)
    vocab = (tmp_path / "a" / "tokenizer" / "vocab.txt").read_text()
    assert vocab == (tmp_path / "b" / "tokenizer" / "vocab.txt").read_text()
    assert len(vocab.splitlines()) == 160 == first.manifest["tokenizer"]["vocab_size"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"on_error": "ignore"}, "accepted: stop, skip"),
        ({"sources": ()}, "one source or more"),
        ({"sources": (SourceConfig("book", "x"),)}, "did you mean 'books'"),
        ({"num_buckets": -1}, "num_buckets is -1"),
        ({"validation_fraction": 1.0}, "validation_fraction is 1.0"),
        ({"instances": (InstanceConfig("a"), InstanceConfig("a"))}, "a name of its own"),
        ({"instances": (InstanceConfig("a", mode="google"),)}, "mode 'google'"),
    ],
)
def test_configs_that_cannot_be_prepared_are_refused(inputs, overrides, message):
    with pytest.raises(ValueError, match=message):
        make_config(inputs, **overrides)


def test_prepared_has_what_a_benchmark_reports(inputs, tmp_path):
    prepared = pipeline.prepare(make_config(inputs), tmp_path, num_processes=1)
    size = sum(path.stat().st_size for path in inputs.glob("*.txt"))
    assert prepared.megabytes == pytest.approx(size / 1e6, rel=0.03)  # less blank lines
    assert prepared.processes == 1
    assert 0 < prepared.seconds < 60
    assert 10**7 < prepared.peak_memory_bytes < 10**10
