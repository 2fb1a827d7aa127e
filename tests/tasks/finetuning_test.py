import dataclasses

import numpy as np
import pytest

from bert_jax.interop import huggingface, name_map
from bert_jax.tasks.families import FAMILIES
from bert_jax.tasks.finetuning import FinetuneEval, make_job, prepare, rows_fingerprint
from bert_jax.tasks.task import EncodedRows
from bert_jax.training import addresses
from bert_jax.training.checkpoint import load_params
from tests.tasks.tiny_tasks import TEXTS, finetune, make_config, tiny_weights, write_files, write_model
from tests.training.tiny import assert_trees_equal


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "hf")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    directory = tmp_path_factory.mktemp("files")
    return {family: write_files(family, directory / family) for family in FAMILIES}


@pytest.mark.parametrize("family", FAMILIES)
def test_epochs_and_fractions_become_steps(family, model, files):
    prepared = prepare(make_config(family, model, files[family], num_epochs=2))
    job = make_job(prepared)
    steps = -(-len(prepared.task.train) // 8)
    assert job.train.num_steps == 2 * steps
    assert job.optim.warmup_steps == round(0.1 * 2 * steps)
    assert job.eval_every_steps == job.train.save_every_steps == steps
    assert job.facts["head"] == prepared.task.head
    assert job.config.model.vocab_size == prepared.weights.tokenizer.vocab_size
    batch = next(job.batches(0))
    assert set(batch) > {"input_ids", "input_mask", "segment_ids", "row_weights"}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"init_from": ""}, r"config.init_from is empty: .* use --config.init_from=hf:DIR"),
        ({"data.max_seq_length": 64}, "config.data.max_seq_length is 64 and hf:.* has 48 position embeddings"),
        ({"num_epochs": 0}, "config.num_epochs is 0; use 1 or more"),
        ({"warmup_fraction": 1.0}, "config.warmup_fraction is 1.0; use 0 ≤ fraction < 1"),
        ({"data.train": ""}, "config.data.train is empty; give a table"),
        ({"eval.times_per_epoch": -1}, "config.eval.times_per_epoch is -1; use 0 or more"),
        (
            {"eval.times_per_epoch": 0, "eval.patience_evaluations": 1},
            "times_per_epoch 0 evaluates after the last step only",
        ),
    ],
)
def test_what_cannot_be_trained_is_said(overrides, message, model, files):
    config = make_config("text_table", model, files["text_table"])
    config.update_from_flattened_dict(overrides)
    with pytest.raises(ValueError, match=message):
        prepare(config)


def test_a_label_that_training_does_not_have_is_refused(model, tmp_path):
    (tmp_path / "train.csv").write_text("text,label\na,x\nb,y\n")
    (tmp_path / "dev.csv").write_text("text,label\na,x\nb,z\n")
    files = {"data.train": str(tmp_path / "train.csv"), "data.dev": str(tmp_path / "dev.csv")}
    with pytest.raises(ValueError, match=r"dev.csv:3: the label is 'z'; accepted: x, y"):
        prepare(make_config("text_table", model, files))


def test_the_checkpoint_is_read_once(model, files, tmp_path, monkeypatch):
    read, load = [], addresses.load
    monkeypatch.setattr(addresses, "load", lambda address: read.append(address) or load(address))
    assert (
        finetune(tmp_path / "run", "text_table", model, files["text_table"], **{"optim.peak_learning_rate": 0.0}) == 0
    )
    assert read == [model]
    found = load_params(f"run:{tmp_path / 'run'}")
    assert_trees_equal(found["embeddings"], name_map.nest(load(model)[0].params)["embeddings"])


@pytest.mark.parametrize(("labels", "kept"), [(("other", "feline"), True), (("cat", "dog"), False)])
def test_a_classifier_is_kept_if_its_labels_are_the_tasks(labels, kept, files, tmp_path):
    weights = dataclasses.replace(tiny_weights(classifier=2), labels=labels)
    huggingface.write(weights, tmp_path / "hf")
    prepared = prepare(make_config("text_table", f"hf:{tmp_path / 'hf'}", files["text_table"]))
    assert prepared.task.labels == (labels if kept else ("feline", "other"))
    assert make_job(prepared).leave_out == (() if kept else ("heads/classifier",))


def test_a_score_s_classifier_is_kept(model, tmp_path):
    huggingface.write(tiny_weights(classifier=1), tmp_path / "hf")
    (tmp_path / "scores.csv").write_text("text,label\n" + "".join(f"{text},{len(text)}\n" for text in TEXTS))
    files = {"data.train": str(tmp_path / "scores.csv"), "data.score": True}
    assert prepare(make_config("text_table", f"hf:{tmp_path / 'hf'}", files)).leave_out == ()
    assert prepare(make_config("text_table", model, files)).leave_out == ("heads/classifier",)


@pytest.mark.parametrize(("head", "kept"), [("choices", True), ("sentences", False)])
def test_the_score_vector_of_other_choices_is_kept(head, kept, files, tmp_path):
    huggingface.write(dataclasses.replace(tiny_weights(classifier=1), head=head), tmp_path / "hf")
    prepared = prepare(make_config("multiple_choice", f"hf:{tmp_path / 'hf'}", files["multiple_choice"]))
    assert prepared.leave_out == (() if kept else ("heads/classifier",))


def test_a_part_of_the_table_is_held_out_without_a_dev_file(model, files):
    config = make_config("text_table", model, files["text_table"], **{"data.dev": "", "data.dev_fraction": 0.3})
    task = prepare(config).task
    assert 0 < len(task.held_out["dev"].rows) < len(task.train)
    assert len(task.held_out["dev"].rows) + len(task.train) == len(TEXTS)


def test_evaluations_are_counted_from_zero():
    with pytest.raises(ValueError, match="patience_evaluations is -1; use 0 or more"):
        FinetuneEval(patience_evaluations=-1)


def test_a_run_is_bound_to_its_rows_and_to_the_held_out_ones(model, files):
    task = prepare(make_config("text_table", model, files["text_table"])).task
    rows = task.train
    other = dataclasses.replace(rows, input_ids=[rows.input_ids[0] + 1, *rows.input_ids[1:]])
    assert rows_fingerprint(rows, rows) == rows_fingerprint(rows, rows)
    assert len({rows_fingerprint(rows, rows), rows_fingerprint(rows, other), rows_fingerprint(other, rows)}) == 3


def test_a_run_is_bound_to_where_rows_end_and_to_what_their_targets_are():
    ids, labels = np.arange(6, dtype=np.int32), np.array([0, 1], np.int32)

    def of(border=2, **targets):
        parts = [ids[:border], ids[border:]]
        return rows_fingerprint(EncodedRows(parts, parts, {"label_ids": labels} | targets))

    swapped = ids.byteswap().view(ids.dtype.newbyteorder())
    assert of() == rows_fingerprint(EncodedRows([swapped[:2], swapped[2:]], [ids[:2], ids[2:]], {"label_ids": labels}))
    others = [of(3), of(label_ids=labels[::-1]), of(label_ids=labels.view(np.float32)), of(more=labels)]
    assert len({of(), *others}) == 5
