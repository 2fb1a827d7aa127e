import json
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from bert_jax.corpus.documents import CorruptInputError, InputLog, SourceConfig
from bert_jax.corpus.tables import count_tfds_bytes, parse_tfds_name, read_parquet, read_tfds


def parquet(path, **columns):
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def test_a_parquet_row_is_a_document(tmp_path):
    path = parquet(tmp_path / "a.parquet", id=[1, 2], title=["T", None], text=["A.", "B."])
    found = list(read_parquet(path, SourceConfig("parquet"), InputLog()))
    assert [(document.text, document.title) for document in found] == [("A.", "T"), ("B.", "")]
    assert found[1].origin == f"{path}, row 1"


def test_parquet_rows_can_be_sentences(tmp_path):
    path = parquet(tmp_path / "a.parquet", text=["a", "b", "c", None, "e"])
    found = list(read_parquet(path, SourceConfig("parquet", rows_per_document=2), InputLog()))
    assert [document.text for document in found] == ["a\nb", "c\n", "e"]
    assert all(document.sentences_given for document in found)


def test_a_missing_column_is_named(tmp_path):
    path = parquet(tmp_path / "a.parquet", body=["a"])
    with pytest.raises(ValueError, match="no column 'text'; it has body"):
        list(read_parquet(path, SourceConfig("parquet"), InputLog()))


def test_a_column_that_is_no_text_is_named(tmp_path):
    path = parquet(tmp_path / "a.parquet", text=[1, 2], body=["a", "b"])
    with pytest.raises(ValueError, match=rf"{path}: the column 'text' holds int64, not text; it has text, body"):
        list(read_parquet(path, SourceConfig("parquet"), InputLog()))
    words = pyarrow.array(["a", "b"]).dictionary_encode()
    for texts in (words, pyarrow.array(["a", "b"], pyarrow.large_string())):
        path = parquet(tmp_path / "b.parquet", text=texts, title=[3, 4])
        found = list(read_parquet(path, SourceConfig("parquet"), InputLog()))
        assert [(document.text, document.title) for document in found] == [("a", "3"), ("b", "4")]


def test_a_damaged_parquet_file_is_named(tmp_path):
    path = parquet(tmp_path / "a.parquet", text=["a" * 100])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CorruptInputError, match=f"{path}, row 0"):
        list(read_parquet(path, SourceConfig("parquet"), InputLog()))


@pytest.mark.parametrize(
    ("name", "parsed"),
    [
        ("tfds:wikipedia/20230601.en", ("wikipedia/20230601.en", "train")),
        ("pg19:validation", ("pg19", "validation")),
    ],
)
def test_tfds_names_have_a_builder_and_a_split(name, parsed):
    assert parse_tfds_name(name) == parsed


@pytest.fixture
def tiny_dataset(tmp_path):
    """A dataset directory as TFDS leaves it, of three rows."""
    import tensorflow_datasets as tfds
    from array_record.python.array_record_module import ArrayRecordWriter

    directory = tmp_path / "tiny_text" / "1.0.0"
    directory.mkdir(parents=True)
    features = tfds.features.FeaturesDict({"text": tfds.features.Text(), "title": tfds.features.Text()})
    features.save_config(directory)
    writer = ArrayRecordWriter(str(directory / "tiny_text-train.array_record-00000-of-00001"), "group_size:1")
    for number in range(3):
        writer.write(features.serialize_example({"text": f"Text {number} é.", "title": "T"}))
    writer.close()
    template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    split = {"name": "train", "numBytes": "99", "shardLengths": ["3"], "filepathTemplate": template}
    info = {"name": "tiny_text", "version": "1.0.0", "fileFormat": "array_record", "splits": [split]}
    (directory / "dataset_info.json").write_text(json.dumps(info))
    return directory


def read(name, data_dir):
    return list(read_tfds(Path(name), SourceConfig("tfds", data_dir=str(data_dir)), InputLog()))


def test_tfds_is_read_without_tensorflow(tiny_dataset, tmp_path):
    found = read("tfds:tiny_text", tmp_path)
    assert [(document.text, document.title) for document in found] == [(f"Text {k} é.", "T") for k in range(3)]
    assert found[0].origin == "tfds:tiny_text:train, row 0"
    assert count_tfds_bytes(Path("tiny_text"), SourceConfig("tfds", data_dir=str(tmp_path))) == 99
    assert "tensorflow" not in sys.modules
    with pytest.raises(ValueError, match="no split 'test'; it has train"):
        read("tiny_text:test", tmp_path)


def test_a_tfrecord_dataset_is_refused_with_the_command(tiny_dataset, tmp_path):
    info = tiny_dataset / "dataset_info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"fileFormat": "tfrecord"}))
    with pytest.raises(ValueError, match="tfds build tiny_text --file_format=array_record"):
        read("tiny_text", tmp_path)


def test_a_dataset_that_is_not_prepared_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no dataset tiny_text is prepared"):
        read("tiny_text", tmp_path)
