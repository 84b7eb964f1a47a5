"""Imports go one way: who may know whom."""

import ast
import sys
from functools import cache
from graphlib import TopologicalSorter

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
OURS = {CONTRACT, CLIENT, GATEWAY, SERVING, EXPORT, DEMO}
# folder -> the packages of ours that it may import
MAY_IMPORT = {
    f"contract/{CONTRACT}": {CONTRACT},
    f"serving/{SERVING}": {SERVING, CONTRACT},
    "model_repository": {SERVING, CONTRACT},
    f"client/{CLIENT}": {CLIENT, CONTRACT},
    f"gateway/{GATEWAY}": {GATEWAY, CLIENT, CONTRACT},
    f"export/{EXPORT}": {EXPORT, SERVING, CONTRACT},
    f"demo/{DEMO}": {DEMO, EXPORT, SERVING, CLIENT, CONTRACT},
    "benchmarks": OURS,
}
PACKAGES = [folder for folder in MAY_IMPORT if "/" in folder]
LOADERS = {"spec_from_file_location", "run_path", "exec"}  # code that lies in no package


@cache
def nodes_of(file):
    """All of a source file's syntax tree; read once for all tests."""
    return list(ast.walk(ast.parse(file.read_text())))


def name_of(function):
    """The last part of what is called: c of a.b.c."""
    return getattr(function, "attr", getattr(function, "id", ""))


def modules_of(file, package=""):
    """The full names of all that a source file imports, relative ones as in that package."""
    for node in nodes_of(file):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            above = ".".join([*parents, *([node.module] if node.module else [])])
            yield from (f"{above}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Call) and name_of(node.func) == "import_module":
            yield ast.literal_eval(node.args[0])


def imports_of(file):
    """The first names of all that a source file imports."""
    return {module.split(".")[0] for module in modules_of(file)}


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_a_room_imports_only_what_lies_below_it(folder):
    files = list((ROOT / folder).rglob("*.py"))
    assert files
    for file in files:
        assert imports_of(file) & OURS <= MAY_IMPORT[folder], file


def test_no_module_needs_itself():
    """As Python sees it: a cycle of imports raises graphlib.CycleError."""
    sources = {}
    for folder in PACKAGES:
        for file in (ROOT / folder).rglob("*.py"):
            parts = file.relative_to((ROOT / folder).parent).with_suffix("").parts
            sources[".".join(parts).removesuffix(".__init__")] = file
    needs = {}
    for name, file in sources.items():
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        found = {module if module in sources else module.rpartition(".")[0] for module in modules_of(file, package)}
        needs[name] = (found & sources.keys()) - {name}
    assert sum(map(len, needs.values())) > 200
    TopologicalSorter(needs).prepare()


EVERYWHERE = ["contract", "serving", "model_repository", "client", "gateway", "export", "demo", "benchmarks"]


@pytest.mark.parametrize("folder", EVERYWHERE)
def test_nothing_loads_the_code_of_a_model(folder):
    """tritonserver does; what others need of it lies in the serving package."""
    for file in (ROOT / folder).rglob("*.py"):
        assert "model_repository" not in imports_of(file), file
        called = {name_of(node.func) for node in nodes_of(file) if isinstance(node, ast.Call)}
        assert not called & LOADERS, file


@pytest.mark.parametrize("folder", [*EVERYWHERE, "tests"])
def test_nothing_edits_the_path_of_imports(folder):
    for file in (ROOT / folder).rglob("*.py"):
        for node in nodes_of(file) if "sys.path" in file.read_text() else ():
            targets = getattr(node, "targets", [getattr(node, "target", None), getattr(node, "func", None)])
            edited = [ast.unparse(target) for target in targets if target is not None]
            assert not [words for words in edited if words.startswith("sys.path")], file


def test_the_contract_needs_nothing():
    for file in (ROOT / "contract").rglob("*.py"):
        assert imports_of(file) <= {*sys.stdlib_module_names, CONTRACT}, file


def test_the_serving_package_needs_no_torch():
    for file in (ROOT / "serving").rglob("*.py"):
        assert not {"torch", "onnx", "tritonclient"} & imports_of(file), file


def test_a_model_says_what_it_does_in_few_lines():
    models = list((ROOT / "model_repository").glob("*/1/model.py"))
    assert len(models) == 9
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
