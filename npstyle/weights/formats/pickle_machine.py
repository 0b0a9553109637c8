"""An interpreter for PyTorch's pickles that runs nothing: it knows tensors, plain data and containers.

A pickle is a program for a stack machine and may call any function of any module. Python's own interpreter
is not used, not even with every import forbidden: it allocates as much memory as a number in the file states,
and deeply nested tuples overflow its stack. The interpreter below creates strings, numbers, containers and
`Tensor`s, imports nothing and calls nothing.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from pickletools import genops
from typing import Any, NamedTuple

from npstyle.errors import UserError
from npstyle.weights.formats.tensors import CODES, ByteOrder, Storage, Tensor, are_sizes

# Of a pickle, and items in it that are copied. VGG19's pickles have less than ten thousand bytes.
MAX_PICKLE_BYTES = 4 << 20

STORAGE_TYPES = {
    "torch.DoubleStorage": "float64",
    "torch.FloatStorage": "float32",
    "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16",
    "torch.LongStorage": "int64",
    "torch.IntStorage": "int32",
    "torch.ShortStorage": "int16",
    "torch.CharStorage": "int8",
    "torch.ByteStorage": "uint8",
    "torch.BoolStorage": "bool",
}
# The names that a pickle may refer to. Each stands for something that is done here; none is ever imported.
ALLOWED_NAMES = {
    "collections.OrderedDict",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
    *STORAGE_TYPES,
    *(f"torch.{element_type}" for element_type in CODES),
}
LITERALS = (
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
)
CONSTANTS: Mapping[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
}

# (name, start, size) -> that part of the storage of that name; raises if there is none.
ReadStorage = Callable[[str, int, int], bytes]


class GlobalName(NamedTuple):
    """A name that a pickle refers to: of a function, a storage type or a dtype."""

    full: str


class PickleMachine:
    """Interprets pickles of `torch.save`; refuses instructions and names that no state dict needs.

    Parameters
    ----------
    path : Path
        Of the file, for messages.
    read : callable
        Reads from storages.
    byte_order : {"<", ">"}
        Of the elements of storages.

    Attributes
    ----------
    storages : dict of str to Storage
        All that the pickles have referred to.
    """

    def __init__(self, path: Path, read: ReadStorage, byte_order: ByteOrder = "<") -> None:
        self.path, self.read, self.byte_order = path, read, byte_order
        self.storages: dict[str, Storage] = {}
        self.copied_items = 0

    def run(self, pickle: io.BytesIO) -> Any:
        """The object that a pickle describes; leaves the file's position after the pickle.

        Raises
        ------
        UserError
            The pickle refers to a name that is not in ALLOWED_NAMES.
        Exception
            Any other, where it is damaged.
        """
        self.stack: list[Any] = []
        self.outer_stacks: list[list[Any]] = []  # one for each open mark
        self.memo: dict[int, Any] = {}
        with warnings.catch_warnings():
            # Python warns of invalid escape sequences in strings.
            warnings.simplefilter("ignore", DeprecationWarning)
            for opcode, argument, _ in genops(pickle):
                self._step(opcode.name, argument)
        return self.stack.pop()

    def _step(self, opcode: str, argument: Any) -> None:
        stack = self.stack
        if opcode in LITERALS:
            stack.append(argument)
        elif opcode in CONSTANTS:
            stack.append(CONSTANTS[opcode]())
        elif opcode in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.memo[len(self.memo) if opcode == "MEMOIZE" else argument] = stack[-1]
        elif opcode in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif opcode == "MARK":
            self.outer_stacks.append(stack)
            self.stack = []
        elif opcode in ("TUPLE", "LIST", "DICT", "APPENDS", "SETITEMS"):
            self.stack = self.outer_stacks.pop()
            self._fill_container(opcode, stack)
        elif opcode in ("TUPLE1", "TUPLE2", "TUPLE3"):
            items = tuple(stack.pop() for _ in range(int(opcode[-1])))
            stack.append(items[::-1])
        elif opcode in ("APPEND", "SETITEM"):
            items = tuple(stack.pop() for _ in range(1 if opcode == "APPEND" else 2))
            self._fill_container(opcode + "S", items[::-1])
        elif opcode == "GLOBAL":
            stack.append(self._global_name(*argument.split(" ", 1)))
        elif opcode == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            stack.append(self._global_name(module, attribute))
        elif opcode == "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            stack.append(self._call(function, arguments))
        elif opcode == "BUILD":  # attributes such as an OrderedDict's _metadata are ignored
            stack.pop()
            if not isinstance(stack[-1], dict):
                raise ValueError(f"attributes of {type(stack[-1]).__name__}")
        elif opcode == "BINPERSID":
            stack.append(self._storage(stack.pop()))
        elif opcode not in ("PROTO", "FRAME", "STOP"):
            if opcode == "INST":  # a name and its call in one
                self._global_name(*argument.split(" ", 1))
            raise ValueError(f"the pickle instruction {opcode}")

    def _fill_container(self, opcode: str, items: Any) -> None:
        """Push a new container of these items, or add them to the one on top of the stack."""
        if opcode == "TUPLE":
            self.stack.append(tuple(items))
        elif opcode == "LIST":
            self.stack.append(list(items))
        elif opcode == "APPENDS":
            check_type(list, self.stack[-1]).extend(items)
        else:
            if opcode == "DICT":
                self.stack.append({})
            target = check_type(dict, self.stack[-1])
            for key, value in zip(items[::2], items[1::2], strict=True):
                target[_check_key(key)] = value

    def _global_name(self, module: Any, attribute: Any) -> GlobalName:
        full = f"{module}.{attribute}"
        if full not in ALLOWED_NAMES:
            raise UserError(
                f"weights: {self.path}",
                f"the name {ascii(full)[1:-1][:100]} in a pickle, which may run anything",
                "tensors and plain data",
                "save model.state_dict() and nothing else",
            )
        return GlobalName(full)

    def _call(self, function: Any, arguments: Any) -> Any:
        """What a call of one of the allowed functions would return."""
        name, arguments = check_type(GlobalName, function).full, check_type(tuple, arguments)
        if name == "collections.OrderedDict":
            pairs = check_type(list, arguments[0]) if arguments else []
            self.copied_items += len(pairs)
            if self.copied_items > MAX_PICKLE_BYTES:  # the memo lets one list be copied any number of times
                raise ValueError("too many items")
            return {_check_key(key): value for key, value in pairs}
        if name == "torch._utils._rebuild_parameter":
            return check_type(Tensor, arguments[0])
        if name.startswith("torch._utils._rebuild_tensor"):
            if any(arguments[6:]):
                raise ValueError("a tensor that is the conjugate or the negative of what is stored")
            return Tensor(*arguments[:4])
        raise ValueError(f"a call of {name}")

    def _storage(self, persistent_id: Any) -> Storage:
        """The storage that ("storage", type, name, device, count) stands for."""
        storage_type, name, _, count, *view = check_type(tuple, persistent_id)[1:]
        if persistent_id[0] != "storage" or not are_sizes([count]) or any(view):
            raise ValueError("a storage of an unknown form")
        read = partial(self.read, check_type(str, name))
        element_type = STORAGE_TYPES[check_type(GlobalName, storage_type).full]
        self.storages[name] = Storage(element_type, count, self.byte_order, read)
        return self.storages[name]


def check_type(expected: type, value: Any) -> Any:
    """The value, if it has the expected type; ValueError otherwise."""
    if not isinstance(value, expected):
        raise ValueError(f"{type(value).__name__} where {expected.__name__} was expected")
    return value


def _check_key(key: Any) -> Any:
    """A key that is hashed without recursion; hashing a nested tuple may overflow the stack."""
    if not isinstance(key, (str, int)):
        raise ValueError(f"{type(key).__name__} as a key")
    return key
