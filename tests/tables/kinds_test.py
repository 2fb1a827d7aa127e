import importlib

import pytest

from bert_jax.tables.kinds import make_plan, make_table
from configs.tables.presets import PRESETS

TABLES = ("ablations", "feature_layers", "masking", "model_size", "small_berts")


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", TABLES)
def test_every_flag_of_a_plan_is_a_key_of_its_config(name, preset, tmp_path):
    values = importlib.import_module(f"configs.tables.{name}").get_config(f"preset={preset}")
    if name == "feature_layers":
        values.checkpoint = values.checkpoint or "hf:DIR"
    for unit in make_plan(make_table(values), tmp_path).units:
        flags = dict(flag.removeprefix("--").split("=", 1) for flag in unit.arguments)
        if "config" not in flags:
            continue
        file, _, argument = flags.pop("config").partition(":")
        config = importlib.import_module(file.removesuffix(".py").replace("/", ".")).get_config(argument)
        for flag in flags:
            place, _, key = flag.removeprefix("config.").rpartition(".")
            section = config
            for part in filter(None, place.split(".")):
                section = section[part]
            assert not flag.startswith("config.") or key in section.keys(), f"{unit.name}: --{flag}"  # noqa: SIM118
