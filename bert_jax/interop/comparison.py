"""The outputs of our model beside those of Hugging Face's, for the same weights and inputs."""

import dataclasses
import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.interop import name_map, transformers_outputs
from bert_jax.interop.weights import Weights
from bert_jax.models.bert import Bert, BertConfig
from bert_jax.models.heads import PreTrainingHeads

PYTHON_VARIABLE = "BERT_JAX_TORCH_PYTHON"
_ROWS, _MOST_TOKENS = 4, 64


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How far two models are from each other.

    Attributes:
        differences: the largest absolute difference of each output, at real tokens.
        loading: what transformers said when it loaded the weights.
    """

    differences: dict[str, float]
    loading: dict[str, Any]

    def lines(self) -> list[str]:
        """Return it for people."""
        told = [
            f"{name}: {', '.join(names)}" for name, names in self.loading.items() if isinstance(names, list) and names
        ]
        differences = ", ".join(f"{name} {value:.1e}" for name, value in self.differences.items())
        return [*told, f"largest difference to transformers.{self.loading['architecture']}: {differences}"]


def compare(weights: Weights, directory: Path, inputs: dict[str, np.ndarray] | None = None) -> Comparison:
    """Run both models on the same rows.

    Args:
        weights: ours.
        directory: theirs; it is loaded by the Python that the environment variable BERT_JAX_TORCH_PYTHON names, or
            by this one.
        inputs: `sample_inputs` of the weights unless given.

    Raises:
        ValueError: that Python cannot import torch and transformers, or they cannot load the directory.
    """
    inputs = sample_inputs(weights) if inputs is None else inputs
    theirs, loading = _their_outputs(directory, inputs)
    real = inputs["attention_mask"] > 0
    differences = {}
    for name, values in our_outputs(weights, inputs).items():
        if name in theirs:
            difference = np.abs(np.asarray(values, np.float64) - theirs[name])
            differences[name] = float(np.max(_at_real_tokens(difference, real)))
    return Comparison(differences, loading)


def require_transformers() -> None:
    """Refuse a Python that cannot import torch and transformers; some seconds.

    Raises:
        ValueError: it cannot; what it said, and what to do.
    """
    _run_theirs(["-c", "import torch, transformers"], "import torch and transformers")


def sample_inputs(weights: Weights) -> dict[str, np.ndarray]:
    """Return rows of random pieces, with padding and two segments where the model has them."""
    config = weights.config
    length = min(_MOST_TOKENS, config.max_position_embeddings)
    positions = np.arange(length)
    ends = length - (length // (2 * _ROWS)) * np.arange(_ROWS)[:, None]
    real = positions < ends
    bits = np.random.Philox(key=0).random_raw(_ROWS * length).reshape(_ROWS, length)
    ids = np.where(real, bits % np.uint64(config.vocab_size), weights.tokenizer.special_ids["pad"])
    segments = np.where(real & (positions > length // 3), min(1, config.type_vocab_size - 1), 0)
    arrays = {"input_ids": ids, "attention_mask": real, "token_type_ids": segments}
    return {name: values.astype(np.int32) for name, values in arrays.items()}


def our_outputs(weights: Weights, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return our outputs by Hugging Face's names: all_hidden and what the heads say, in float32 on the CPU."""
    config = dataclasses.replace(weights.config, dtype="float32", attention="xla")
    with jax.default_device(jax.devices("cpu")[0]), jax.default_matmul_precision("highest"):
        run = jax.jit(functools.partial(_run, config))
        return jax.device_get(run(name_map.nest(weights.params), inputs))


def _run(config: BertConfig, params: dict[str, Any], inputs: dict[str, jax.Array]) -> dict[str, jax.Array]:
    heads = params.get("heads", {})
    encoder_params = {name: module for name, module in params.items() if name != "heads"}
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    positions = jnp.broadcast_to(jnp.arange(ids.shape[1]), ids.shape)
    starts = jnp.zeros((len(ids), 1), jnp.int32)
    encoder = Bert(config, add_pooler="pooler" in params, keep_hidden=True)
    output: Any = encoder.apply(
        {"params": encoder_params}, ids, mask, inputs["token_type_ids"], positions, mask, starts
    )
    pooled = None if output.pooled is None else output.pooled[:, 0]
    found = {"all_hidden": output.all_hidden}
    # The head that makes the class, as `huggingface` chooses it.
    if "span" in heads:
        ends = output.hidden @ heads["span"]["kernel"] + heads["span"]["bias"]
        found |= {"start_logits": ends[..., 0], "end_logits": ends[..., 1]}
    elif "classifier" in heads:
        features = output.hidden if pooled is None else pooled
        found["logits"] = features @ heads["classifier"]["kernel"] + heads["classifier"]["bias"]
    elif "masked_lm" in heads:
        has_pair = "next_sentence" in heads
        words = params["embeddings"]["word_embeddings"]
        module = PreTrainingHeads(config)
        logits: Any = module.apply({"params": heads}, output.hidden, output.pooled if has_pair else None, words)
        found["prediction_logits" if has_pair else "logits"] = logits.masked_lm_logits[..., : config.vocab_size]
        if has_pair:
            found["seq_relationship_logits"] = logits.next_sentence_logits[:, 0]
    elif pooled is not None:
        found["pooler_output"] = pooled
    return found


def _at_real_tokens(values: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Return an output without what stands at padding, where nothing is promised."""
    for first in (0, 1):  # [rows, length, …], or [layers, rows, length, …]
        if values.shape[first : first + 2] == real.shape:
            return values[(slice(None),) * first + (real,)]
    return values


def _their_outputs(directory: Path, inputs: dict[str, np.ndarray]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    with tempfile.TemporaryDirectory() as scratch:
        files = [Path(scratch) / name for name in ("inputs.npz", "outputs.npz")]
        np.savez(files[0], **inputs)  # pyright: ignore[reportArgumentType]
        arguments = [transformers_outputs.__file__, str(Path(directory).resolve()), *map(str, files)]
        said = _run_theirs(arguments, f"load {directory} with transformers")
        with np.load(files[1]) as arrays:
            return dict(arrays), json.loads(said.splitlines()[-1])


def _run_theirs(arguments: list[str], purpose: str) -> str:
    python = os.environ.get(PYTHON_VARIABLE, sys.executable)
    # A PYTHONPATH of ours would show that Python our packages.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([python, *arguments], capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it failed without a word"])[-1]
        raise ValueError(
            f"{python} cannot {purpose}: {last}; let the environment variable {PYTHON_VARIABLE} name a Python that has "
            "torch and transformers"
        )
    return done.stdout
