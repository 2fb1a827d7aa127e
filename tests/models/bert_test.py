from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.models.bert import NAMED_SIZES, VOCAB_SIZES, Bert, BertConfig, named_size
from bert_jax.training.sharding import unbox
from tests.models.tiny import model_inputs, pack, random_params, tiny_batch, tiny_config


def encode(batch, config=None, seed=None, **model_options):
    model = Bert(config or tiny_config(), **model_options)
    inputs = model_inputs(model, batch)
    return jax.jit(model.apply)({"params": random_params(model, batch)}, *inputs, seed)


def test_padding_does_not_change_other_tokens():
    batch = tiny_batch(lengths=(12, 7, 9))
    padding = batch["input_mask"] == 0
    changed = dict(batch)
    for name, value in (("input_ids", 17), ("segment_ids", 1), ("position_ids", 5)):
        changed[name] = jnp.where(padding, value, batch[name])
    hidden, changed_hidden = encode(batch).hidden, encode(changed).hidden
    assert not np.array_equal(hidden[padding], changed_hidden[padding])
    np.testing.assert_array_equal(hidden[~padding], changed_hidden[~padding])


def test_a_shorter_row_gives_the_same_as_a_padded_one():
    batch = tiny_batch(lengths=(7, 7, 7))
    short = {name: values if name == "sequence_starts" else values[:, :7] for name, values in batch.items()}
    np.testing.assert_allclose(encode(batch).hidden[:, :7], encode(short).hidden, atol=2e-6)


def test_packed_sequences_do_not_see_each_other():
    batch = tiny_batch(lengths=(12, 7, 9, 5))
    packed = pack(batch, rows=2)
    output, packed_output = encode(batch), encode(packed)
    for name in ("hidden", "pooled"):
        assert np.isfinite(getattr(packed_output, name)).all()
    np.testing.assert_allclose(packed_output.hidden[0, 12:19], output.hidden[1, :7], atol=2e-6)
    np.testing.assert_allclose(packed_output.hidden[1, :9], output.hidden[2, :9], atol=2e-6)
    np.testing.assert_allclose(packed_output.pooled.reshape(4, -1), output.pooled[:, 0], atol=2e-6)


@pytest.mark.parametrize("rows", [None, 2], ids=["unpacked", "packed"])
def test_rows_of_padding_alone_are_finite(rows):
    batch = tiny_batch(lengths=(12, 0, 0, 0))
    output = encode(batch if rows is None else pack(batch, rows))
    assert np.isfinite(output.hidden).all()
    assert np.isfinite(output.pooled).all()


def test_all_hidden_starts_with_the_embeddings_and_ends_with_the_output():
    batch = tiny_batch()
    output = encode(batch, keep_hidden=True)
    assert output.all_hidden.shape == (3, *output.hidden.shape)
    np.testing.assert_array_equal(output.all_hidden[-1], output.hidden)
    assert not np.allclose(output.all_hidden[0], output.all_hidden[1])
    assert encode(batch).all_hidden is None


def test_no_pooler_on_request():
    assert encode(tiny_batch(), add_pooler=False).pooled is None


def loss_and_gradient(**options):
    batch, model = tiny_batch(), Bert(tiny_config(**options))

    def loss(params):
        output: Any = model.apply({"params": params}, *model_inputs(model, batch), jnp.uint32(3))
        return jnp.sum(jnp.sin(output.hidden)) + jnp.sum(output.pooled)

    return jax.jit(jax.value_and_grad(loss))(random_params(model, batch))


@pytest.fixture(scope="module")
def rolled():
    return loss_and_gradient()


@pytest.mark.parametrize(
    "options", [{"scan_unroll": 2}, {"remat": "dots"}, {"remat": "full", "scan_unroll": 2}], ids=str
)
def test_unrolling_and_recomputing_change_nothing(rolled, options):
    found = loss_and_gradient(**options)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, rolled)


@pytest.mark.parametrize("rows", [None, 2], ids=["unpacked", "packed"])
@pytest.mark.parametrize(
    "options", [{}, {"num_hidden_layers": 1}, {"remat": "full"}, {"scan_unroll": 2}], ids=["", "one", "remat", "unroll"]
)
def test_output_positions_change_no_output_and_no_gradient(rows, options):
    batch = tiny_batch(lengths=(12, 7, 9, 5))
    batch = batch if rows is None else pack(batch, rows)
    positions = jnp.asarray(np.random.default_rng(1).integers(0, 5, (len(batch["input_ids"]), 3)))
    model = Bert(tiny_config(**options))
    inputs = model_inputs(model, batch)

    def loss(params, output_positions):
        output: Any = model.apply({"params": params}, *inputs, None, output_positions)
        hidden = output.hidden
        if output_positions is None:
            hidden = jnp.take_along_axis(hidden, positions[:, :, None], axis=1)
        return jnp.sum(jnp.sin(hidden)) + jnp.sum(output.pooled), (hidden, output.pooled)

    params = random_params(model, batch)
    whole, some = (jax.jit(jax.grad(loss, has_aux=True))(params, chosen) for chosen in (None, positions))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=3e-6), some, whole)


def test_output_positions_do_not_go_with_all_outputs():
    batch, model = tiny_batch(), Bert(tiny_config(), keep_hidden=True)
    inputs = model_inputs(model, batch)
    with pytest.raises(ValueError, match="without output_positions"):
        jax.eval_shape(model.init, jax.random.key(0), *inputs, None, batch["sequence_starts"])


def test_dropout_seed_decides_the_output():
    batch = tiny_batch()
    first, again, other = (encode(batch, seed=jnp.uint32(seed)).hidden for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(np.asarray(first - other)).max() > 0.1
    assert np.abs(np.asarray(first - encode(batch).hidden)).max() > 0.1


def test_layers_and_sites_drop_different_elements():
    # Every sub-layer adds the constant 100 to a zero input: what a normalised output shows is its last mask alone.
    batch = tiny_batch(lengths=(12,) * 8)
    model = Bert(tiny_config(attention_probs_dropout_prob=0.0, hidden_size=32), keep_hidden=True)
    params = jax.tree.map(jnp.zeros_like, random_params(model, batch))
    params["layers"]["mlp"]["output"]["bias"] += 100.0
    params["layers"]["mlp_layer_norm"]["scale"] += 1.0
    output: Any = model.apply({"params": params}, *model_inputs(model, batch), jnp.uint32(0))
    dropped = np.asarray(output.all_hidden[1:]) < -1.0
    assert dropped.mean() == pytest.approx(0.1, abs=0.02)
    assert (dropped[0] & dropped[1]).mean() == pytest.approx(0.01, abs=0.006)


def test_bfloat16_computes_in_bfloat16_with_float32_parameters():
    batch = tiny_batch()
    model = Bert(tiny_config(dtype="bfloat16"))
    declared = jax.eval_shape(model.init, jax.random.key(0), *model_inputs(model, batch))
    assert {leaf.dtype for leaf in jax.tree.leaves(declared)} == {jnp.dtype("float32")}
    output = encode(batch, tiny_config(dtype="bfloat16"))
    assert output.hidden.dtype == output.pooled.dtype == jnp.bfloat16
    exact = encode(batch)
    np.testing.assert_allclose(output.hidden.astype(jnp.float32), exact.hidden, atol=0.1)


def test_too_long_rows_are_refused_when_traced():
    batch = tiny_batch(lengths=(12,))
    with pytest.raises(ValueError, match=r"12 tokens .* 8 position embeddings; use shorter rows"):
        encode(batch, tiny_config(max_position_embeddings=8))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"num_attention_heads": 3}, "hidden_size 16 is not divisible by 3 heads"),
        ({"hidden_act": "gelu_new"}, "hidden_act is 'gelu_new'; accepted: gelu"),
        ({"attention": "cudnn"}, "has no attention dropout and got 0.1"),
        ({"attention": "cudnn", "attention_probs_dropout_prob": 0.0}, "computes in bfloat16"),
        ({"attention": "splash"}, '"splash" has no attention dropout and got 0.1'),
        ({"attention": "splash", "attention_probs_dropout_prob": 0.0, "causal": True}, "no causal mask"),
        ({"remat": "ful"}, "did you mean 'full'"),
        ({"vocab_size": 0}, "vocab_size is 0"),
        ({"hidden_dropout_prob": 1.0}, "it takes 0 ≤ rate < 1"),
        ({"scan_unroll": 0}, "scan_unroll is 0"),
    ],
)
def test_impossible_configs_are_refused(overrides, message):
    with pytest.raises(ValueError, match=message):
        tiny_config(**overrides)


def test_named_sizes():
    assert len([name for name in NAMED_SIZES if name.startswith("L")]) == 24
    assert named_size("mini") == named_size("L4-H256")
    assert named_size("6-768-3")["num_attention_heads"] == 3
    with pytest.raises(ValueError, match="did you mean 'base'"):
        named_size("bas")


def test_the_vocabulary_is_padded_to_a_multiple():
    config = BertConfig(vocab_size=VOCAB_SIZES["uncased"], vocab_size_multiple=128, **named_size("tiny"))
    assert config.padded_vocab_size == 30_592


@pytest.mark.parametrize("rows", [None, 2], ids=["unpacked", "packed"])
def test_a_causal_model_sees_nothing_to_the_right(rows):
    config = tiny_config(causal=True)
    batch = tiny_batch(lengths=(12, 7, 9, 5))
    batch = batch if rows is None else pack(batch, rows)
    changed = dict(batch)
    changed["input_ids"] = batch["input_ids"].at[:, 6:].set(17)
    hidden, changed_hidden = encode(batch, config).hidden, encode(changed, config).hidden
    np.testing.assert_array_equal(hidden[:, :6], changed_hidden[:, :6])
    assert not np.allclose(hidden[:, 6], changed_hidden[:, 6])
    assert not np.allclose(encode(batch).hidden[:, :6], encode(changed).hidden[:, :6])


def test_a_causal_model_pools_the_last_token_packed_or_not():
    config, batch = tiny_config(causal=True), tiny_batch(lengths=(12, 7, 9, 5))
    params = random_params(Bert(config), batch)
    output, packed = encode(batch, config), encode(pack(batch, rows=2), config)
    last = np.asarray(output.hidden)[np.arange(4), [11, 6, 8, 4]]
    pooled = np.tanh(last @ np.asarray(params["pooler"]["kernel"]) + np.asarray(params["pooler"]["bias"]))
    np.testing.assert_allclose(output.pooled[:, 0], pooled, atol=2e-6)
    np.testing.assert_allclose(packed.pooled.reshape(4, -1), pooled, atol=2e-6)


def test_a_causal_model_gives_the_same_where_only_some_outputs_are_read():
    config, batch = tiny_config(causal=True), tiny_batch(lengths=(12, 7, 9))
    whole = encode(batch, config)
    positions = jnp.asarray([[3, 5], [0, 6], [8, 1]])
    model = Bert(config)
    inputs = [*model_inputs(model, batch), None, positions]
    some: Any = model.apply({"params": random_params(model, batch)}, *inputs)
    expected = jnp.take_along_axis(whole.hidden, positions[..., None], axis=1)
    np.testing.assert_allclose(some.hidden, expected, atol=2e-6)
    np.testing.assert_allclose(some.pooled, whole.pooled, atol=2e-6)


def test_any_layers_hidden_size_and_heads_are_a_size():
    assert named_size("1-96-12") == {
        "num_hidden_layers": 1, "hidden_size": 96, "num_attention_heads": 12, "intermediate_size": 384,
    }  # fmt: skip


def test_mimetic_attention_begins_with_queries_and_keys_alike():
    batch = tiny_batch()
    params = {}
    for init in ("normal", "mimetic"):
        config = tiny_config(attention_init=init)
        model = Bert(config)
        params[init] = unbox(model.init(jax.random.key(3), *model_inputs(model, batch)))["params"]
    attention = params["mimetic"]["layers"]["attention"]
    query, key = attention["query"]["kernel"], attention["key"]["kernel"]  # [layers, hidden, heads, head_dim]
    np.testing.assert_array_equal(query, key)
    assert not np.allclose(query[0], query[1])
    assert not np.allclose(query, params["normal"]["layers"]["attention"]["query"]["kernel"])
    # A token of mean square 1 with itself: Σ x² σ² over hidden size and head_dim, by the root of head_dim.
    scores = jnp.square(query).sum(axis=(1, 3)) / np.sqrt(query.shape[-1])
    np.testing.assert_allclose(scores.mean(), 12.0, rtol=0.1)
    others = jax.tree.map(np.array_equal, params["normal"]["embeddings"], params["mimetic"]["embeddings"])
    assert all(jax.tree.leaves(others))


@pytest.mark.parametrize(("spread", "expected"), [(0.0, 0.02), (0.3, 0.3)], ids=["as words", "of its own"])
def test_positions_begin_with_the_asked_spread(spread, expected):
    config = tiny_config(position_init="sinusoids", initializer_range=0.02, position_initializer_range=spread)
    model = Bert(config)
    params = unbox(model.init(jax.random.key(0), *model_inputs(model, tiny_batch())))["params"]
    assert np.std(params["embeddings"]["position_embeddings"]) == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize("spread", [-0.1, float("inf"), float("nan")])
def test_a_spread_of_positions_that_is_none_is_refused(spread):
    with pytest.raises(ValueError, match=r"model\.position_initializer_range is .*; it takes a standard deviation"):
        tiny_config(position_initializer_range=spread)


def test_unknown_attention_inits_are_refused():
    with pytest.raises(ValueError, match=r"attention_init.*'tied'.*normal.*mimetic"):
        tiny_config(attention_init="tied")
