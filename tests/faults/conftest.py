"""What tests of faults share; a module has a fixture `start`, (workdir, *flags, **options) → process."""

import pytest

from tests.faults.runs import finish


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A directory of compiled programs, for the runs of a module that compile the same."""
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="module")
def uninterrupted(start, cache, tmp_path_factory):
    """The directory of a run that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("uninterrupted")
    code, errors = finish(start(workdir, cache=cache))
    assert code == 0, errors
    return workdir
