"""The tiny model, its weights and its batches, made alike for PyTorch and for us: numpy alone, from raw Philox bits.

Weights go by Hugging Face's names and shapes ([out, in] for linear layers).
"""

import zlib

import numpy as np

SIZES = {
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
    "type_vocab_size": 2,
}
ROWS, TOKENS, PREDICTIONS = 4, 24, 5
NUM_STEPS, NUM_BATCHES = 50, 5  # batches come round, so that there is something to learn
OPTIMIZER = {
    "peak_learning_rate": 2e-3, "warmup_steps": 10, "total_steps": 100, "weight_decay": 0.01,
    "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-6, "clip_norm": 1.0,
}  # fmt: skip


def uniform(name: str, *shape: int) -> np.ndarray:
    """Return float64 numbers in [0, 1) that depend on the name alone, on any machine and any numpy."""
    bits = np.random.Philox(key=zlib.crc32(name.encode())).random_raw(int(np.prod(shape)))
    return (bits >> np.uint64(11)).reshape(shape) / 2.0**53


def shapes() -> dict[str, tuple[int, ...]]:
    """Return the shape of every parameter of BertForPreTraining (tied ones once)."""
    vocab, size, wide = SIZES["vocab_size"], SIZES["hidden_size"], SIZES["intermediate_size"]
    found: dict[str, tuple[int, ...]] = {
        "bert.embeddings.word_embeddings.weight": (vocab, size),
        "bert.embeddings.position_embeddings.weight": (SIZES["max_position_embeddings"], size),
        "bert.embeddings.token_type_embeddings.weight": (SIZES["type_vocab_size"], size),
        "cls.predictions.bias": (vocab,),
    }
    linear = {"bert.pooler.dense": (size, size), "cls.predictions.transform.dense": (size, size)}
    linear["cls.seq_relationship"] = (2, size)
    norms = ["bert.embeddings.LayerNorm", "cls.predictions.transform.LayerNorm"]
    for layer in range(SIZES["num_hidden_layers"]):
        prefix = f"bert.encoder.layer.{layer}"
        linear |= {f"{prefix}.attention.self.{name}": (size, size) for name in ("query", "key", "value")}
        linear[f"{prefix}.attention.output.dense"] = (size, size)
        linear[f"{prefix}.intermediate.dense"] = (wide, size)
        linear[f"{prefix}.output.dense"] = (size, wide)
        norms += [f"{prefix}.attention.output.LayerNorm", f"{prefix}.output.LayerNorm"]
    for name, shape in linear.items():
        found |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    for name in norms:
        found |= {f"{name}.weight": (size,), f"{name}.bias": (size,)}
    return found


def weights() -> dict[str, np.ndarray]:
    """Return every parameter, none of them at a value that would hide a mistake (no zero bias, no unit scale)."""
    found = {}
    for name, shape in shapes().items():
        values = uniform(name, *shape) - 0.5
        found[name] = 1.0 + 0.5 * values if name.endswith("LayerNorm.weight") else 0.4 * values
    return found


def batch(number: int) -> dict[str, np.ndarray]:
    """Return a batch with padding, both segments and 1 to 5 masked tokens a row."""

    def integers(field: str, low: int, high: int, *shape: int) -> np.ndarray:
        return (low + np.floor(uniform(f"{field} {number}", *shape) * (high - low))).astype(np.int32)

    positions = np.arange(TOKENS)
    lengths = integers("length", 10, TOKENS + 1, ROWS)
    real = positions < lengths[:, None]
    order = np.argsort(np.where(real & (positions > 0), uniform(f"order {number}", ROWS, TOKENS), 2.0), axis=1)
    masked = np.arange(PREDICTIONS) < integers("count", 1, PREDICTIONS + 1, ROWS)[:, None]
    found = {
        "input_ids": np.where(real, integers("token", 1, SIZES["vocab_size"], ROWS, TOKENS), 0),
        "input_mask": real,
        "segment_ids": np.where(real, positions >= integers("second", 2, 10, ROWS)[:, None], 0),
        "position_ids": np.where(real, positions, 0),
        "sequence_ids": real,
        "sequence_starts": np.zeros((ROWS, 1)),
        "masked_lm_positions": np.where(masked, order[:, :PREDICTIONS], 0),
        "masked_lm_ids": np.where(masked, integers("label", 1, SIZES["vocab_size"], ROWS, PREDICTIONS), 0),
        "next_sentence_labels": integers("next", 0, 2, ROWS, 1),
    }
    weights = {"masked_lm_weights": masked, "next_sentence_weights": np.ones((ROWS, 1))}
    return {name: values.astype(np.int32) for name, values in found.items()} | {
        name: values.astype(np.float32) for name, values in weights.items()
    }


def learning_rate(step: int) -> float:
    """Return the rate of BERT's optimization.py: linear decay counted from step 0, linear warm-up."""
    peak, warmup = OPTIMIZER["peak_learning_rate"], OPTIMIZER["warmup_steps"]
    return peak * step / warmup if step < warmup else peak * (1.0 - step / OPTIMIZER["total_steps"])
