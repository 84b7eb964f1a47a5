"""A model store: what `make export` and `make engines` build, in a folder of its own beside the code that serves it.

The code then comes from one place, the image, and the built files from another, a mount that may be read-only. A store
has the layout of a model repository, MODEL/1/FILE; what else lies in it is not looked at.
"""

import hashlib
import shutil
from pathlib import Path

from medimageparse_contract.hashing import sha256

from medimageparse_serving.launch.built_files import BUILT_FILES
from medimageparse_serving.launch.launch_errors import ServeError

STORED = sorted({name for names in BUILT_FILES.values() for name in names} | {"manifest.json", "networks.json"})
NOT_CODE = shutil.ignore_patterns(*STORED, "*.partial", "__pycache__")


def stored_files(store: Path) -> list[str]:
    """The paths in it of what was built, in the order of the alphabet; ServeError if there is nothing."""
    found = sorted(path.relative_to(store).as_posix() for name in STORED for path in store.glob(f"*/1/{name}"))
    if not found:
        raise ServeError("the model store holds no built file MODEL/1/FILE: is its path that of a model_repository?")
    return found


def digest(store: Path) -> str:
    """One SHA-256 for all that is in it: that of the lines that `sha256sum` prints of its files, sorted by name."""
    try:
        lines = [f"{sha256(store / path)}  {path}\n" for path in stored_files(store)]
    except OSError as error:
        raise ServeError(f"a file of the model store cannot be read: {error.strerror}") from None
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def assemble(code: Path, store: Path, target: Path) -> Path:
    """Writes a model repository to target, which must be new: the code's files, and links to the store's.

    Built files that lie in `code` are left out. ServeError if there is no code or an empty store.
    """
    if not code.is_dir():
        raise ServeError("--repository is no folder; with --store it holds the code")
    shutil.copytree(code, target, ignore=NOT_CODE)
    for path in stored_files(store):
        if (target / path).parent.is_dir():  # a model that this version does not know is not served
            (target / path).symlink_to(store.resolve() / path)
    return target
