"""Measure one stage and print one JSON line.

    python -m launch.benchmark train --config=configs/bert.py:size=mini          # a training step
    python -m launch.benchmark finetune --config=configs/glue.py:task=mrpc --config.init_from=hf:DIR   # a run's steps
    python -m launch.benchmark elmo --config=configs/elmo.py:size=small,preset=laptop   # ELMo's training step
    python -m launch.benchmark lstm --elmo_size=small --batch_size=64            # ELMo's stacks, forward and backward
    python -m launch.benchmark input                                             # rows masked and batched
    python -m launch.benchmark prepare --text=FILE                               # text to instances

`train` takes any config of `launch.pretrain`, on made-up tokens without padding; `--batch_size` and
`--config.…` change it. `elmo` takes any config of ELMo's pretraining, on made-up words by Zipf's law: as many are
distinct as in text, and characters are read once a distinct word. `finetune` takes any config of `launch.finetune` and
times that run's first steps, on its rows in their order; with `--pad_all` also the same rows padded to the longest that
is allowed. `lstm` has no dropout and no softmax. `input` reads the config's corpus, data/wiki_books unless
`--config.data.corpus` says otherwise. `prepare` reads a file of one sentence a line with blank lines between documents,
with a vocabulary (`--vocab`), or else the standard library's documentation and a vocabulary trained on it, whose
training is not timed.
"""

import dataclasses
import functools
import json
import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

from absl import app, flags
from ml_collections import ConfigDict, config_flags

from bert_jax.config import build, choose, parse_flags

_CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "train and input: a pretraining config, configs/bert.py:size=mini if none is given; "
    "elmo: one of configs/elmo.py; finetune: one of fine-tuning.",
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 32, "train, elmo and lstm: rows a step, over all devices; elmo: the config's if not given."
)
_WARMUP_STEPS = flags.DEFINE_integer(
    "warmup_steps", 3, "train, elmo and lstm: steps before the timed ones, behind the compilation."
)
_TIMED_STEPS = flags.DEFINE_integer(
    "timed_steps",
    None,
    "Steps timed, if not given: train 20, each on its own, elmo and lstm 20, finetune 200 on end; input: batches, 400.",
)
_PAD_ALL = flags.DEFINE_bool(
    "pad_all", False, "finetune: also time the same rows padded to config.data.max_seq_length, not by buckets."
)
_PEAK_FLOPS = flags.DEFINE_float(
    "peak_flops_per_device", 0.0, "train: FLOP/s to take MFU against; 0 = the device table's."
)
_ELMO_SIZE = flags.DEFINE_string("elmo_size", "small", "lstm: small, medium or original.")
_UNROLL_STEPS = flags.DEFINE_integer("unroll_steps", 20, "elmo and lstm: words a row.")
_DTYPE = flags.DEFINE_string("dtype", "float32", "lstm: float32 or bfloat16.")
_TEXT = flags.DEFINE_string("text", "", "prepare: a file in Google's format, .gz allowed.")
_VOCAB = flags.DEFINE_string("vocab", "", "prepare: a vocab.txt.")
_INSTANCES = flags.DEFINE_string("instances", "nsp-128", "prepare: the instance set to build.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", 1, "prepare: worker processes.")


def measure_train() -> dict[str, Any]:
    """Time the training step of the config."""
    from bert_jax.training.host_memory import keep_freed_memory

    keep_freed_memory()  # before jax computes anything
    from bert_jax.training.benchmark import measure_train_step

    return measure_train_step(
        _config(), _BATCH_SIZE.value, _WARMUP_STEPS.value, _TIMED_STEPS.value or 20, _PEAK_FLOPS.value
    )


def measure_finetune() -> dict[str, Any]:
    """Time the first steps of the run that the config describes."""
    from bert_jax.training.host_memory import keep_freed_memory

    keep_freed_memory()  # before jax computes anything
    from bert_jax.tasks.benchmark import measure_finetuning

    if _CONFIG.value is None:
        raise ValueError("finetune times the run of a config; give --config=configs/glue.py:task=mrpc or its like")
    say = functools.partial(print, file=sys.stderr)  # stdout has the JSON line alone
    return measure_finetuning(_CONFIG.value, _TIMED_STEPS.value or 200, _PAD_ALL.value, say)


def measure_elmo() -> dict[str, Any]:
    """Time ELMo's training step, of the config."""
    from bert_jax.training.host_memory import keep_freed_memory

    keep_freed_memory()  # before jax computes anything
    from bert_jax.training.elmo_benchmark import measure_elmo_step

    if _CONFIG.value is None:
        raise ValueError("elmo times the step of a config; give --config=configs/elmo.py:size=small,preset=laptop")
    batch_size = _BATCH_SIZE.value if flags.FLAGS["batch_size"].present else _CONFIG.value.data.batch_size
    return measure_elmo_step(
        _CONFIG.value, batch_size, _UNROLL_STEPS.value, _WARMUP_STEPS.value, _TIMED_STEPS.value or 20
    )


def measure_lstm() -> dict[str, Any]:
    """Time ELMo's two stacks of LSTMs, of one of the released sizes."""
    from bert_jax.training.host_memory import keep_freed_memory

    keep_freed_memory()  # before jax computes anything
    from bert_jax.models.elmo import ElmoConfig, named_size
    from bert_jax.models.recurrent import RecurrentConfig
    from bert_jax.training.elmo_benchmark import measure_lstm_stacks

    model = ElmoConfig(**named_size(_ELMO_SIZE.value), dtype=_DTYPE.value)
    names = [field.name for field in dataclasses.fields(RecurrentConfig)]
    config = RecurrentConfig(**{name: getattr(model, name) for name in names if name != "dropout"}, dropout=0.0)
    return measure_lstm_stacks(
        config, _BATCH_SIZE.value, _UNROLL_STEPS.value, _WARMUP_STEPS.value, _TIMED_STEPS.value or 20
    )


def measure_input() -> dict[str, Any]:
    """Time masked global batches, as training reads them."""
    from bert_jax.input.loader import DataConfig, measure_rows_per_second, open_instances
    from bert_jax.input.masking import MaskingConfig

    config = _config()
    data = build(DataConfig, config.data, "config.data")
    masking = build(MaskingConfig, config.masking, "config.masking")
    instances = open_instances(data.corpus, data.instances, "train")
    return measure_rows_per_second(instances, data, masking, config.seed, _TIMED_STEPS.value or 400)


def measure_prepare() -> dict[str, Any]:
    """Time the way from a text file to a finished NSP instance set; the vocabulary is given, not trained."""
    from bert_jax.corpus.pipeline import CorpusConfig, prepare
    from configs import corpus

    with tempfile.TemporaryDirectory() as directory:
        text, vocab = _TEXT.value, _VOCAB.value
        if not text:
            documents = Path(directory, "python_docs")
            prepare(build(CorpusConfig, _corpus_sections(corpus.get_config("name=python_docs"))), documents, 1)
            text, vocab = str(documents / "documents" / "train-*.txt"), str(documents / "tokenizer" / "vocab.txt")
        elif not vocab:
            raise ValueError("--text goes with --vocab=vocab.txt; training a vocabulary is not what is timed here")
        sections = _corpus_sections(corpus.get_config(f"name=text,path={text},vocab={vocab},sets={_INSTANCES.value}"))
        prepared = prepare(build(CorpusConfig, sections), Path(directory, "timed"), _NUM_PROCESSES.value)
    rate = prepared.megabytes / prepared.seconds
    return {
        "megabytes_per_second": rate,
        "megabytes_per_second_per_core": rate / prepared.processes,
        "megabytes": prepared.megabytes,
        "seconds": prepared.seconds,
        "processes": prepared.processes,
        "peak_memory_bytes": prepared.peak_memory_bytes,
        "instances": _INSTANCES.value,
        "rows": prepared.instances[0].num_records("train"),
    }


def _config() -> Any:
    from configs import bert

    return _CONFIG.value or bert.get_config("size=mini")


def _corpus_sections(config: ConfigDict) -> dict[str, Any]:
    return {key: value for key, value in config.to_dict().items() if key != "name"}


STAGES = {
    "train": measure_train,
    "finetune": measure_finetune,
    "elmo": measure_elmo,
    "lstm": measure_lstm,
    "input": measure_input,
    "prepare": measure_prepare,
}


def main(argv: list[str]) -> None:
    """Run the stage that the first argument names."""
    if len(argv) != 2:
        raise app.UsageError(f"got {argv[1:]}; name one stage: {', '.join(STAGES)}")
    try:
        stage = choose("stage", argv[1], STAGES)
        machine = {"python": platform.python_version(), "machine": platform.machine(), "num_cpus": os.cpu_count()}
        print(json.dumps({"stage": stage, **STAGES[stage](), **machine}))
    except (ValueError, FileNotFoundError) as error:
        print(f"benchmark: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
