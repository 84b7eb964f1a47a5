"""Reads `text_prompts` of a challenge case, a pickled dict in a `.npz`, without unpickling anything.

The opcodes are walked by `pickletools`, with a list as stack and a dict as memo. A global is a pair of strings, and
what would call something only compares with the two forms that numpy writes: nothing is imported or called.
"""

import io
import pickletools
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

MEMBER = "text_prompts.npy"
MAX_BYTES = 1 << 20
MAX_OPCODES = 100_000
MAX_CHARACTERS = 512

LITERALS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
CONSTANTS = {"SHORT_BINUNICODE", "BINUNICODE", "SHORT_BINBYTES", "BININT", "BININT1"}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class UnreadablePrompts(ValueError):
    """The prompts of a case are missing or are not as the challenge writes them; the text is one sentence."""


@dataclass(frozen=True)
class Prompts:
    """What a case asks.

    sentences: label -> the sentences that may ask for it, in the order of the labels
    is_instance: whether the truth numbers instances
    names: label -> what its structure is called in tables; its sentence where it has no name
    """

    sentences: Mapping[int, tuple[str, ...]]
    is_instance: bool
    names: Mapping[int, str] = field(default_factory=dict)


def read_text_prompts(path: Path) -> Prompts:
    """The prompts of a challenge file. Raises UnreadablePrompts."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(MEMBER) as member:
            data = member.read(MAX_BYTES + 1)
    except KeyError:
        raise UnreadablePrompts("the file has no text_prompts") from None
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, NotImplementedError) as error:
        raise UnreadablePrompts("the file is not a whole .npz") from error
    if len(data) > MAX_BYTES:
        raise UnreadablePrompts(f"text_prompts has more than {MAX_BYTES} bytes")
    return checked(unpacked(data))


def checked(value: Any) -> Prompts:
    """The dict of a file as Prompts: `instance_label` 0 or 1, and labels of one to three digits with sentences."""
    if not isinstance(value, dict):
        raise UnreadablePrompts("text_prompts is not a dict")
    kind = value.get("instance_label")
    if type(kind) is not int or kind not in (0, 1):
        raise UnreadablePrompts("instance_label of text_prompts is neither 0 nor 1")
    sentences: dict[int, tuple[str, ...]] = {}
    for key, asked in value.items():
        if key == "instance_label":
            continue
        if not (isinstance(key, str) and key.isascii() and key.isdecimal() and len(key) <= 3):
            raise UnreadablePrompts("a key of text_prompts is not a label of one to three digits")
        if int(key) in sentences:
            raise UnreadablePrompts("text_prompts has a label twice")
        several = asked if isinstance(asked, list) else [asked]
        if not several or not all(isinstance(s, str) and 0 < len(s) <= MAX_CHARACTERS for s in several):
            raise UnreadablePrompts(f"label {key} has no sentence of 1 to {MAX_CHARACTERS} characters")
        sentences[int(key)] = tuple(several)
    if not sentences:
        raise UnreadablePrompts("text_prompts has no label")
    return Prompts(dict(sorted(sentences.items())), bool(kind))


def unpacked(data: bytes) -> Any:
    """What a `.npy` member with one object in it holds: dicts, lists, strings and numbers."""
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)  # type: ignore[no-untyped-call]
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, _, dtype = read_header[version](stream)  # type: ignore[no-untyped-call]
    except (ValueError, KeyError):
        raise UnreadablePrompts("text_prompts is not a numpy array") from None
    if shape != () or dtype != np.dtype(object):
        raise UnreadablePrompts("text_prompts is not one object")
    try:
        return _Walk().of(stream)
    except (ValueError, IndexError, KeyError, TypeError) as error:
        if isinstance(error, UnreadablePrompts):
            raise
        raise UnreadablePrompts("text_prompts is damaged") from error


@dataclass(frozen=True)
class _Global:
    module: str
    name: str


class _Dtype:
    """numpy's dtype of objects, the only one that is taken."""


@dataclass
class _Array:
    """numpy's array of one object, before and after it gets its content."""

    content: list[Any]


_MARK = object()
_RECONSTRUCT = {_Global(f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")}
_ARRAY_ARGUMENTS = (_Global("numpy", "ndarray"), (0,), b"b")
_DTYPE_STATE = (3, "|", None, None, None, -1, -1, 63)


class _Walk:
    """One walk through the opcodes."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def of(self, stream: io.BytesIO) -> Any:
        for number, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if number >= MAX_OPCODES:
                raise UnreadablePrompts(f"text_prompts has more than {MAX_OPCODES} operations")
            if opcode.name == "STOP":
                break
            self.step(opcode.name, argument)
        [array] = self.stack
        if not isinstance(array, _Array):
            raise UnreadablePrompts("text_prompts holds no numpy array")
        [content] = array.content
        return content

    def step(self, name: str, argument: Any) -> None:
        """Does one opcode; any other than those of numpy's two protocols is refused."""
        stack = self.stack
        if name in LITERALS:
            stack.append(LITERALS[name])
        elif name in CONSTANTS:
            stack.append(argument)
        elif name in TUPLES:
            stack.append(tuple(self.popped(TUPLES[name])))
        elif name in ("PROTO", "FRAME"):
            pass
        elif name in ("MEMOIZE", "BINPUT", "LONG_BINPUT"):
            self.memo[len(self.memo) if name == "MEMOIZE" else argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self.remembered(argument))
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "TUPLE":
            stack.append(tuple(self.since_mark()))
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name in ("APPEND", "APPENDS"):
            values = self.popped(1) if name == "APPEND" else self.since_mark()
            self.top(list).extend(values)
        elif name == "SETITEMS":
            values = self.since_mark()
            self.top(dict).update(zip(values[::2], values[1::2], strict=True))
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            module, what = argument.split(" ") if name == "GLOBAL" else self.popped(2)
            stack.append(_Global(module, what))
        elif name == "REDUCE":
            stack.append(_made(*self.popped(2)))
        elif name == "BUILD":
            [state] = self.popped(1)
            _fill(stack[-1], state)
        else:
            raise UnreadablePrompts("text_prompts has an operation that no challenge file has")

    def popped(self, n: int) -> list[Any]:
        values = self.stack[-n:]
        if len(values) < n or any(value is _MARK for value in values):
            raise UnreadablePrompts("text_prompts is damaged")
        del self.stack[-n:]
        return values

    def since_mark(self) -> list[Any]:
        start = len(self.stack) - 1 - self.stack[::-1].index(_MARK)
        values = self.stack[start + 1 :]
        del self.stack[start:]
        return values

    def top(self, kind: type) -> Any:
        if type(self.stack[-1]) is not kind:
            raise UnreadablePrompts("text_prompts is damaged")
        return self.stack[-1]

    def remembered(self, index: int) -> Any:
        value = self.memo[index]
        if not isinstance(value, (str, _Global, _Dtype)):  # a container in two places could hold itself
            raise UnreadablePrompts("text_prompts refers to a container twice")
        return value


def _made(function: Any, arguments: Sequence[Any]) -> _Array | _Dtype:
    if isinstance(function, _Global):
        if function in _RECONSTRUCT and arguments == _ARRAY_ARGUMENTS:
            return _Array([])
        if function == _Global("numpy", "dtype") and arguments == ("O8", False, True):
            return _Dtype()
    raise UnreadablePrompts("text_prompts would call something; it is refused")


def _fill(target: Any, state: Any) -> None:
    match target, state:
        case _Array(), (1, (), _Dtype(), False, [content]) if not target.content:
            target.content.append(content)
        case _Dtype(), tuple() if state == _DTYPE_STATE:
            pass
        case _:
            raise UnreadablePrompts("text_prompts would change an object; it is refused")
