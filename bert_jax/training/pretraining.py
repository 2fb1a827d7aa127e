"""Pretraining of BERT: a config and a corpus become a job; what does not fit is said here, before anything is written.

Also the evaluation of any checkpoint on any corpus, which builds the same parts.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from etils import epath
from jax.sharding import Mesh

from bert_jax.config import build, fingerprint, to_plain
from bert_jax.corpus.vocabulary import WordPiece
from bert_jax.input.loader import DataConfig, InstanceSet, evaluation_batches, open_instances, train_batches
from bert_jax.input.masking import NEXT, MaskingConfig, predictions_wanted
from bert_jax.input.placement import local_rows
from bert_jax.models.bert import BertConfig
from bert_jax.objectives.masked_lm import MaskedLmObjective
from bert_jax.training import checkpoint, evaluation, sharding, throughput
from bert_jax.training.evaluation import EvalConfig, UnigramBaseline
from bert_jax.training.loop import TrainConfig
from bert_jax.training.mesh import MeshConfig, check_batch_size, make_mesh
from bert_jax.training.optimizers import OptimizerConfig, check_warmup
from bert_jax.training.run import HostBatches, Job


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """Which tasks to train.

    Attributes:
        next_sentence: whether the model has the sentence-pair task; the instance set must have pairs then.
        next_sentence_weight: of its loss in the sum, more than 0; the paper adds the two, 1.
    """

    next_sentence: bool = True
    next_sentence_weight: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a weight that trains nothing."""
        if not self.next_sentence_weight > 0:
            raise ValueError(
                f"config.objective.next_sentence_weight is {self.next_sentence_weight}; use more than 0, or "
                "config.objective.next_sentence=False to leave the task out"
            )


@dataclasses.dataclass(frozen=True)
class PretrainConfig:
    """The sections of configs/bert.py.

    Attributes:
        seed: of parameters, data order, masks and dropout.
        init_from: address of a checkpoint whose parameters to start from; "" = none.
        family: whose config it is; the launchers dispatch on it.
        model: with the corpus tokenizer's vocab_size.
        objective, data, masking, optim, train, eval, mesh: see their classes.
    """

    seed: int
    init_from: str
    model: BertConfig
    objective: ObjectiveConfig
    data: DataConfig
    masking: MaskingConfig
    optim: OptimizerConfig
    train: TrainConfig
    eval: EvalConfig
    mesh: MeshConfig
    family: str = "bert"


def build_config(section: Any) -> PretrainConfig:
    """Turn configs/bert.py's values into dataclasses; a vocabulary size of 0 becomes the corpus'.

    Raises:
        ValueError: an unknown key, a value out of range, or a vocabulary that is not the corpus'.
        FileNotFoundError: the corpus has no tokenizer.
    """
    values = to_plain(section)
    corpus = build(DataConfig, values["data"], "config.data").corpus
    corpus_size = load_tokenizer(corpus).vocab_size
    given = values["model"].get("vocab_size", 0)
    if given not in (0, corpus_size):
        raise ValueError(
            f"config.model.vocab_size is {given}, but the tokenizer of {corpus} has {corpus_size} word "
            "pieces; use 0 to take the corpus', or prepare the corpus with the vocab.txt of that model"
        )
    return build(PretrainConfig, values | {"model": values["model"] | {"vocab_size": corpus_size}})


def load_tokenizer(corpus: str) -> WordPiece:
    """Load the tokenizer of a corpus (or of a run's directory).

    Raises:
        FileNotFoundError: there is none.
    """
    directory = epath.Path(corpus) / "tokenizer"
    if not (directory / "vocab.txt").exists():
        raise FileNotFoundError(
            f"{directory}/vocab.txt does not exist: {corpus!r} is not a prepared corpus; "
            "run `python -m launch.prepare --config=configs/corpus.py:…`, or set config.data.corpus"
        )
    return WordPiece.load(directory)


def make_job(config: PretrainConfig) -> Job:
    """Open the corpus, check that everything fits, and return what `run` takes.

    Raises:
        ValueError, FileNotFoundError: what does not fit, and what to change.
    """
    model = config.model
    check_warmup(config.optim, config.train.num_steps)
    mesh = make_mesh(config.mesh)
    check_batch_size("config.data.batch_size", config.data.batch_size, mesh, config.train.microbatches)
    check_batch_size("config.eval.batch_size", config.eval.batch_size, mesh)
    instances = open_instances(config.data.corpus, config.data.instances, "train")
    check_instances(instances, model, config.objective.next_sentence, config.masking)
    objective = MaskedLmObjective(model, config.objective.next_sentence, config.objective.next_sentence_weight)
    rows = local_rows(config.data.batch_size, mesh)
    record_format = instances.manifest.record_format
    predictions = record_format.max_predictions_per_sequence or config.masking.max_predictions_per_row
    evaluate, notes = None, ()
    if instances.manifest.num_records("validation"):
        validation = open_instances(config.data.corpus, config.data.instances, "validation")
        evaluate = make_evaluate(objective, validation, config.eval, config.masking, config.seed, mesh)
    else:
        notes = (f"no evaluation: {config.data.corpus} has no validation rows; launch.evaluate takes another --corpus",)
    return Job(
        config=config,
        objective=objective,
        optim=config.optim,
        train=config.train,
        eval_every_steps=config.eval.every_steps,
        batch_size=config.data.batch_size,
        seed=config.seed,
        init_from=config.init_from,
        may_miss=("heads", "pooler"),  # an encoder without heads, or trained without NSP, may be trained on
        mesh=mesh,
        batches=lambda first: train_batches(instances, config.data, config.masking, config.seed, first, rows),
        evaluate=evaluate,
        data_fingerprint=fingerprint([shard.sha256 for shard in instances.manifest.splits["train"]]),
        row=throughput.bert_row_flops(model, record_format.sequence_length, predictions),
        tokenizer=epath.Path(config.data.corpus) / "tokenizer",
        facts={"instances": instances.manifest.name, "corpus_fingerprint": instances.manifest.config_fingerprint},
        notes=notes,
    )


def make_evaluate(
    objective: MaskedLmObjective,
    validation: InstanceSet,
    config: EvalConfig,
    masking: MaskingConfig,
    seed: int,
    mesh: Mesh,
) -> Callable[..., dict[str, float] | None]:
    """Return the evaluation on the validation split; see `evaluation.make_evaluate`."""
    rows = local_rows(config.batch_size, mesh)

    def batches() -> HostBatches:
        return evaluation_batches(validation, config.batch_size, masking, seed, rows, config.max_rows or None)

    baseline = UnigramBaseline.load(validation.directory)
    return evaluation.make_evaluate(objective, baseline, batches, config.batch_size, mesh)


def check_instances(instances: InstanceSet, model: BertConfig, next_sentence: bool, masking: MaskingConfig) -> None:
    """Hold an instance set against the model and the masking.

    Raises:
        ValueError: rows that are too long, another vocabulary, no sentence pairs, or masks that cannot be drawn.
    """
    manifest, record_format = instances.manifest, instances.manifest.record_format
    name = f"instance set {manifest.name!r}"
    if record_format.vocab_size != model.vocab_size:
        raise ValueError(
            f"{name} was made with {record_format.vocab_size} word pieces, config.model.vocab_size is "
            f"{model.vocab_size}; prepare the corpus again, or use the model of its vocabulary"
        )
    if record_format.sequence_length > model.max_position_embeddings:
        raise ValueError(
            f"{name} has rows of {record_format.sequence_length} tokens, config.model.max_position_embeddings is "
            f"{model.max_position_embeddings}; use shorter rows or more positions"
        )
    if masking.unit == NEXT and manifest.masking == "static":
        raise ValueError(f"{name} has stored masks, so config.masking.unit='next' has no effect; use an online set")
    if masking.unit == NEXT and not model.causal:
        raise ValueError(
            "config.masking.unit is 'next', but config.model.causal is false: a model that sees both sides would see "
            "what it is to predict; set config.model.causal=true"
        )
    if next_sentence and manifest.pairs == "none":
        raise ValueError(
            f"{name} has no sentence pairs, but config.objective.next_sentence is true; set it to false, or use an "
            "instance set such as nsp-128"
        )
    if manifest.masking == "online":
        wanted = predictions_wanted(masking, record_format.sequence_length)
        if wanted > masking.max_predictions_per_row:
            share = "the next of" if masking.unit == NEXT else f"masked_fraction {masking.masked_fraction} of"
            raise ValueError(
                f"config.masking: {share} {record_format.sequence_length} tokens are {wanted} predictions a row, more "
                f"than max_predictions_per_row {masking.max_predictions_per_row}; set that to {wanted} or more, or "
                "mask less"
            )


def evaluate_checkpoint(address: str, corpus: str, config: EvalConfig, instances: str = "") -> dict[str, Any]:
    """Return the `eval/` row of a checkpoint on the validation split of a corpus.

    Args:
        address: `run:DIR[@step|@best]`.
        corpus: directory; "" = the one the run was trained on.
        config: how much; every_steps is not used.
        instances: name of the instance set; "" = the run's.

    Raises:
        ValueError, FileNotFoundError: the corpus does not fit the checkpoint.
    """
    found = checkpoint.resolve(address)
    run_config = build(PretrainConfig, checkpoint.load_config(found))
    corpus = corpus or run_config.data.corpus
    model = dataclasses.replace(run_config.model, attention="xla")  # runs everywhere
    masking = run_config.masking
    mesh = make_mesh(MeshConfig())
    check_batch_size("--batch_size", config.batch_size, mesh)
    validation = open_instances(corpus, instances or run_config.data.instances, "validation")
    next_sentence = run_config.objective.next_sentence
    # Rows may be longer than the run's, and then hold more masks.
    wanted = predictions_wanted(masking, validation.manifest.record_format.sequence_length)
    masking = dataclasses.replace(masking, max_predictions_per_row=max(masking.max_predictions_per_row, wanted))
    check_instances(validation, model, next_sentence and validation.manifest.pairs != "none", masking)
    trained_on, corpus_vocab = load_tokenizer(str(found.workdir)).vocab, load_tokenizer(corpus).vocab
    if trained_on != corpus_vocab:
        raise ValueError(
            f"the corpus {corpus} was tokenized with another vocabulary than the checkpoint {address}; prepare it "
            f"with {found.workdir}/tokenizer/vocab.txt"
        )
    objective = MaskedLmObjective(model, next_sentence)
    params = checkpoint.load_params(found, sharding.replicated(mesh))
    row = make_evaluate(objective, validation, config, masking, run_config.seed, mesh)(params)
    assert row is not None, "nothing breaks it off"
    return {
        "checkpoint": address,
        "step": found.step,
        "corpus": corpus,
        "instances": validation.manifest.name,
        "rows": min(config.max_rows or len(validation), len(validation)),
        **row,
    }
