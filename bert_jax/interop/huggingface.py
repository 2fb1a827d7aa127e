"""Hugging Face's directories: config.json, model.safetensors or an old flax_model.msgpack, and the vocabulary.

Source: the layout that `transformers` writes; safetensors' format. Older weights say gamma and beta, an encoder alone
has no `bert.` prefix, tied weights may be there twice, large models come in several files with an index: all read.
Differs: pickled weights (pytorch_model.bin) are refused, since loading one runs whatever code is in it.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub
import numpy as np
from flax import serialization
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from bert_jax.interop import bert_json, name_map, vocabulary_files
from bert_jax.interop.checkpoint_files import existing, read_json, reading
from bert_jax.interop.parity_report import ParityReport
from bert_jax.interop.weights import Beside, Weights, fit_vocabulary

CONFIG, WEIGHTS, INDEX, FLAX = "config.json", "model.safetensors", "model.safetensors.index.json", "flax_model.msgpack"
_SMALL_FILES = ("config.json", "vocab.txt", "tokenizer_config.json", "tokenizer.json", "special_tokens_map.json")
_HUB_ID = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)@(?P<revision>[\w./-]+)")
_PICKLED = (
    "pytorch_model.bin is a pickle, which can run any code when it is loaded, and is not read; where you trust it: "
    "`AutoModelForPreTraining.from_pretrained(DIR).save_pretrained(NEW_DIR)` in an environment with torch and "
    "transformers writes model.safetensors"
)
_DECODER = "cls.predictions.decoder"
_IGNORED = re.compile(r"embeddings[./]position_ids$")  # a buffer of older versions: 0, 1, 2 …


class _Architecture(NamedTuple):
    name: str
    needs: tuple[str, ...]
    pooler: bool
    head: str = ""  # as of Weights


# The first for the model's head whose modules are there. Its class has exactly these and the encoder, so it loads
# without a warning.
_ARCHITECTURES = (
    _Architecture("BertForQuestionAnswering", ("heads/span",), pooler=False, head="span"),
    _Architecture("BertForMultipleChoice", ("heads/classifier", "pooler"), pooler=True, head="choices"),
    _Architecture("BertForSequenceClassification", ("heads/classifier", "pooler"), pooler=True, head="sentences"),
    _Architecture("BertForTokenClassification", ("heads/classifier",), pooler=False, head="tokens"),
    _Architecture("BertForPreTraining", ("heads/masked_lm", "heads/next_sentence", "pooler"), pooler=True),
    _Architecture("BertForMaskedLM", ("heads/masked_lm",), pooler=False),
    _Architecture("BertModel", (), pooler=True),
)


def locate(place: str) -> Path:
    """Return the directory of an address behind `hf:`; one on the Hub is downloaded, or taken from the local cache.

    Args:
        place: a directory, or OWNER/NAME@REVISION with a commit, tag or branch.

    Raises:
        FileNotFoundError: neither, or nothing of that name on the Hub.
    """
    found = _HUB_ID.fullmatch(place)
    if Path(place).exists() or found is None:
        what = "give a directory, or OWNER/NAME@REVISION on the Hub (a commit, or at least a tag, so that it stays)"
        return existing(place, what)
    try:
        directory = _download(found, (*_SMALL_FILES, "model*.safetensors", INDEX))
        if not any((directory / name).exists() for name in (WEIGHTS, INDEX)):
            directory = _download(found, (*_SMALL_FILES, FLAX))
    except Exception as error:  # of the HTTP library below, which changed before
        raise FileNotFoundError(
            f"hf:{place} is neither on the Hub (or the Hub cannot be reached) nor in the local cache: "
            f"{str(error).splitlines()[0]}"
        ) from error
    return directory


def read(directory: Path, beside: Beside | None = None) -> tuple[Weights, ParityReport]:
    """Return the model of a directory, and what became of every tensor.

    Raises:
        FileNotFoundError: no config, weights or vocabulary.
        ValueError: a damaged file, not BERT, or not the BERT that the config describes.
    """
    beside = beside or Beside()
    config, values = bert_json.read(beside.config or directory / CONFIG)
    tokenizer = vocabulary_files.read(directory, beside)
    config = fit_vocabulary(config, tokenizer.vocab_size)
    notes = [vocabulary_files.describe(tokenizer)]
    if (directory / WEIGHTS).exists() or (directory / INDEX).exists():
        stored = _safetensors(directory)
        system, tensors, spell = "huggingface", _canonical(stored), _spelling(stored)
        notes += _drop_tied(tensors)
    elif (directory / FLAX).exists():
        system, tensors, spell = "flax", _flax(directory / FLAX), str
    else:
        pickled = f": {_PICKLED}" if list(directory.glob("*.bin")) else f"; {_PICKLED}" if directory.exists() else ""
        raise FileNotFoundError(f"{directory} has no {WEIGHTS}, {INDEX} or {FLAX}{pickled}")
    params, report = name_map.to_ours(tensors, system, config)
    is_named = len(params.get("heads/classifier/bias", ())) > 1  # one output is a score, whatever id2label calls it
    names = values.get("id2label", {}) if is_named else {}
    labels = tuple(names[key] for key in sorted(names, key=int))
    heads = {each.name: each.head for each in _ARCHITECTURES}
    head = next((heads[name] for name in values.get("architectures") or () if name in heads), "")
    return Weights(config, params, tokenizer, labels, head), report.spelled(spell).with_notes(*notes)


def write(weights: Weights, directory: Path) -> ParityReport:
    """Write a directory that `transformers` loads without a warning, by the class that its config.json names.

    Raises:
        FileExistsError: it holds a model already.
    """
    if (directory / WEIGHTS).exists() or (directory / CONFIG).exists():
        raise FileExistsError(f"{directory} holds a model already; give another directory, or remove it")
    architecture = next(
        each
        for each in _ARCHITECTURES
        if each.head in ("", weights.task_head) and all(weights.has(module) for module in each.needs)
    )
    kept = {*architecture.needs, "embeddings", "layers"} | ({"pooler"} if architecture.pooler else set())
    params = {name: values for name, values in weights.params.items() if _belongs(name, kept)}
    tensors, report = name_map.to_theirs(params, "huggingface", weights.config)
    notes = [f"transformers.{architecture.name}.from_pretrained({str(directory)!r}) loads it"]
    left_out = sorted(weights.params.keys() - params.keys())
    if left_out:
        notes.append(f"{architecture.name} has no place for: {', '.join(left_out)}")
    if architecture.name == "BertModel":
        tensors = {name.removeprefix("bert."): values for name, values in tensors.items()}
        report = report.spelled(_spelling(tensors))
        if not weights.has("pooler"):
            notes.append("without a pooler, which transformers will say and make anew: add_pooling_layer=False")
    more: dict[str, Any] = {"architectures": [architecture.name], "pad_token_id": weights.tokenizer.special_ids["pad"]}
    if architecture.head in ("sentences", "tokens"):
        more |= _label_keys(weights)
    directory.mkdir(parents=True, exist_ok=True)
    vocabulary_files.write(weights.tokenizer, directory, weights.config.max_position_embeddings)
    # Without this metadata older versions refuse the file.
    save_file(tensors, directory / WEIGHTS, metadata={"format": "pt"})
    (directory / WEIGHTS).chmod((directory / vocabulary_files.VOCAB_FILE).stat().st_mode)  # it makes private files
    content = json.dumps(bert_json.write(weights.config, more), indent=2) + "\n"
    (directory / CONFIG).write_text(content, encoding="utf-8")  # last: a directory with it is whole
    return report.with_notes(*notes)


def _download(found: re.Match[str], patterns: tuple[str, ...]) -> Path:
    return Path(
        huggingface_hub.snapshot_download(found["name"], revision=found["revision"], allow_patterns=[*patterns])
    )


def _safetensors(directory: Path) -> dict[str, np.ndarray]:
    """Return all tensors of the one file, or of the several that the index names."""
    files = [WEIGHTS]
    if not (directory / WEIGHTS).exists():
        files = sorted({*read_json(directory / INDEX)["weight_map"].values()})
    tensors: dict[str, np.ndarray] = {}
    for name in files:
        path = existing(directory / name, f"{INDEX} names it; download it too")
        with reading(path, SafetensorError), safe_open(path, "numpy") as file:
            tensors |= {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    return tensors


def _flax(path: Path) -> dict[str, np.ndarray]:
    """Return the tensors of an old Flax model, by names with slashes."""
    with reading(path, ValueError):  # msgpack's errors
        tree: Any = serialization.msgpack_restore(path.read_bytes())
    tensors = name_map.flatten(tree.get("params", tree))
    encoder = ("embeddings/", "encoder/", "pooler/")
    return {
        f"bert/{name}" if name.startswith(encoder) else name: np.asarray(values)
        for name, values in tensors.items()
        if not _IGNORED.search(name)
    }


def _canonical(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the tensors by today's names of a whole model."""
    found = {}
    for name, values in tensors.items():
        if _IGNORED.search(name):
            continue
        today = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name)
        today = re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", today)
        if today.startswith(("embeddings.", "encoder.", "pooler.")):
            today = f"bert.{today}"
        found[today] = values
    return found


def _spelling(tensors: Mapping[str, np.ndarray]) -> Callable[[str], str]:
    """Return how these tensors spell a name of today."""
    has_prefix = any(name.startswith("bert.") for name in tensors)
    is_old = any(name.endswith("LayerNorm.gamma") for name in tensors)

    def spell(name: str) -> str:
        name = name if has_prefix else name.removeprefix("bert.")
        if is_old:
            name = re.sub(r"LayerNorm\.weight$", "LayerNorm.gamma", name)
            name = re.sub(r"LayerNorm\.bias$", "LayerNorm.beta", name)
        return name

    return spell


def _drop_tied(tensors: dict[str, np.ndarray]) -> list[str]:
    """Take the second copies of tied weights away; return notes.

    Raises:
        ValueError: they are not copies.
    """
    notes = []
    for copy, original in (("weight", "bert.embeddings.word_embeddings.weight"), ("bias", "cls.predictions.bias")):
        name = f"{_DECODER}.{copy}"
        if name not in tensors:
            continue
        values = tensors.pop(name)
        if original not in tensors:
            tensors[original] = values
        elif not np.array_equal(values, tensors[original]):
            raise ValueError(f"{name} is not {original}; BERT's decoder is tied to its embeddings, others are not read")
        notes.append(f"tied copy: {name}")
    return notes


def _belongs(name: str, modules: set[str]) -> bool:
    return any(name.startswith(f"{module}/") for module in modules)


def _label_keys(weights: Weights) -> dict[str, Any]:
    """Return config.json's keys of a classifier; one output is a score."""
    count = len(weights.params["heads/classifier/bias"])
    labels = weights.labels or tuple(f"LABEL_{number}" for number in range(count))
    keys: dict[str, Any] = {
        "id2label": {str(number): label for number, label in enumerate(labels)},
        "label2id": {label: number for number, label in enumerate(labels)},
    }
    return keys | ({"problem_type": "regression"} if count == 1 else {})
