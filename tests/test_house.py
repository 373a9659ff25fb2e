"""The house rules of the design: who imports whom, how long things are, what `import jaxlm` costs."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import jaxlm

ROOT = Path(jaxlm.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

LEAVES = {"atomic", "config", "overrides", "sharding", "errors", "frozen"}
BELOW = {*LEAVES, "ops", "layers", "models", "text", "data", "tasks", "training", "inference", "weights", "assembly", "pretrained"}
BELOW |= {"runs", "foreign"}  # the two kinds of checkpoints that pretrained joins
BELOW |= {"labelled", "feeding", "outputs", "evaluation", "finished", "studies", "uncertainty"}  # from sources to batches to metrics
BELOW |= {"checks"}  # of a run's options, before all of these
TOP = {"assembly", "checks", "pretrained", "evaluation", "outputs", "feeding", "labelled", "finished", "studies", "uncertainty"}
# A room (or a file beside the rooms) -> what it may import of jaxlm, besides itself.
MAY = {
    "errors": set(),
    "atomic": set(),
    "frozen": set(),
    "overrides": {"errors", "frozen"},
    "config": {"errors", "frozen", "overrides"},
    "sharding": {"errors"},
    "command": {"errors"},
    "ops": LEAVES,
    "layers": {*LEAVES, "ops"},
    "models": {*LEAVES, "ops", "layers"},
    "text": {*LEAVES, "weights"},  # the tokenizer inside a GGUF file
    "data": {*LEAVES, "text"},
    "weights": LEAVES,
    "tasks": {*LEAVES, "ops"},
    "training": {*LEAVES, "ops", "tasks"},
    "inference": {*LEAVES, "ops", "layers", "models", "data"},
    "serving": {*LEAVES, "inference"},
    "described": {*LEAVES, "data", "tasks"},
    "labelled": BELOW - TOP | {"described"},
    "feeding": BELOW - TOP | {"labelled"},
    "checks": BELOW - TOP | {"feeding"},
    "outputs": BELOW - TOP,
    "evaluation": BELOW - TOP | {"feeding", "outputs"},
    "uncertainty": {*BELOW, "explain"} - TOP | {"evaluation"},
    "averaging": BELOW - TOP | {"pretrained"},
    "finished": {*BELOW, "explain"} - {"assembly", "studies"},
    "calibrate": {*BELOW, "explain"} - {"assembly", "studies"},
    "studies": BELOW - {"assembly"},
    "assembly": BELOW - {"assembly", "evaluation", "finished", "studies", "uncertainty"},
    "pretrained": BELOW - {"assembly", "pretrained"},
    "runs": BELOW - {"assembly", "pretrained", "foreign"},
    "foreign": BELOW - {"assembly", "pretrained"},
    "default": {"config", "models"},
    "harness_model": BELOW,
    "explain": BELOW,
    "planning": BELOW,
    "benchmarks": {*BELOW, "planning", "command"},  # a side runs as a command does
    "__init__": set(),
}
# Library -> the only places that may import it.
ONLY = {
    "tensorflow": ("data.", "doctor"),
    "tensorflow_datasets": ("data.",),
    "orbax": ("training.checkpoint", "doctor"),
    "flax": ("layers.", "models."),
    "torch": ("benchmarks.",),
    "transformers": ("benchmarks.",),
    "matplotlib": ("explain.",),
    "apache_beam": ("data.beam",),
    "gensim": ("benchmarks.",),
    "lm_eval": ("harness",),
}
# Libraries that a module imports where it uses them, inside a function.
LATE = {
    *ONLY,
    "tokenizers",
    "sentencepiece",
    "rich",
    "sacrebleu",
    "msgpack",
    "safetensors",
    "tensorboardX",
    "wandb",
    "ftfy",
    "py3langid",
    "jinja2",
    "llguidance",
} - {
    "flax",
    "lm_eval",
}


def name_of(path):
    """ops/losses.py -> "ops.losses"; ops/__init__.py -> "ops.__init__"."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def room(name):
    return name.split(".")[0]


def imported(tree):
    """Full names of everything a syntax tree imports; `from jaxlm import x` is jaxlm.x."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def parse(path):
    return ast.parse(path.read_text())


TREES = {name_of(path): parse(path) for path in FILES}
COMMANDS = {name for name, path in zip(TREES, FILES, strict=True) if '__name__ == "__main__"' in path.read_text()}


def rooms_seen():
    """(module, room of jaxlm that it imports)."""
    for name, tree in TREES.items():
        for target in imported(tree):
            if target.startswith("jaxlm.") and room(target.removeprefix("jaxlm.")) != room(name):
                yield name, room(target.removeprefix("jaxlm."))


def test_every_room_is_known():
    assert {room(name) for name in TREES} - COMMANDS <= set(MAY), "a new room: say in MAY what it may import"
    assert "train" in COMMANDS and all("." not in name for name in COMMANDS)


def test_rooms_import_only_what_they_may():
    broken = {(name, seen) for name, seen in rooms_seen() if name not in COMMANDS and seen not in MAY[room(name)]}
    assert not broken


def test_nothing_imports_a_command():
    assert not {(name, seen) for name, seen in rooms_seen() if seen in COMMANDS}


@pytest.mark.parametrize("library", ONLY)
def test_libraries_stay_in_their_rooms(library):
    seen = {name for name, tree in TREES.items() if any(target.split(".")[0] == library for target in imported(tree))}
    assert all((name + ".").startswith(ONLY[library]) for name in seen), seen


def test_heavy_libraries_are_imported_late():
    for name, tree in TREES.items():
        early = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
        heavy = {target.split(".")[0] for target in imported(ast.Module(early, []))} & LATE
        assert not heavy, f"{name} imports {heavy} at its top"


def test_text_data_and_weights_know_no_model():
    assert not {(name, seen) for name, seen in rooms_seen() if room(name) in ("text", "data", "weights") and seen in ("models", "layers")}


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_and_functions_are_short_and_files_say_what_they_are(path):
    text = path.read_text()
    assert text.count("\n") <= (100 if name_of(path) in COMMANDS else 300)
    tree = TREES[name_of(path)]
    assert not text.strip() or ast.get_docstring(tree)
    functions = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    for node in functions:
        code = node.end_lineno - node.lineno + 1 - len((ast.get_docstring(node) or "").splitlines())
        assert code <= 50, f"{node.name} has {code} lines"
    public = [node for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")]
    assert [node.name for node in public if not ast.get_docstring(node) and not dataclass_of_the_config(path, node)] == []


def dataclass_of_the_config(path, node):
    """The groups of the configuration explain themselves key by key."""
    return path.name == "config.py" and isinstance(node, ast.ClassDef)


def test_functions_are_a_dozen_lines_at_the_median():
    lengths = [
        node.end_lineno - node.lineno + 1 - len((ast.get_docstring(node) or "").splitlines())
        for tree in TREES.values() for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)
    ]  # fmt: skip
    assert sorted(lengths)[len(lengths) // 2] <= 12


def test_no_drawers_for_everything_and_nothing_unfinished():
    assert not {path.stem for path in FILES} & {"utils", "util", "common", "base", "helpers", "misc"}
    words = re.compile(r"\bTODO\b|\bFIXME\b|NotImplementedError|class \w*(Manager|Handler|Factory)\b")
    assert [name_of(path) for path in FILES if words.search(path.read_text())] == []


def run_python(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


HEAVY = ("tensorflow", "torch", "transformers", "matplotlib", "orbax")


def test_importing_everything_is_light():
    """No heavy library and no device, even with every module of the package imported."""
    modules = ["jaxlm." + name.removesuffix(".__init__") for name in TREES if name != "__init__"]
    code = f"""
import importlib, sys
for name in {modules!r}:
    importlib.import_module(name)
print(*[name for name in {HEAVY!r} if name in sys.modules])
from jax._src import xla_bridge
print(*xla_bridge._backends)
"""
    assert run_python(code) == []


def test_importing_the_package_loads_nothing():
    unwanted = {"jax", "flax", "numpy", *HEAVY}
    assert run_python(f"import sys, jaxlm; print(*{unwanted!r} & set(sys.modules))") == []


def test_public_names_survive_the_commands():
    """A command's module would shadow a function of the same name, once imported."""
    commands = sorted(f"jaxlm.{name}" for name in COMMANDS)
    code = f"""
import importlib, jaxlm
for name in {commands!r}:
    importlib.import_module(name)
print(*[name for name in jaxlm.__all__ if not callable(getattr(jaxlm, name))])
"""
    assert run_python(code) == []
    assert not set(jaxlm.__all__) & {name.removesuffix(".__init__") for name in TREES}


def test_a_wrong_public_name_says_what_there_is():
    with pytest.raises(AttributeError, match="it has .*make_model"):
        jaxlm.make_modle  # noqa: B018
