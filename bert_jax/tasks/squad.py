"""Questions answered by a span of a passage: SQuAD 1.1, and 2.0 with questions that have no answer.

Source: Devlin et al. 2018, sections 4.2 and 4.3; google-research/bert `run_squad.py`. A long passage is several
rows, windows of it that overlap; [CLS] is the answer where the window has none.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from bert_jax.corpus.vocabulary import WordPiece
from bert_jax.tasks.encode import join
from bert_jax.tasks.squad_files import Question, SquadFile, read_squad
from bert_jax.tasks.squad_predictions import AnswerSearch, Prediction, predict
from bert_jax.tasks.squad_scores import score_answers, score_with_impossible
from bert_jax.tasks.squad_windows import Passage, PassageEncoder, PassageWindow, find_pieces, plan_spans
from bert_jax.tasks.task import EncodedRows, HeldOut, Outputs, Task, TaskData

METRICS = ("exact_match", "f1")
_LEAST_ROOM = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class SquadData(TaskData):
    """What `config.data` of SQuAD has.

    Attributes:
        train: JSON file of the official layout, plain or .gz; of several answers the first is trained on.
        dev: likewise; its f1 chooses the best checkpoint.
        max_seq_length: of a row: question, passage window and three special tokens.
        doc_stride: word pieces from one window of a passage to the next.
        max_query_length: word pieces of a question; longer ones are cut and counted.
        version_2: whether questions may have no answer; None = as the files do. With False such questions are left out.
        max_answer_length: of a predicted answer, in word pieces.
        n_best: starts and ends of a row that are combined, and answers that are kept.
        null_score_diff_threshold: of version 2: no answer is predicted if its score is above the best answer's by more.
        max_train_rows: the first so many rows (windows) are trained on; 0 = all.
    """

    train: str
    dev: str
    max_seq_length: int = 384
    doc_stride: int = 128
    max_query_length: int = 64
    version_2: bool | None = None
    max_answer_length: int = 30
    n_best: int = 20
    null_score_diff_threshold: float = 0.0
    max_train_rows: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be read or leaves no room for the passage."""
        super().__post_init__()
        for name in ("train", "dev"):
            if not getattr(self, name):
                raise ValueError(f"config.data.{name} is empty; give a JSON file of SQuAD's layout")
        least = {"doc_stride": 1, "max_query_length": 1, "max_answer_length": 1, "n_best": 1, "max_train_rows": 0}
        for name, lowest in least.items():
            if getattr(self, name) < lowest:
                raise ValueError(f"config.data.{name} is {getattr(self, name)}; use {lowest} or more")
        if self.max_seq_length < self.max_query_length + 3 + _LEAST_ROOM:
            raise ValueError(
                f"config.data.max_seq_length is {self.max_seq_length}, and a question may take max_query_length="
                f"{self.max_query_length} of it; leave {3 + _LEAST_ROOM} or more to the passage"
            )

    def search(self, version_2: bool) -> AnswerSearch:
        """Return what is an answer."""
        return AnswerSearch(self.n_best, self.max_answer_length, version_2, self.null_score_diff_threshold)


@dataclasses.dataclass(frozen=True)
class EncodedQuestions:
    """Questions with the windows of their passages.

    Attributes:
        questions: that have windows.
        passages: encoded, by Question.passage.
        windows: of each row; a question's stand together.
        rows: encoded, with targets where answers were given.
    """

    questions: Sequence[Question]
    passages: Sequence[Passage]
    windows: Sequence[PassageWindow]
    rows: EncodedRows

    def predict(self, outputs: Outputs, search: AnswerSearch) -> list[Prediction]:
        """Return the prediction of every question."""
        passages = [self.passages[self.questions[window.question].passage] for window in self.windows]
        return predict(passages, self.windows, outputs, search)


def make_task(data: SquadData, tokenizer: WordPiece, labels: tuple[str, ...] = ()) -> Task:
    """Read and encode training and held-out files; `labels` are not used.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is malformed, or nothing is left to train on.
    """
    del labels
    files = {"train": read_squad(data.train), "dev": read_squad(data.dev)}
    has_impossible = any(file.has_impossible for file in files.values())
    version_2 = has_impossible if data.version_2 is None else data.version_2
    notes, encoded, facts = [], {}, {}
    for split, file in files.items():
        questions = [question for question in file.questions if version_2 or not question.is_impossible]
        part, missing = encode_answers(file, questions, tokenizer, data, skip_missing=split == "train")
        if not part.questions:
            raise ValueError(f"{file.path} has no question with an answer in its passage; give another {split} file")
        encoded[split] = part
        facts[split] = {
            "passages": len(file.passages),
            "questions": len(part.questions),
            "impossible": sum(question.is_impossible for question in part.questions),
            "rows": len(part.rows),
        }
        counted = {
            "impossible questions are left out, for version_2 is False": len(file.questions) - len(questions),
            "answers were moved to where they stand in their passage": file.moved_answers,
            "questions whose answer is not in the passage "
            + ("are left out" if split == "train" else "are scored by its text"): missing,
            f"rows have a question longer than {data.max_query_length} tokens, which was cut": part.rows.truncated,
        }
        notes += [f"{split}: {number:,} {what}" for what, number in counted.items() if number]
    return Task(
        name="squad2" if version_2 else "squad",
        head="span",
        labels=(),
        train=encoded["train"].rows,
        held_out={"dev": HeldOut(encoded["dev"].rows, _scorer(encoded["dev"], data.search(version_2)))},
        best_metric="f1",
        notes=tuple(notes),
        facts=facts,
    )


def encode_questions(
    passages: Sequence[Passage],
    questions: Sequence[Question],
    tokenizer: WordPiece,
    data: SquadData,
    most_rows: int = 0,
) -> EncodedQuestions:
    """Return the rows [CLS] question [SEP] window [SEP] of every question, without targets.

    Args:
        passages: by Question.passage, of `PassageEncoder`.
        questions: in order.
        tokenizer: of the model.
        data: max_seq_length, doc_stride and max_query_length.
        most_rows: the first so many; 0 = all.
    """
    asked = tokenizer.encode_many([question.text for question in questions])
    windows: list[PassageWindow] = []
    input_ids, segment_ids, truncated = [], [], 0
    for number, (question, whole) in enumerate(zip(questions, asked, strict=True)):
        ids = whole[: data.max_query_length]
        passage = passages[question.passage]
        for start, stop in plan_spans(len(passage.ids), data.max_seq_length - len(ids) - 3, data.doc_stride):
            if most_rows and len(windows) == most_rows:
                break
            row, segments = join([ids, passage.ids[start:stop]], tokenizer)
            input_ids.append(row)
            segment_ids.append(segments)
            windows.append(PassageWindow(number, start, stop, len(ids) + 2))
            truncated += len(ids) < len(whole)
    kept = questions[: windows[-1].question + 1] if windows else []
    return EncodedQuestions(kept, passages, windows, EncodedRows(input_ids, segment_ids, truncated=truncated))


def encode_answers(
    file: SquadFile, questions: Sequence[Question], tokenizer: WordPiece, data: SquadData, skip_missing: bool
) -> tuple[EncodedQuestions, int]:
    """Return the rows of questions with start_positions and end_positions.

    Args:
        file: of the questions.
        questions: of it.
        tokenizer: of the model.
        data: of the task.
        skip_missing: as for training: leave out questions whose answer is not in the passage, and the rows beyond
            max_train_rows. Without, such questions point to [CLS].

    Returns:
        The questions, and how many had an answer that is not in their passage.
    """
    encoder = PassageEncoder(tokenizer)
    passages = [encoder.encode(text) for text in file.passages]
    firsts = [None if question.is_impossible else question.answers[0] for question in questions]
    answer_ids = tokenizer.encode_many([answer.text if answer else "" for answer in firsts])
    spans = [
        answer and find_pieces(passages[question.passage], answer.start, answer.text, ids)
        for question, answer, ids in zip(questions, firsts, answer_ids, strict=True)
    ]
    missing = [span is None and not question.is_impossible for question, span in zip(questions, spans, strict=True)]
    if skip_missing:
        spans = [span for span, is_missing in zip(spans, missing, strict=True) if not is_missing]
        questions = [question for question, is_missing in zip(questions, missing, strict=True) if not is_missing]
    encoded = encode_questions(passages, questions, tokenizer, data, data.max_train_rows if skip_missing else 0)
    positions = np.zeros((len(encoded.windows), 2), np.int32)
    for row, window in enumerate(encoded.windows):
        span = spans[window.question]
        if span and window.start <= span[0] and span[1] < window.stop:
            positions[row] = np.array(span) - window.start + window.offset
    targets = {"start_positions": positions[:, 0], "end_positions": positions[:, 1]}
    return dataclasses.replace(encoded, rows=dataclasses.replace(encoded.rows, targets=targets)), sum(missing)


def _scorer(encoded: EncodedQuestions, search: AnswerSearch) -> Callable[[Outputs], dict[str, float]]:
    right = [tuple(answer.text for answer in question.answers) for question in encoded.questions]

    def score(outputs: Outputs) -> dict[str, float]:
        if not all(np.isfinite(row).all() for name in ("start_logits", "end_logits") for row in outputs[name]):
            return dict.fromkeys(METRICS, float("nan"))
        predictions = encoded.predict(outputs, search)
        answers = [prediction.answer.text for prediction in predictions]
        if not search.version_2:
            return score_answers(answers, right)
        odds = np.array([prediction.null_odds for prediction in predictions])
        return score_with_impossible(answers, right, [prediction.best.text for prediction in predictions], odds)

    return score
