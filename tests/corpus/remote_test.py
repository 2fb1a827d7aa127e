import gzip
import json

import numpy as np
import pytest
from etils import epath

from bert_jax.corpus import remote
from bert_jax.corpus.documents import InputLog, SourceConfig
from bert_jax.corpus.remote import local_set, upload
from bert_jax.corpus.shards import verify_shards
from bert_jax.corpus.sources import list_inputs, read_input, sized_inputs
from bert_jax.corpus.vocabulary import WordPiece
from bert_jax.input.instances import open_instances
from tests.conftest import write_instances

ADDRESS = "gs://b/corpora/tiny"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(remote.CACHE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def copied(monkeypatch):
    """The names of all files that were copied, in order."""
    names = []
    copy = remote._copy
    monkeypatch.setattr(remote, "_copy", lambda source, target, name: (names.append(name), copy(source, target, name)))
    return names


def test_a_corpus_in_a_bucket_reads_as_the_one_it_was_made_from(tiny_instances, bucket, cache):
    upload(tiny_instances, ADDRESS)
    ours, theirs = (open_instances(corpus, "nsp-32", "train") for corpus in (tiny_instances, ADDRESS))
    assert ours.manifest == theirs.manifest
    indices = np.arange(len(ours))
    assert ours.read_records(indices) == theirs.read_records(indices)
    assert cache in theirs.directory.parents
    assert WordPiece.load(epath.Path(ADDRESS) / "tokenizer").vocab == WordPiece.load(tiny_instances / "tokenizer").vocab


def test_a_set_is_copied_once_and_again_when_it_was_prepared_anew(tiny_instances, bucket, cache, copied):
    upload(tiny_instances, ADDRESS)
    copied.clear()
    first = local_set(ADDRESS, "nsp-32")
    assert copied[-1] == "manifest.json"
    copied.clear()
    assert local_set(ADDRESS, "nsp-32") == first
    assert copied == []
    (epath.Path(ADDRESS) / "instances" / "nsp-32").rmtree()
    for file in (tiny_instances / "instances" / "nsp-32").iterdir():
        file.unlink()
    (tiny_instances / "instances" / "nsp-32").rmdir()
    write_instances(tiny_instances, "nsp-32", seed=1)
    upload(tiny_instances, ADDRESS)
    copied.clear()
    local_set(ADDRESS, "nsp-32")
    assert len([name for name in copied if name.endswith(".array_record")]) == 4


def test_a_copy_that_was_broken_off_goes_on_with_the_shards_that_are_left(tiny_instances, bucket, cache, copied):
    upload(tiny_instances, ADDRESS)
    directory = local_set(ADDRESS, "nsp-32")
    (directory / "manifest.json").unlink()
    (directory / "train-00001-of-00003.array_record").write_bytes(b"half")
    copied.clear()
    local_set(ADDRESS, "nsp-32")
    assert [name for name in copied if name.endswith(".array_record")] == ["train-00001-of-00003.array_record"]


def test_a_shard_that_is_not_what_was_uploaded_is_refused_and_asked_for_again(tiny_instances, bucket, cache):
    upload(tiny_instances, ADDRESS)
    name = "b/corpora/tiny/instances/nsp-32/train-00002-of-00003.array_record"
    whole, bucket[name] = bucket[name], b"other"
    with pytest.raises(ValueError, match=r"gs://b/.*/train-00002-of-00003.array_record is missing, or not what"):
        local_set(ADDRESS, "nsp-32")
    bucket[name] = whole
    open_instances(ADDRESS, "nsp-32", "train").close()


def test_what_is_not_in_the_bucket_is_said_with_its_address(tiny_instances, bucket, cache):
    upload(tiny_instances, ADDRESS)
    with pytest.raises(FileNotFoundError, match=rf"{ADDRESS} has no instance set 'nsp-64' .* it has nsp-32"):
        open_instances(ADDRESS, "nsp-64", "train")
    with pytest.raises(FileNotFoundError, match="there is no corpus gs://b/nothing"):
        open_instances("gs://b/nothing", "nsp-32", "train")


def test_the_corpus_manifest_goes_last_and_what_is_there_is_not_uploaded_again(tiny_instances, bucket, copied):
    (tiny_instances / ".lock").touch()
    (tiny_instances / "instances" / "nsp-32" / "x.1.tmp").touch()
    assert upload(tiny_instances, ADDRESS) == len(bucket)
    assert copied[-2:] == ["instances/nsp-32/manifest.json", "manifest.json"]
    assert not [name for name in bucket if "lock" in name or "tmp" in name]
    copied.clear()
    upload(tiny_instances, ADDRESS)
    assert not [name for name in copied if name.startswith("instances/")]


def test_another_corpus_is_not_uploaded_over_one_that_is_there(tiny_instances, bucket):
    upload(tiny_instances, ADDRESS)
    (tiny_instances / "tokenizer" / "vocab.txt").write_text("[PAD]\n")
    with pytest.raises(ValueError, match=r"holds another corpus than .*vocab.txt differs"):
        upload(tiny_instances, ADDRESS)


def test_shards_in_a_bucket_are_verified(tiny_instances, bucket):
    upload(tiny_instances, ADDRESS)
    bucket["b/corpora/tiny/instances/nsp-32/train-00000-of-00003.array_record"] = b"other"
    count, [wrong] = verify_shards(epath.Path(ADDRESS))
    assert (count, wrong.name) == (4, "train-00000-of-00003.array_record")


@pytest.mark.parametrize("path", ["gs://b/texts", "gs://b/texts/*.gz,gs://b/texts/more/b.jsonl"])
def test_sources_are_read_from_a_bucket(bucket, path):
    bucket["b/texts/a.jsonl.gz"] = gzip.compress(json.dumps({"text": "one"}).encode())
    bucket["b/texts/more/b.jsonl"] = json.dumps({"text": "two"}).encode()
    bucket["b/texts/.hidden.jsonl"] = b"no"
    source = SourceConfig("jsonl", path)
    inputs = list_inputs(source)
    assert [str(each) for each in inputs] == ["gs://b/texts/a.jsonl.gz", "gs://b/texts/more/b.jsonl"]
    assert [size for _, size in sized_inputs((source,))[0]] == [len(bucket["b/texts/a.jsonl.gz"]), 15]
    assert [document.text for each in inputs for document in read_input(source, each, InputLog())] == ["one", "two"]


def test_a_missing_source_in_a_bucket_is_an_error(bucket):
    with pytest.raises(FileNotFoundError, match=r"'gs://b/none' .* matches no file"):
        list_inputs(SourceConfig("jsonl", "gs://b/none"))
