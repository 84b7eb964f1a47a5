"""Nothing that is read can run code: no pickle in the product, not in numpy's files, not in checkpoints."""

import ast
from pathlib import Path

import pytest
import torch
from helpers.places import ROOT
from medimageparse.checkpoint import CheckpointError
from medimageparse.checkpoint_files import read_checkpoint

PRODUCT = ("client", "contract", "demo", "export", "gateway", "model_repository", "serving")
PICKLERS = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "jsonpickle"}
PICKLED_FILES = {".pkl", ".pickle", ".joblib", ".npy", ".npz", ".pt", ".pth", ".ckpt", ".bin"}


def dangers(source):
    """What in a source file reads or writes pickles."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names if name.name.split(".")[0] in PICKLERS]
        elif isinstance(node, ast.ImportFrom):
            found += [node.module] if (node.module or "").split(".")[0] in PICKLERS else []
            # a bare `load` could not be told from others below
            found += [node.module] if node.module in ("torch", "numpy") and is_loader(node) else []
        elif isinstance(node, ast.Call):
            found += dangers_of_call(node)
    return found


def is_loader(node):
    return any(name.name in ("load", "save") for name in node.names)


def dangers_of_call(call):
    name = ast.unparse(call.func)
    keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    wrong = {
        "pickle": keywords.get("allow_pickle", "False") != "False",
        "torch.load": name == "torch.load" and keywords.get("weights_only") != "True",
        "torch.save": name == "torch.save",
        "read_pickle": name.endswith((".read_pickle", ".to_pickle")),
    }
    return [kind for kind, is_wrong in wrong.items() if is_wrong]


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "import os, dill as safe",
        "from joblib import load",
        "from torch import load",
        "numpy.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=chosen)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.save(model, path)",
        "pandas.read_pickle(path)",
    ],
)
def test_the_search_finds(source):
    assert dangers(source)


def test_the_search_lets_pass():
    allowed = "np.load(path)\nnp.load(path, allow_pickle=False)\ntorch.load(path, weights_only=True)\njson.load(file)"
    assert dangers(allowed) == []


class Attack:
    """Unpickled, it makes a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return Path.mkdir, (self.folder,)


@pytest.mark.parametrize("kept", ["instead of tensors", "among tensors"])
def test_a_checkpoint_cannot_run_code(tmp_path, kept):
    attack, path = Attack(tmp_path / "attacked"), tmp_path / "checkpoint.ckpt"
    torch.save(attack if kept == "instead of tensors" else {"state_dict": {"weight": attack}}, path)
    with pytest.raises(CheckpointError):
        read_checkpoint(path)
    assert not attack.folder.exists()
    torch.load(path, weights_only=False)  # or the attack would show nothing
    assert attack.folder.exists()


def sources():
    return [path for folder in PRODUCT for path in sorted((ROOT / folder).rglob("*.py"))]


def test_the_product_has_no_pickle():
    assert len(sources()) > 50
    assert {str(path.relative_to(ROOT)): found for path in sources() if (found := dangers(path.read_text()))} == {}


def test_no_pickled_file_comes_with_it():
    assert [path for folder in PRODUCT for path in (ROOT / folder).rglob("*") if path.suffix in PICKLED_FILES] == []
