"""A tiny BERT on disk, tiny files of every kind of task, and whole fine-tuning runs on them."""

import importlib
import itertools
import json

import jax
import numpy as np

from bert_jax.config import build
from bert_jax.corpus.vocabulary import WordPiece, WordPieceSettings
from bert_jax.inference.predict import Predictor
from bert_jax.interop import huggingface, name_map
from bert_jax.interop.weights import Weights
from bert_jax.models.bert import BertConfig
from bert_jax.objectives.downstream import DownstreamObjective
from bert_jax.tasks.finetuning import make_job, prepare
from bert_jax.training.run import run
from tests.conftest import VOCABULARY

SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
CONFIG = build(BertConfig, {**SIZES, "vocab_size": len(VOCABULARY), "max_position_embeddings": 48})
TOKENIZER = WordPiece(VOCABULARY, WordPieceSettings(max_input_chars_per_word=100))
TEXTS = [" ".join(words) for words in itertools.product("abc", ("cat", "mat"), "def", ("sat", "on the"))]


def tiny_weights(**heads):
    """Return an encoder with a pooler; heads by name, `classifier=3` outputs."""
    shapes = jax.eval_shape(DownstreamObjective(CONFIG, "sentences", 1).init, 0)
    rng = np.random.default_rng(0)
    params = {
        name: (rng.normal(0, 0.3, leaf.shape) + name.endswith("/scale")).astype(np.float32)
        for name, leaf in name_map.flatten(shapes).items()
        if not name.startswith("heads/")
    }
    for name, outputs in heads.items():
        params[f"heads/{name}/kernel"] = rng.normal(0, 0.3, (16, outputs)).astype(np.float32)
        params[f"heads/{name}/bias"] = np.zeros(outputs, np.float32)
    return Weights(CONFIG, params, TOKENIZER)


def write_model(directory):
    """Write the tiny BERT as Hugging Face does; return its address."""
    huggingface.write(tiny_weights(), directory)
    return f"hf:{directory}"


def write_files(family, directory):
    """Write a task's files; return the config.data that names them."""
    directory.mkdir(parents=True, exist_ok=True)
    _WRITERS[family](directory)
    return file_names(family, directory)


def file_names(family, directory):
    """Return the config.data that names a task's files."""
    if family == "glue":
        return {"data.directory": str(directory)}
    file = next(path for path in directory.iterdir() if path.is_file())
    return {"data.train": str(file), "data.dev": str(file)}


def _table(directory):
    path = directory / "table.csv"
    lines = [f"{text},{'feline' if 'cat' in text else 'other'}" for text in TEXTS]
    path.write_text("text,label\n" + "\n".join(lines) + "\n")


def _wnli(directory):
    """GLUE's smallest test set has 146 rows."""
    (directory / "WNLI").mkdir()
    rows = [f"{text}\t{TEXTS[number % 7]}" for number, text in enumerate(TEXTS)]
    labelled = [f"{number}\t{row}\t{int('cat' in row)}" for number, row in enumerate(rows)]
    for name in ("train", "dev"):
        (directory / "WNLI" / f"{name}.tsv").write_text("\n".join(["index\tsentence1\tsentence2\tlabel", *labelled]))
    test = [f"{number}\t{rows[number % len(rows)]}" for number in range(146)]
    (directory / "WNLI" / "test.tsv").write_text("\n".join(["index\tsentence1\tsentence2", *test]))


def _columns(directory):
    path = directory / "words.conll"
    sentences = ["\n".join(f"{word} {'B-PET' if word == 'cat' else 'O'}" for word in text.split()) for text in TEXTS]
    documents = ["\n\n".join(sentences[first : first + 4]) for first in range(0, len(sentences), 4)]
    path.write_text("\n\n".join(f"-DOCSTART- O\n\n{document}" for document in documents) + "\n")


def _questions(directory):
    path = directory / "squad.json"
    qas = [
        {"id": f"q{number}", "question": text, "answers": [{"text": "cat", "answer_start": 4}]}
        for number, text in enumerate(TEXTS[:12])
    ]
    passage = {"context": "the cat sat on the mat.", "qas": qas}
    path.write_text(json.dumps({"data": [{"title": "x", "paragraphs": [passage]}]}))


def _choices(directory):
    path = directory / "choices.jsonl"
    rows = [{"context": text, "choices": ["cat", "mat"], "label": int("mat" in text)} for text in TEXTS[:16]]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")


_WRITERS = {
    "text_table": _table,
    "glue": _wnli,
    "ner": _columns,
    "squad": _questions,
    "multiple_choice": _choices,
}
ARGUMENTS = {"glue": "task=wnli,recipe=fast"}


def make_config(family, init_from, files, **overrides):
    """Return the config of one epoch of 8 rows a step, all padded to one length."""
    config = importlib.import_module(f"configs.{family}").get_config(ARGUMENTS.get(family, "recipe=fast"))
    small = {
        "init_from": init_from, "num_epochs": 1, "optim.peak_learning_rate": 1e-3, "data.batch_size": 8,
        "data.max_seq_length": 32, "data.max_buckets": 1, "eval.batch_size": 8,
    }  # fmt: skip
    if family == "squad":
        small |= {"data.max_query_length": 12}
    config.update_from_flattened_dict(small | files | overrides)
    return config


def make_finetuning(family, init_from, files, **overrides):
    """Return the job of a fine-tuning run."""
    return make_job(prepare(make_config(family, init_from, files, **overrides)))


def finetune(workdir, family, init_from, files, **overrides):
    """Fine-tune in this process; return the exit code."""
    return run(make_finetuning(family, init_from, files, **overrides), workdir)


class Runs:
    """Finished runs of one epoch, made when they are first asked for.

    Attributes:
        model: directory of the model that they start from.
    """

    def __init__(self, directory):
        self.model = directory / "hf"
        self._directory = directory
        self._init_from = write_model(self.model)

    def files(self, family):
        """Return the directory of the task's files."""
        directory = self._directory / "files" / family
        if not directory.exists():
            write_files(family, directory)
        return directory

    def workdir(self, family):
        """Return the directory of a run."""
        workdir = self._directory / family
        if not workdir.exists():
            assert finetune(workdir, family, self._init_from, file_names(family, self.files(family))) == 0
        return workdir

    def predictor(self, family):
        """Return the model of a run."""
        return Predictor.load(f"run:{self.workdir(family)}", batch_size=8)
