"""The one table of BERT's parameters: their names, shapes and layouts here and in other systems.

Source: the variables of google-research/bert's released checkpoints; the parameters of Hugging Face's PyTorch and Flax
models. Differs: our layers are stacked on a leading axis and our attention kernels have axes for heads and their
width; PyTorch's linear weights are [out, in], and so are Google's output weights.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from bert_jax.interop.parity_report import Match, ParityReport
from bert_jax.models.bert import BertConfig

SYSTEMS = ("huggingface", "flax", "google")
TASK_HEADS = ("heads/classifier", "heads/span")

# A kind's parameters: our ending → each system's ending, and whether the matrix is [out, in] there.
_BIAS = {"huggingface": (".bias", False), "flax": ("/bias", False), "google": ("/bias", False)}
_KERNEL = {"huggingface": (".weight", True), "flax": ("/kernel", False), "google": ("/kernel", False)}
_KINDS = {
    "table": {"": {"huggingface": (".weight", False), "flax": ("/embedding", False), "google": ("", False)}},
    "dense": {"/kernel": _KERNEL, "/bias": _BIAS},
    "norm": {
        "/scale": {"huggingface": (".weight", False), "flax": ("/scale", False), "google": ("/gamma", False)},
        "/bias": _BIAS | {"google": ("/beta", False)},
    },
    "output": {
        "/kernel": _KERNEL | {"google": ("/output_weights", True)},
        "/bias": _BIAS | {"google": ("/output_bias", False)},
    },
    "output bias": {"": _BIAS | {"google": ("/output_bias", False)}},
}


class _Module(NamedTuple):
    ours: str
    theirs: str  # Hugging Face's; Flax' has / for ., Google's besides layer_0 for layer/0
    kind: str
    inputs: str  # axes of a kernel or table before …
    outputs: str  # … and after; a bias or scale has these alone
    google: str | None = None  # where it is not as above


_LAYER = "bert.encoder.layer.{layer}"
_HEADS = "heads head_dim"
_MODULES = (
    _Module("embeddings/word_embeddings", "bert.embeddings.word_embeddings", "table", "vocab", "embed"),
    _Module("embeddings/position_embeddings", "bert.embeddings.position_embeddings", "table", "positions", "embed"),
    _Module("embeddings/token_type_embeddings", "bert.embeddings.token_type_embeddings", "table", "segments", "embed"),
    _Module("embeddings/layer_norm", "bert.embeddings.LayerNorm", "norm", "", "embed"),
    _Module("layers/attention/query", f"{_LAYER}.attention.self.query", "dense", "embed", _HEADS),
    _Module("layers/attention/key", f"{_LAYER}.attention.self.key", "dense", "embed", _HEADS),
    _Module("layers/attention/value", f"{_LAYER}.attention.self.value", "dense", "embed", _HEADS),
    _Module("layers/attention/output", f"{_LAYER}.attention.output.dense", "dense", _HEADS, "embed"),
    _Module("layers/attention_layer_norm", f"{_LAYER}.attention.output.LayerNorm", "norm", "", "embed"),
    _Module("layers/mlp/intermediate", f"{_LAYER}.intermediate.dense", "dense", "embed", "mlp"),
    _Module("layers/mlp/output", f"{_LAYER}.output.dense", "dense", "mlp", "embed"),
    _Module("layers/mlp_layer_norm", f"{_LAYER}.output.LayerNorm", "norm", "", "embed"),
    _Module("pooler", "bert.pooler.dense", "dense", "embed", "embed"),
    _Module("heads/masked_lm/transform", "cls.predictions.transform.dense", "dense", "embed", "embed"),
    _Module("heads/masked_lm/layer_norm", "cls.predictions.transform.LayerNorm", "norm", "", "embed"),
    _Module("heads/masked_lm/bias", "cls.predictions", "output bias", "", "vocab"),
    _Module("heads/next_sentence", "cls.seq_relationship", "output", "embed", "pair"),
    # Of sentences where there is a pooler, else of tokens. Google's run_classifier.py has it at the root.
    _Module("heads/classifier", "classifier", "output", "embed", "labels", google=""),
    _Module("heads/span", "qa_outputs", "output", "embed", "ends", google="cls/squad"),
)


class Parameter(NamedTuple):
    """One of our parameters, and the tensor or tensors that hold it in another system.

    Attributes:
        ours: `layers/attention/query/kernel`.
        theirs: with `{layer}` where each layer has a tensor of its own.
        transposed: whether theirs is [out, in].
        inputs: names of our leading axes.
        outputs: names of our other axes; theirs has one axis for all `inputs` and one for all `outputs`.
    """

    ours: str
    theirs: str
    transposed: bool
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def is_stacked(self) -> bool:
        """Whether ours holds all layers on a leading axis."""
        return "{layer}" in self.theirs

    @property
    def group(self) -> str:
        """What is there as a whole or not at all: `embeddings`, `layers`, `pooler` or a head."""
        parts = self.ours.split("/")
        return "/".join(parts[:2]) if parts[0] == "heads" else parts[0]

    def names(self, num_layers: int) -> list[str]:
        """Return the names of their tensors, by layer."""
        return [self.theirs.format(layer=layer) for layer in range(num_layers)] if self.is_stacked else [self.theirs]


def parameters(system: str) -> list[Parameter]:
    """Return every parameter that BERT and its heads can have, with its name in one of `SYSTEMS`."""
    found = []
    for module in _MODULES:
        stem = module.theirs
        if system != "huggingface":
            stem = stem.replace(".", "/")
        if system == "google":
            stem = stem.replace("layer/", "layer_") if module.google is None else module.google
        for ending, endings in _KINDS[module.kind].items():
            theirs, transposed = endings[system]
            inputs = tuple(module.inputs.split()) if ending in ("", "/kernel") else ()
            name = f"{stem}{theirs}".removeprefix("/")
            found.append(Parameter(module.ours + ending, name, transposed, inputs, tuple(module.outputs.split())))
    return found


def to_ours(
    tensors: Mapping[str, np.ndarray], system: str, config: BertConfig
) -> tuple[dict[str, np.ndarray], ParityReport]:
    """Return our parameters by name (`nest` makes the tree), float32, and what was found, missing and left over.

    Args:
        tensors: by name in `system`.
        system: one of `SYSTEMS`.
        config: sizes; tables of words with more rows (padding) are cut to its `vocab_size`.

    Raises:
        ValueError: no encoder, a head in parts, or a tensor of another shape or kind; all of them are named.
    """
    sizes = _sizes(config, config.vocab_size)
    ours: dict[str, np.ndarray] = {}
    matches, used, absent, errors = [], set(), [], []
    for parameter in parameters(system):
        names = parameter.names(config.num_hidden_layers)
        absent += [(parameter, name) for name in names if name not in tensors]
        if any(name not in tensors for name in names):
            continue
        used |= {*names}
        try:
            arrays = [_read(tensors[name], name, parameter, sizes) for name in names]
        except ValueError as error:
            errors.append(str(error))
            continue
        ours[parameter.ours] = np.stack(arrays) if parameter.is_stacked else arrays[0]
        matches.append(_match(parameter, names, ours[parameter.ours].shape, tensors[names[0]].shape))
    present = {parameter.group for parameter in parameters(system) if parameter.ours in ours}
    errors += [
        f"{name} is missing" for parameter, name in absent if parameter.group in {*present, "embeddings", "layers"}
    ]
    if errors:
        raise ValueError(
            f"the checkpoint does not hold the BERT that its config describes ({config.num_hidden_layers} layers, "
            f"hidden size {config.hidden_size}):\n  " + "\n  ".join(errors)
        )
    missing = [name for parameter, name in absent if parameter.group not in TASK_HEADS]
    return ours, ParityReport(tuple(matches), tuple(missing), tuple(sorted(tensors.keys() - used)))


def to_theirs(
    ours: Mapping[str, np.ndarray], system: str, config: BertConfig
) -> tuple[dict[str, np.ndarray], ParityReport]:
    """Return another system's tensors by name, float32, and which of ours they are and which have no place there.

    Args:
        ours: our parameters by name; rows that pad the vocabulary are left out.
        system: one of `SYSTEMS`.
        config: of the model that they belong to.
    """
    sizes = _sizes(config, config.padded_vocab_size)
    tensors: dict[str, np.ndarray] = {}
    matches, used = [], set()
    for parameter in parameters(system):
        if parameter.ours not in ours:
            continue
        used.add(parameter.ours)
        values = np.asarray(ours[parameter.ours], np.float32)
        names = parameter.names(config.num_hidden_layers)
        layers = [*values] if parameter.is_stacked else [values]
        _check_shape(layers[0].shape, parameter.ours, (*parameter.inputs, *parameter.outputs), sizes)
        tensors |= {name: _write(layer, parameter, config) for name, layer in zip(names, layers, strict=True)}
        matches.append(_match(parameter, names, values.shape, tensors[names[0]].shape))
    return tensors, ParityReport(tuple(matches), (), tuple(sorted(ours.keys() - used)))


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tree of `{"a/b": value}`: `{"a": {"b": value}}`."""
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *parents, last = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    return tree


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return `{"a/b": value}` of the tree `{"a": {"b": value}}`, the inverse of `nest`."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= flatten(value, f"{prefix}{name}/") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _sizes(config: BertConfig, vocab_size: int) -> dict[str, int]:
    """Return the size of every named axis; labels are as many as there are."""
    return {
        "vocab": vocab_size,
        "positions": config.max_position_embeddings,
        "segments": config.type_vocab_size,
        "embed": config.hidden_size,
        "heads": config.num_attention_heads,
        "head_dim": config.hidden_size // config.num_attention_heads,
        "mlp": config.intermediate_size,
        "pair": 2,
        "ends": 2,
    }


def _read(tensor: np.ndarray, name: str, parameter: Parameter, sizes: Mapping[str, int]) -> np.ndarray:
    """Return our form of one of their tensors."""
    if not jnp.issubdtype(tensor.dtype, jnp.floating):
        raise ValueError(f"{name} has type {tensor.dtype}; weights are floating point (a quantized model is not read)")
    values = tensor.T if parameter.transposed else tensor
    axes = tuple(axis for axis in (parameter.inputs, parameter.outputs) if axis)
    if values.ndim == len(axes):
        sizes = {"labels": values.shape[-1], **sizes}
        rows = "vocab" in axes[0] and values.shape[0] >= sizes["vocab"]
        values = values[: sizes["vocab"]] if rows else values
        wanted = tuple(math.prod(sizes[each] for each in axis) for axis in axes)
        if values.shape == wanted:
            shape = tuple(sizes[each] for axis in axes for each in axis)
            return np.ascontiguousarray(values, np.float32).reshape(shape)
    described = " × ".join("·".join(axis) for axis in (axes[::-1] if parameter.transposed else axes))
    raise ValueError(f"{name} has shape {tuple(tensor.shape)}, which is not the config's {described}")


def _write(values: np.ndarray, parameter: Parameter, config: BertConfig) -> np.ndarray:
    """Return their form of one of our arrays, of one layer."""
    if "vocab" in (*parameter.inputs, *parameter.outputs)[:1]:
        values = values[: config.vocab_size]
    if parameter.inputs:
        values = values.reshape(math.prod(values.shape[: len(parameter.inputs)]), -1)
    else:
        values = values.reshape(-1)
    return np.ascontiguousarray(values.T if parameter.transposed else values)


def _check_shape(shape: tuple[int, ...], name: str, axes: Iterable[str], sizes: Mapping[str, int]) -> None:
    wanted = tuple(sizes.get(axis, shape[-1]) for axis in axes)
    if shape != wanted:
        raise ValueError(f"{name} has shape {shape}, the config's is {wanted}; they are not of one model")


def _match(parameter: Parameter, names: list[str], ours: tuple[int, ...], theirs: tuple[int, ...]) -> Match:
    name = parameter.theirs.replace("{layer}", f"{{0..{len(names) - 1}}}")
    return Match(parameter.ours, ours, name, tuple(theirs), parameter.transposed)
