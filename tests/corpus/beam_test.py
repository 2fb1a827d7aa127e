import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from etils import epath

from bert_jax.config import build
from bert_jax.corpus import beam
from bert_jax.corpus.buckets import DocumentsConfig, prepare_documents
from bert_jax.corpus.documents import SourceConfig
from bert_jax.corpus.pipeline import CorpusConfig, only_process, prepare_tokenizer
from bert_jax.corpus.progress import Progress
from bert_jax.corpus.records import read_manifest
from bert_jax.corpus.sources import sized_inputs
from bert_jax.corpus.workers import Workers
from bert_jax.input.instances import open_instances

ROOT = Path(__file__).parents[2]
PYTHON = os.environ.get("BERT_JAX_BEAM_PYTHON", "")
SETS = "sets=nsp-128+none-128-packed+stream-20,min_count=1"
SETTINGS = ("--config.tokenizer.vocab_size=120", "--config.num_buckets=3", "--config.validation_fraction=0.25")
DATAFLOW = ["--runner=DataflowRunner", "--temp_location=gs://my-bucket/tmp", "--staging_location=gs://my-bucket/tmp"]

needs_beam = pytest.mark.skipif(not PYTHON, reason="needs Apache Beam: make beam-check")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Three files of documents, one document in all of them, so that duplicates come from several inputs."""
    directory = tmp_path_factory.mktemp("beam") / "inputs"
    directory.mkdir()
    rng = random.Random(0)
    same = "the same document .\nin every file ."
    for file in range(3):
        documents = [
            "\n".join(" ".join(f"w{rng.randrange(40)}" for _ in range(rng.randrange(3, 9))) for _ in range(6))
            for _ in range(12)
        ]
        (directory / f"{file}.txt").write_text("\n\n".join([*documents[:file], same, *documents[file:]]) + "\n")
    return directory


def files(corpus):
    """Return the content of every file of a corpus but for its lock and what making it took."""
    found = {str(path.relative_to(corpus)): path.read_bytes() for path in corpus.rglob("*") if path.is_file()}
    found.pop(".lock", None)
    manifest = json.loads(found.pop("manifest.json"))
    manifest.pop("measured")
    return found | {"manifest.json": manifest}


def launch(python, launcher, *arguments):
    command = [python, "-m", f"launch.{launcher}", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)


def test_documents_are_the_same_in_whatever_order_inputs_and_chunks_come(inputs, tmp_path, bucket, monkeypatch):
    monkeypatch.setattr("bert_jax.corpus.buckets.CHUNK_CHARACTERS", 200)
    config = DocumentsConfig((SourceConfig("sentences", str(inputs)),), 4, 0.25, "stop")
    with Workers(1) as workers:
        prepare_documents(config, tmp_path / "documents", workers, Progress(False))
    corpus = "gs://b/corpus"
    items = [(0, number, *entry) for number, entry in enumerate(sized_inputs(config.sources)[0])]
    entries = [entry for item in reversed(items) for entry in beam.scatter_input(config, corpus, item)]
    random.Random(1).shuffle(entries)
    for number in range(4):
        beam.settle_entries(config, corpus, 1e9, number, [entry for each, entry in entries if each == number])
    expected = {path.name: path.read_bytes() for path in (tmp_path / "documents").glob("*.txt")}
    assert {path.name: path.read_bytes() for path in epath.Path(corpus).glob("documents/*.txt")} == expected
    samples = {path.name: path.read_bytes() for path in epath.Path(corpus).glob("sample/*.txt")}
    assert samples == {name: text for name, text in expected.items() if name.startswith("train")}


def test_a_sample_is_the_first_documents_of_a_bucket(inputs, bucket):
    config = DocumentsConfig((SourceConfig("sentences", str(inputs)),), 1, 0.0, "stop")
    [item] = [(0, 0, *sized_inputs(config.sources)[0][0])]
    beam.settle_entries(
        config, "gs://b/c", 1.0, 0, [entry for _, entry in beam.scatter_input(config, "gs://b/c", item)]
    )
    text = bucket["b/c/documents/train-00000-of-00001.txt"]
    assert bucket["b/c/sample/train-00000-of-00001.txt"] == text[: text.index(b"\n\n") + 2]


def test_a_tokenizer_of_documents_that_others_made_is_that_of_prepare(inputs, tmp_path):
    settings = {"sources": ({"kind": "sentences", "path": str(inputs)},), "num_buckets": 3, "validation_fraction": 0.25}
    config = build(CorpusConfig, settings | {"tokenizer": {"vocab_size": 120}, "instances": ({"name": "nsp-128"},)})
    with Workers(1) as workers:
        prepare_documents(config.documents, tmp_path / "documents", workers, Progress(False))
    found = beam._prepare_tokenizer(config, tmp_path)
    made = {path.name: path.read_bytes() for path in (tmp_path / "tokenizer").iterdir()}
    shutil.rmtree(tmp_path / "tokenizer")
    assert found == prepare_tokenizer(config, tmp_path, Progress(False))
    assert made == {path.name: path.read_bytes() for path in (tmp_path / "tokenizer").iterdir()}
    assert not (tmp_path / "sample").exists()


@pytest.mark.entry
def test_without_beam_it_is_said_what_to_install(inputs, tmp_path):
    arguments = (f"--config=configs/corpus.py:name=text,kind=sentences,path={inputs}", f"--corpus={tmp_path}")
    done = launch(sys.executable, "prepare_beam", *arguments)
    if done.returncode == 0:
        pytest.skip("Beam is installed here")
    assert "install requirements-beam.txt" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.beam
@needs_beam
@pytest.mark.timeout(900)
def test_beam_makes_the_same_corpus_to_the_bit_and_continues_it(inputs, tmp_path):
    config = (f"--config=configs/corpus.py:name=text,kind=sentences,path={inputs},{SETS}", *SETTINGS)
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    done = launch(sys.executable, "prepare", *config, f"--corpus={ours}", "--num_processes=1")
    assert done.returncode == 0, done.stderr
    command = (PYTHON, "prepare_beam", *config, f"--corpus={theirs}", "--", "--runner=FnApiRunner")
    done = launch(*command)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("37 documents, nsp-128, none-128-packed, stream-20")  # 39, of which 2 come again
    assert files(theirs) == files(ours)
    for name in ("nsp-128", "none-128-packed"):
        for split in ("train", "validation"):
            assert record_hashes(theirs, name, split) == record_hashes(ours, name, split) != []
    # A set is gone, as after a run that was stopped: the same command makes it again.
    for file in (theirs / "instances" / "nsp-128").iterdir():
        file.unlink()
    (theirs / "manifest.json").unlink()
    with only_process(theirs):
        done = launch(*command)
    assert done.returncode == 1
    assert "another process prepares" in done.stderr
    done = launch(*command)
    assert done.returncode == 0, done.stderr
    assert files(theirs) == files(ours)


def record_hashes(corpus, name, split):
    assert read_manifest(corpus / "instances" / name).num_records(split) > 0
    rows = open_instances(corpus, name, split)
    return sorted(hashlib.sha256(record).hexdigest() for record in rows.read_records(np.arange(len(rows))))


@pytest.mark.beam
@needs_beam
@pytest.mark.parametrize(
    ("corpus", "arguments", "message"),
    [
        ("gs://b/c", [*DATAFLOW, "--region=us-west4"], "Missing required option: project"),
        ("gs://b/c", [*DATAFLOW, "--project=my-project"], "Missing required option: region"),
        ("gs://b/c", [*DATAFLOW, "--region=us-west4", "--project=12"], "Invalid Project ID (12)"),
        ("gs://b/c", ["--runner=Datflow"], "Unexpected pipeline runner: Datflow"),
        ("gs://b/c", [*DATAFLOW, "--region=us-west4", "--project=my-project"], "0.txt is on this machine"),
        ("data/c", [*DATAFLOW, "--region=us-west4", "--project=my-project"], "data/c is on this machine"),
    ],
)
def test_dataflows_arguments_are_checked_by_its_runner_before_anything_is_done(inputs, corpus, arguments, message):
    config = f"--config=configs/corpus.py:name=text,kind=sentences,path={inputs}"
    done = launch(PYTHON, "prepare_beam", config, f"--corpus={corpus}", "--dry_run", "--", *arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
