"""Predictions of GLUE's test rows → the zip that gluebenchmark.com takes.

Source: gluebenchmark.com, FAQ and sample submission: `index<TAB>prediction`, labels as the tasks' files write them.
"""

import math
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from bert_jax.config import choose
from bert_jax.tasks.glue import GLUE_TASKS, GlueTask

HIGHEST_SIMILARITY = 5.0  # of STS-B, from 0

# Name of the file in the zip, without .tsv → the task, and how many predictions it holds.
SUBMISSION: dict[str, tuple[GlueTask, int]] = {
    name: (task, task.rows[file])
    for key, task in GLUE_TASKS.items()
    if key != "sick"
    for name, file in task.tests.items()
}
_FIRST_TIME = (1980, 1, 1, 0, 0, 0)  # of every file in the zip: equal predictions make equal bytes


def write_submission(
    path: str | os.PathLike[str], predictions: Mapping[str, Sequence[str | float]], fill_missing: bool = False
) -> list[str]:
    """Write the zip of a submission; nothing is written if a prediction is wrong.

    Args:
        path: of the zip; its directory exists.
        predictions: by names of SUBMISSION, as `glue.read_test` gives them, in the order of the test rows: names of
            the classes; numbers of STS-B, which are clipped to 0 … 5.
        fill_missing: write the first class, or 0, for all rows of the tasks that `predictions` lacks.

    Returns:
        The names that were filled.

    Raises:
        ValueError: tasks are missing, a number of predictions is not the test set's, or a label is unknown.
    """
    for name in predictions:
        choose("a task of the submission", name, SUBMISSION)
    missing = [name for name in SUBMISSION if name not in predictions]
    if missing and not fill_missing:
        raise ValueError(
            f"predictions of {', '.join(missing)} are missing; a submission has all of {', '.join(SUBMISSION)}: "
            "predict them, or ask for placeholders (fill_missing), which score nothing"
        )
    files = {name: format_predictions(name, predictions.get(name, _placeholder(name))) for name in SUBMISSION}
    path = Path(path)
    written = path.with_name(f"{path.name}.writing")
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            info = zipfile.ZipInfo(f"{name}.tsv", _FIRST_TIME)
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, text)
    written.replace(path)
    return missing


def format_predictions(name: str, predictions: Sequence[str | float]) -> str:
    """Return the file of one task of SUBMISSION; raises as `write_submission`."""
    task, rows = SUBMISSION[name]
    if len(predictions) != rows:
        raise ValueError(f"{name}: {len(predictions)} predictions; the test set has {rows} rows")
    written_as = dict(zip(task.labels, task.written or task.labels, strict=True))
    lines = ["index\tprediction"]
    for index, prediction in enumerate(predictions):
        try:
            text = written_as[str(prediction)] if task.labels else _format_score(float(prediction))
        except (KeyError, ValueError):
            accepted = ", ".join(written_as) or "a number"
            raise ValueError(f"{name}, prediction {index} is {prediction!r}; accepted: {accepted}") from None
        lines.append(f"{index}\t{text}")
    return "\n".join(lines) + "\n"


def _format_score(score: float) -> str:
    if math.isnan(score):
        raise ValueError(score)
    return f"{min(max(score, 0.0), HIGHEST_SIMILARITY):.3f}"


def _placeholder(name: str) -> list[str | float]:
    """Return valid predictions that say nothing."""
    task, rows = SUBMISSION[name]
    return [task.labels[0]] * rows if task.labels else [0.0] * rows
