import gzip
import json
import sys

import numpy as np
import pytest

from bert_jax.corpus.vocabulary import WordPiece
from bert_jax.tasks.glue import GLUE_TASKS, GlueData, make_task, read_test
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


def test_mnli_is_held_out_twice_and_in_google_s_order(tmp_path, tokenizer):
    columns = ("index", "sentence1_parse", "sentence1", "sentence2", "label1", "gold_label")
    rows = ["\t".join(("0", "(x)", "a", "b", "neutral", label)) for label in GLUE_TASKS["mnli"].labels]
    for name in ("train", "dev_matched", "dev_mismatched"):
        write(tmp_path / "MNLI" / f"{name}.tsv", "\t".join(columns), *rows)
    for name in ("test_matched", "test_mismatched"):
        write(tmp_path / "MNLI" / f"{name}.tsv", "index\tsentence1\tsentence2", "0\ta\tb")
    task = make_task(data_of("mnli", tmp_path), tokenizer)
    assert task.labels == ("contradiction", "entailment", "neutral")
    assert task.train.targets["label_ids"].tolist() == [0, 1, 2]
    assert list(task.held_out) == ["matched", "mismatched"]
    tests = read_test(data_of("mnli", tmp_path))
    assert {name: [example.label for example in examples] for name, examples in tests.items()} == {
        "MNLI-m": [None],
        "MNLI-mm": [None],
    }


def test_ax_is_predicted_only(tmp_path, tokenizer):
    write(tmp_path / "diagnostic" / "diagnostic.tsv", "index\tsentence1\tsentence2", "0\ta\tb")
    data = data_of("ax", tmp_path)
    assert [(example.first, example.second) for example in read_test(data)["AX"]] == [("a", "b")]
    with pytest.raises(ValueError, match="ax has no training rows: train mnli"):
        make_task(data, tokenizer)


def test_few_broken_lines_of_qqp_are_counted_and_many_are_an_error(tmp_path, tokenizer):
    header, row, broken = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate", "0\t1\t2\ta\tb\t1", "0\t1\t2\ta"
    write(tmp_path / "dev.tsv", header, row)
    write(tmp_path / "train.tsv", header, row, broken, row, broken)
    task = make_task(data_of("qqp", tmp_path), tokenizer)
    assert len(task.train) == 2
    assert f"2 malformed lines of {tmp_path / 'train.tsv'} were left out" in task.notes[0]
    write(tmp_path / "train.tsv", header, row, *[broken] * 17)
    with pytest.raises(ValueError, match=r"train.tsv:3: 4 columns instead of 6 .* 17 lines are malformed"):
        make_task(data_of("qqp", tmp_path), tokenizer)


def test_scores_are_numbers(tmp_path, tokenizer):
    for name in ("train", "dev"):
        write(tmp_path / f"{name}.tsv", "index\tsentence1\tsentence2\tscore", "0\ta\tb\t3.8", "1\ta\tc\t5.000")
    task = make_task(data_of("stsb", tmp_path), tokenizer)
    assert task.train.targets["label_ids"].tolist() == pytest.approx([3.8, 5])
    assert (task.labels, task.outputs, task.best_metric) == ((), 1, "pearson")
    write(tmp_path / "train.tsv", "index\tsentence1\tsentence2\tscore", "0\ta\tb\tnone")
    with pytest.raises(ValueError, match=r"train.tsv:2: the score is 'none'"):
        make_task(data_of("stsb", tmp_path), tokenizer)


def make_tfds_mnli(directory, splits):
    """Write `glue/mnli` as TFDS prepares it; splits are {name: [(premise, hypothesis, label name or -1)]}."""
    import tensorflow_datasets as tfds
    from array_record.python.array_record_module import ArrayRecordWriter

    directory = directory / "glue" / "mnli" / "2.0.0"
    directory.mkdir(parents=True)
    text = tfds.features.Text()
    label = tfds.features.ClassLabel(names=["entailment", "neutral", "contradiction"])  # as in tfds/text/glue.py
    features = tfds.features.FeaturesDict({"premise": text, "hypothesis": text, "label": label, "idx": np.int32})
    features.save_config(directory)
    infos = []
    for split, rows in splits.items():
        writer = ArrayRecordWriter(str(directory / f"glue-{split}.array_record-00000-of-00001"), "group_size:1")
        for index, (premise, hypothesis, name) in enumerate(rows):
            row = {"premise": premise, "hypothesis": hypothesis, "label": name, "idx": index}
            writer.write(features.serialize_example(row))
        writer.close()
        template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
        infos.append({"name": split, "numBytes": "9", "shardLengths": [str(len(rows))], "filepathTemplate": template})
    info = {"name": "glue", "version": "2.0.0", "configName": "mnli", "fileFormat": "array_record", "splits": infos}
    (directory / "dataset_info.json").write_text(json.dumps(info))


@pytest.mark.parametrize("directory", ["tfds:glue", "tfds:glue/mnli"])
def test_tfds_is_read_and_its_labels_are_mapped_by_name(tmp_path, tokenizer, monkeypatch, directory):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    rows = [("the cat é", "a", "entailment"), ("on", "b", "neutral"), ("on", "c", "contradiction")]
    held_out = {"validation_matched": rows[:1], "validation_mismatched": rows[1:]}
    make_tfds_mnli(tmp_path, {"train": rows, **held_out, "test_matched": [("c", "d", -1)], "test_mismatched": rows})
    task = make_task(data_of("mnli", directory), tokenizer)
    assert task.labels == ("contradiction", "entailment", "neutral")
    assert task.train.targets["label_ids"].tolist() == [1, 2, 0]
    assert {split: len(part.rows) for split, part in task.held_out.items()} == {"matched": 1, "mismatched": 2}
    assert len(make_task(data_of("mnli", directory, max_train_rows=1), tokenizer).train) == 1
    (example,) = read_test(data_of("mnli", directory))["MNLI-m"]
    assert (example.first, example.second, example.label) == ("c", "d", None)
    assert example.where == "tfds:glue/mnli:test_matched, row 0"
    assert "tensorflow" not in sys.modules


REAL = {  # train rows, dev rows, rows of each class of dev (by whole scores for stsb)
    "cola": (8551, 1043, [322, 721]),
    "sst2": (67_349, 872, [428, 444]),
    "mrpc": (3668, 408, [129, 279]),
    "stsb": (5749, 1500, [344, 254, 273, 365, 208, 56]),
    "rte": (2490, 277, [146, 131]),
    "wnli": (635, 71, [40, 31]),
    "sick": (4500, 500, [74, 144, 282]),
}


@pytest.mark.shared
@pytest.mark.parametrize("name", REAL)
def test_real_files_have_the_known_rows_and_labels(shared_data, name):
    tokenizer = WordPiece.from_vocab_file(shared_data / "vocab" / "bert-base-uncased-vocab.txt")
    data = data_of(name, shared_data if name == "sick" else shared_data / "glue", max_seq_length=512)
    task = make_task(data, tokenizer)
    assert not task.notes  # no count differs from the official one, no row is cut at 512
    dev = task.held_out["dev"].rows
    label_ids = dev.targets["label_ids"]
    assert (len(task.train), len(dev), np.bincount(label_ids.astype(int)).tolist()) == REAL[name]
    perfect = label_ids[:, None] if name == "stsb" else np.eye(len(task.labels))[label_ids]
    assert task.held_out["dev"].score({"logits": perfect}) == pytest.approx(
        dict.fromkeys(GLUE_TASKS[name].metrics, 1.0)
    )


@pytest.mark.shared
@pytest.mark.parametrize("name", [*REAL, "qnli", "ax"])
def test_real_test_files_have_the_official_rows(shared_data, name):
    data = data_of(name, shared_data if name == "sick" else shared_data / "glue")
    counts = {key: len(examples) for key, examples in read_test(data).items()}
    assert counts == {key: GLUE_TASKS[name].rows[file] for key, file in GLUE_TASKS[name].tests.items()}
