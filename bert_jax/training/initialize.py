"""Where a run starts, decided in one place and in one order.

A checkpoint in the workdir → resume everything; else `init_from` → its parameters only; else from scratch.
"""

import dataclasses
from typing import Any

import jax
import optax
from etils import epath
from jax.sharding import Mesh

from bert_jax.corpus.vocabulary import WordPiece
from bert_jax.interop import name_map
from bert_jax.interop.weights import check_finite
from bert_jax.training import addresses, checkpoint, elmo_addresses, sharding
from bert_jax.training.checkpoint import Address, Checkpoints, DamagedCheckpointError
from bert_jax.training.optimizers import parameter_name
from bert_jax.training.state import Objective, TrainState, make_state, state_shardings


@dataclasses.dataclass(frozen=True)
class Start:
    """Where a run starts.

    Attributes:
        state: placed on the mesh.
        step: updates already done.
        meta: the checkpoint's, empty unless resumed.
        description: for the user.
    """

    state: TrainState
    step: int
    meta: dict[str, Any]
    description: str

    @property
    def evaluation_pending(self) -> bool:
        """Whether the checkpoint was saved in a hurry, before the evaluation that was due."""
        return bool(self.meta.get("evaluation_pending"))


@dataclasses.dataclass(frozen=True)
class Source:
    """What a run may start from.

    Attributes:
        init_from: address of a checkpoint, "" for none.
        may_miss: first names of parameters that `init_from` need not have, such as ("heads",).
        tokenizer: directory with the vocabulary that `init_from` must have; None = there is none.
        seed: of new parameters.
        batch_size: global rows, of a new carry.
        data_fingerprint: of the training data; a checkpoint of other data is not resumed.
        leave_out: modules of `init_from` that are not taken, such as ("heads/classifier",) of another task.
        params: of `init_from`, where they were read before, with their vocabulary; None: they are read here.
        fall_back: where the newest checkpoint is damaged, resume from the newest one that is not.
    """

    init_from: str
    may_miss: tuple[str, ...]
    tokenizer: epath.Path | None
    seed: int
    batch_size: int
    data_fingerprint: str
    leave_out: tuple[str, ...] = ()
    params: Any = None
    fall_back: bool = False


def initialize(
    objective: Objective,
    optimizer: optax.GradientTransformationExtraArgs,
    abstract: TrainState,
    checkpoints: Checkpoints,
    source: Source,
    mesh: Mesh,
) -> Start:
    """Return the state to start with; see the module's first lines for the order.

    Raises:
        DamagedCheckpointError: the newest checkpoint in the workdir is damaged, and falling back is not wanted or there
            is no other.
        CheckpointError: it is whole as far as is known, but out of reach, or of another model; never fallen back from.
        ValueError: the checkpoint in the workdir is of other data, or `init_from` has another vocabulary or parameters
            that do not fit the model.
    """
    notes = list[str]()
    while (step := checkpoints.latest_step()) is not None:
        try:
            return _resume(step, abstract, checkpoints, source, notes)
        except DamagedCheckpointError as error:
            if not source.fall_back or checkpoints.step_before(step) is None:
                raise
            where = checkpoints.set_aside(step)
            if jax.process_count() > 1:  # it may be whole to the others, who wait for this process
                raise DamagedCheckpointError(f"{error}; it was set aside: run the same command again") from error
            whither = f"was set aside as {where}" if where else "is deleted at the next start"
            notes.append(f"step {step:,} is damaged and {whither}: {error}")
    loaded = _load(source)
    state = _scratch(objective, optimizer, abstract, source, mesh)
    if not source.init_from:
        return Start(state, 0, {}, f"starting from scratch with seed {source.seed}")
    loaded = without_modules(loaded, source.leave_out)
    wanted = {parameter_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(abstract.params)}
    check_finite(f"init_from {source.init_from}", {name: loaded[name] for name in wanted & loaded.keys()})
    params, merged = merge_params(state.params, loaded, source.init_from, source.may_miss)
    state = dataclasses.replace(state, params=jax.device_put(params, state_shardings(abstract.params)))
    return Start(state, 0, {}, "\n".join([f"starting from the parameters of {source.init_from}", *merged]))


def _resume(step: int, abstract: TrainState, checkpoints: Checkpoints, source: Source, notes: list[str]) -> Start:
    trained_on = checkpoints.read_meta(step).get("data_fingerprint")
    if trained_on != source.data_fingerprint:
        raise ValueError(
            f"the checkpoint of step {step} was trained on other data (fingerprint {trained_on}, this one "
            f"{source.data_fingerprint}); resume on the data that the run began with, or use another --workdir"
        )
    state, meta = checkpoints.restore(step, abstract)
    return Start(state, step, meta, "\n".join([*notes, f"resuming after step {step:,}"]))


def without_modules(loaded: Any, modules: tuple[str, ...]) -> dict[str, Any]:
    """Return parameters by their names, without those of some modules."""
    named = {parameter_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(loaded)}
    return {name: leaf for name, leaf in named.items() if not name.startswith(tuple(f"{m}/" for m in modules))}


def check_vocabulary(address: str, found: Address, tokenizer: epath.Path | None) -> None:
    """Refuse parameters of another vocabulary, whose size may well be the same.

    Args:
        address: for messages.
        found: what it names; a directory without a vocab.txt is not held against anything.
        tokenizer: directory of the training data's; None or one without a vocab.txt likewise.

    Raises:
        ValueError: the two differ.
    """
    theirs = found.workdir / "tokenizer" / "vocab.txt"
    if tokenizer is None or not theirs.exists() or not (tokenizer / "vocab.txt").exists():
        return
    if theirs.read_text(encoding="utf-8").split() != (tokenizer / "vocab.txt").read_text(encoding="utf-8").split():
        raise ValueError(
            f"init_from {address} was trained with another vocabulary than that of {tokenizer}; prepare the corpus "
            f"with {theirs}, or begin without init_from"
        )


def _load(source: Source) -> Any:
    """Return the parameters of `init_from`, if it has the vocabulary of the training data; None for no `init_from`."""
    if not source.init_from or source.params is not None:
        return source.params
    if checkpoint.split(source.init_from)[0] == checkpoint.RUN:
        found = checkpoint.resolve(source.init_from)
        check_vocabulary(source.init_from, found, source.tokenizer)
        return checkpoint.load_params(found)
    if elmo_addresses.is_elmo(source.init_from):
        return {elmo_addresses.MODEL: elmo_addresses.load(source.init_from).params}  # which reads any word
    weights, _ = addresses.load(source.init_from)
    tokenizer = source.tokenizer
    if tokenizer is None or not (tokenizer / "vocab.txt").exists():
        return name_map.nest(weights.params)
    if weights.tokenizer.vocab != WordPiece.load(tokenizer).vocab:
        raise ValueError(
            f"init_from {source.init_from} was trained with another vocabulary than that of {tokenizer}; "
            "prepare the corpus with its vocab.txt, or begin without init_from"
        )
    return name_map.nest(weights.params)


def merge_params(fresh: Any, loaded: Any, address: str, may_miss: tuple[str, ...] = ()) -> tuple[Any, list[str]]:
    """Return the loaded parameters in the model's tree, fresh ones where they may miss, and what to tell.

    Args:
        fresh: the model's parameters.
        loaded: what the checkpoint has.
        address: for messages.
        may_miss: first names of parameters that need not be in the checkpoint.

    Raises:
        ValueError: other parameters are missing, or shapes differ; all of them are named.
    """
    wanted = {parameter_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(fresh)}
    found = {parameter_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(loaded)}
    missing = sorted(wanted.keys() - found.keys())
    extra = sorted(found.keys() - wanted.keys())
    refused = [f"{name} is missing" for name in missing if name.split("/")[0] not in may_miss]
    refused += [
        f"{name} has shape {found[name].shape}, the model's is {wanted[name].shape}"
        for name in sorted(wanted.keys() & found.keys())
        if found[name].shape != wanted[name].shape
    ]
    if refused:
        raise ValueError(
            f"init_from {address} does not fit the model:\n  " + "\n  ".join(refused) + "\nGive config.model the sizes "
            "of that checkpoint (its run's config.json has them), or another checkpoint"
        )
    notes = [f"  new, not in the checkpoint: {', '.join(missing)}"] if missing else []
    notes += [f"  in the checkpoint, not used: {', '.join(extra)}"] if extra else []

    def pick(path: Any, leaf: Any) -> Any:
        return found.get(parameter_name(path), leaf)

    return jax.tree_util.tree_map_with_path(pick, fresh), notes


def _scratch(
    objective: Objective,
    optimizer: optax.GradientTransformationExtraArgs,
    abstract: TrainState,
    source: Source,
    mesh: Mesh,
) -> TrainState:
    """Make each device's part of the state on that device."""

    def make() -> TrainState:
        return make_state(objective.init(source.seed), optimizer, objective.init_carry(source.batch_size))

    with sharding.on_mesh(mesh):
        return jax.jit(make, out_shardings=state_shardings(abstract))()
