"""The vocabulary beside a checkpoint: vocab.txt, tokenizer_config.json, tokenizer.json, special_tokens_map.json.

Source: Hugging Face's `tokenization_bert.py`; google-research/bert's vocab.txt.
Differs: a casing that no file states is decided from the pieces, not from the directory's name.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from bert_jax.corpus.vocabulary import SPECIAL_TOKENS, VOCAB_FILE, WordPiece, WordPieceSettings
from bert_jax.interop.checkpoint_files import read_json
from bert_jax.interop.weights import Beside

TOKENIZER_CONFIG, TOKENIZER, SPECIAL_TOKENS_MAP = "tokenizer_config.json", "tokenizer.json", "special_tokens_map.json"
_MOST_CHARACTERS = 100  # of a word that is looked up; Hugging Face's, Google's is 200


def read(directory: Path, beside: Beside, max_input_chars_per_word: int = 200) -> WordPiece:
    """Return the vocabulary of a checkpoint's directory.

    Args:
        directory: with a vocab.txt, or with the tokenizer.json that transformers 5 writes alone.
        beside: what to read instead.
        max_input_chars_per_word: where no file says it.

    Raises:
        FileNotFoundError: no vocabulary.
        ValueError: one of another kind than WordPiece, or a damaged file.
    """
    stored = _json(directory / TOKENIZER)
    path = beside.vocab or directory / VOCAB_FILE
    settings: dict[str, Any] = {}
    if path.exists():
        tokenizer = WordPiece.from_vocab_file(path, beside.do_lower_case)
    elif beside.vocab is None and stored:
        tokenizer = _from_tokenizer_json(stored, directory / TOKENIZER)
    else:
        raise FileNotFoundError(
            f"{path} does not exist, nor {directory / TOKENIZER}; name the vocabulary that the model was trained "
            "with by --vocab=FILE"
        )
    if beside.vocab is None:
        settings = _settings(_json(directory / TOKENIZER_CONFIG), stored)
    if beside.do_lower_case is not None:
        settings["do_lower_case"] = beside.do_lower_case
    lowers = settings.get("do_lower_case", tokenizer.settings.do_lower_case)
    accents = settings.get("strip_accents")
    return WordPiece(
        tokenizer.vocab,
        WordPieceSettings(
            do_lower_case=lowers,
            strip_accents=lowers if accents is None else accents,
            tokenize_chinese_chars=settings.get("tokenize_chinese_chars", True),
            max_input_chars_per_word=settings.get("max_input_chars_per_word", max_input_chars_per_word),
        ),
    )


def write(tokenizer: WordPiece, directory: Path, max_length: int) -> None:
    """Write Hugging Face's files, from which `AutoTokenizer` makes the same tokenizer.

    Args:
        tokenizer: to write.
        directory: exists.
        max_length: tokens that the model takes.
    """
    settings = tokenizer.settings
    tokens = {f"{name}_token": token for name, token in SPECIAL_TOKENS.items()}
    values = {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": settings.do_lower_case,
        "strip_accents": settings.strip_accents,
        "tokenize_chinese_chars": settings.tokenize_chinese_chars,
        "model_max_length": max_length,
        **tokens,
    }
    (directory / VOCAB_FILE).write_text("".join(f"{piece}\n" for piece in tokenizer.vocab), "utf-8", newline="\n")
    for name, content in ((TOKENIZER_CONFIG, values), (SPECIAL_TOKENS_MAP, tokens)):
        (directory / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def describe(tokenizer: WordPiece) -> str:
    """Return what the user should check: the casing above all."""
    values = dataclasses.asdict(tokenizer.settings)
    return f"vocabulary: {tokenizer.vocab_size:,} pieces, " + ", ".join(
        f"{name} {values[name]}" for name in ("do_lower_case", "strip_accents", "max_input_chars_per_word")
    )


def _settings(config: dict[str, Any], stored: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that are stated; tokenizer_config.json wins, as it does in transformers."""
    normalizer = stored.get("normalizer") or {}
    found: dict[str, Any] = {}
    for ours, theirs in (
        ("do_lower_case", "lowercase"),
        ("strip_accents", "strip_accents"),
        ("tokenize_chinese_chars", "handle_chinese_chars"),
    ):
        for value in (config.get(ours), normalizer.get(theirs)):
            if value is not None:
                found.setdefault(ours, value)
    if "max_input_chars_per_word" in stored.get("model", {}):
        found["max_input_chars_per_word"] = stored["model"]["max_input_chars_per_word"]
    elif config:
        found["max_input_chars_per_word"] = _MOST_CHARACTERS
    return found


def _from_tokenizer_json(stored: dict[str, Any], path: Path) -> WordPiece:
    model = stored.get("model", {})
    if model.get("type", "WordPiece") != "WordPiece" or model.get("continuing_subword_prefix", "##") != "##":
        raise ValueError(f"{path} is of type {model.get('type')!r}; BERT's is 'WordPiece' with '##'")
    pieces = sorted(model["vocab"], key=model["vocab"].__getitem__)
    if [model["vocab"][piece] for piece in pieces] != list(range(len(pieces))):
        raise ValueError(f"{path} leaves out ids; give a vocab.txt with every piece by --vocab=FILE")
    return WordPiece(pieces)


def _json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}
