"""What a fine-tuned model says of new text: classes, scores, tagged words, choices and answers, ready for JSON."""

import dataclasses
import functools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from scipy.special import softmax

from bert_jax.config import build, choose
from bert_jax.interop import name_map
from bert_jax.interop.weights import Weights
from bert_jax.objectives.downstream import DownstreamObjective
from bert_jax.tasks import glue, multiple_choice, ner, submission
from bert_jax.tasks.held_out import HeldOutRunner
from bert_jax.tasks.multiple_choice import ChoiceExample
from bert_jax.tasks.sentences import SentenceExample, encode_examples
from bert_jax.tasks.squad import SquadData, encode_questions
from bert_jax.tasks.squad_files import SquadFile
from bert_jax.tasks.squad_predictions import Prediction
from bert_jax.tasks.squad_windows import PassageEncoder
from bert_jax.tasks.task import EncodedRows, Outputs
from bert_jax.training import addresses, checkpoint
from bert_jax.training.mesh import MeshConfig, make_mesh

Item = TypeVar("Item")

PAIR_COLUMNS = ("text", "text_pair")  # of a model whose run did not say; Hugging Face's names
_MAX_BUCKETS = 8  # lengths that the rows of a call are padded to
# What `EncodedRows.truncated` counts, by the model's head.
_CUT = {
    "sentences": "rows are longer than {length} tokens and were cut",
    "tokens": "words are longer than a row of {length} tokens and were cut",
    "choices": "pairs of context and ending are longer than {length} tokens and were cut",
    "span": "rows have a question that is too long and was cut",
}


@dataclasses.dataclass(frozen=True)
class Predictor:
    """A fine-tuned model with its vocabulary.

    Attributes:
        address: of the checkpoint, for messages.
        weights: parameters, vocabulary, labels, head.
        family: config.family of the run that trained it; "" = not known.
        data: its config.data; {} = not known.
        facts: its run.json; {} = not known.
        batch_size: rows at a time.
    """

    address: str
    weights: Weights
    family: str = ""
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    batch_size: int = 32

    def __post_init__(self) -> None:
        """Refuse a model without a task's head, and no rows at a time."""
        if not self.weights.task_head:
            raise ValueError(
                f"{self.address} has no head of a task: fine-tune it with launch.finetune, or ask launch.fill_mask"
            )
        if self.batch_size < 1:
            raise ValueError(f"batch_size is {self.batch_size}; it takes 1 or more")

    @classmethod
    def load(cls, address: str, batch_size: int = 32) -> "Predictor":
        """Load a checkpoint; the data that it was trained on are not needed.

        Args:
            address: `run:DIR[@STEP|@best]`, `hf:DIR` and so on (see `training/addresses.py`).
            batch_size: see the class.

        Raises:
            ValueError: not an address, or a model without a task's head.
            FileNotFoundError: no such checkpoint.
        """
        if checkpoint.split(address)[0] != checkpoint.RUN:
            return cls(address, addresses.load(address)[0], batch_size=batch_size)
        found = checkpoint.resolve(address)
        weights, _ = addresses.load(f"{checkpoint.RUN}:{found.workdir}@{found.step}")
        config = checkpoint.load_config(found)
        facts = json.loads((found.workdir / "run.json").read_text())
        family = config.get("family", "bert")
        if family == "bert":  # converted: what it was trained on is not known
            return cls(address, weights, batch_size=batch_size)
        return cls(address, weights, family, config["data"], facts, batch_size)

    @property
    def head(self) -> str:
        """What the model is for: "sentences", "tokens", "span" or "choices"."""
        return self.weights.task_head

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes; () of a score, spans and choices."""
        if self.head not in ("sentences", "tokens") or self._num_outputs == 1:
            return ()
        named = len(self.weights.labels) == self._num_outputs
        return self.weights.labels if named else tuple(f"LABEL_{number}" for number in range(self._num_outputs))

    @property
    def text_columns(self) -> tuple[str, ...]:
        """Names of the one or two texts of a row; () = not known."""
        return tuple(self.facts.get("text_columns", ()))

    @property
    def max_seq_length(self) -> int:
        """Longest row in word pieces; longer texts are cut."""
        return self.data.get("max_seq_length", self.weights.config.max_position_embeddings)

    def outputs(self, rows: EncodedRows) -> Outputs:
        """Return what the head says of every row."""
        found = self._runner.run(self._params, dataclasses.replace(rows, targets={}, token_targets={}))
        assert found is not None
        self._truncated.append(rows.truncated)
        return found.outputs()

    def classify(self, examples: Sequence[SentenceExample]) -> list[dict[str, Any]]:
        """Return for each example its class with all probabilities, or its score."""
        examples = [dataclasses.replace(example, label=None) for example in examples]
        rows = encode_examples(examples, self.weights.tokenizer, self.labels, self.max_seq_length)
        logits = np.asarray(self.outputs(rows)["logits"], np.float64)
        if not self.labels:
            return [{"score": float(row[0])} for row in logits]
        return [
            {
                "label": self.labels[int(row.argmax())],
                "probabilities": dict(zip(self.labels, row.tolist(), strict=True)),
            }
            for row in softmax(logits, axis=-1)
        ]

    def tag(self, documents: Sequence[Sequence[Sequence[str]]]) -> list[dict[str, Any]]:
        """Return for each sentence of words its words, their tags with probabilities, and entities.

        Args:
            documents: whose sentences are context to each other.
        """
        sentences = [sentence for document in documents for sentence in document]
        per_row = self.data.get("sentences_per_row", 0)
        words = ner.encode_documents(documents, self.weights.tokenizer, self.max_seq_length, per_row)
        return ner.predictions(sentences, words, self.outputs(words.rows), self.labels)

    def choose(self, examples: Sequence[ChoiceExample]) -> list[dict[str, Any]]:
        """Return for each example the number of its most probable ending, its text, and all probabilities."""
        rows = multiple_choice.encode_choices(examples, self.weights.tokenizer, self.max_seq_length)
        return multiple_choice.predictions(examples, self.outputs(rows))

    def answer(self, file: SquadFile, version_2: bool | None = None) -> dict[str, Prediction]:
        """Return the prediction of every question by its id.

        Args:
            file: with the questions.
            version_2: whether there may be no answer; None: as in training, always an answer where that is not known.
        """
        length = min(SquadData.max_seq_length, self.max_seq_length)
        unknown = {"train": "-", "dev": "-", "max_seq_length": length}  # the files were read before
        data = build(SquadData, self.data or unknown, f"config.data of {self.address}")
        encoder = PassageEncoder(self.weights.tokenizer)
        passages = [encoder.encode(text) for text in file.passages]
        encoded = encode_questions(passages, file.questions, self.weights.tokenizer, data)
        search = data.search(self.version_2 if version_2 is None else version_2)
        predictions = encoded.predict(self.outputs(encoded.rows), search)
        return {question.id: found for question, found in zip(file.questions, predictions, strict=True)}

    @property
    def version_2(self) -> bool:
        """Whether a span model was trained on questions without an answer; False = not, or not known."""
        return self.facts.get("task") == "squad2"

    @property
    def note(self) -> str:
        """How much was too long so far and was cut, for the user; "" = nothing."""
        count = sum(self._truncated)
        return f"{count:,} {_CUT[self.head].format(length=self.max_seq_length)}" if count else ""

    @functools.cached_property
    def _truncated(self) -> list[int]:
        return []

    @property
    def _num_outputs(self) -> int:
        return len(self.weights.params["heads/classifier/bias"])

    @functools.cached_property
    def _runner(self) -> HeldOutRunner:
        config = dataclasses.replace(self.weights.config, attention="xla")  # which runs everywhere
        outputs = 2 if self.head == "span" else self._num_outputs
        bilstm = self.weights.has("heads/bilstm")
        cells = self.weights.params["heads/bilstm/hidden_kernel_0"].shape[1] if bilstm else 0
        objective = DownstreamObjective(config, self.head, outputs, cells)
        return HeldOutRunner(objective, self.batch_size, _MAX_BUCKETS, make_mesh(MeshConfig(), jax.local_devices()[:1]))

    @functools.cached_property
    def _params(self) -> Any:
        return jax.device_put(name_map.nest(self.weights.params))


def chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield lists of `size`; what precedes a malformed line is yielded before its error is raised."""
    chunk: list[Item] = []
    try:
        for item in items:
            chunk.append(item)
            if len(chunk) == size:
                yield chunk
                chunk = []
    except ValueError:
        if chunk:
            yield chunk
        raise
    if chunk:
        yield chunk


def predict_test(predictor: Predictor, task: str = "", directory: str = "") -> dict[str, list[dict[str, Any]]]:
    """Return the predictions of GLUE's test rows, by their names in a submission.

    Args:
        predictor: of a run of configs/glue.py.
        task: "" = that of the run; or another with the same labels, such as ax of mnli's.
        directory: of the files; "" = that of the run.

    Raises:
        ValueError: not a run of GLUE, or a task with other labels.
        FileNotFoundError: the test files are not there.
    """
    if predictor.family != "glue":
        raise ValueError(
            f"{predictor.address} is not a run of configs/glue.py (its family is {predictor.family or 'not known'}); "
            "only GLUE's tasks have a test split"
        )
    values = dict(predictor.data)
    values |= {"task": task or values["task"], "directory": directory or values["directory"]}
    if values["directory"] == f"{glue.TFDS}glue/{predictor.data['task']}":
        values["directory"] = f"{glue.TFDS}glue/{values['task']}"
    expected = glue.GLUE_TASKS[choose("the task", values["task"], glue.GLUE_TASKS)].labels
    if {*expected} != {*predictor.labels}:
        raise ValueError(
            f"{predictor.address} has the labels {', '.join(predictor.labels) or 'of a score'}, {values['task']} "
            f"{', '.join(expected) or 'a score'}; use a run of that task (mnli's for ax)"
        )
    tests = glue.read_test(build(glue.GlueData, values, f"config.data of {predictor.address}"))
    return {name: predictor.classify(examples) for name, examples in tests.items()}


def submit(place: Path, predictions: Mapping[str, Sequence[Mapping[str, Any]]], fill_missing: bool) -> list[str]:
    """Write GLUE's official files: all of them into one .zip, or those there are into a directory.

    Args:
        place: ends with .zip, or is a directory.
        predictions: of `predict_test`, of several runs.
        fill_missing: see `submission.write_submission`.

    Returns:
        Lines for the user.

    Raises:
        ValueError: see `submission.write_submission`.
    """
    values = {
        name: [found["label"] if "label" in found else found["score"] for found in rows]
        for name, rows in predictions.items()
    }
    if place.suffix == ".zip":
        place.parent.mkdir(parents=True, exist_ok=True)
        filled = submission.write_submission(place, values, fill_missing)
        return [f"wrote {place}"] + [f"placeholders, which score nothing: {', '.join(filled)}"] * bool(filled)
    for name in values:
        choose("a task of the submission", name, submission.SUBMISSION)
    files = {name: submission.format_predictions(name, rows) for name, rows in values.items()}
    place.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (place / f"{name}.tsv").write_text(text, encoding="utf-8")
    return [f"wrote {place / name}.tsv" for name in files]
