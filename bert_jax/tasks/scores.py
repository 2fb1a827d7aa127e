"""The scores of classes and of numbers: accuracy, F1, Matthews, Pearson, Spearman.

Source: GLUE (Wang et al. 2018), section 3: which task has which. Computed by scikit-learn and scipy.
Differs: a correlation with a constant, which is not defined, is 0; the score `constant_prediction` is then 1, and is
absent otherwise. Outputs that are not finite score nan.
"""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.stats
import sklearn.metrics

from bert_jax.config import choose
from bert_jax.tasks.task import Outputs

CLASS_METRICS = ("accuracy", "f1", "macro_f1", "matthews_correlation")
NUMBER_METRICS = ("pearson", "spearman")


def score_classes(
    label_ids: np.ndarray, labels: tuple[str, ...], metrics: tuple[str, ...], positive: str = ""
) -> Callable[[Outputs], dict[str, float]]:
    """Return the function that scores logits [rows, classes].

    Args:
        label_ids: int [rows], the right classes.
        labels: names of the classes.
        metrics: of CLASS_METRICS.
        positive: the class that `f1` is of.
    """
    for metric in metrics:
        choose("a metric of classes", metric, CLASS_METRICS)
    assert "f1" not in metrics or positive in labels

    def score(outputs: Outputs) -> dict[str, float]:
        logits = np.asarray(outputs["logits"])
        if not np.isfinite(logits).all():
            return dict.fromkeys(metrics, float("nan"))
        predicted = logits.argmax(-1)
        scores = {metric: _class_metric(metric, label_ids, predicted, labels, positive) for metric in metrics}
        return scores | _constant(predicted)

    return score


def score_numbers(
    numbers: np.ndarray, metrics: tuple[str, ...] = NUMBER_METRICS
) -> Callable[[Outputs], dict[str, float]]:
    """Return the function that scores logits [rows, 1] as predictions of `numbers`, float [rows]."""
    correlations = {"pearson": scipy.stats.pearsonr, "spearman": scipy.stats.spearmanr}
    for metric in metrics:
        choose("a metric of numbers", metric, NUMBER_METRICS)

    def score(outputs: Outputs) -> dict[str, float]:
        predicted = np.asarray(outputs["logits"], np.float64).reshape(len(numbers))
        if not np.isfinite(predicted).all():
            return dict.fromkeys(metrics, float("nan"))
        if is_constant(predicted) or is_constant(numbers):
            return dict.fromkeys(metrics, 0.0) | _constant(predicted)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", scipy.stats.NearConstantInputWarning)
            return {metric: float(correlations[metric](predicted, numbers).statistic) for metric in metrics}

    return score


def is_constant(values: np.ndarray) -> bool:
    """Return whether all values are the same."""
    return len(values) == 0 or bool((values == values[0]).all())


def _constant(predicted: np.ndarray) -> dict[str, float]:
    return {"constant_prediction": 1.0} if is_constant(predicted) else {}


def _class_metric(
    metric: str, label_ids: np.ndarray, predicted: np.ndarray, labels: tuple[str, ...], positive: str
) -> float:
    if metric == "accuracy":
        return float((predicted == label_ids).mean())
    if metric == "f1":
        index = labels.index(positive)
        return _f1(label_ids == index, predicted == index, "binary")
    if metric == "macro_f1":
        return _f1(label_ids, predicted, "macro")
    if is_constant(predicted) or is_constant(label_ids):
        return 0.0
    return float(sklearn.metrics.matthews_corrcoef(label_ids, predicted))


def _f1(truth: np.ndarray, predicted: np.ndarray, average: str) -> float:
    zero: Any = 0.0  # of a class that is never predicted, without a warning; the library's stubs say str
    return float(sklearn.metrics.f1_score(truth, predicted, average=average, zero_division=zero))
