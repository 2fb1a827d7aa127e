"""Checkpoints from one system to another: an address in, a directory out, and what became of every tensor."""

import math
from pathlib import Path
from typing import Any, NamedTuple

from bert_jax.config import to_plain
from bert_jax.corpus.remote import AnyPath, as_path
from bert_jax.input.loader import DataConfig
from bert_jax.input.masking import MaskingConfig
from bert_jax.interop import comparison, huggingface, name_map
from bert_jax.interop.comparison import Comparison
from bert_jax.interop.parity_report import ParityReport
from bert_jax.interop.weights import Beside, Weights, check_finite
from bert_jax.training import addresses, checkpoint, elmo_addresses, elmo_conversion
from bert_jax.training.evaluation import EvalConfig
from bert_jax.training.loop import TrainConfig
from bert_jax.training.mesh import MeshConfig
from bert_jax.training.optimizers import OptimizerConfig
from bert_jax.training.pretraining import ObjectiveConfig, PretrainConfig
from bert_jax.training.workdir import Workdir, describe_environment


class Conversion(NamedTuple):
    """A conversion that was done.

    Attributes:
        read: what became of the tensors that were read.
        written: and of the parameters that were written; as `read` where a run was written, which takes all.
        comparison: of both sides' outputs; None unless asked for.
    """

    read: ParityReport
    written: ParityReport
    comparison: Comparison | None

    def lines(self) -> list[str]:
        """Return it for people."""
        reports = [report for report in (self.read, self.written) if report.matches or report.notes]
        lines = [line for report in reports for line in (report.lines() if report.matches else report.notes)]
        lines += [f"left out: {name}" for report in reports if not report.matches for name in report.extra]
        return lines + (self.comparison.lines() if self.comparison else [])


def convert(source: str, target: str, beside: Beside | None = None, check: bool = False) -> Conversion:
    """Convert a checkpoint.

    Args:
        source: address of a checkpoint.
        target: `run:DIR`, or `hf:DIR` for a BERT, or `elmo:DIR` for an ELMo; a directory that holds nothing yet.
        beside: files to read in place of those beside the source.
        check: whether to compare the outputs with those of transformers; source or target is `hf:` then.

    Raises:
        ValueError: not addresses, not a BERT, numbers that are not finite, or nothing to compare with.
        FileNotFoundError, FileExistsError: the source is not there; the target is.
    """
    from_scheme, from_place = checkpoint.split(source)
    scheme, place = checkpoint.split(target)
    if scheme == elmo_addresses.SCHEME or elmo_addresses.is_elmo(source):
        if check or (beside or Beside()) != Beside():
            raise ValueError(f"{source} to {target}: --check, --vocab and the like are for BERT")
        return Conversion(*elmo_conversion.convert(source, target), None)
    if scheme not in (checkpoint.RUN, "hf"):
        raise ValueError(f"--to is {target!r}; run:DIR, hf:DIR and elmo:DIR are written")
    if check and "hf" not in (scheme, from_scheme):
        raise ValueError("--check compares with transformers, so --from or --to must be hf:")
    if check:
        comparison.require_transformers()
    weights, read = addresses.load(source, beside)
    check_finite(source, weights.params)
    if scheme == checkpoint.RUN:
        write_run(weights, as_path(place), {"converted_from": source})
        written = ParityReport((), (), (), (f"wrote {target}; --config.init_from={target} starts from it",))
    else:
        written = huggingface.write(weights, Path(place))
    compared = None
    if check:
        directory = Path(place) if scheme == "hf" else huggingface.locate(from_place)
        compared = comparison.compare(addresses.load(target)[0] if scheme == checkpoint.RUN else weights, directory)
    return Conversion(read, written, compared)


def write_run(weights: Weights, directory: AnyPath, facts: dict[str, Any]) -> None:
    """Write a run's directory with parameters alone, at step 0: to begin from, never to resume.

    Raises:
        FileExistsError: something is there.
    """
    if directory.exists() and any(directory.iterdir()):
        raise FileExistsError(f"{directory} is not empty; give another directory, or remove it")
    workdir = Workdir(directory)
    try:
        weights.tokenizer.save(directory / "tokenizer")
        sizes = {name: math.prod(values.shape) for name, values in weights.params.items()}
        embedding = sum(size for name, size in sizes.items() if name.startswith("embeddings/"))
        head = {"head": weights.task_head} if weights.task_head else {}
        labels = {"labels": list(weights.labels)} if weights.labels else {}
        workdir.write_json("config.json", to_plain(_config(weights)))
        parameters = {"total": sum(sizes.values()), "embedding": embedding}
        workdir.write_json("run.json", {"parameters": parameters, **describe_environment(), **facts, **head, **labels})
        checkpoint.save_params(directory, name_map.nest(weights.params))
    finally:
        workdir.close()


def _config(weights: Weights) -> PretrainConfig:
    """Return a run's config whose model and objective are the checkpoint's.

    How it was trained is not known. The other sections are there for the tools that read a run's config; a corpus
    is to be named to them.
    """
    return PretrainConfig(
        seed=0,
        init_from="",
        model=weights.config,
        objective=ObjectiveConfig(next_sentence=weights.has("heads/next_sentence")),
        data=DataConfig(corpus="", instances="", batch_size=32),
        masking=MaskingConfig(),
        optim=OptimizerConfig(),
        train=TrainConfig(num_steps=1),
        eval=EvalConfig(every_steps=0, max_rows=0, batch_size=32),
        mesh=MeshConfig(),
    )
