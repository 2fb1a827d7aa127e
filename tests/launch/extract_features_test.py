import json

import numpy as np
import pytest

from tests.inference.feature_models import write_elmo
from tests.launch.programs import run_launcher
from tests.tasks.tiny_tasks import write_model


@pytest.mark.entry
def test_words_of_the_standard_input_become_vectors_of_elmo(tmp_path):
    done = run_launcher(
        "extract_features",
        f"--checkpoint={write_elmo(tmp_path / 'elmo')}",
        f"--output={tmp_path}/a.npz",
        "--pretokenized",
        "--layers=-1,0",
        "--combine=mix",
        "--weights=0.5,0.25",
        "--dtype=float16",
        stdin="The cat's mat.\n\nThe cat's mat.\n",
    )
    assert done.returncode == 0, done.stderr
    assert "3 lines, 6 words, 1 × 10 float16 each" in done.stderr
    assert "words/s" in done.stderr
    assert "1 × an empty line, an entry without words, first in line 2" in done.stderr
    found = np.load(tmp_path / "a.npz")
    assert (found["0"].shape, found["1"].shape, found["0"].dtype) == ((3, 10), (0, 10), np.float16)
    np.testing.assert_array_equal(found["0"], found["2"])
    assert json.loads(found["sentence_to_index"].item()) == {"The cat's mat.": "2", "": "1"}


@pytest.mark.entry
def test_texts_of_a_file_become_googles_json_lines(tmp_path):
    (tmp_path / "a.txt").write_text("The cat.\na ||| b\n")
    done = run_launcher(
        "extract_features",
        f"--checkpoint={write_model(tmp_path / 'bert')}",
        f"--input={tmp_path}/a.txt",
        f"--output={tmp_path}/a.jsonl",
    )
    assert done.returncode == 0, done.stderr
    first, second = map(json.loads, (tmp_path / "a.jsonl").read_text().splitlines())
    assert [each["token"] for each in first["features"]] == ["[CLS]", "the", "cat", ".", "[SEP]"]
    assert [layer["index"] for layer in first["features"][0]["layers"]] == [-1]  # there is one
    assert [each["token"] for each in second["features"]] == ["[CLS]", "a", "[SEP]", "b", "[SEP]"]


@pytest.mark.entry
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output=a.npz"], "a.txt:2: the byte 0xff is not UTF-8"),
        (["--output=a.txt"], "a.txt ends with '.txt'; .hdf5, .npz and .jsonl are written"),
    ],
)
def test_errors_are_one_line_and_a_status(arguments, message, tmp_path):
    (tmp_path / "a.txt").write_bytes(b"a\n\xff\n")
    done = run_launcher("extract_features", "--checkpoint=elmo:none", f"--input={tmp_path}/a.txt", *arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
