import dataclasses
import json
from typing import Any

import flax.serialization
import numpy as np
import pytest
from safetensors.numpy import save_file

from bert_jax.corpus.vocabulary import WordPiece
from bert_jax.interop import huggingface, name_map
from bert_jax.interop.weights import Beside
from tests.interop.checkpoint_files_test import LFS_POINTER
from tests.parity import tiny_bert

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{number}" for number in range(95))]
TENSORS = {name: values.astype(np.float32) for name, values in tiny_bert.weights().items()}
CONFIG = tiny_bert.SIZES | {"model_type": "bert", "hidden_act": "gelu", "pooler_type": "first_token_transform"}


def write_directory(directory, tensors, config=CONFIG, pieces=PIECES):
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "vocab.txt").write_text("\n".join(pieces) + "\n")
    (directory / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False, "strip_accents": None}))
    if tensors:
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    weights, report = huggingface.read(write_directory(tmp_path_factory.mktemp("hf") / "model", TENSORS))
    assert (report.missing, report.extra) == ((), ())
    assert report.num_parameters == sum(values.size for values in TENSORS.values())
    return weights


def assert_equal(actual, expected):
    assert actual.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(actual[name], values, err_msg=name)


def test_heads_and_layers_get_axes_of_their_own(expected):
    query = expected.params["layers/attention/query/kernel"]
    assert query.shape == (2, 32, 4, 8)
    theirs = TENSORS["bert.encoder.layer.1.attention.self.query.weight"]
    # The third head's weights are rows 16 to 24 of [out, in].
    np.testing.assert_array_equal(query[1, :, 2], theirs[16:24].T)
    output = TENSORS["bert.encoder.layer.0.attention.output.dense.weight"]
    np.testing.assert_array_equal(expected.params["layers/attention/output/kernel"][0, 2], output[:, 16:24].T)


def test_old_names_tied_copies_and_buffers_are_understood(expected, tmp_path):
    old: dict[str, Any] = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): values
        for name, values in TENSORS.items()
    }
    old["cls.predictions.decoder.weight"] = old["bert.embeddings.word_embeddings.weight"].copy()
    old["cls.predictions.decoder.bias"] = old.pop("cls.predictions.bias")
    old["bert.embeddings.position_ids"] = np.arange(40)[None]
    weights, report = huggingface.read(write_directory(tmp_path / "old", old))
    assert_equal(weights.params, expected.params)
    assert (report.missing, report.extra) == ((), ())
    assert "tied copy: cls.predictions.decoder.weight" in report.notes
    assert report.matches[3].theirs == "bert.embeddings.LayerNorm.gamma"
    old["cls.predictions.decoder.weight"] += 1
    with pytest.raises(ValueError, match=r"is not bert.embeddings.word_embeddings.weight; BERT's decoder is tied"):
        huggingface.read(write_directory(tmp_path / "untied", old))


def test_an_encoder_alone_has_no_prefix_and_its_missing_heads_are_listed(expected, tmp_path):
    encoder = {name.removeprefix("bert."): values for name, values in TENSORS.items() if name.startswith("bert.")}
    encoder |= {"adapter.weight": np.ones(3, np.float32)}
    weights, report = huggingface.read(write_directory(tmp_path / "encoder", encoder))
    assert_equal(weights.params, {k: v for k, v in expected.params.items() if not k.startswith("heads/")})
    assert [name for name in report.missing if "seq" in name] == [
        "cls.seq_relationship.weight", "cls.seq_relationship.bias",
    ]  # fmt: skip
    assert report.extra == ("adapter.weight",)
    assert "left over: adapter.weight" in report.lines()
    assert report.matches[0].theirs == "embeddings.word_embeddings.weight"


def test_a_model_in_several_files_is_read_by_its_index(expected, tmp_path):
    directory = write_directory(tmp_path / "sharded", {})
    parts = {f"model-0000{part}-of-00002.safetensors": [*TENSORS][part - 1 :: 2] for part in (1, 2)}
    for file, names in parts.items():
        save_file({name: TENSORS[name] for name in names}, directory / file)
    index = {"weight_map": {name: file for file, names in parts.items() for name in names}}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    assert_equal(huggingface.read(directory)[0].params, expected.params)
    (directory / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model-00002-of-00002.safetensors does not exist"):
        huggingface.read(directory)


def test_an_old_flax_model_is_read(expected, tmp_path):
    directory = write_directory(tmp_path / "flax", {})
    flat = {}
    for name, values in TENSORS.items():
        stem, _, ending = name.replace(".", "/").rpartition("/")
        kind = {"weight": "scale" if stem.endswith("Norm") else "embedding" if "_embeddings" in stem else "kernel"}
        flat[f"{stem}/{kind.get(ending, ending)}"] = values.T if kind.get(ending) == "kernel" else values
    (directory / "flax_model.msgpack").write_bytes(flax.serialization.msgpack_serialize(name_map.nest(flat)))
    weights, report = huggingface.read(directory)
    assert_equal(weights.params, expected.params)
    assert (report.missing, report.extra) == ((), ())


def test_pickled_weights_are_refused_with_the_way_out(tmp_path):
    directory = write_directory(tmp_path / "pickled", {})
    (directory / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(FileNotFoundError, match=r"pytorch_model.bin is a pickle.*save_pretrained\(NEW_DIR\)"):
        huggingface.read(directory)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "roberta"}, "has model_type 'roberta'; BERT has 'bert'"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type 'relative_key'"),
        ({"hidden_act": "relu"}, "hidden_act 'relu'; accepted: gelu, gelu_new"),
        ({"num_hidden_layers": 3}, "bert.encoder.layer.2.attention.self.query.weight is missing"),
        ({"intermediate_size": 48}, r"layer.0.output.dense.weight has shape \(32, 64\), which is not .* embed × mlp"),
        ({"vocab_size": 99}, "the vocabulary has 100 pieces and the model 99"),
    ],
)
def test_another_model_than_the_configs_is_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        huggingface.read(write_directory(tmp_path / "other", TENSORS, CONFIG | change))


@pytest.mark.parametrize("data", [LFS_POINTER, b"", b"<!doctype html>"], ids=["pointer", "empty", "page"])
@pytest.mark.parametrize("name", ["model.safetensors", "flax_model.msgpack", "config.json", "tokenizer_config.json"])
def test_a_damaged_file_is_named_with_what_to_do(tmp_path, name, data):
    directory = write_directory(tmp_path / "model", {} if name.startswith("flax") else TENSORS)
    (directory / name).write_bytes(data)
    what = "is a pointer of git-lfs; run `git lfs pull` there, or" if data == LFS_POINTER else r"cannot be read \(.*\);"
    with pytest.raises(ValueError, match=f"model/{name} {what} fetch it again"):
        huggingface.read(directory)


def test_a_head_in_parts_is_refused(tmp_path):
    parts = {name: values for name, values in TENSORS.items() if name != "cls.seq_relationship.bias"}
    with pytest.raises(ValueError, match=r"cls.seq_relationship.bias is missing"):
        huggingface.read(write_directory(tmp_path / "parts", parts))


def test_rows_that_pad_the_vocabulary_are_cut_and_not_written(tmp_path):
    weights, _ = huggingface.read(write_directory(tmp_path / "padded", TENSORS, pieces=PIECES[:90]))
    assert weights.params["embeddings/word_embeddings"].shape == (90, 32)
    assert weights.params["heads/masked_lm/bias"].shape == (90,)
    params = dict(weights.params)
    for name in ("embeddings/word_embeddings", "heads/masked_lm/bias"):
        params[name] = np.concatenate([params[name], np.ones_like(params[name][:6])])
    config = dataclasses.replace(weights.config, vocab_size_multiple=32)
    huggingface.write(dataclasses.replace(weights, config=config, params=params), tmp_path / "out")
    assert_equal(huggingface.read(tmp_path / "out")[0].params, weights.params)


def test_what_is_written_comes_back(expected, tmp_path):
    report = huggingface.write(expected, tmp_path / "out")
    assert (report.missing, report.extra) == ((), ())
    weights, _ = huggingface.read(tmp_path / "out")
    assert weights.config == expected.config
    assert_equal(weights.params, expected.params)
    assert (weights.tokenizer.vocab, weights.tokenizer.settings) == (PIECES, expected.tokenizer.settings)
    assert not weights.tokenizer.settings.strip_accents  # null says: where it lowers
    with pytest.raises(FileExistsError, match="holds a model already"):
        huggingface.write(expected, tmp_path / "out")


@pytest.mark.parametrize(
    ("head", "size", "dropped", "architecture"),
    [
        ("classifier", 3, "nothing", "BertForSequenceClassification"),
        ("classifier", 1, "nothing", "BertForSequenceClassification"),
        ("classifier", 1, "nothing", "BertForMultipleChoice"),
        ("classifier", 3, "pooler", "BertForTokenClassification"),
        ("span", 2, "nothing", "BertForQuestionAnswering"),
        (None, 0, "heads/next_sentence", "BertForMaskedLM"),
        (None, 0, "heads", "BertModel"),
    ],
)
def test_the_class_is_the_one_with_these_modules(expected, tmp_path, head, size, dropped, architecture):
    params = {name: values for name, values in expected.params.items() if not name.startswith(dropped)}
    if head:
        params |= {f"heads/{head}/kernel": np.ones((32, size)), f"heads/{head}/bias": np.ones(size)}
    labels = ("no", "perhaps", "yes") if size == 3 else ()
    choices = "choices" if architecture == "BertForMultipleChoice" else ""
    weights = dataclasses.replace(expected, params=params, labels=labels, head=choices)
    huggingface.write(weights, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["architectures"] == [architecture]
    again, report = huggingface.read(tmp_path / "out")
    assert again.labels == labels
    assert again.task_head == weights.task_head
    assert report.extra == ()
    assert again.has("pooler") == (weights.task_head in ("sentences", "choices") or architecture == "BertModel")


def test_a_vocabulary_may_be_in_tokenizer_json_alone(tmp_path):
    directory = write_directory(tmp_path / "v5", TENSORS)
    (directory / "vocab.txt").unlink()
    (directory / "tokenizer_config.json").unlink()
    stored = {
        "normalizer": {"lowercase": True, "strip_accents": None, "handle_chinese_chars": False},
        "model": {"type": "WordPiece", "vocab": {p: n for n, p in enumerate(PIECES)}, "max_input_chars_per_word": 100},
    }
    (directory / "tokenizer.json").write_text(json.dumps(stored))
    settings = huggingface.read(directory)[0].tokenizer.settings
    assert (settings.do_lower_case, settings.strip_accents, settings.tokenize_chinese_chars) == (True, True, False)
    assert settings.max_input_chars_per_word == 100


def test_a_vocabulary_may_be_named(tmp_path):
    directory = write_directory(tmp_path / "model", TENSORS)
    (directory / "vocab.txt").rename(tmp_path / "words.txt")
    with pytest.raises(FileNotFoundError, match=r"name the vocabulary .* by --vocab=FILE"):
        huggingface.read(directory)
    weights, _ = huggingface.read(directory, Beside(vocab=tmp_path / "words.txt", do_lower_case=True))
    assert isinstance(weights.tokenizer, WordPiece)
    assert weights.tokenizer.settings.do_lower_case


def test_a_revision_on_the_hub_is_taken_from_the_local_cache(expected, tmp_path, monkeypatch):
    commit = "0123456789abcdef0123456789abcdef01234567"
    stored = write_directory(tmp_path / "models--someone--bert" / "snapshots" / commit, TENSORS)
    (stored.parent.parent / "refs").mkdir()
    (stored.parent.parent / "refs" / "v1").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for revision in (commit, "v1"):
        directory = huggingface.locate(f"someone/bert@{revision}")
        assert_equal(huggingface.read(directory)[0].params, expected.params)
    with pytest.raises(FileNotFoundError, match="hf:someone/other@v1 is neither on the Hub"):
        huggingface.locate("someone/other@v1")
    with pytest.raises(FileNotFoundError, match="give a directory, or OWNER/NAME@REVISION"):
        huggingface.locate("someone/bert")
