import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from bert_jax.interop import google
from bert_jax.interop.tensor_bundle import TensorBundle
from bert_jax.interop.weights import Beside
from tests.interop import google_variables

GOLDEN = Path(__file__).parent / "golden"  # by make_google_golden.py, with TensorFlow
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "on", "##s", ".", ","]


@pytest.fixture
def released(tmp_path):
    """A directory as a released zip has it, with the fine-tuned checkpoint too."""
    for path in GOLDEN.iterdir():
        shutil.copy(path, tmp_path)
    config = google_variables.SIZES | {"hidden_act": "gelu", "directionality": "bidi", "pooler_fc_size": 768}
    (tmp_path / "bert_config.json").write_text(json.dumps(config))
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("bert_model.ckpt", google_variables.pretraining_shapes()),
        ("model.ckpt-343", google_variables.fine_tuned_shapes()),
    ],
)
def test_every_variable_that_tensorflow_wrote_is_read(name, shapes):
    bundle = TensorBundle(GOLDEN / name)
    assert bundle.entries.keys() == shapes.keys()
    for variable, shape in shapes.items():
        values = bundle.read(variable)
        np.testing.assert_array_equal(values, google_variables.values(variable, shape), err_msg=variable)
        assert values.shape == shape
        assert values.dtype == (np.int64 if variable == "global_step" else np.float32)


def test_a_released_checkpoint_is_read(released):
    weights, report = google.read(f"{released}/bert_model.ckpt")
    assert (report.missing, report.extra) == ((), ())
    names = google_variables.pretraining_shapes()
    assert report.num_parameters == sum(int(np.prod(shape)) for shape in names.values())

    def theirs(name):
        return google_variables.values(name, names[name])

    kernel = weights.params["layers/attention/value/kernel"]  # [layers, embed, heads, head_dim]
    np.testing.assert_array_equal(kernel[1, :, 1], theirs("bert/encoder/layer_1/attention/self/value/kernel")[:, 2:])
    output = weights.params["layers/attention/output/kernel"]
    np.testing.assert_array_equal(output[0, 1], theirs("bert/encoder/layer_0/attention/output/dense/kernel")[2:])
    np.testing.assert_array_equal(
        weights.params["heads/next_sentence/kernel"], theirs("cls/seq_relationship/output_weights").T
    )
    np.testing.assert_array_equal(weights.params["heads/masked_lm/bias"], theirs("cls/predictions/output_bias"))
    assert weights.tokenizer.settings.do_lower_case  # no capitals in it
    assert weights.tokenizer.settings.max_input_chars_per_word == 200


def test_a_fine_tuned_checkpoint_has_a_classifier_and_no_pretraining_heads(released, tmp_path):
    weights, report = google.read(f"{released}/model.ckpt-343")
    np.testing.assert_array_equal(
        weights.params["heads/classifier/kernel"], google_variables.values("output_weights", (3, 4)).T
    )
    assert not weights.has("heads/masked_lm")
    assert report.extra == ()
    assert "cls/predictions/output_bias" in report.missing
    optimizer = 1 + 2 * (len(google_variables.encoder_shapes()) + 2)
    assert f"the optimizer's {optimizer} variables are not read" in report.notes
    # A fine-tuning output directory has neither file: they stay with the model that it began with.
    for name in ("bert_config.json", "vocab.txt"):
        (released / name).rename(tmp_path / f"its_{name}")
    with pytest.raises(FileNotFoundError, match=r"bert_config.json does not exist; .* name it by --bert_config"):
        google.read(f"{released}/model.ckpt-343")
    beside = Beside(tmp_path / "its_vocab.txt", tmp_path / "its_bert_config.json", do_lower_case=False)
    again, _ = google.read(f"{released}/model.ckpt-343", beside)
    assert not again.tokenizer.settings.do_lower_case
    np.testing.assert_array_equal(again.params["pooler/kernel"], weights.params["pooler/kernel"])


def test_what_is_not_such_a_checkpoint_is_refused(released):
    with pytest.raises(FileNotFoundError, match=r"ckpt.index does not exist.*there are .*bert_model.ckpt"):
        google.read(f"{released}/ckpt")
    index = released / "bert_model.ckpt.index"
    whole = index.read_bytes()
    index.write_bytes(whole[:-9])
    with pytest.raises(ValueError, match="is not the index of a TensorFlow checkpoint, or is cut short"):
        google.read(f"{released}/bert_model.ckpt")
    index.write_bytes(whole)
    data = released / "bert_model.ckpt.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-8])
    with pytest.raises(ValueError, match="copy it again"):
        google.read(f"{released}/bert_model.ckpt")
    data.unlink()
    with pytest.raises(FileNotFoundError, match="and its data files"):
        google.read(f"{released}/bert_model.ckpt")
