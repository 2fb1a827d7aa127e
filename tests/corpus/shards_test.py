"""Records on the disk against what was built; the pipeline's own tests cover stopping and continuing."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]  # has no stubs

from bert_jax.corpus.documents import SourceConfig
from bert_jax.corpus.instances import InstanceConfig
from bert_jax.corpus.pipeline import CorpusConfig, TokenizerConfig, prepare
from bert_jax.corpus.records import RecordFormat, Rows, decode_rows, encode_rows, read_manifest
from bert_jax.corpus.shards import count_maskable, count_rows, fold_seed, write_shard

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
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


def test_seeds_of_parts_differ_and_stay():
    seeds = {fold_seed(seed, name, bucket) for seed in (0, 1) for name in ("a", "b") for bucket in range(5)}
    assert len(seeds) == 20
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert fold_seed(0, "nsp-128", "train", 3) == 4947449453415363193  # a new value makes every corpus another one


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.exists(), reason="needs the shared data")
@pytest.mark.parametrize(("whole_word", "key"), [(False, "token"), (True, "wwm")])
def test_mode_google_is_the_originals_bit_for_bit(tmp_path, whole_word, key):
    golden = json.loads((SHARED / "fixtures" / "golden_pretrain_sample.json").read_text())[key]
    instance = InstanceConfig("google-128", mode="google", duplicates=5, whole_word=whole_word)
    config = CorpusConfig(
        sources=(SourceConfig("sentences", str(SHARED / "fixtures" / "bert_sample_text.txt")),),
        instances=(instance,),
        tokenizer=TokenizerConfig(str(SHARED / "vocab" / "bert-base-uncased-vocab.txt")),
        num_buckets=1,
        validation_fraction=0.0,
        seed=12345,
    )
    prepare(config, tmp_path, num_processes=1)
    manifest = read_manifest(tmp_path / "instances" / "google-128")
    assert manifest.masking == "static"
    (shard,) = manifest.splits["train"]
    rows = read_shard(tmp_path / "instances" / "google-128" / shard.file, manifest.record_format)
    assert rows.num_masked is not None
    assert rows.masked_lm_positions is not None
    assert rows.masked_lm_ids is not None
    found = []
    for row in range(shard.num_records):
        size, masked = int(rows.sequence_ids[row].sum()), int(rows.num_masked[row])
        found.append(
            {
                "ids": rows.input_ids[row, :size].tolist(),
                "seg": rows.segment_ids[row, :size].tolist(),
                "pos": rows.masked_lm_positions[row, :masked].tolist(),
                "lab": rows.masked_lm_ids[row, :masked].tolist(),
                "nsp": int(rows.next_sentence_labels[row, 0]),
            }
        )
    text = json.dumps(found, sort_keys=True, separators=(",", ":"))
    assert hashlib.sha256(text.encode()).hexdigest() == golden["sha256"]
