"""The one kind of address of a checkpoint, in whichever system: `run:`, `hf:`, `google:` and `elmo:`.

run:DIR, run:DIR@STEP, run:DIR@best    a run's directory, or one that launch.convert wrote
hf:DIR, hf:OWNER/NAME@REVISION         a directory of Hugging Face's, here or on the Hub
google:PREFIX                          a TensorFlow 1 checkpoint, DIR/bert_model.ckpt
elmo:DIR                               options.json and weights.hdf5; `elmo_addresses.py` reads it, and runs of ELMo
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from bert_jax.config import build
from bert_jax.corpus.vocabulary import WordPiece
from bert_jax.interop import bert_json, google, huggingface, name_map
from bert_jax.interop.parity_report import ParityReport
from bert_jax.interop.weights import Beside, Weights
from bert_jax.models.bert import BertConfig
from bert_jax.training import checkpoint, elmo_addresses
from bert_jax.training.checkpoint import RUN


def load(address: str, beside: Beside | None = None) -> tuple[Weights, ParityReport]:
    """Return the model of an address in memory, and what became of every tensor.

    Args:
        address: see the head of this file.
        beside: files to read in place of those beside a checkpoint of another system.

    Raises:
        ValueError: not an address, or not a BERT.
        FileNotFoundError: no such checkpoint, or one without its config or vocabulary.
    """
    scheme, place = checkpoint.split(address)
    if scheme not in _READERS:
        raise ValueError(f"{address} is an ELMo; a BERT is read here")
    return _READERS[scheme](place, beside or Beside())


def read_config(address: str) -> BertConfig:
    """Return the config of the model of an address, without its weights; see `load` for the errors."""
    scheme, place = checkpoint.split(address)
    if scheme == RUN:
        return _run_config(checkpoint.resolve(address))
    if scheme == "hf":
        return bert_json.read(huggingface.locate(place) / huggingface.CONFIG)[0]
    if scheme == "google":
        return bert_json.read(Path(place).parent / google.CONFIG)[0]
    raise ValueError(f"{address} is an ELMo; a BERT is read here")


def _run_config(found: checkpoint.Address) -> BertConfig:
    values = checkpoint.load_config(found)
    if values.get("family") == elmo_addresses.FAMILY:
        raise ValueError(f"{found.workdir} is a run of an ELMo; a BERT is read here")
    size = values["model"]["vocab_size"] or WordPiece.load(found.workdir / "tokenizer").vocab_size  # 0: the corpus'
    return build(BertConfig, values["model"] | {"vocab_size": size}, "config.model")


def _load_run(place: str, beside: Beside) -> tuple[Weights, ParityReport]:
    if beside != Beside():
        raise ValueError(f"run:{place} has its own config and vocabulary; --vocab and the like are for hf: and google:")
    found = checkpoint.resolve(f"{RUN}:{place}")
    config = _run_config(found)
    tokenizer = WordPiece.load(found.workdir / "tokenizer")
    params: Any = jax.device_get(checkpoint.load_params(found))
    path = found.workdir / "run.json"
    facts = json.loads(path.read_text()) if path.exists() else {}
    notes = (f"step {found.step:,} of {found.workdir}",)
    weights = Weights(
        config, name_map.flatten(params), tokenizer, tuple(facts.get("labels", ())), facts.get("head", "")
    )
    return weights, ParityReport((), (), (), notes)


def _load_huggingface(place: str, beside: Beside) -> tuple[Weights, ParityReport]:
    return huggingface.read(huggingface.locate(place), beside)


_READERS: dict[str, Callable[[str, Beside], tuple[Weights, ParityReport]]] = {
    RUN: _load_run,
    "hf": _load_huggingface,
    "google": google.read,
}
