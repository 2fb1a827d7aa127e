import dataclasses

import ml_collections
import pytest
from absl import flags
from ml_collections import config_flags

from bert_jax import config as config_lib


@dataclasses.dataclass(frozen=True)
class Inner:
    width: int
    rate: float = 0.1
    kinds: tuple[str, ...] = ("a",)


@dataclasses.dataclass(frozen=True)
class Outer:
    inner: Inner
    name: str = "x"
    limit: int | None = None
    on: bool = True


def test_parse_arg_gives_the_defaults_their_types():
    parsed = config_lib.parse_arg("size=large,phase=2,rate=1e-3,smoke", size="base", phase=1, rate=0.5, smoke=False)
    assert parsed.to_dict() == {"size": "large", "phase": 2, "rate": 1e-3, "smoke": True}


@pytest.mark.parametrize("arg", [None, "", ","])
def test_parse_arg_of_nothing_gives_the_defaults(arg):
    assert config_lib.parse_arg(arg, size="base").to_dict() == {"size": "base"}


def test_parse_arg_keeps_equal_signs_of_a_value():
    assert config_lib.parse_arg("path=a=b", path="").path == "a=b"


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("FALSE", False), ("True", True), ("1", True), ("0", False)]
)
def test_parse_arg_reads_bools(text, value):
    assert config_lib.parse_arg(f"smoke={text}", smoke=not value).smoke is value


@pytest.mark.parametrize(
    ("arg", "message"),
    [
        ("sise=base", r"'sise' is unknown; accepted: size, phase, smoke \(did you mean 'size'\?\)"),
        ("phase=two", "phase='two' is not of type int"),
        ("smoke=maybe", "not a bool; use true or false"),
        ("size", "size has no value; write size=VALUE"),
        ("size=", "size has no value; write size=VALUE"),
        ("phase", "phase has no value"),
    ],
)
def test_parse_arg_refuses_and_says_what_it_takes(arg, message):
    with pytest.raises(ValueError, match=message):
        config_lib.parse_arg(arg, size="base", phase=1, smoke=False)


@pytest.mark.parametrize(
    ("count", "said"), [(1, "n0"), (5, "n0, n1, n2, n3, n4"), (7, "n0, n1, n2, n3, n4 and 2 more")]
)
def test_first_names_counts_those_it_leaves_out(count, said):
    assert config_lib.first_names([f"n{number}" for number in range(count)]) == said


def test_choose_lists_the_choices_and_the_closest():
    assert config_lib.choose("size", "mini", ["tiny", "mini"]) == "mini"
    with pytest.raises(ValueError, match=r"size is 'minni'; accepted: tiny, mini \(did you mean 'mini'\?\)"):
        config_lib.choose("size", "minni", ["tiny", "mini"])


def test_build_converts_what_a_config_file_can_write():
    section = ml_collections.ConfigDict({"inner": {"width": 3, "rate": 1, "kinds": ["b", "c"]}, "limit": 5})
    built = config_lib.build(Outer, section)
    assert built == Outer(Inner(3, 1.0, ("b", "c")), limit=5)
    assert isinstance(built.inner.rate, float)


def test_build_keeps_a_section_that_is_built_already():
    inner = Inner(7)
    assert config_lib.build(Outer, {"inner": inner, "limit": None}).inner is inner


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"inner": {"width": 1, "widht": 2}}, r"config\.inner\.widht is unknown.*did you mean 'width'"),
        ({"inner": {}}, r"config\.inner\.width is missing; Inner needs it"),
        ({}, r"config\.inner is missing"),
        ({"inner": 3}, r"config\.inner is 3; Inner takes a section of keys"),
        ({"inner": {"width": "3"}}, r"config\.inner\.width is '3' of type str; it takes int"),
        ({"inner": {"width": True}}, r"config\.inner\.width is True of type bool; it takes int"),
        ({"inner": {"width": 1.5}}, r"config\.inner\.width is 1\.5 of type float; it takes int"),
        ({"inner": {"width": 1, "rate": False}}, r"config\.inner\.rate is False of type bool; it takes float"),
        ({"inner": {"width": 1, "kinds": "ab"}}, r"config\.inner\.kinds is 'ab'; it takes a list"),
        ({"inner": {"width": 1, "kinds": [1]}}, r"config\.inner\.kinds\[0\] is 1 of type int; it takes str"),
        ({"inner": {"width": 1}, "limit": "no"}, r"config\.limit is 'no' of type str; it takes int"),
        ({"inner": {"width": 1}, "on": 1}, r"config\.on is 1 of type int; it takes bool"),
    ],
)
def test_build_names_the_key_that_is_wrong(section, message):
    with pytest.raises(ValueError, match=message):
        config_lib.build(Outer, section)


def test_to_plain_and_build_are_inverse():
    outer = Outer(Inner(3, 0.5, ("b",)), "y", None, False)
    plain = config_lib.to_plain(outer)
    assert plain == {
        "inner": {"width": 3, "rate": 0.5, "kinds": ["b"]},
        "name": "y",
        "limit": None,
        "on": False,
    }
    assert config_lib.build(Outer, plain) == outer


def test_to_plain_resolves_references():
    config = ml_collections.ConfigDict({"a": 1})
    config.b = config.get_ref("a") * 2
    assert config_lib.to_plain(config) == {"a": 1, "b": 2}


def test_fingerprint_ignores_the_order_of_keys_only():
    assert config_lib.fingerprint({"a": 1, "b": (2,)}) == config_lib.fingerprint({"b": [2], "a": 1})
    assert config_lib.fingerprint({"a": 1}) != config_lib.fingerprint({"a": 2})
    assert config_lib.fingerprint({"a": 1}) != config_lib.fingerprint({"b": 1})


def test_fingerprint_is_the_same_in_every_process():
    # Run ids are built from it: a new value would start other directories. Update only with that in mind.
    assert config_lib.fingerprint({"size": "base", "phase": 1}) == "a8627e62"


def test_differences_name_every_leaf():
    old = {"optim": {"rate": 1.0, "steps": 5}, "seed": 0, "gone": 1}
    new = {"optim": {"rate": 2.0, "steps": 5}, "seed": 0, "added": [1]}
    assert config_lib.differences(old, new) == {
        "added": (None, [1]),
        "gone": (1, None),
        "optim.rate": (1.0, 2.0),
    }
    assert config_lib.differences(old, old) == {}


def test_differences_show_a_section_that_became_a_value():
    assert config_lib.differences({"a": {"b": 1}}, {"a": 3}) == {"a": ({"b": 1}, 3)}


@pytest.fixture
def config_flag(tmp_path):
    """A --config flag of this test alone, and a file for it."""
    found, flag_values = tmp_path / "mine.py", flags.FlagValues()
    found.write_text(
        "import ml_collections\n"
        "def get_config(arg=''):\n"
        "    if arg:\n        raise ValueError(f'size is {arg!r}; accepted: base')\n"
        "    return ml_collections.ConfigDict({'optim': {'beta1': 0.9}})\n"
    )
    config_flags.DEFINE_config_file("config", None, "", flag_values=flag_values)
    return found, flag_values


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config={file}:mni"], "launcher: size is 'mni'; accepted: base (--help lists the flags)"),
        (
            ["--config={file}", "--config.optim.beta=1"],
            "launcher: config.optim has no key 'beta'; accepted: beta1 (did you mean 'beta1'?)",
        ),
        (["--config={file}", "--config.train.steps=1"], "launcher: config has no key 'train'; accepted: optim"),
        (
            ["--config={file}", "--config.optim.beta1.x=1"],
            "launcher: config.optim.beta1 is a value, 0.9; it has no key 'x'",
        ),
        (["--config={file}x.py"], "launcher: the config file {file}x.py does not exist; they are in configs/"),
        (["--cnfig=x"], "launcher: Unknown command line flag 'cnfig'"),
    ],
)
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # ml_collections 1.1 (2026-11)
def test_a_mistake_on_the_command_line_is_one_line(config_flag, monkeypatch, arguments, message):
    file, flag_values = config_flag
    monkeypatch.setattr(config_lib.flags, "FLAGS", flag_values)
    command = ["launcher.py", *(argument.format(file=file) for argument in arguments)]
    monkeypatch.setattr("sys.argv", command)  # where ml_collections finds the overrides
    with pytest.raises(SystemExit) as left:
        config_lib.parse_flags(command)
    assert str(left.value).startswith(message.format(file=file))
    assert "\n" not in str(left.value)


def test_a_flag_that_must_be_given_is_named(config_flag, monkeypatch):
    _, flag_values = config_flag
    flags.DEFINE_string("from", None, "", flag_values=flag_values)
    flags.mark_flag_as_required("from", flag_values)
    monkeypatch.setattr(config_lib.flags, "FLAGS", flag_values)
    with pytest.raises(SystemExit, match=r"^launcher: --from is missing \(--help lists the flags\)$"):
        config_lib.parse_flags(["launcher.py"])
