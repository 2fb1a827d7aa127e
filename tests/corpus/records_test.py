import dataclasses
import json

import numpy as np
import pytest

from bert_jax.corpus import records


def make_rows(static: bool = False) -> records.Rows:
    """Two rows of 6 tokens: one pair of sentences with padding, and two packed sequences."""
    rows = records.Rows(
        input_ids=np.array([[2, 9, 3, 8, 3, 0], [2, 7, 3, 2, 6, 3]], np.int32),
        segment_ids=np.array([[0, 0, 0, 1, 1, 0], [0, 0, 0, 0, 0, 0]], np.int32),
        word_starts=np.array([[1, 1, 1, 1, 1, 0], [1, 1, 1, 1, 0, 1]], bool),
        sequence_ids=np.array([[1, 1, 1, 1, 1, 0], [1, 1, 1, 2, 2, 2]], np.int32),
        sequence_starts=np.array([[0, 0], [0, 3]], np.int32),
        next_sentence_labels=np.array([[1, 255], [255, 0]], np.int32),
    )
    if not static:
        return rows
    return dataclasses.replace(
        rows,
        masked_lm_positions=np.array([[1, 3, 0], [4, 0, 0]], np.int32),
        masked_lm_ids=np.array([[9, 8, 0], [6, 0, 0]], np.int32),
        num_masked=np.array([2, 1], np.int32),
    )


def make_format(vocab_size: int = 10, static: bool = False) -> records.RecordFormat:
    return records.RecordFormat(6, vocab_size, max_sequences_per_row=2, max_predictions_per_sequence=3 * static)


def make_manifest(**changes) -> records.InstanceManifest:
    shard = records.Shard("train-00000-of-00001.array_record", 5, "00ff")
    values = {
        "name": "nsp-6",
        "record_format": make_format(),
        "pairs": "nsp",
        "masking": "online",
        "seed": 3,
        "config_fingerprint": "abcd1234",
        "special_ids": {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4},
        "splits": {"train": (shard, dataclasses.replace(shard, num_records=2)), "validation": ()},
        "counts": {"train": {"rows": 7}, "validation": {"rows": 0}},
    }
    return records.InstanceManifest(**{**values, **changes})


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("vocab_size", [10, 70_000])
def test_decoding_is_the_inverse_of_encoding(vocab_size, static):
    rows, record_format = make_rows(static), make_format(vocab_size, static)
    decoded = records.decode_rows(records.encode_rows(rows, record_format), record_format)
    for field in dataclasses.fields(rows):
        expected, actual = getattr(rows, field.name), getattr(decoded, field.name)
        if expected is None:
            assert actual is None, field.name
        else:
            np.testing.assert_array_equal(actual, expected, err_msg=field.name)
            assert actual.dtype == expected.dtype, field.name


def test_every_record_has_the_size_of_the_format():
    # 6 tokens of 2 bytes and 6 flags; 2 sequences of 2 bytes for the start and 1 for the label.
    record_format = make_format()
    assert record_format.dtype.itemsize == 6 * 3 + 2 * 3
    assert {len(record) for record in records.encode_rows(make_rows(), record_format)} == {24}
    assert make_format(vocab_size=70_000).dtype.itemsize == 6 * 5 + 2 * 3


def test_bytes_of_a_record_stay_what_they_are():
    # Prepared corpora hold these bytes: a change needs a new SCHEMA_VERSION.
    first = records.encode_rows(make_rows(), make_format())[0]
    assert first.hex() == "020009000300080003000000" + "060606070700" + "00000000" + "01ff"


def test_large_token_ids_survive():
    record_format = make_format(vocab_size=70_000)
    rows = make_rows()
    rows.input_ids[0, 1] = 69_999
    assert records.decode_rows(records.encode_rows(rows, record_format), record_format).input_ids[0, 1] == 69_999


def test_the_last_packed_sequence_a_flag_can_number_survives():
    record_format = records.RecordFormat(6, 10, max_sequences_per_row=records.MAX_SEQUENCES_PER_ROW)
    starts = np.zeros((2, records.MAX_SEQUENCES_PER_ROW), np.int32)
    rows = dataclasses.replace(make_rows(), sequence_starts=starts, next_sentence_labels=starts)
    rows.sequence_ids[1, 5] = records.MAX_SEQUENCES_PER_ROW
    decoded = records.decode_rows(records.encode_rows(rows, record_format), record_format)
    assert decoded.sequence_ids[1, 5] == records.MAX_SEQUENCES_PER_ROW
    assert decoded.segment_ids[1, 5] == 0


@pytest.mark.parametrize(("field", "value"), [("input_ids", 10), ("input_ids", -1), ("sequence_ids", 3)])
def test_a_row_that_the_format_cannot_hold_is_not_written(field, value):
    rows = make_rows()
    getattr(rows, field)[0, 0] = value
    with pytest.raises(AssertionError):
        records.encode_rows(rows, make_format())


def test_static_masks_and_the_format_must_agree():
    with pytest.raises(AssertionError):
        records.encode_rows(make_rows(static=False), make_format(static=True))
    with pytest.raises(AssertionError):
        records.encode_rows(make_rows(static=True), make_format(static=False))


def test_no_records_are_no_rows():
    assert records.decode_rows([], make_format()).input_ids.shape == (0, 6)


def test_a_record_of_another_size_is_named():
    good = records.encode_rows(make_rows(), make_format())
    with pytest.raises(
        ValueError, match=r"record 1 of the batch has 23 bytes, its format 24.*prepare the corpus again"
    ):
        records.decode_rows([good[0], good[1][:-1]], make_format())


@pytest.mark.parametrize("length", [2, 65_536])
def test_a_length_that_no_record_holds_is_refused(length):
    with pytest.raises(ValueError, match=f"sequence_length is {length}; a record holds 3 to 65535"):
        records.RecordFormat(length, 10)


@pytest.mark.parametrize("sequences", [0, 64])
def test_more_sequences_than_a_flag_can_number_are_refused(sequences):
    with pytest.raises(ValueError, match=f"max_sequences_per_row is {sequences}; a record holds 1 to 63"):
        records.RecordFormat(128, 10, max_sequences_per_row=sequences)


def test_a_manifest_reads_back_as_it_was(tmp_path):
    manifest = make_manifest()
    records.write_manifest(tmp_path, manifest)
    assert records.read_manifest(tmp_path) == manifest
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_a_manifest_counts_its_records():
    assert make_manifest().num_records("train") == 7
    assert make_manifest().num_records("validation") == 0


def test_a_set_without_a_manifest_was_not_prepared(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"not prepared to its end.*python -m launch\.prepare"):
        records.read_manifest(tmp_path)


def test_a_manifest_of_another_schema_is_refused(tmp_path):
    records.write_manifest(tmp_path, make_manifest(schema_version=0))
    with pytest.raises(ValueError, match="schema version 0, this code reads 1; prepare the corpus again"):
        records.read_manifest(tmp_path)


def test_another_json_file_is_not_taken_for_a_manifest(tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps({"documents": 3}))
    with pytest.raises(ValueError, match="schema version None"):
        records.read_manifest(tmp_path)


def test_a_manifest_of_another_kind_is_refused_and_one_without_is_of_this(tmp_path):
    records.write_manifest(tmp_path, make_manifest())
    path = tmp_path / "manifest.json"
    values = json.loads(path.read_text())
    assert values.pop("kind") == "bert"
    path.write_text(json.dumps(values))
    assert records.read_manifest(tmp_path) == make_manifest()
    path.write_text(json.dumps(values | {"kind": "words"}))
    with pytest.raises(ValueError, match="kind 'words'; 'bert' is read here"):
        records.read_manifest(tmp_path)
