"""The rules that keep the data moving one way; docs/architecture.md gives their reasons."""

import ast
import graphlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = (
    "config", "corpus", "input", "models", "interop", "objectives", "training", "tasks", "inference", "reports",
    "tables", "tpu",
)  # fmt: skip
TREES = ("bert_jax", "configs", "launch", "tests")
SOURCES = sorted(path.relative_to(ROOT) for tree in TREES for path in (ROOT / tree).rglob("*.py"))
LIBRARY = [path for path in SOURCES if path.parts[0] == "bert_jax"]
LAUNCHERS = [path.stem for path in SOURCES if path.parent == Path("launch") and path.stem != "__init__"]

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60  # without its docstring
DEVICE_LIBRARIES = {"jax", "jaxlib", "flax", "optax", "orbax"}
FILE_LIBRARIES = {"os", "io", "pathlib", "shutil", "json", "etils", "grain", "array_record", "tensorflow_datasets"}


def imported_modules(path: Path) -> set[str]:
    """Return the dotted names that a file imports, inside functions too; `from a import b` gives a and a.b."""
    package = path.parent.parts
    names: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            names.add(module)
            names.update(f"{module}.{alias.name}" for alias in node.names)
    return names


def module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer(module: str) -> str | None:
    """Return the layer of `bert_jax.input.loader`: `input`; None outside the library."""
    parts = module.split(".")
    return parts[1] if parts[0] == "bert_jax" and len(parts) > 1 else None


def uses(path: Path, libraries: set[str]) -> set[str]:
    return {name for name in imported_modules(path) if name.split(".")[0] in libraries}


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Yield the name of every function of a file and its lines without the docstring."""
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno is not None
            lines = node.end_lineno - node.lineno + 1
            if ast.get_docstring(node) is not None:
                assert node.body[0].end_lineno is not None
                lines -= node.body[0].end_lineno - node.body[0].lineno + 1
            yield node.name, lines


def run_python(code: str, *arguments: str) -> list[str]:
    """Run code in a fresh interpreter at the repository's root and return the JSON list that it prints last."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("path", LIBRARY, ids=str)
def test_a_package_imports_only_packages_before_it(path: Path) -> None:
    own = layer(module_name(path))
    if own is None:  # bert_jax/__init__.py
        return
    assert own in LAYERS, f"{path} is in no layer; put it into one of {LAYERS}"
    others = {name: layer(name) for name in imported_modules(path)}
    back = {name for name, other in others.items() if other and LAYERS.index(other) > LAYERS.index(own)}
    assert not back, f"{path} ({own}) imports {sorted(back)}, which come after it in {' < '.join(LAYERS)}"


@pytest.mark.parametrize("path", [path for path in SOURCES if path.parts[0] in ("bert_jax", "configs")], ids=str)
def test_only_launchers_and_tests_import_launchers_and_tests(path: Path) -> None:
    forbidden = {"launch", "tests"} | ({"configs"} if path.parts[0] == "bert_jax" else set())
    assert not uses(path, forbidden)


def test_modules_form_no_cycle() -> None:
    modules = {module_name(path) for path in LIBRARY}
    graph = {module_name(path): (imported_modules(path) & modules) - {module_name(path)} for path in LIBRARY}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError with the cycle


@pytest.mark.parametrize("path", [path for path in LIBRARY if path.parts[1] in ("corpus", "reports")], ids=str)
def test_file_code_knows_no_devices(path: Path) -> None:
    assert not uses(path, DEVICE_LIBRARIES)


@pytest.mark.parametrize("path", [path for path in LIBRARY if path.parts[1] in ("models", "objectives")], ids=str)
def test_device_code_knows_no_files(path: Path) -> None:
    assert not uses(path, FILE_LIBRARIES)


@pytest.mark.parametrize("path", [path for path in SOURCES if path.parts[0] != "tests"], ids=str)
def test_flax_is_linen_in_the_models_and_one_sharding_file(path: Path) -> None:
    allowed = path.parts[:2] == ("bert_jax", "models") or path == Path("bert_jax/training/sharding.py")
    flax = uses(path, {"flax"})
    assert not {name for name in flax if name.startswith("flax.nnx")}
    if not allowed:
        assert not {name for name in flax if name.startswith("flax.linen")}


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_no_file_grows_into_two(path: Path) -> None:
    lines = len((ROOT / path).read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_FILE_LINES, f"{path} has {lines} lines, at most {MAX_FILE_LINES}: which two nouns is it about?"
    assert path.stem not in ("utils", "util", "helpers", "misc", "common_utils"), f"{path}: one noun a file"


@pytest.mark.parametrize("path", [path for path in SOURCES if path.parts[0] in ("bert_jax", "launch")], ids=str)
def test_no_function_grows_beyond_a_screen(path: Path) -> None:
    long = {name: lines for name, lines in functions(path) if lines > MAX_FUNCTION_LINES}
    assert not long, f"{path}: more than {MAX_FUNCTION_LINES} lines in {long}"


def test_directories_of_tests_mirror_the_packages() -> None:
    packages = {path.parts[1] for path in LIBRARY if len(path.parts) > 2} | {"configs", "launch"}
    directories = {path.parts[1] for path in SOURCES if path.parts[0] == "tests" and len(path.parts) > 2}
    of_the_whole = {"faults", "parity"}
    assert directories <= packages | of_the_whole


def test_no_large_file_is_tracked() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    sizes = {name: (ROOT / name).stat().st_size for name in listed.stdout.split("\0") if (ROOT / name).is_file()}
    assert sizes
    assert not {name: size for name, size in sizes.items() if size > 500_000}


def test_corpus_imports_without_jax() -> None:
    modules = [module_name(path) for path in LIBRARY if path.parts[1] == "corpus"]
    loaded = run_python(
        "import importlib, json, sys\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))",
        *modules,
    )
    assert not {"jax", "jaxlib", "flax", "tensorflow", "torch"} & set(loaded)


@pytest.mark.entry
@pytest.mark.parametrize("name", LAUNCHERS)
def test_launchers_answer_help_with_success_and_without_tensorflow(name: str) -> None:
    loaded = run_python(
        "import json, runpy, sys\n"
        "name = sys.argv[1]\n"
        "sys.argv = [name, '--help']\n"
        "try: runpy.run_module(name, run_name='__main__', alter_sys=True)\n"
        "except SystemExit as done: assert not done.code, done.code\n"
        "print()\n"
        "print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))",
        f"launch.{name}",
    )
    assert not {"tensorflow", "torch", "transformers"} & set(loaded)


def test_configs_are_plain_and_build() -> None:
    """Every `get_config` takes an argument string, and returns values that JSON can hold."""
    for path in SOURCES:
        if path.parts[0] != "configs" or path.stem in ("__init__", "finetuning", "presets"):
            continue
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert "get_config" in names, f"{path} has no get_config"
        config = run_python(
            "import importlib, json, sys\n"
            "from bert_jax.config import to_plain\n"
            "config = importlib.import_module(sys.argv[1]).get_config('')\n"
            "print(json.dumps([to_plain(config)]))",
            module_name(path),
        )
        assert config[0]
