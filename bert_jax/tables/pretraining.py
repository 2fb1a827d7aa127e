"""Units that pretrain BERT and that evaluate what came of it; checkpoints that are given in their place."""

import dataclasses
import functools
import shlex
from collections.abc import Mapping
from typing import Any, NamedTuple

from bert_jax.corpus.remote import as_path
from bert_jax.input.masking import MaskingConfig, predictions_wanted
from bert_jax.models.bert import VOCAB_SIZES, BertConfig, named_size
from bert_jax.tables.cost import pretraining_flops
from bert_jax.tables.unit import HERE, RUN, Unit


@dataclasses.dataclass(frozen=True)
class Pretraining:
    """How every model of a table is pretrained.

    Attributes:
        recipe, preset: of configs/bert.py.
        corpus: directory that `launch.prepare` made.
        instances: its set of rows, such as "nsp-128"; the number is their length.
        batch_size: rows a step.
        num_steps: updates.
        warmup_steps: of them.
        predictions: masked positions a row.
        vocab_size: word pieces that the cost is reckoned with where the corpus is not there yet.
        eval_rows: of the validation split, that the perplexity is of; 0 = all.
        instances_2: of a second phase of longer rows; "" = there is none.
        num_steps_2, warmup_steps_2, predictions_2: of that phase.
        seeds: pretrainings of each model; fine-tuning begins from the first.
        more: further flags of `launch.pretrain`, as in a shell.
    """

    recipe: str
    preset: str
    corpus: str
    instances: str
    batch_size: int
    num_steps: int
    warmup_steps: int
    predictions: int
    vocab_size: int = VOCAB_SIZES["uncased"]
    eval_rows: int = 0
    instances_2: str = ""
    num_steps_2: int = 0
    warmup_steps_2: int = 0
    predictions_2: int = 77
    seeds: int = 1
    more: str = ""

    def __post_init__(self) -> None:
        """Refuse what is no plan."""
        if self.seeds < 1:
            raise ValueError(f"config.pretraining.seeds is {self.seeds}; use 1 or more")
        for name in self.all_instances:
            row_length(name)

    def model(self, size: str) -> BertConfig:
        """Return a size's model with the corpus' vocabulary."""
        return BertConfig(**named_size(size), vocab_size=self._num_pieces)

    @functools.cached_property
    def _num_pieces(self) -> int:
        vocab = as_path(self.corpus) / "tokenizer" / "vocab.txt"
        return len(vocab.read_text(encoding="utf-8").split()) if vocab.exists() else self.vocab_size

    @property
    def all_instances(self) -> tuple[str, ...]:
        """The sets of rows of all phases."""
        return tuple(filter(None, (self.instances, self.instances_2)))

    @property
    def last_instances(self) -> str:
        """The set of rows of the last phase, the longest that are trained on."""
        return self.instances_2 or self.instances

    @property
    def tokens(self) -> float:
        """Positions that are trained on, both phases."""
        second = self.num_steps_2 * row_length(self.instances_2) if self.instances_2 else 0
        return float(self.batch_size * (self.num_steps * row_length(self.instances) + second))

    def flops(self, size: str) -> float:
        """Return the training FLOPs of a size, both phases."""
        return sum(unit.flops for unit in phases(self, size, size))


@dataclasses.dataclass(frozen=True)
class Model:
    """A checkpoint that units begin with.

    Attributes:
        name: of the row that it is for.
        address: for `--config.init_from`.
        needs: units that make it.
        given: whether it comes from elsewhere, so that how it was trained is not known.
    """

    name: str
    address: str
    needs: tuple[Unit, ...]
    given: bool = False


def pretrained(
    config: Pretraining, name: str, size: str, seed: int = 0, changes: Mapping[str, Any] | None = None
) -> Model:
    """Return the model of a run, with the units that make it.

    Args:
        config: how.
        name: of the row.
        size: "layers-hidden-heads".
        seed: of parameters, order and masks.
        changes: of the config, by dotted names.
    """
    units = phases(config, f"{name}-seed{seed}" if seed else name, size, seed, changes)
    return Model(f"{name}-seed{seed}" if seed else name, units[-1].run_address, (units[-1],))


def phases(
    config: Pretraining, name: str, size: str, seed: int = 0, changes: Mapping[str, Any] | None = None
) -> list[Unit]:
    """Return the one or two units of a pretraining; see `pretrained`."""
    first = Phase("", 1, config.instances, config.num_steps, config.warmup_steps, config.predictions)
    units = [_phase_unit(config, first, name, size, {"seed": seed} | dict(changes or {}))]
    if config.instances_2:
        ending = f"-{row_length(config.instances_2)}"
        second = Phase(ending, 2, config.instances_2, config.num_steps_2, config.warmup_steps_2, config.predictions_2)
        values = {"seed": seed, "init_from": units[0].run_address} | dict(changes or {})
        units.append(_phase_unit(config, second, name, size, values, tuple(units)))
    return units


class Phase(NamedTuple):
    """A phase of a pretraining: how its unit's name ends, its number, rows, steps, warm-up, masked positions a row."""

    ending: str
    number: int
    instances: str
    num_steps: int
    warmup_steps: int
    predictions: int


def _phase_unit(
    config: Pretraining, phase: Phase, name: str, size: str, changes: dict[str, Any], needs: tuple[Unit, ...] = ()
) -> Unit:
    length = row_length(phase.instances)
    masking = {name: changes[f"masking.{name}"] for name in ("unit", "masked_fraction") if f"masking.{name}" in changes}
    predictions = predictions_wanted(MaskingConfig(**masking), length) if masking else phase.predictions
    values: dict[str, Any] = {
        "data.corpus": config.corpus,
        "data.instances": phase.instances,
        "data.batch_size": config.batch_size,
        "masking.max_predictions_per_row": predictions,
        "train.num_steps": phase.num_steps,
        "optim.warmup_steps": phase.warmup_steps,
        "eval.max_rows": config.eval_rows,
    }
    arguments = (
        f"--config=configs/bert.py:size={size},phase={phase.number},recipe={config.recipe},preset={config.preset}",
        *(f"--config.{key}={value}" for key, value in (values | changes).items()),
        *shlex.split(config.more),  # last: of a flag that comes twice the last one counts
        f"--workdir={HERE}/{RUN}",
    )
    rows = float(config.batch_size * phase.num_steps)
    flops = pretraining_flops(config.model(size), length, predictions, rows)
    return Unit(f"pretrain-{name}{phase.ending}", "pretrain", arguments, needs, flops=flops)


def given(name: str, address: str) -> Model:
    """Return a checkpoint from elsewhere; one of another system is converted first, since a run can be evaluated."""
    if address.startswith(f"{RUN}:"):
        return Model(name, address, (), given=True)
    arguments = (f"--from={address}", f"--to=run:{HERE}/{RUN}")
    unit = Unit(f"convert-{name}", "convert", arguments, begins_anew=True)
    return Model(name, unit.run_address, (unit,), given=True)


def evaluation(config: Pretraining, model: Model) -> Unit:
    """Return the unit that prints a model's held-out perplexity; see `outcomes.evaluated`."""
    arguments = [f"--checkpoint={model.address}", f"--max_rows={config.eval_rows}"]
    if model.given:
        arguments += [f"--corpus={config.corpus}", f"--instances={config.last_instances}"]
    return Unit(f"perplexity-{model.name}", "evaluate", tuple(arguments), model.needs)


def row_length(instances: str) -> int:
    """Return the tokens of a row of an instance set, from its name.

    Raises:
        ValueError: the name is not PAIRS-LENGTH.
    """
    parts = instances.split("-")
    if len(parts) < 2 or not parts[1].isdecimal():
        raise ValueError(f"instance set {instances!r} is not PAIRS-LENGTH or PAIRS-LENGTH-packed, such as nsp-128")
    return int(parts[1])


def parse_pairs(text: str, name: str) -> dict[str, str]:
    """Return {"a": "b"} of "a=b,c=d".

    Raises:
        ValueError: an entry without "=".
    """
    pairs: dict[str, str] = {}
    for entry in filter(None, text.split(",")):
        key, equals, value = entry.partition("=")
        if not equals or not key or not value:
            raise ValueError(f"{name} is {text!r}; it takes NAME=VALUE, with commas between several")
        pairs[key] = value
    return pairs
