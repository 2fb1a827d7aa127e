"""Pretraining of ELMo: a config and a corpus' word stream become a job; what does not fit is said here.

Also the evaluation of a checkpoint on any corpus.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from etils import epath
from jax.sharding import Mesh

from bert_jax.config import build, fingerprint, to_plain
from bert_jax.corpus.ngrams import kneser_ney_perplexity
from bert_jax.corpus.word_vocabulary import WordVocabulary
from bert_jax.input.instances import WindowSet, open_windows
from bert_jax.input.loader import DataConfig
from bert_jax.input.placement import local_rows, num_row_shards
from bert_jax.input.streams import RowGroups, evaluation_stream, forward_targets, train_stream
from bert_jax.models.elmo import ElmoConfig
from bert_jax.objectives.bidirectional_lm import BidirectionalLmConfig, BidirectionalLmObjective
from bert_jax.training import checkpoint, evaluation, sharding, throughput
from bert_jax.training.elmo_addresses import FAMILY
from bert_jax.training.evaluation import EvalConfig, UnigramBaseline
from bert_jax.training.loop import TrainConfig
from bert_jax.training.mesh import MeshConfig, check_batch_size, make_mesh
from bert_jax.training.optimizers import OptimizerConfig, check_warmup
from bert_jax.training.run import HostBatches, Job


@dataclasses.dataclass(frozen=True)
class ElmoPretrainConfig:
    """The sections of configs/elmo.py.

    Attributes:
        seed: of parameters, data order, dropout and negatives.
        init_from: address of a checkpoint whose parameters to start from; "" = none.
        objective: with the vocabulary size of the instance set.
        family: whose config it is; the launchers dispatch on it.
        model, data, optim, train, eval, mesh: see their classes.
    """

    seed: int
    init_from: str
    model: ElmoConfig
    objective: BidirectionalLmConfig
    data: DataConfig
    optim: OptimizerConfig
    train: TrainConfig
    eval: EvalConfig
    mesh: MeshConfig
    family: str = FAMILY


def build_config(section: Any) -> ElmoPretrainConfig:
    """Turn configs/elmo.py's values into dataclasses; a vocabulary size of 0 becomes the instance set's.

    Raises:
        ValueError: an unknown key, a value out of range, or a vocabulary that is not the instance set's.
        FileNotFoundError: there is no such set.
    """
    values = to_plain(section)
    data = build(DataConfig, values["data"], "config.data")
    size = open_windows(data.corpus, data.instances, "train").manifest.vocab_size
    given = values["objective"].get("vocab_size", 0)
    if given not in (0, size):
        raise ValueError(
            f"config.objective.vocab_size is {given}, but {data.instances} of {data.corpus} has {size} words; use 0 to "
            "take that, or another set"
        )
    return build(ElmoPretrainConfig, values | {"objective": values["objective"] | {"vocab_size": size}})


def tokenizer_directory(windows: WindowSet) -> epath.Path:
    """Return where a set of windows has its vocabulary."""
    return epath.Path(windows.directory / "tokenizer")


def make_job(config: ElmoPretrainConfig) -> Job:
    """Open the stream, check that everything fits, and return what `run` takes.

    Raises:
        ValueError, FileNotFoundError: what does not fit, and what to change.
    """
    check_warmup(config.optim, config.train.num_steps)
    mesh = make_mesh(config.mesh)
    microbatches, batch_size = config.train.microbatches, config.data.batch_size
    check_batch_size("config.data.batch_size", batch_size, mesh, microbatches)
    check_batch_size("config.eval.batch_size", config.eval.batch_size, mesh)
    windows = open_windows(config.data.corpus, config.data.instances, "train")
    vocabulary = WordVocabulary.load(tokenizer_directory(windows))
    check_windows(windows, vocabulary, config.model)
    objective = BidirectionalLmObjective(config.model, config.objective)
    rows, groups = local_rows(batch_size, mesh), RowGroups(num_row_shards(mesh), microbatches)
    train_stream(windows, vocabulary, config.data, config.seed, 0, rows, groups).close()  # refuses what is too short
    evaluate_params, notes = None, ()
    if windows.manifest.num_records("validation"):
        validation = open_windows(config.data.corpus, config.data.instances, "validation")
        evaluate_params = make_evaluate(objective, validation, vocabulary, config.eval, mesh)
    else:
        notes = (f"no evaluation: {config.data.corpus} has no validation text; launch.evaluate takes another --corpus",)
    softmax_words = config.objective.num_negatives + 1 if config.objective.num_negatives else vocabulary.vocab_size
    return Job(
        config=config,
        objective=objective,
        optim=config.optim,
        train=config.train,
        eval_every_steps=config.eval.every_steps,
        batch_size=batch_size,
        seed=config.seed,
        init_from=config.init_from,
        may_miss=("softmax",),  # released files have none
        mesh=mesh,
        batches=lambda first: train_stream(windows, vocabulary, config.data, config.seed, first, rows, groups),
        evaluate=evaluate_params,
        data_fingerprint=fingerprint([shard.sha256 for shard in windows.manifest.splits["train"]]),
        row=throughput.elmo_row_flops(config.model, windows.manifest.words_per_window, softmax_words),
        tokenizer=tokenizer_directory(windows),
        facts={"instances": windows.manifest.name, "corpus_fingerprint": windows.manifest.config_fingerprint},
        notes=notes,
    )


def make_evaluate(
    objective: BidirectionalLmObjective,
    validation: WindowSet,
    vocabulary: WordVocabulary,
    config: EvalConfig,
    mesh: Mesh,
) -> Callable[..., dict[str, float] | None]:
    """Return the evaluation on the validation split; see `evaluation.make_evaluate`."""
    rows, groups = local_rows(config.batch_size, mesh), RowGroups(num_row_shards(mesh))

    def batches() -> HostBatches:
        return evaluation_stream(validation, vocabulary, config.batch_size, rows, groups, config.max_rows or None)

    baseline = UnigramBaseline.load(validation.directory, "target_ids", "target_weights")
    return evaluation.make_evaluate(objective, baseline, batches, config.batch_size, mesh)


def check_windows(windows: WindowSet, vocabulary: WordVocabulary, model: ElmoConfig) -> None:
    """Hold a set of windows against the model.

    Raises:
        ValueError: words of another length in characters, or a vocabulary of another size than the manifest's.
    """
    longest = vocabulary.settings.max_characters_per_token
    if longest != model.max_characters_per_token:
        raise ValueError(
            f"{windows.directory}/tokenizer spells words with {longest} characters, "
            f"config.model.max_characters_per_token is {model.max_characters_per_token}; use {longest}"
        )
    if vocabulary.vocab_size != windows.manifest.vocab_size:
        raise ValueError(
            f"{windows.directory}/tokenizer has {vocabulary.vocab_size} words, the manifest beside it says "
            f"{windows.manifest.vocab_size}; remove {windows.directory} and prepare the corpus again"
        )


def evaluate_checkpoint(address: str, corpus: str, config: EvalConfig, instances: str = "") -> dict[str, Any]:
    """Return the `eval/` row of a checkpoint on the validation split of a corpus, over the whole vocabulary.

    Args:
        address: `run:DIR[@step|@best]`.
        corpus: directory; "" = the one the run was trained on.
        config: how much, in windows; batch_size is the number of lanes, each begun without state; every_steps is not
            used.
        instances: name of the set of windows; "" = the run's.

    Raises:
        ValueError, FileNotFoundError: the corpus does not fit the checkpoint.
    """
    found = checkpoint.resolve(address)
    run_config = build(ElmoPretrainConfig, checkpoint.load_config(found))
    corpus = corpus or run_config.data.corpus
    mesh = make_mesh(MeshConfig())
    check_batch_size("--batch_size", config.batch_size, mesh)
    validation = open_windows(corpus, instances or run_config.data.instances, "validation")
    vocabulary = WordVocabulary.load(tokenizer_directory(validation))
    check_windows(validation, vocabulary, run_config.model)
    if WordVocabulary.load(found.workdir / "tokenizer").words != vocabulary.words:
        raise ValueError(
            f"{validation.directory} predicts other words than the checkpoint {address}: a perplexity is of one "
            f"vocabulary; evaluate on a corpus whose set has that of {found.workdir}/tokenizer"
        )
    objective = BidirectionalLmObjective(run_config.model, run_config.objective)
    params = checkpoint.load_params(found, sharding.replicated(mesh))
    row = make_evaluate(objective, validation, vocabulary, config, mesh)(params)
    assert row is not None, "nothing breaks it off"
    return {
        "checkpoint": address,
        "step": found.step,
        "corpus": corpus,
        "instances": validation.manifest.name,
        "windows": min(config.max_rows or len(validation), len(validation)),
        **row,
    }


def evaluate_ngrams(
    corpus: str, instances: str, orders: Sequence[int], max_rows: int = 0, max_train_rows: int = 0
) -> dict[str, float]:
    """Return the perplexity of word n-grams on what the forward direction predicts of the validation split.

    Args:
        corpus: directory.
        instances: name of its set of windows.
        orders: 2 for bigrams, 5 for 5-grams.
        max_rows: only the first windows of the validation split; 0 = all.
        max_train_rows: windows of the train split that are counted, likewise; 0 = all.
    """
    windows = open_windows(corpus, instances, "train")
    vocabulary = WordVocabulary.load(tokenizer_directory(windows))
    train = forward_targets(windows, vocabulary, max_train_rows or None)
    held_out = forward_targets(open_windows(corpus, instances, "validation"), vocabulary, max_rows or None)
    return {
        f"eval/{order}gram_perplexity": kneser_ney_perplexity(train, held_out, order, vocabulary.vocab_size)
        for order in orders
    }
