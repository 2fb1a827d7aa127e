"""Start and end logits → answers: the best spans, their probabilities, and whether there is an answer at all.

Source: google-research/bert `run_squad.py` (write_predictions). Differs: where no span is possible the answer is "",
which Google's code calls "empty".
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.special import softmax

from bert_jax.tasks.squad_windows import Passage, PassageWindow, by_question, max_context
from bert_jax.tasks.task import Outputs


@dataclasses.dataclass(frozen=True)
class AnswerSearch:
    """What is an answer.

    Attributes:
        n_best: starts and ends of a row that are combined, and answers that are returned.
        max_answer_length: of an answer, in word pieces.
        version_2: the answer may be that there is none.
        null_score_diff_threshold: there is none if its score is above the best answer's by more.
    """

    n_best: int = 20
    max_answer_length: int = 30
    version_2: bool = False
    null_score_diff_threshold: float = 0.0


class Candidate(NamedTuple):
    """A possible answer: the passage's characters `start` up to `stop`; both are -1, and the text "", for none."""

    text: str
    start: int
    stop: int
    start_logit: float
    end_logit: float
    probability: float = 1.0

    @property
    def score(self) -> float:
        """The sum of its logits."""
        return self.start_logit + self.end_logit


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What is answered to a question.

    Attributes:
        answer: "" if there is none.
        best: the best answer that is not "", where there is one.
        candidates: the best answers with their probabilities, which add up to 1.
        null_odds: by how much the score of no answer is above that of `best`; 0 without `best`, and in version 1.
    """

    answer: Candidate
    best: Candidate
    candidates: tuple[Candidate, ...]
    null_odds: float

    def as_json(self) -> dict[str, Any]:
        """Return text, place, probability and what else might be the answer."""
        return {
            "answer": self.answer.text,
            "start": self.answer.start,
            "stop": self.answer.stop,
            "probability": self.answer.probability,
            "null_odds": self.null_odds,
            "n_best": [candidate._asdict() for candidate in self.candidates],
        }


def predict(
    passages: Sequence[Passage], windows: Sequence[PassageWindow], outputs: Outputs, search: AnswerSearch
) -> list[Prediction]:
    """Return the prediction of every question that has windows, in their order.

    Args:
        passages: of each window.
        windows: of each row; a question's stand together.
        outputs: start_logits and end_logits of each row.
        search: what is an answer.
    """
    predictions = []
    for first, behind in by_question(windows):
        rows = range(first, behind)
        masks = max_context([windows[row][1:3] for row in rows])
        found: list[Candidate] = []
        null = Candidate("", -1, -1, np.inf, np.inf)
        for row, mask in zip(rows, masks, strict=True):
            starts, ends = (np.asarray(outputs[name][row], np.float64) for name in ("start_logits", "end_logits"))
            if starts[0] + ends[0] < null.score:
                null = Candidate("", -1, -1, float(starts[0]), float(ends[0]))
            found += _candidates(passages[row], windows[row], mask, starts, ends, search)
        predictions.append(_choose(found, null, search))
    return predictions


def _candidates(
    passage: Passage,
    window: PassageWindow,
    mask: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    search: AnswerSearch,
) -> list[Candidate]:
    """Return a row's answers of the best starts and ends; texts that a better one has are left out."""
    size = window.stop - window.start
    begins, stops = (np.argsort(-values, kind="stable")[: search.n_best] - window.offset for values in (starts, ends))
    begins = begins[(begins >= 0) & (begins < size)]
    begins = begins[mask[begins]]
    stops = stops[(stops >= 0) & (stops < size)]
    lengths = stops[None, :] - begins[:, None] + 1
    which_begin, which_stop = np.nonzero((lengths >= 1) & (lengths <= search.max_answer_length))
    first, last = begins[which_begin], stops[which_stop]
    start_logits, end_logits = starts[first + window.offset], ends[last + window.offset]
    best = np.argsort(-(start_logits + end_logits), kind="stable")
    found: dict[str, Candidate] = {}
    for from_piece, to_piece, *logits in zip(
        *((window.start + pieces[best]).tolist() for pieces in (first, last)),
        *(values[best].tolist() for values in (start_logits, end_logits)),
        strict=True,
    ):
        text = passage.cut(from_piece, to_piece)
        if text not in found:
            found[text] = Candidate(text, int(passage.starts[from_piece]), int(passage.ends[to_piece]), *logits)
        if len(found) == search.n_best:
            break
    return list(found.values())


def _choose(found: list[Candidate], null: Candidate, search: AnswerSearch) -> Prediction:
    unique: dict[str, Candidate] = {}
    for candidate in sorted(found + [null] * search.version_2, key=lambda each: -each.score):
        if len(unique) < search.n_best or not candidate.text:
            unique.setdefault(candidate.text, candidate)
    kept = list(unique.values()) or [null]
    probabilities = softmax([candidate.score for candidate in kept]).tolist()
    kept = [each._replace(probability=value) for each, value in zip(kept, probabilities, strict=True)]
    filled = [candidate for candidate in kept if candidate.text]
    best = filled[0] if filled else kept[0]
    null_odds = null.score - best.score if search.version_2 and filled else 0.0
    is_null = search.version_2 and null_odds > search.null_score_diff_threshold
    answer = next((each for each in kept if not each.text), best) if is_null else best
    return Prediction(answer, best, tuple(kept), null_odds)


def write_predictions(
    directory: str | Path, ids: Sequence[str], predictions: Sequence[Prediction], version_2: bool
) -> list[Path]:
    """Write predictions.json, nbest_predictions.json and, of version 2, null_odds.json; return their paths.

    These are the files of Google's run_squad.py, which the official scripts score.
    """
    keys = ("text", "probability", "start_logit", "end_logit")
    pairs = list(zip(ids, predictions, strict=True))
    contents: dict[str, dict[str, Any]] = {
        "predictions.json": {name: prediction.answer.text for name, prediction in pairs},
        "nbest_predictions.json": {
            name: [{key: getattr(candidate, key) for key in keys} for candidate in prediction.candidates]
            for name, prediction in pairs
        },
    }
    if version_2:
        contents["null_odds.json"] = {name: prediction.null_odds for name, prediction in pairs}
    Path(directory).mkdir(parents=True, exist_ok=True)
    paths = []
    for name, content in contents.items():
        paths.append(Path(directory) / name)
        paths[-1].write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
    return paths
