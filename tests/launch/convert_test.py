import json
import os

import pytest

from bert_jax.interop import comparison
from tests.interop.huggingface_test import CONFIG, PIECES, TENSORS, write_directory
from tests.launch.programs import run_launcher


@pytest.mark.entry
def test_a_directory_of_hugging_faces_becomes_a_run(tmp_path):
    directory = write_directory(tmp_path / "hf", TENSORS, CONFIG)
    done = run_launcher("convert", f"--from=hf:{directory}", f"--to=run:{tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    assert "bert.encoder.layer.{0..1}.attention.self.query.weight 32×32, [out, in]" in done.stdout
    assert json.loads((tmp_path / "run" / "config.json").read_text())["model"]["vocab_size"] == len(PIECES)
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints" / "0").iterdir() if path.is_dir()) == [
        "meta", "params",
    ]  # fmt: skip
    again = run_launcher("convert", f"--from=hf:{directory}", f"--to=run:{tmp_path / 'run'}")
    assert again.returncode == 1
    assert again.stderr.startswith("convert: ")
    assert "is not empty" in again.stderr


@pytest.mark.parity
@pytest.mark.skipif(comparison.PYTHON_VARIABLE not in os.environ, reason="needs a Python with torch and transformers")
def test_check_prints_the_largest_difference(tmp_path):
    directory = write_directory(tmp_path / "hf", TENSORS, CONFIG)
    done = run_launcher("convert", f"--from=hf:{directory}", f"--to=run:{tmp_path / 'run'}", "--check")
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert last.startswith("largest difference to transformers.BertModel: all_hidden ")
