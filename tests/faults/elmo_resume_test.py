"""An ELMo's run that was killed, moved to other devices or split over processes equals one that was not."""

import functools
from typing import Any

import numpy as np
import pytest

from tests.faults.runs import (
    INTERVALS,
    finish,
    finish_as_two_processes,
    kill_and_resume,
    saved,
    start_run,
    stop_and_resume,
)
from tests.training.elmo_runs import FLAGS
from tests.training.runs import rows
from tests.training.tiny import assert_trees_equal, largest_difference
from tests.word_streams import make_stream_corpus

pytestmark = [pytest.mark.entry, pytest.mark.slow]


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    corpus = make_stream_corpus(tmp_path_factory.mktemp("corpus"))
    return functools.partial(start_run, "pretrain", FLAGS, **{"data.corpus": corpus, **INTERVALS})


def assert_close_run(workdir, expected):
    for found, wanted in zip(rows(workdir), rows(expected), strict=True):
        assert found.keys() == wanted.keys()
        np.testing.assert_allclose(list(found.values()), list(wanted.values()), rtol=1e-3, atol=1e-5)
    for item in ("params", "train_state"):
        assert largest_difference(saved(workdir)[item], saved(expected)[item]) <= 1e-3


@pytest.mark.parametrize("end", [kill_and_resume, stop_and_resume])
def test_a_run_that_was_ended_and_resumed_is_an_uninterrupted_one_bit_for_bit(
    start, cache, uninterrupted, tmp_path, end
):
    """The states of its LSTMs, which it carries from step to step, among the rest."""
    end(functools.partial(start, cache=cache), tmp_path)
    assert rows(tmp_path) == rows(uninterrupted)
    assert_trees_equal(saved(tmp_path), saved(uninterrupted))


@pytest.mark.timeout(600)
def test_eight_devices_have_the_numbers_of_one(start, uninterrupted, tmp_path):
    code, errors = finish(start(tmp_path / "rows", devices=8))
    assert code == 0, errors
    assert_close_run(tmp_path / "rows", uninterrupted)
    mesh: Any = {"mesh.data": 2, "mesh.fsdp": 2, "mesh.tensor": 2}
    code, errors = finish(start(tmp_path / "all", devices=8, **mesh))
    assert code == 0, errors
    assert_close_run(tmp_path / "all", uninterrupted)


@pytest.mark.timeout(600)
def test_two_processes_have_the_numbers_of_one(start, uninterrupted, tmp_path):
    finish_as_two_processes(start, tmp_path)
    assert_close_run(tmp_path, uninterrupted)
