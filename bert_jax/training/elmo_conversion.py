"""ELMo's checkpoints from one form to another: a directory of options.json and weights.hdf5, or a run.

What a file of released weights has no place for, the softmax, is left out when one is written and begins anew in a
training that starts from one.
"""

from pathlib import Path

import jax

from bert_jax.config import to_plain
from bert_jax.corpus.remote import AnyPath, as_path
from bert_jax.corpus.word_vocabulary import WordVocabulary
from bert_jax.input.loader import DataConfig
from bert_jax.interop import allennlp, name_map
from bert_jax.interop.allennlp import ElmoWeights
from bert_jax.interop.parity_report import ParityReport
from bert_jax.interop.weights import check_finite
from bert_jax.objectives.bidirectional_lm import BidirectionalLmConfig
from bert_jax.training import checkpoint
from bert_jax.training.elmo_addresses import MODEL, SCHEME, is_elmo, load
from bert_jax.training.elmo_pretraining import ElmoPretrainConfig
from bert_jax.training.evaluation import EvalConfig
from bert_jax.training.loop import TrainConfig
from bert_jax.training.mesh import MeshConfig
from bert_jax.training.optimizers import OptimizerConfig
from bert_jax.training.workdir import Workdir, describe_environment


def convert(source: str, target: str) -> tuple[ParityReport, ParityReport]:
    """Convert a checkpoint; see `conversion.convert`.

    Args:
        source: address of an ELMo.
        target: `run:DIR` or `elmo:DIR`, a directory that holds nothing yet.

    Returns:
        What became of what was read, and of what was written.

    Raises:
        ValueError: not an ELMo, not a target, or numbers that are not finite.
        FileNotFoundError, FileExistsError: the source is not there; something is at the target.
    """
    scheme, place = checkpoint.split(target)
    if scheme not in (SCHEME, checkpoint.RUN):
        raise ValueError(f"--to is {target!r}; an ELMo is written to elmo:DIR or run:DIR")
    if not is_elmo(source):
        raise ValueError(f"{source} is not an ELMo; elmo:DIR or a run of configs/elmo.py goes to elmo:DIR")
    weights, directory = load(source), as_path(place)
    if directory.exists() and any(directory.iterdir()):
        raise FileExistsError(f"{directory} is not empty; give another directory, or remove it")
    check_finite(source, name_map.flatten(weights.params))
    num_parameters = sum(leaf.size for leaf in jax.tree.leaves(weights.params))
    read = ParityReport((), (), weights.unread, (f"{num_parameters:,} numbers of {source}",))
    if scheme == SCHEME:
        allennlp.write(Path(place), weights.config, weights.params)
        _copy_vocabulary(source, Path(place))
        return read, ParityReport((), (), (), (f"wrote {target}",))
    _write_run(weights, directory, source)
    return read, ParityReport((), (), (), (f"wrote {target}; --config.init_from={target} starts from it",))


def _copy_vocabulary(source: str, directory: Path) -> None:
    """Put the words that a run predicts beside the files, as bilm-tf's releases have them; released ones have none."""
    scheme, _ = checkpoint.split(source)
    tokenizer = checkpoint.resolve(source).workdir / "tokenizer" if scheme == checkpoint.RUN else None
    if tokenizer is not None and tokenizer.exists():
        words = WordVocabulary.load(tokenizer).words
        text = "".join(f"{word}\n" for word in words)
        (directory / "vocab.txt").write_text(text, encoding="utf-8", newline="\n")


def _write_run(weights: ElmoWeights, directory: AnyPath, source: str) -> None:
    """Write a run's directory with parameters alone, at step 0: to begin from, never to resume."""
    workdir = Workdir(directory)
    try:
        config = ElmoPretrainConfig(
            seed=0,
            init_from="",
            model=weights.config,
            objective=BidirectionalLmConfig(vocab_size=0, num_negatives=0),
            data=DataConfig(corpus="", instances="", batch_size=32),
            optim=OptimizerConfig(),
            train=TrainConfig(num_steps=1),
            eval=EvalConfig(every_steps=0, max_rows=0, batch_size=32),
            mesh=MeshConfig(),
        )
        total = sum(leaf.size for leaf in jax.tree.leaves(weights.params))
        workdir.write_json("config.json", to_plain(config))
        facts = {"parameters": {"total": total, "embedding": 0}, "converted_from": source}
        workdir.write_json("run.json", {**facts, **describe_environment()})
        checkpoint.save_params(directory, {MODEL: weights.params})
    finally:
        workdir.close()
