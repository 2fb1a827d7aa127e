"""The documents stage: what it notes of inputs and files, and Google's way of reading."""

import hashlib
import json
from pathlib import Path

from bert_jax.corpus import buckets, documents
from bert_jax.corpus.buckets import read_bucket
from bert_jax.corpus.documents import InputLog, SourceConfig
from bert_jax.corpus.instances import InstanceConfig
from bert_jax.corpus.pipeline import prepare
from tests.corpus.pipeline_test import make_config, write_inputs


def test_inputs_that_changed_since_are_told(tmp_path):
    inputs = write_inputs(tmp_path / "inputs")
    assert prepare(make_config(inputs), tmp_path / "corpus", num_processes=1).warnings == ()
    (inputs / "new.txt").write_text("w1 w2\n")
    (warning,) = prepare(make_config(inputs), tmp_path / "corpus", num_processes=1).warnings
    assert "3 then, 4 now; " in warning
    assert "new.txt is new, gone or of another size" in warning
    assert f"remove {tmp_path / 'corpus'} and run the same command" in warning
    for path in inputs.glob("*.txt"):
        path.unlink()
    assert prepare(make_config(inputs), tmp_path / "corpus", num_processes=1).warnings == ()


def test_documents_have_a_manifest_of_their_files(tmp_path):
    prepare(make_config(write_inputs(tmp_path / "inputs")), tmp_path, num_processes=1)
    manifest = json.loads((tmp_path / "documents" / "manifest.json").read_text())
    assert (manifest["schema_version"], manifest["seed"], len(manifest["config_fingerprint"])) == (1, 0, 8)
    assert [[Path(path).name for path, _ in source] for source in manifest["inputs"]] == [["0.txt", "1.txt", "2.txt"]]
    for split, listed in manifest["splits"].items():
        assert [file["file"] for file in listed] == [f"{split}-{bucket:05d}-of-00003.txt" for bucket in range(3)]
        for file in listed:
            path = tmp_path / "documents" / file["file"]
            assert file["num_documents"] == len(read_bucket(path))
            assert file["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()


def originals_documents(paths):
    """What create_training_instances reads, in its words."""
    documents = [[]]
    for path in paths:
        with path.open("rb") as lines:
            for line in lines:
                line = line.decode().strip()
                if not line:
                    documents.append([])
                else:
                    documents[-1].append(line)
    return [document for document in documents if document]


def test_mode_google_reads_its_files_as_one_stream(tmp_path):
    inputs = write_inputs(tmp_path / "inputs", num_files=0)
    texts = ["w0 w1\n\nw2\nw3", "w4\n\u00a0\nw5 \n \u3000\t\r\n", "w6\n", "", "w7\n\nw7", "\n", "w8", "w9\n\n", "w9\n"]
    for number, text in enumerate(texts):
        (inputs / f"{number}.txt").write_bytes(text.encode())
    sources = (SourceConfig("sentences", f"{inputs}/[0-2].txt", "a"), SourceConfig("sentences", f"{inputs}/[3-8].txt"))
    instances = (InstanceConfig("google-16", sequence_length=16, mode="google"),)
    config = make_config(inputs, sources=sources, instances=instances, num_buckets=1, validation_fraction=0.0)
    prepared = prepare(config, tmp_path / "corpus", num_processes=1)
    found = read_bucket(tmp_path / "corpus" / "documents" / "train-00000-of-00001.txt")
    assert found == originals_documents(sorted(inputs.glob("*.txt")))
    assert found[1:4] == [["w2", "w3", "w4"], ["w5"], ["w6", "w7"]]
    assert [source["documents"] for source in prepared.manifest["documents"]["sources"]] == [4, 3]


def test_mode_google_continues_within_its_stream(tmp_path):
    inputs = write_inputs(tmp_path / "inputs")
    (inputs / "1.txt").write_text((inputs / "1.txt").read_text().rstrip("\n"))
    read = [(0, inputs / f"{number}.txt") for number in range(3)]
    whole = [document for _, document in documents.read_verbatim(read, InputLog())]
    sizes = [(str(path), 1) for _, path in read]
    rest = buckets._read_verbatim([sizes], (0, 0, 20), InputLog())
    assert [document for _, _, document in rest if document] == whole[20:]
