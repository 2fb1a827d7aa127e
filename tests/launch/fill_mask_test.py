import json
import os

import jax
import jax.numpy as jnp
import pytest

from bert_jax.config import to_plain
from bert_jax.corpus.vocabulary import WordPiece
from bert_jax.inference.fill_mask import MaskFiller, Query
from bert_jax.models.bert import BertConfig
from bert_jax.objectives.masked_lm import MaskedLmObjective
from bert_jax.training.checkpoint import Checkpoints
from bert_jax.training.state import TrainState
from tests.launch.programs import run_launcher

TOKENIZER = WordPiece(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "dog", "."])
CONFIG = BertConfig(
    vocab_size=TOKENIZER.vocab_size, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
    max_position_embeddings=16,
)  # fmt: skip


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run's directory with one checkpoint, written as training writes it."""
    directory = tmp_path_factory.mktemp("run")
    TOKENIZER.save(directory / "tokenizer")
    plain = {"model": {**to_plain(CONFIG), "vocab_size": 0}, "objective": {"next_sentence": True}}
    (directory / "config.json").write_text(json.dumps(plain))
    zero = jnp.zeros((), jnp.int32)
    state = TrainState(zero + 7, jax.jit(lambda: MaskedLmObjective(CONFIG).init(0))(), {}, {}, zero)
    checkpoints = Checkpoints(os.path.relpath(directory), max_to_keep=1)  # as with --workdir=runs/demo
    checkpoints.save(7, state, {})
    checkpoints.wait()
    checkpoints.close()
    return directory


@pytest.mark.entry
def test_lines_of_the_standard_input_become_json_lines(workdir):
    done = run_launcher(
        "fill_mask",
        f"--checkpoint=run:{workdir}@7",
        "--format=json",
        "--top_k=2",
        stdin="The [MASK] sat.\n\nthe cat ||| sat\n",
    )
    assert done.returncode == 0, done.stderr
    mask, pair = map(json.loads, done.stdout.splitlines())
    assert mask["text"] == "The [MASK] sat."
    assert [set(candidate) for candidate in mask["masks"][0]] == [{"token", "token_id", "probability"}] * 2
    assert (pair["text_a"], pair["text_b"], pair["masks"]) == ("the cat", "sat", [])
    assert 0 < pair["is_next"] < 1


@pytest.mark.entry
def test_flags_are_answered_for_people(workdir):
    done = run_launcher(
        "fill_mask", f"--checkpoint=run:{workdir}", "--text=the [MASK]", "--pair=the [MASK] ||| the dog"
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("the ")
    assert lines[1].startswith("  [MASK]: ")
    assert lines[1].count("%") == 5
    assert lines[3].startswith("  B follows A: ")


@pytest.mark.entry
@pytest.mark.parametrize(
    ("arguments", "stdin", "message"),
    [
        (["--checkpoint=run:/no/such"], "", "has no checkpoint; is it the --workdir of a run?"),
        (["--checkpoint=run:WORKDIR"], "the [MASK]\nthe cat\n", "fill_mask: line 2: 'the cat' has no [MASK]"),
    ],
)
def test_errors_are_one_line_and_a_status(workdir, arguments, stdin, message):
    done = run_launcher(
        "fill_mask", *[argument.replace("WORKDIR", str(workdir)) for argument in arguments], stdin=stdin
    )
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_loaded_model_has_the_size_of_its_tokenizer(workdir):
    filler = MaskFiller.load(f"run:{workdir}")
    assert filler.model.config == CONFIG
    assert len(next(iter(filler.answers([Query("[MASK]")]))).masks[0]) == 5


def test_an_address_may_be_relative(workdir, monkeypatch):
    monkeypatch.chdir(workdir.parent)
    assert MaskFiller.load(f"run:{workdir.name}").model.config == CONFIG
