"""Config files become frozen dataclasses at the door.

A config file (`configs/*.py`) returns an `ml_collections.ConfigDict` of plain values; each section is turned once
into the dataclass that its consumer defines (`build(BertConfig, config.model)`). Below `launch/` nobody sees a
ConfigDict. A key that no dataclass field answers to is an error that names the closest one.
"""

import dataclasses
import difflib
import hashlib
import json
import os
import re
import sys
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import ml_collections
from absl import flags

Config = TypeVar("Config")


def parse_flags(args: list[str], flag_values: flags.FlagValues | None = None) -> list[str]:
    """Parse a launcher's command line, for `app.run(main, flags_parser=parse_flags)`; a mistake is one line.

    Args:
        args: the program's name, and what was given to it.
        flag_values: that are parsed; None: those of this program.
    """
    launcher = os.path.basename(args[0]).removesuffix(".py")
    flag_values = flags.FLAGS if flag_values is None else flag_values
    try:
        rest = flag_values(args)
        getattr(getattr(flag_values, "config", None), "keys", None)  # an unreadable file is an error at its first use
        return rest
    except SystemExit:  # --help and the like, which absl ends with 1
        sys.exit(0)
    except (AttributeError, KeyError) as error:  # ml_collections' errors about --config.key, one in the other
        cause = error.args[0] if isinstance(error.args[0], KeyError) else error
        said = f"--config has no key {' '.join(str(cause.args[0]).split())}"
        sys.exit(f"{launcher}: {_missing_key(args, flag_values) or said}")
    except (flags.Error, OSError) as error:
        missing = re.search(r"No such file or directory: '([^']+)'", str(error))
        if missing:
            sys.exit(f"{launcher}: the config file {missing[1]} does not exist; they are in configs/")
        unset = re.search(r"Flag (--\w+) must have a value other than None", str(error))
        if unset:
            sys.exit(f"{launcher}: {unset[1]} is missing (--help lists the flags)")
        # A config file's own error comes as a whole traceback.
        raised = re.findall(r"^\s*\w*Error: (.+)$", str(error), re.MULTILINE)
        sys.exit(f"{launcher}: {raised[-1] if raised else error} (--help lists the flags)")


def parse_arg(arg: str | None, **defaults: bool | int | float | str) -> ml_collections.ConfigDict:
    """Parse the `size=base,phase=1` behind a config file's colon.

    Args:
        arg: comma-separated `name=value`; a bare `name` means `name=true` where the default is a bool. None or ""
            gives the defaults.
        **defaults: every accepted name with its default, whose type the value must have.

    Raises:
        ValueError: a name that is not accepted, or a value of another type.
    """
    values = dict(defaults)
    for item in filter(None, (arg or "").split(",")):
        name, equals, text = item.partition("=")
        if name not in defaults:
            raise ValueError(f"config argument {name!r} is unknown; accepted: {_closest_first(name, defaults)}")
        if not equals and isinstance(defaults[name], bool):
            text = "true"
        values[name] = _parse_value(name, text, type(defaults[name]))
    return ml_collections.ConfigDict(values)


def choose(name: str, value: str, choices: Iterable[str]) -> str:
    """Return `value` if it is one of `choices`, else raise a ValueError that lists them, the closest first."""
    choices = list(choices)
    if value not in choices:
        raise ValueError(f"{name} is {value!r}; accepted: {_closest_first(value, choices)}")
    return value


def first_names(names: Sequence[str], count: int = 5) -> str:
    """Return names for a message: the first `count`, and how many more there are."""
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more


def build(cls: type[Config], section: Mapping[str, Any] | ml_collections.ConfigDict, name: str = "config") -> Config:
    """Turn a config section into a frozen dataclass; nested dataclass fields are built likewise.

    Args:
        cls: a dataclass; fields without a default must be given.
        section: plain values. An int is accepted for a float, a list for a tuple.
        name: where the section stands (`config.model`), for messages.

    Raises:
        ValueError: an unknown or missing key, or a value of another type.
    """
    assert dataclasses.is_dataclass(cls)
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    values = section.to_dict() if isinstance(section, ml_collections.ConfigDict) else dict(section)
    for key in values:
        if key not in fields:
            raise ValueError(f"{name}.{key} is unknown; accepted: {_closest_first(key, fields)}")
    for key, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and key not in values:
            raise ValueError(f"{name}.{key} is missing; {cls.__name__} needs it")
    built = {key: _convert(value, hints[key], f"{name}.{key}") for key, value in values.items()}
    return typing.cast(Config, cls(**built))


def to_plain(config: Any) -> Any:
    """Return dataclasses and ConfigDicts as dicts, lists and scalars that `json` can write."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {field.name: to_plain(getattr(config, field.name)) for field in dataclasses.fields(config)}
    if isinstance(config, ml_collections.ConfigDict):
        config = config.to_dict()
    if isinstance(config, Mapping):
        return {str(key): to_plain(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [to_plain(value) for value in config]
    return config


def fingerprint(config: Any) -> str:
    """Return 8 hex digits that depend on the plain values of a config only, not on the order of its keys."""
    text = json.dumps(to_plain(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def differences(old: Any, new: Any, prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Return `{"optim.peak_lr": (old, new)}` for every leaf that differs between two plain configs."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return {} if old == new else {prefix: (old, new)}
    found: dict[str, tuple[Any, Any]] = {}
    for key in sorted(old.keys() | new.keys()):
        name = f"{prefix}.{key}" if prefix else key
        found.update(differences(old.get(key), new.get(key), name))
    return found


def _missing_key(args: list[str], flag_values: flags.FlagValues) -> str:
    """Say which --config.key of a command line its file lacks, and what stands there; "" if none is found."""
    files = [match[1] for argument in args if (match := re.match(r"--?config=(.+)", argument))]
    if not files:
        return ""
    config = flag_values["config"].parser.parse(files[-1])
    for match in filter(None, (re.match(r"--?config\.([\w.]+)", argument) for argument in args)):
        section, name = config, "config"
        for key in match[1].split("."):
            if not isinstance(section, ml_collections.ConfigDict):
                return f"{name} is a value, {section!r}; it has no key {key!r}"
            if key not in section:
                return f"{name} has no key {key!r}; accepted: {_closest_first(key, section)}"
            section, name = section[key], f"{name}.{key}"
    return ""


def _closest_first(name: str, names: Iterable[str]) -> str:
    names = list(names)
    closest = difflib.get_close_matches(name, names, n=1)
    text = ", ".join(names)
    return f"{text} (did you mean {closest[0]!r}?)" if closest else text


def _parse_value(name: str, text: str, kind: type) -> bool | int | float | str:
    if not text:
        raise ValueError(f"config argument {name} has no value; write {name}=VALUE")
    if kind is bool:
        if text.lower() not in ("true", "false", "1", "0"):
            raise ValueError(f"config argument {name}={text!r} is not a bool; use true or false")
        return text.lower() in ("true", "1")
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"config argument {name}={text!r} is not of type {kind.__name__}") from None


def _convert(value: Any, hint: Any, name: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _convert_section(value, hint, name)
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return _convert_union(value, typing.get_args(hint), name)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{name} is {value!r}; it takes a list")
        return tuple(_convert(item, typing.get_args(hint)[0], f"{name}[{i}]") for i, item in enumerate(value))
    if origin is dict:
        return dict(value)
    if hint is Any:
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ValueError(f"{name} is {value!r} of type {type(value).__name__}; it takes {hint.__name__}")
    return value


def _convert_section(value: Any, hint: Any, name: str) -> Any:
    if isinstance(value, hint):
        return value
    if not isinstance(value, (Mapping, ml_collections.ConfigDict)):
        raise ValueError(f"{name} is {value!r}; {hint.__name__} takes a section of keys")
    return build(hint, value, name)


def _convert_union(value: Any, members: tuple[Any, ...], name: str) -> Any:
    if value is None and type(None) in members:
        return None
    errors = []
    for member in members:
        if member is type(None):
            continue
        try:
            return _convert(value, member, name)
        except ValueError as error:
            errors.append(str(error))
    raise ValueError("; ".join(errors))
