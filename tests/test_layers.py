"""Imports follow the data and never turn back; files stay readable."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path("samscale")
LAYERS = [
    {"named"},
    {"cached", "errors", "file_names", "keys", "kernels", "labels", "laws", "shipped"},
    {"knobs"},
    {"config"},
    {"data", "losses", "models", "sharpness", "pruning", "optimizers", "own_task"},
    {"tasks", "flatness"},
    {"training"},
    {"study"},
    {"cli", "studies", "templates"},
    {"__main__"},
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


def box(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path):
    """The boxes that a file imports from, its own left out."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "samscale":
            names = node.module.split(".")[1:2] or [alias.name for alias in node.names]
            yield from (name for name in names if name not in (box(path), "__version__"))


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_module_imports_only_from_layers_below(path):
    assert all(RANK[name] < RANK[box(path)] for name in imported(path)), list(imported(path))


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_module_holds_one_idea_of_bounded_length(path):
    assert len(path.read_text().splitlines()) <= 400


def test_the_sharpness_aware_gradient_stands_alone():
    for path in (ROOT / "sharpness").rglob("*.py"):
        assert list(imported(path)) == []
        assert "flax" not in path.read_text()


def test_only_models_know_flax_modules():
    allowed = {"models", "training"}  # training: flax.serialization, for checkpoints
    for path in FILES:
        if box(path) not in allowed:
            assert "import flax" not in path.read_text(), path
            assert "from flax" not in path.read_text(), path
