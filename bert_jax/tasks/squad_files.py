"""SQuAD's JSON: articles of paragraphs, with questions whose answers are spans of the paragraph.

Source: Rajpurkar et al. 2016 (1.1) and 2018 (2.0, with questions that have no answer).
"""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

from bert_jax.tasks.tables import find_file
from bert_jax.tasks.text_lines import read_lines


@dataclasses.dataclass(frozen=True)
class Answer:
    """A span of the passage: its text, and the character it begins at."""

    text: str
    start: int


@dataclasses.dataclass(frozen=True)
class Question:
    """A question about a passage.

    Attributes:
        id: of the file.
        text: as it stands.
        passage: number of its passage.
        answers: of several annotators; none for an impossible question.
        is_impossible: the passage does not answer it.
    """

    id: str
    text: str
    passage: int
    answers: tuple[Answer, ...] = ()
    is_impossible: bool = False


@dataclasses.dataclass(frozen=True)
class SquadFile:
    """A file's passages and questions, in order; `moved_answers` did not stand where the file says they do."""

    path: Path
    passages: tuple[str, ...]
    questions: tuple[Question, ...]
    moved_answers: int = 0

    @property
    def has_impossible(self) -> bool:
        """Whether it is of version 2: some questions have no answer."""
        return any(question.is_impossible for question in self.questions)


def read_squad(path: str | Path, with_answers: bool = True) -> SquadFile:
    """Read a file, plain or gzipped.

    An answer that does not stand at its offset is moved to the nearest place where it does, if there is one.

    Args:
        path: the file, or its name without .gz.
        with_answers: False reads questions alone, of a file that may have no answers.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not JSON, or lacks what a SQuAD file has; the message says where.
    """
    found = find_file(Path(path))
    try:
        content = json.loads("\n".join(read_lines(found)))
    except json.JSONDecodeError as error:
        raise ValueError(f"{found}:{error.lineno}: not JSON ({error.msg}); a SQuAD file is one JSON object") from None
    passages: list[str] = []
    questions: list[Question] = []
    moved = 0
    for number, article in enumerate(_get(content, "data", list, f"{found}")):
        where = f"{found}: data[{number}]"
        for index, paragraph in enumerate(_get(article, "paragraphs", list, where)):
            inside = f"{where}.paragraphs[{index}]"
            passages.append(_get(paragraph, "context", str, inside))
            for place, row in enumerate(_get(paragraph, "qas", list, inside)):
                question, changed = _read_question(row, passages, f"{inside}.qas[{place}]", with_answers)
                questions.append(question)
                moved += changed
    if not questions:
        raise ValueError(f"{found} has no question; a SQuAD file has data[].paragraphs[].qas[]")
    return SquadFile(found, tuple(passages), tuple(questions), moved)


def _read_question(row: Any, passages: list[str], where: str, with_answers: bool) -> tuple[Question, int]:
    """Return the question about the last passage, and how many answers were moved."""
    text, number = _get(row, "question", str, where), len(passages) - 1
    name = str(_get(row, "id", (str, int), where))
    if not with_answers:
        return Question(name, text, number), 0
    if row.get("is_impossible", False):
        return Question(name, text, number, is_impossible=True), 0
    answers, moved = [], 0
    for index, given in enumerate(_get(row, "answers", list, where)):
        place = f"{where}.answers[{index}]"
        answer = Answer(_get(given, "text", str, place), _get(given, "answer_start", int, place))
        found = _find_answer(passages[-1], answer)
        moved += found != answer
        answers.append(found)
    if not answers:
        raise ValueError(f"{where} (id {name}) has no answers and is not marked is_impossible; give one of the two")
    return Question(name, text, number, tuple(answers)), moved


def _find_answer(passage: str, answer: Answer) -> Answer:
    """Return the answer where it stands; unchanged if it stands nowhere."""
    if answer.start >= 0 and passage.startswith(answer.text, answer.start):
        return answer
    places = [match.start() for match in re.finditer(re.escape(answer.text), passage)]
    return Answer(answer.text, min(places, key=lambda place: abs(place - answer.start))) if places else answer


def _get(section: Any, key: str, kind: Any, where: str) -> Any:
    value = section.get(key) if isinstance(section, dict) else None
    if not isinstance(value, kind):
        got = f"{type(section).__name__}" if not isinstance(section, dict) else f"{key} {value!r:.60}"
        names = " or ".join(each.__name__ for each in (kind if isinstance(kind, tuple) else (kind,)))
        raise ValueError(f"{where}: got {got}; an object with {key!r}, a {names}, is needed")
    return value
