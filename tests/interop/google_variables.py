"""The variables of a very small BERT as Google's code names them, with values by name; numpy alone."""

import zlib

import numpy as np

SIZES = {
    "vocab_size": 12,
    "hidden_size": 4,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 6,
    "max_position_embeddings": 8,
    "type_vocab_size": 2,
}
GLOBAL_STEP = 343


def values(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return the values of a variable: multiples of 2^-10, exact in float32."""
    if name == "global_step":
        return np.array(GLOBAL_STEP, np.int64)
    bits = np.random.Philox(key=zlib.crc32(name.encode())).random_raw(int(np.prod(shape)))
    return ((bits % np.uint64(2048)).astype(np.float32) / 1024 - 1).reshape(shape)


def encoder_shapes() -> dict[str, tuple[int, ...]]:
    """Return the encoder's variables."""
    size, wide = SIZES["hidden_size"], SIZES["intermediate_size"]
    found: dict[str, tuple[int, ...]] = {
        "bert/embeddings/word_embeddings": (SIZES["vocab_size"], size),
        "bert/embeddings/position_embeddings": (SIZES["max_position_embeddings"], size),
        "bert/embeddings/token_type_embeddings": (SIZES["type_vocab_size"], size),
    }
    dense, norms = {"bert/pooler/dense": (size, size)}, ["bert/embeddings/LayerNorm"]
    for layer in range(SIZES["num_hidden_layers"]):
        prefix = f"bert/encoder/layer_{layer}"
        dense |= {f"{prefix}/attention/self/{name}": (size, size) for name in ("query", "key", "value")}
        dense[f"{prefix}/attention/output/dense"] = (size, size)
        dense |= {f"{prefix}/intermediate/dense": (size, wide), f"{prefix}/output/dense": (wide, size)}
        norms += [f"{prefix}/attention/output/LayerNorm", f"{prefix}/output/LayerNorm"]
    for name, shape in dense.items():
        found |= {f"{name}/kernel": shape, f"{name}/bias": shape[1:]}
    for name in norms:
        found |= {f"{name}/gamma": (size,), f"{name}/beta": (size,)}
    return found


def pretraining_shapes() -> dict[str, tuple[int, ...]]:
    """Return the variables of a released zip: no optimizer's."""
    size = SIZES["hidden_size"]
    return encoder_shapes() | {
        "cls/predictions/transform/dense/kernel": (size, size),
        "cls/predictions/transform/dense/bias": (size,),
        "cls/predictions/transform/LayerNorm/gamma": (size,),
        "cls/predictions/transform/LayerNorm/beta": (size,),
        "cls/predictions/output_bias": (SIZES["vocab_size"],),
        "cls/seq_relationship/output_weights": (2, size),
        "cls/seq_relationship/output_bias": (2,),
    }


def fine_tuned_shapes() -> dict[str, tuple[int, ...]]:
    """Return the variables that run_classifier.py saves for three labels, with the optimizer's."""
    found = encoder_shapes() | {"output_weights": (3, SIZES["hidden_size"]), "output_bias": (3,)}
    slots = {f"{name}/adam_{slot}": shape for name, shape in found.items() for slot in "mv"}
    return found | slots | {"global_step": ()}
