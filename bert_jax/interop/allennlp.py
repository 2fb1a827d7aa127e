"""ELMo's released files: options.json and weights.hdf5, as bilm-tf writes and AllenNLP reads them.

Source: allenai/bilm-tf `training.py` (dump_weights), `model.py`; AllenNLP's `_ElmoBiLm`, whose files are the same.
The characters' table has 261 rows in every file: 256 bytes and five marks. bilm-tf's training writes `n_characters` 261
beside it; to apply the model users had to change that to 262 by hand, because every id is then one more and 0 is the
mask. Here both are read, the model has 262 with a row of zeros in front, and what is written says 262.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from bert_jax.interop.checkpoint_files import read_json, reading
from bert_jax.models.elmo import ElmoConfig
from bert_jax.models.lstm import DIRECTIONS, GATES

OPTIONS_FILE, WEIGHTS_FILE = "options.json", "weights.hdf5"
_CELL = "RNN_{direction}/RNN/MultiRNNCell/Cell{layer}/LSTMCell"


class ElmoWeights(NamedTuple):
    """A model as files hold it.

    Attributes:
        config: its sizes; how to compute is left at its defaults.
        params: of `models.elmo.Elmo`, numpy float32.
        unread: datasets of the file that this model has no place for (a softmax, say).
    """

    config: ElmoConfig
    params: dict[str, Any]
    unread: tuple[str, ...] = ()


def read(directory: str | os.PathLike[str]) -> ElmoWeights:
    """Read the only `*options.json` and `*weights.hdf5` of a directory.

    Raises:
        FileNotFoundError: none of them, or several.
        ValueError: a damaged file, not a character model, or weights of other shapes than the options say.
    """
    options_path = _only(Path(directory), f"*{OPTIONS_FILE}")
    weights_path = _only(Path(directory), f"*{WEIGHTS_FILE}")
    with reading(weights_path, OSError), h5py.File(weights_path, "r") as file:
        on_disk = {name: np.asarray(dataset, np.float32) for name, dataset in _datasets(file)}
    if "char_embed" not in on_disk:
        raise ValueError(f"{weights_path} has no char_embed: it is no character model, and no other can be read")
    config = config_from_options(read_json(options_path), len(on_disk["char_embed"]), str(options_path))
    wanted = _shapes(config)
    missing = sorted(wanted.keys() - on_disk.keys())
    wrong = [
        f"{name} is {on_disk[name].shape} and should be {shape}"
        for name, shape in wanted.items()
        if name in on_disk and on_disk[name].shape != shape
    ]
    if missing or wrong:
        problems = ", ".join([*(f"{name} is missing" for name in missing), *wrong])
        raise ValueError(f"{weights_path} is not the model that {options_path} describes: {problems}")
    return ElmoWeights(config, _to_ours(config, on_disk), tuple(sorted(on_disk.keys() - wanted.keys())))


def write(directory: str | os.PathLike[str], config: ElmoConfig, params: dict[str, Any]) -> None:
    """Write options.json and weights.hdf5; `read` gives the same bits back.

    The mask's row, which nothing reads, is left out.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    unfinished = directory / f"{WEIGHTS_FILE}.unfinished"
    shapes = _shapes(config)
    with h5py.File(unfinished, "w") as file:
        for name, values in _to_theirs(config, params).items():
            assert values.shape == shapes[name], (name, values.shape)
            file.create_dataset(name, data=values)
    (directory / OPTIONS_FILE).write_text(json.dumps(options_of(config), indent=2) + "\n", encoding="utf-8")
    unfinished.replace(directory / WEIGHTS_FILE)


def config_from_options(options: dict[str, Any], table_rows: int, source: str) -> ElmoConfig:
    """Return the config that options.json describes.

    Args:
        options: its content, of training or application.
        table_rows: of the characters' table on disk, which has no row for the mask.
        source: its name, for messages.

    Raises:
        ValueError: a section or key is missing, or n_characters does not fit the table.
    """
    try:
        lstm, cnn = options["lstm"], options["char_cnn"]
        named = cnn["n_characters"]
        if named not in (table_rows, table_rows + 1):
            raise ValueError(
                f"{source}: n_characters is {named} and the table has {table_rows} rows; {table_rows} (as training "
                f"writes) and {table_rows + 1} (with the mask) are accepted"
            )
        return ElmoConfig(
            dim=lstm["dim"],
            projection_dim=lstm["projection_dim"],
            n_layers=lstm["n_layers"],
            cell_clip=float(lstm.get("cell_clip") or 0.0),
            proj_clip=float(lstm.get("proj_clip") or 0.0),
            use_skip_connections=bool(lstm.get("use_skip_connections", False)),
            dropout=float(options.get("dropout", 0.1)),
            n_characters=table_rows + 1,
            max_characters_per_token=cnn.get("max_characters_per_token", 50),
            character_dim=cnn["embedding"]["dim"],
            filters=tuple((width, count) for width, count in cnn["filters"]),
            n_highway=cnn.get("n_highway") or 0,
            activation=cnn["activation"],
        )
    except KeyError as error:
        raise ValueError(
            f"{source} lacks {error}; a character model has the sections lstm (dim, projection_dim, n_layers) and "
            "char_cnn (embedding, filters, activation, n_characters)"
        ) from None


def options_of(config: ElmoConfig) -> dict[str, Any]:
    """Return what options.json says of a config, in the form for applying the model."""
    return {
        "lstm": {
            "use_skip_connections": config.use_skip_connections,
            "projection_dim": config.projection_dim,
            "cell_clip": config.cell_clip or None,
            "proj_clip": config.proj_clip or None,
            "dim": config.dim,
            "n_layers": config.n_layers,
        },
        "char_cnn": {
            "activation": config.activation,
            "filters": [list(pair) for pair in config.filters],
            "n_highway": config.n_highway,
            "embedding": {"dim": config.character_dim},
            "n_characters": config.n_characters,
            "max_characters_per_token": config.max_characters_per_token,
        },
        "dropout": config.dropout,
    }


def _character_names(config: ElmoConfig) -> Iterator[tuple[str, tuple[str, ...], tuple[int, ...]]]:
    """Yield the character encoder's datasets, their places in our tree, and their shapes on disk."""
    for index, (width, count) in enumerate(config.filters):
        yield f"CNN/W_cnn_{index}", (f"filter_{index}_kernel",), (1, width, config.character_dim, count)
        yield f"CNN/b_cnn_{index}", (f"filter_{index}_bias",), (count,)
    size = config.num_filters
    for index in range(config.n_highway):
        for part in ("carry", "transform"):
            yield f"CNN_high_{index}/W_{part}", (f"highway_{index}", part, "kernel"), (size, size)
            yield f"CNN_high_{index}/b_{part}", (f"highway_{index}", part, "bias"), (size,)
    if size != config.projection_dim:
        yield "CNN_proj/W_proj", ("projection", "kernel"), (size, config.projection_dim)
        yield "CNN_proj/b_proj", ("projection", "bias"), (config.projection_dim,)


def _cells(config: ElmoConfig) -> Iterator[tuple[tuple[int, int], str]]:
    """Yield our index (layer, direction) and the group's name of every LSTM."""
    for layer in range(config.n_layers):
        for direction in range(DIRECTIONS):
            yield (layer, direction), _CELL.format(direction=direction, layer=layer)


def _shapes(config: ElmoConfig) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"char_embed": (config.n_characters - 1, config.character_dim)}
    shapes |= {name: shape for name, _, shape in _character_names(config)}
    size, cells = config.projection_dim, config.dim
    for _, cell in _cells(config):
        shapes |= {f"{cell}/W_0": (2 * size, GATES * cells), f"{cell}/B": (GATES * cells,)}
        shapes[f"{cell}/W_P_0"] = (cells, size)
    return shapes


def _to_ours(config: ElmoConfig, on_disk: dict[str, np.ndarray]) -> dict[str, Any]:
    cnn: dict[str, Any] = {"embedding": np.pad(on_disk["char_embed"], ((1, 0), (0, 0)))}
    for name, path, shape in _character_names(config):
        node = cnn
        for part in path[:-1]:
            node = node.setdefault(part, {})
        node[path[-1]] = on_disk[name].reshape(shape[1:] if len(shape) == 4 else shape)
    size, cells = config.projection_dim, config.dim
    stacked = (config.n_layers, DIRECTIONS)
    lstms = {
        "input_kernel": np.empty((*stacked, size, GATES, cells), np.float32),
        "hidden_kernel": np.empty((*stacked, size, GATES, cells), np.float32),
        "bias": np.empty((*stacked, GATES, cells), np.float32),
        "projection": np.empty((*stacked, cells, size), np.float32),
    }
    for index, cell in _cells(config):
        kernel = on_disk[f"{cell}/W_0"].reshape(2, size, GATES, cells)  # inputs above hidden states
        lstms["input_kernel"][index], lstms["hidden_kernel"][index] = kernel
        lstms["bias"][index] = on_disk[f"{cell}/B"].reshape(GATES, cells)
        lstms["projection"][index] = on_disk[f"{cell}/W_P_0"]
    return {"character_cnn": cnn, "lstms": lstms}


def _to_theirs(config: ElmoConfig, params: dict[str, Any]) -> dict[str, np.ndarray]:
    cnn, lstms = params["character_cnn"], params["lstms"]
    found = {"char_embed": np.asarray(cnn["embedding"], np.float32)[1:]}
    for name, path, shape in _character_names(config):
        node = cnn
        for part in path:
            node = node[part]
        found[name] = np.asarray(node, np.float32).reshape(shape)
    lstms = {name: np.asarray(values, np.float32) for name, values in lstms.items()}
    for index, cell in _cells(config):
        halves = lstms["input_kernel"][index], lstms["hidden_kernel"][index]
        found[f"{cell}/W_0"] = np.concatenate(halves).reshape(2 * config.projection_dim, -1)
        found[f"{cell}/B"] = lstms["bias"][index].ravel()
        found[f"{cell}/W_P_0"] = lstms["projection"][index]
    return found


def _datasets(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, item in group.items():
        if isinstance(item, h5py.Group):
            yield from _datasets(item, f"{prefix}{name}/")
        else:
            yield prefix + name, item


def _only(directory: Path, pattern: str) -> Path:
    found = sorted(directory.glob(pattern))
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise FileNotFoundError(
            f"{directory} holds {names} that match {pattern}; an ELMo directory has one *{OPTIONS_FILE} and one "
            f"*{WEIGHTS_FILE}"
        )
    return found[0]
