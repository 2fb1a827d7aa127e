"""SQuAD's scores: exact match and F1 of words, the best of several right answers.

Source: the official `evaluate-v1.1.py` and `evaluate-v2.0.py` (rajpurkar/SQuAD-explorer). Differs: shares, not percent;
the best thresholds are of the best answers that are not empty, whatever threshold the predictions were made with.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = dict.fromkeys(map(ord, string.punctuation))


def normalize_answer(text: str) -> str:
    """Lower a text and take punctuation, articles and double spaces out."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def exact_match(answer: str, right: str) -> float:
    """Return 1 if two answers are equal after normalization, else 0."""
    return float(normalize_answer(answer) == normalize_answer(right))


def f1(answer: str, right: str) -> float:
    """Return the harmonic mean of precision and recall of words; 1 if both have none."""
    words, right_words = normalize_answer(answer).split(), normalize_answer(right).split()
    if not words or not right_words:
        return float(words == right_words)
    common = sum((Counter(words) & Counter(right_words)).values())
    return 2.0 * common / (len(words) + len(right_words))


def score_answers(predicted: Sequence[str], right: Sequence[Sequence[str]]) -> dict[str, float]:
    """Return exact_match and f1 of predicted answers; `right` has the answers of each question."""
    exact, overlap = _raw_scores(predicted, right)
    some_words = [bool(normalize_answer(answer)) for answer in predicted]  # version 1.1 gives no F1 without
    return {"exact_match": float(exact.mean()), "f1": float((overlap * some_words).mean())}


def score_with_impossible(
    predicted: Sequence[str], right: Sequence[Sequence[str]], answers: Sequence[str], null_odds: np.ndarray
) -> dict[str, float]:
    """Return the scores of version 2.

    Args:
        predicted: one a question, "" = it has no answer.
        right: the answers of each question, () if it has none.
        answers: the best answer of each that is not empty, for the best thresholds.
        null_odds: float [questions]: by how much the score of no answer is above that answer's.
    """
    right = [[text for text in texts if normalize_answer(text)] or [""] for texts in right]
    has_answer = np.array([texts != [""] for texts in right])
    exact, overlap = _raw_scores(predicted, right)
    scores = {"exact_match": float(exact.mean()), "f1": float(overlap.mean())}
    for name, group in (("has_answer", has_answer), ("no_answer", ~has_answer)):
        if group.any():
            scores |= {f"{name}_exact_match": float(exact[group].mean()), f"{name}_f1": float(overlap[group].mean())}
    raw_exact, raw_overlap = _raw_scores(answers, right)
    filled = np.array([bool(answer) for answer in answers])
    for name, raw in (("exact_match", raw_exact), ("f1", raw_overlap)):
        best, threshold = best_threshold(raw, filled, has_answer, null_odds)
        scores |= {f"best_{name}": best, f"best_{name}_threshold": threshold}
    return scores


def best_threshold(
    scores: np.ndarray, filled: np.ndarray, has_answer: np.ndarray, null_odds: np.ndarray
) -> tuple[float, float]:
    """Return the highest mean score, and the null odds up to which a question is answered for it; 0 = none is.

    Args:
        scores: of the answers, float [questions].
        filled: which answers are not empty.
        has_answer: which questions have one.
        null_odds: float [questions].
    """
    order = np.argsort(null_odds, kind="stable")
    gains = np.where(has_answer, scores, np.where(filled, -1.0, 0.0))[order]
    totals = np.cumsum(np.concatenate([[np.count_nonzero(~has_answer)], gains]))
    best = int(totals.argmax())
    return float(totals[best] / len(scores)), float(null_odds[order[best - 1]]) if best else 0.0


def _raw_scores(predicted: Sequence[str], right: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray]:
    def best(metric: Callable[[str, str], float]) -> np.ndarray:
        return np.array(
            [max(metric(answer, text) for text in texts) for answer, texts in zip(predicted, right, strict=True)]
        )

    return best(exact_match), best(f1)
