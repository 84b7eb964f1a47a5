"""Imports go one way: who may know whom."""

import ast
import graphlib
import sys

import pytest
from helpers.places import ROOT

CONTRACT, CLIENT, GATEWAY, SERVING, EXPORT, DEMO = (
    "medimageparse_contract",
    "medimageparse_client",
    "medimageparse_gateway",
    "medimageparse_serving",
    "medimageparse",
    "medimageparse_demo",
)
# folder -> the packages of ours that it may import
MAY_IMPORT = {
    f"contract/{CONTRACT}": {CONTRACT},
    f"serving/{SERVING}": {SERVING, CONTRACT},
    "model_repository": {SERVING, CONTRACT},
    f"client/{CLIENT}": {CLIENT, CONTRACT},
    f"gateway/{GATEWAY}": {GATEWAY, CLIENT, CONTRACT},
    f"export/{EXPORT}": {EXPORT, SERVING, CONTRACT},
    f"demo/{DEMO}": {DEMO, EXPORT, SERVING, CLIENT, CONTRACT},
}
OURS = {CONTRACT, CLIENT, GATEWAY, SERVING, EXPORT, DEMO}


def imports_of(file):
    """The first names of all that a source file imports."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name.split(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_a_room_imports_only_what_lies_below_it(folder):
    files = list((ROOT / folder).rglob("*.py"))
    assert files
    for file in files:
        assert set(imports_of(file)) & OURS <= MAY_IMPORT[folder], file


def modules_that(file, modules):
    """The modules among `modules` that a source file imports, anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        names = [name.name for name in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module, *(f"{node.module}.{name}" for name in names)]
        yield from modules.keys() & set(names)


@pytest.mark.parametrize("folder", [folder for folder in MAY_IMPORT if folder != "model_repository"])
def test_no_modules_import_each_other_in_a_circle(folder):
    """Imports within a function and those for types count too; an `__init__` stands for nothing but itself."""
    root = ROOT / folder
    modules = {
        ".".join(file.relative_to(root.parent).with_suffix("").parts): file
        for file in root.rglob("*.py")
        if file.name != "__init__.py"
    }
    assert modules
    graph = {name: set(modules_that(file, modules)) - {name} for name, file in modules.items()}
    assert list(graphlib.TopologicalSorter(graph).static_order())


@pytest.mark.parametrize(
    "folder", ["contract", "serving", "model_repository", "client", "gateway", "export", "benchmarks", "tests"]
)
def test_nothing_edits_the_path_of_imports(folder):
    for file in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            targets = getattr(node, "targets", [getattr(node, "target", None), getattr(node, "func", None)])
            edited = [ast.unparse(target) for target in targets if target is not None]
            assert not [words for words in edited if words.startswith("sys.path")], file


def test_the_contract_needs_nothing():
    for file in (ROOT / "contract").rglob("*.py"):
        assert set(imports_of(file)) <= {*sys.stdlib_module_names, CONTRACT}, file


def test_the_serving_package_needs_no_torch():
    for file in (ROOT / "serving").rglob("*.py"):
        assert not {"torch", "onnx", "tritonclient"} & set(imports_of(file)), file


def test_a_model_says_what_it_does_in_few_lines():
    models = list((ROOT / "model_repository").glob("*/1/model.py"))
    assert len(models) == 8
    lines = {model: model.read_text().splitlines() for model in models}
    assert max(map(len, lines.values())) <= 45
    for one in models:
        for other in models:
            if one != other:
                shared = {line for line in lines[one] if line.strip()} & set(lines[other])
                assert len(shared) <= 8, (one, other, shared)


def test_only_models_lie_in_the_model_repository():
    repository = ROOT / "model_repository"
    files = {path.name for path in repository.iterdir() if path.is_file()}
    assert files == {"README.md", "serve.py"}
    folders = {path for path in repository.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert all((path / "config.pbtxt").exists() for path in folders)
