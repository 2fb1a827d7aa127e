"""Records on the disk against what was built; the pipeline's own tests cover stopping and continuing."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest
from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]  # has no stubs

from bert_jax.corpus.documents import SourceConfig
from bert_jax.corpus.instances import InstanceConfig
from bert_jax.corpus.pipeline import CorpusConfig, TokenizerConfig, prepare
from bert_jax.corpus.records import RecordFormat, Rows, decode_rows, encode_rows, read_manifest
from bert_jax.corpus.shards import count_maskable, count_rows, fold_seed, verify_shards, write_shard
from tests.corpus.golden import digest

SPECIAL_IDS = {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4}


def two_rows():
    sequence_ids = np.array([[1, 1, 1, 2, 2, 2], [1, 1, 1, 1, 0, 0]], np.int32)
    return Rows(
        input_ids=np.array([[2, 7, 3, 2, 8, 3], [2, 7, 7, 3, 0, 0]], np.int32),
        segment_ids=np.zeros((2, 6), np.int32),
        word_starts=sequence_ids > 0,
        sequence_ids=sequence_ids,
        sequence_starts=np.array([[0, 3], [0, 0]], np.int32),
        next_sentence_labels=np.full((2, 2), 255, np.int32),
    )


def read_shard(path, record_format):
    reader = array_record_module.ArrayRecordReader(str(path))
    found = decode_rows(reader.read_all(), record_format)
    reader.close()
    return found


def test_a_shard_holds_the_rows_and_its_hash(tmp_path):
    record_format = RecordFormat(sequence_length=6, vocab_size=9, max_sequences_per_row=2)
    shard = write_shard(tmp_path / "a.array_record", two_rows(), record_format)
    assert (shard.file, shard.num_records) == ("a.array_record", 2)
    assert shard.sha256 == hashlib.sha256((tmp_path / "a.array_record").read_bytes()).hexdigest()
    found = read_shard(tmp_path / shard.file, record_format)
    assert encode_rows(found, record_format) == encode_rows(two_rows(), record_format)
    assert [path.name for path in tmp_path.iterdir()] == ["a.array_record"]


def test_rows_are_counted():
    assert count_rows(two_rows(), 5) == {"rows": 2, "sequences": 3, "real_tokens": 10, "documents": 5}
    counts = count_maskable(two_rows(), SPECIAL_IDS, 9)
    assert counts.tolist() == [0, 0, 0, 0, 0, 0, 0, 3, 1]


def test_tokens_are_counted_as_they_were_before_they_were_masked():
    rows = two_rows()
    input_ids = rows.input_ids.copy()
    input_ids[[0, 1, 1], [4, 1, 2]] = [4, 4, 6]
    masked = dataclasses.replace(
        rows,
        input_ids=input_ids,
        masked_lm_positions=np.array([[4, 0], [1, 2]], np.int32),
        masked_lm_ids=np.array([[8, 0], [7, 7]], np.int32),
        num_masked=np.array([1, 2], np.int32),
    )
    counts = count_maskable(masked, SPECIAL_IDS, 9)
    assert counts.tolist() == count_maskable(rows, SPECIAL_IDS, 9).tolist()
    assert masked.input_ids[0, 4] == 4  # the rows are left alone


def test_verifying_finds_the_shards_that_changed(tiny_instances):
    directory = tiny_instances / "instances" / "nsp-32"
    assert verify_shards(tiny_instances) == (4, [])
    changed, missing = (directory / f"train-0000{number}-of-00003.array_record" for number in (0, 2))
    changed.write_bytes(changed.read_bytes()[:100] + b"?" + changed.read_bytes()[101:])
    missing.unlink()
    assert verify_shards(tiny_instances) == (4, [changed, missing])
    with pytest.raises(FileNotFoundError, match="no corpus that was prepared to its end"):
        verify_shards(tiny_instances / "instances")


def test_seeds_of_parts_differ_and_stay():
    seeds = {fold_seed(seed, name, bucket) for seed in (0, 1) for name in ("a", "b") for bucket in range(5)}
    assert len(seeds) == 20
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert fold_seed(0, "nsp-128", "train", 3) == 4947449453415363193  # a new value makes every corpus another one


@pytest.mark.shared
@pytest.mark.parametrize(("whole_word", "key"), [(False, "token"), (True, "wwm")])
def test_mode_google_is_the_originals_bit_for_bit(tmp_path, whole_word, key, shared_data):
    golden = json.loads((shared_data / "fixtures" / "golden_pretrain_sample.json").read_text())[key]
    instance = InstanceConfig("google-128", mode="google", duplicates=5, whole_word=whole_word)
    config = CorpusConfig(
        sources=(SourceConfig("sentences", str(shared_data / "fixtures" / "bert_sample_text.txt")),),
        instances=(instance,),
        tokenizer=TokenizerConfig(str(shared_data / "vocab" / "bert-base-uncased-vocab.txt")),
        num_buckets=1,
        validation_fraction=0.0,
        seed=12345,
    )
    prepare(config, tmp_path, num_processes=1)
    manifest = read_manifest(tmp_path / "instances" / "google-128")
    assert manifest.masking == "static"
    (shard,) = manifest.splits["train"]
    rows = read_shard(tmp_path / "instances" / "google-128" / shard.file, manifest.record_format)
    assert digest(rows) == golden["sha256"]
