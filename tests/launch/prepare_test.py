import dataclasses
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bert_jax.config import build
from bert_jax.corpus.documents import SourceConfig
from bert_jax.corpus.instances import InstanceConfig
from bert_jax.corpus.pipeline import CorpusConfig, TokenizerConfig
from bert_jax.corpus.records import read_manifest
from configs.corpus import get_config

ROOT = Path(__file__).parents[2]


def command(*flags):
    return [sys.executable, "-m", "launch.prepare", *map(str, flags)]


def run(*flags):
    return subprocess.run(command(*flags), capture_output=True, text=True, cwd=ROOT, check=False)


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    words = ["the", "quick", "brown", "fox", "jumps", "over", "some", "lazy", "dogs", "while", "birds", "sing", "songs"]
    sentences = [" ".join(words[k % 13 :] + words[: k % 7]) for k in range(400)]
    path.write_text("\n\n".join("\n".join(sentences[k : k + 8]) for k in range(0, 400, 8)) + "\n")
    return path


@pytest.mark.parametrize(
    "arg",
    [
        "",
        "name=text,kind=jsonl,path=x,sets=nsp-128+sop-512-packed+none-64,vocab=v.txt,cased",
        "name=wiki_books,wikipedia=w,books=b,books_kind=parquet",
        "name=google,path=x,vocab=v.txt,whole_word",
    ],
)
def test_every_named_config_is_a_corpus(arg):
    values = get_config(arg).to_dict()
    assert values.pop("name") in (arg or "name=python_docs")
    build(CorpusConfig, values)
    # Every setting stands in the config file, so that a flag can change it.
    for section, cls in (
        (values, CorpusConfig),
        (values["tokenizer"], TokenizerConfig),
        *((source, SourceConfig) for source in values["sources"]),
        *((instance, InstanceConfig) for instance in values["instances"]),
    ):
        assert section.keys() == {field.name for field in dataclasses.fields(cls)}


def test_set_names_say_what_is_built():
    sets = get_config("name=text,sets=nsp-128+none-512-packed,duplicates=3").to_dict()["instances"]
    assert [build(InstanceConfig, values) for values in sets] == [
        InstanceConfig("nsp-128", "nsp", 128, 0.1, duplicates=3),
        InstanceConfig("none-512-packed", "none", 512, 0.0, packed=True, duplicates=3),
    ]
    with pytest.raises(ValueError, match="'nsp128' is not PAIRS-LENGTH"):
        get_config("name=text,sets=nsp128")


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="did you mean 'wiki_books'"):
        get_config("name=wikibooks")


@pytest.mark.entry
def test_text_becomes_a_corpus_and_sections_can_be_overridden(text, tmp_path):
    config = f"--config=configs/corpus.py:name=text,path={text},vocab_size=160,sets=nsp-16,buckets=2"
    overrides = ["seed=7", "sources[0].name=mine", "instances[0].short_sequence_probability=0.3"]
    overrides += ["tokenizer.do_lower_case=true"]
    done = run(config, *(f"--config.{value}" for value in overrides), f"--corpus={tmp_path}/c", "--num_processes=1")
    assert done.returncode == 0, done.stderr
    assert "mine" in done.stdout
    assert "160 pieces" in done.stdout
    assert "nsp-16             train" in done.stdout
    manifest = read_manifest(tmp_path / "c" / "instances" / "nsp-16")
    assert manifest.seed == 7
    assert manifest.num_records("train") > 0
    assert json.loads((tmp_path / "c" / "config.json").read_text())["instances"][0]["short_sequence_probability"] == 0.3
    verified = run(f"--corpus={tmp_path}/c", "--verify")
    assert f"all 6 shards of {tmp_path}/c are what was written" in verified.stdout
    refused = run(config, f"--corpus={tmp_path}/c", "--num_processes=1")
    assert refused.returncode == 1
    assert "seed: 7 there, 0 now" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.entry
def test_a_missing_source_is_told_without_a_traceback(tmp_path):
    done = run("--config=configs/corpus.py:name=text,path=/nowhere", f"--corpus={tmp_path}/c")
    assert done.returncode == 1
    assert "matches no file" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.entry
@pytest.mark.skipif(importlib.util.find_spec("gcsfs") is not None, reason="what opens a bucket is installed here")
def test_a_bucket_that_cannot_be_opened_is_told_before_anything_is_prepared(text):
    done = run(f"--config=configs/corpus.py:name=text,path={text},vocab_size=160", "--corpus=gs://bucket/not_prepared")
    assert done.returncode == 1
    assert "gcsfs" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (ROOT / "data" / "not_prepared").exists()


@pytest.mark.entry
def test_an_interrupted_run_says_how_it_goes_on(text, tmp_path):
    for number in range(40):
        (tmp_path / f"more{number}.txt").write_text(text.read_text().replace("quick", f"quick{number}") * 20)
    flags = (f"--config=configs/corpus.py:name=text,path={tmp_path}/*.txt,vocab_size=160", f"--corpus={tmp_path}/c")
    with subprocess.Popen(
        command(*flags, "--num_processes=2"), stderr=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True
    ) as process:
        while not (tmp_path / "c" / "documents").exists():
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGINT)
        _, error = process.communicate()
    assert process.returncode == 130, error
    assert "stopped; the same command continues" in error
    assert "Traceback" not in error
