import gzip

import numpy as np
import pytest

from bert_jax.corpus.vocabulary import WordPiece
from bert_jax.tasks.glue import GlueData, make_task
from tests.conftest import VOCABULARY

MRPC_HEADER = "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String"
MRPC_ROWS = ['1\t10\t20\tThe "cat sat\tA cat', "0\t11\t21\tOn the mat\tThe cat"]


@pytest.fixture
def tokenizer():
    return WordPiece(VOCABULARY)


def write(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def mrpc(tmp_path):
    for name in ("train", "dev"):
        write(tmp_path / "MRPC" / f"{name}.tsv", MRPC_HEADER, *MRPC_ROWS)
    return tmp_path


def data_of(task, directory, **rest):
    return GlueData(task=task, directory=str(directory), **rest)


def test_mrpc_is_read_from_its_official_columns(mrpc, tokenizer):
    task = make_task(data_of("mrpc", mrpc), tokenizer)
    assert task.labels == ("not_equivalent", "equivalent")
    assert (task.head, task.best_metric, list(task.held_out)) == ("sentences", "accuracy", ["dev"])
    assert task.train.targets["label_ids"].tolist() == [1, 0]
    assert tokenizer.tokens(task.train.input_ids[0]) == [
        "[CLS]",
        "the",
        "[UNK]",
        "cat",
        "sat",
        "[SEP]",
        "a",
        "cat",
        "[SEP]",
    ]
    assert task.train.segment_ids[1].tolist() == [0] * 5 + [1] * 3
    assert task.held_out["dev"].score({"logits": np.array([[0, 1], [0, 1]])})["accuracy"] == 0.5
    assert "official file has 3668" in task.notes[0]


def test_a_task_s_own_folder_and_gzip_will_do(mrpc, tokenizer):
    for path in (mrpc / "MRPC").iterdir():
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert len(make_task(data_of("mrpc", mrpc / "MRPC"), tokenizer).train) == 2


def test_the_order_of_a_classifier_with_the_same_names_is_kept(mrpc, tokenizer):
    task = make_task(data_of("mrpc", mrpc), tokenizer, ("equivalent", "not_equivalent"))
    assert task.labels == ("equivalent", "not_equivalent")
    assert task.train.targets["label_ids"].tolist() == [0, 1]
    assert make_task(data_of("mrpc", mrpc), tokenizer, ("no", "yes")).labels == ("not_equivalent", "equivalent")


def test_so_many_training_rows_are_kept(mrpc, tokenizer):
    task = make_task(data_of("mrpc", mrpc, max_train_rows=1), tokenizer)
    assert (len(task.train), len(task.held_out["dev"].rows)) == (1, 2)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([MRPC_HEADER, *MRPC_ROWS, "2\t1\t1\ta\tb"], r"train.tsv:4: the label is '2'; accepted: 0, 1"),
        ([MRPC_HEADER, *MRPC_ROWS, "1\ta\tb"], r"train.tsv:4: 3 columns instead of 5"),
        (MRPC_ROWS, r"train.tsv:1: the header has .*; mrpc needs #1 String, #2 String, Quality"),
        ([MRPC_HEADER], "a header and no row"),
        ([], "train.tsv is empty"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_line(mrpc, tokenizer, lines, message):
    write(mrpc / "MRPC" / "train.tsv", *lines)
    with pytest.raises(ValueError, match=message):
        make_task(data_of("mrpc", mrpc), tokenizer)


def test_a_missing_task_is_said_with_the_folder(tmp_path, tokenizer):
    with pytest.raises(FileNotFoundError, match=r"neither train.tsv \(or train.tsv.gz\) nor the folder MRPC is there"):
        make_task(data_of("mrpc", tmp_path), tokenizer)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"task": "mrcp", "directory": "."}, "did you mean 'mrpc'"),
        ({"task": "mrpc", "directory": "tfds:glue/rte"}, "the folder of its files, tfds:glue, tfds:glue/mrpc"),
        ({"task": "mrpc", "directory": ".", "max_train_rows": -1}, "max_train_rows"),
    ],
)
def test_a_wrong_config_is_refused(section, message):
    with pytest.raises(ValueError, match=message):
        GlueData(**section)
