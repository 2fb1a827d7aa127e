import dataclasses
import os
import threading

import numpy as np
import pytest

from bert_jax.corpus import records
from bert_jax.input.instances import open_instances


def edit_manifest(corpus, **changes):
    directory = corpus / "instances" / "nsp-32"
    manifest = records.read_manifest(directory)
    records.write_manifest(directory, dataclasses.replace(manifest, **changes))


def shard_path(corpus, number=1):
    return corpus / "instances" / "nsp-32" / f"train-{number:05d}-of-00003.array_record"


def row_bytes(rows, record_format):
    return records.encode_rows(rows, record_format)


def test_rows_come_in_the_order_asked_for(tiny_instances):
    instances = open_instances(tiny_instances, "nsp-32", "train")
    record_format = instances.manifest.record_format
    everything = row_bytes(instances.read(np.arange(101)), record_format)
    asked = np.array([100, 0, 33, 34, 35, 34, 67, 68, 1, 100])

    assert row_bytes(instances.read(asked), record_format) == [everything[index] for index in asked]


def test_the_stored_rows_are_those_written(tiny_instances):
    # Random rows differ, so 101 different ones are the 101 of the three shards.
    instances = open_instances(tiny_instances, "nsp-32", "train")

    assert len(instances) == 101
    assert len(set(row_bytes(instances.read(np.arange(101)), instances.manifest.record_format))) == 101


def test_many_threads_may_read_at_once(tiny_instances):
    instances = open_instances(tiny_instances, "nsp-32", "train")
    expected = instances.read(np.arange(101)).input_ids
    wrong = []

    def read_often(seed):
        generator = np.random.default_rng(seed)
        for _ in range(50):
            indices = generator.integers(0, 101, 30)
            if not (instances.read(indices).input_ids == expected[indices]).all():
                wrong.append(seed)

    threads = [threading.Thread(target=read_often, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_missing_corpus_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no corpus .*nowhere.*launch\.prepare"):
        open_instances(tmp_path / "nowhere", "nsp-32", "train")


def test_a_missing_set_lists_those_there_are(make_instances):
    make_instances(name="nsp-32")
    corpus = make_instances(name="none-64", sequence_length=64, pairs="none")

    with pytest.raises(FileNotFoundError, match=r"no instance set 'nsp-128'.*it has none-64, nsp-32"):
        open_instances(corpus, "nsp-128", "train")


def test_a_set_without_manifest_does_not_exist(tiny_instances):
    os.remove(tiny_instances / "instances" / "nsp-32" / "manifest.json")

    with pytest.raises(FileNotFoundError, match="prepared to its end; it has none"):
        open_instances(tiny_instances, "nsp-32", "train")


def test_a_wrong_split_lists_the_splits(tiny_instances):
    with pytest.raises(ValueError, match="is 'test'; accepted: train, validation"):
        open_instances(tiny_instances, "nsp-32", "test")


def test_an_empty_split_is_refused(make_instances):
    with pytest.raises(ValueError, match=r"'validation' .* has no rows"):
        open_instances(make_instances(num_validation_rows=0), "nsp-32", "validation")


def test_a_missing_shard_is_named(tiny_instances):
    os.remove(shard_path(tiny_instances))

    with pytest.raises(FileNotFoundError, match=r"train-00001-of-00003.array_record does not exist.* 34 records"):
        open_instances(tiny_instances, "nsp-32", "train")


def test_a_cut_shard_is_named(tiny_instances):
    path = shard_path(tiny_instances)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    with pytest.raises(ValueError, match=r"train-00001-of-00003.array_record .*(whole ArrayRecord|records, its)"):
        open_instances(tiny_instances, "nsp-32", "train")


def test_a_shard_with_other_records_than_the_manifest_says_is_named(tiny_instances):
    shard_path(tiny_instances, 2).replace(shard_path(tiny_instances, 1))
    shard_path(tiny_instances, 2).write_bytes(shard_path(tiny_instances, 0).read_bytes())

    with pytest.raises(ValueError, match=r"train-00001-of-00003.array_record has 33 records, its manifest says 34"):
        open_instances(tiny_instances, "nsp-32", "train")


@pytest.mark.parametrize("is_copy", [False, True], ids=["own", "copy of a bucket's"])
def test_a_corrupt_record_is_named_and_what_to_do(tiny_instances, monkeypatch, is_copy):
    if is_copy:
        monkeypatch.setenv("BERT_JAX_CACHE", str(tiny_instances.parent))
    path = shard_path(tiny_instances)
    content = bytearray(path.read_bytes())
    content[2000:2064] = bytes(byte ^ 0xFF for byte in content[2000:2064])  # records come first in the file
    path.write_bytes(content)
    instances = open_instances(tiny_instances, "nsp-32", "train")

    with pytest.raises(ValueError, match=r"train-00001-of-00003.array_record, record \d+, cannot be read") as error:
        instances.read(np.arange(101))
    assert ("it is copied anew" in str(error.value)) == is_copy
    assert ("--verify" in str(error.value)) == (not is_copy)


def test_a_flipped_bit_is_named_wherever_it_changes_a_record(tiny_instances):
    path = shard_path(tiny_instances)
    content, every = path.read_bytes(), np.arange(101)
    whole = open_instances(tiny_instances, "nsp-32", "train").read_records(every)
    named = 0
    for place in range(0, len(content), len(content) // 40):
        path.write_bytes(content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :])
        try:
            found = open_instances(tiny_instances, "nsp-32", "train").read_records(every)
        except ValueError as error:
            named += "train-00001-of-00003.array_record" in str(error)
        else:
            assert found == whole, place  # what fills the file up means nothing
    assert named > 0


def test_a_record_of_another_size_is_named(tiny_instances):
    manifest = records.read_manifest(tiny_instances / "instances" / "nsp-32")
    edit_manifest(tiny_instances, record_format=dataclasses.replace(manifest.record_format, sequence_length=64))
    instances = open_instances(tiny_instances, "nsp-32", "train")

    with pytest.raises(ValueError, match=r"train-00001-of-00003.array_record, record 6, has 99 bytes.* 195"):
        instances.read(np.array([40]))
