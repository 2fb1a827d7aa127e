import numpy as np
import pytest

from bert_jax.tasks.scores import score_classes, score_numbers

LABELS = ("no", "yes")


def logits_of(classes, num_classes=2):
    return {"logits": np.eye(num_classes)[np.asarray(classes)]}


def test_classes_are_scored_by_hand_counted_values():
    # 3 true positives, 1 false negative, 2 false positives, 2 true negatives.
    truth, predicted = np.array([1, 1, 1, 1, 0, 0, 0, 0]), [1, 1, 1, 0, 1, 1, 0, 0]
    metrics = ("accuracy", "f1", "macro_f1", "matthews_correlation")
    scores = score_classes(truth, LABELS, metrics, positive="yes")(logits_of(predicted))
    assert list(scores) == list(metrics)
    f1_yes, f1_no = 2 * 3 / (2 * 3 + 1 + 2), 2 * 2 / (2 * 2 + 2 + 1)
    matthews = (3 * 2 - 2 * 1) / np.sqrt(5 * 4 * 4 * 3)
    assert list(scores.values()) == pytest.approx([5 / 8, f1_yes, (f1_yes + f1_no) / 2, matthews])


def test_f1_is_of_the_positive_class_by_name_whatever_the_order():
    truth, predicted = np.array([1, 1, 0]), [1, 0, 0]
    forth = score_classes(truth, ("no", "yes"), ("f1",), positive="yes")(logits_of(predicted))
    back = score_classes(1 - truth, ("yes", "no"), ("f1",), positive="yes")(logits_of(1 - np.array(predicted)))
    assert forth == back == {"f1": pytest.approx(2 / 3)}


@pytest.mark.parametrize("predicted", [0, 1])
def test_a_constant_class_is_said_and_warns_of_nothing(predicted):
    metrics = ("accuracy", "f1", "macro_f1", "matthews_correlation")
    for truth in ([0, 1, 1], [1, 1, 1], [0, 0, 0]):
        scores = score_classes(np.array(truth), LABELS, metrics, "yes")(logits_of([predicted] * 3))
        assert scores["matthews_correlation"] == 0
        assert scores["constant_prediction"] == 1


def test_numbers_are_correlated():
    truth = np.array([0.0, 1.0, 2.0, 5.0], np.float32)
    assert score_numbers(truth)({"logits": 2 * truth[:, None] - 3}) == pytest.approx({"pearson": 1, "spearman": 1})
    curved = score_numbers(truth)({"logits": truth[:, None] ** 3})
    assert curved["spearman"] == pytest.approx(1)
    assert curved["pearson"] == pytest.approx(np.corrcoef(truth, truth**3)[0, 1])


def test_a_constant_number_correlates_with_nothing():
    score = score_numbers(np.array([1.0, 2.0, 3.0]))
    assert score({"logits": np.full((3, 1), 2.5)}) == {"pearson": 0, "spearman": 0, "constant_prediction": 1}
    assert score_numbers(np.ones(3))({"logits": np.arange(3.0)[:, None]}) == {"pearson": 0, "spearman": 0}
    assert score({"logits": 2.5 + 1e-15 * np.arange(3)[:, None]})["spearman"] > 0.8  # nearly constant: no warning


def test_outputs_that_are_not_finite_score_nan():
    assert np.isnan(score_numbers(np.arange(2.0))({"logits": np.array([[np.nan], [1]])})["pearson"])
    assert np.isnan(score_classes(np.arange(2), LABELS, ("accuracy",))({"logits": np.full((2, 2), np.inf)})["accuracy"])


def test_an_unknown_metric_is_refused():
    with pytest.raises(ValueError, match="accuracy"):
        score_classes(np.arange(2), LABELS, ("acuracy",))
