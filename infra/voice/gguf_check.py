"""GGUF files read strictly before llama.cpp sees them: it ends the whole process on some broken ones.

Nothing in a file is believed: every count and length is held against the end of the file before it is used, every
tensor lies where the ones before it end, and an adapter must fit the base number by number. Only the header is read,
and of an adapter the values too. What is not seen here: a base whose settings contradict each other, and whatever else
llama.cpp stumbles over; `trial.py` finds that for adapters, in a process of its own.
"""

import math
import mmap
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np

from infra.errors import ServiceTrouble

MAGIC = b"GGUF"
# Version 1 had other lengths; a version that reads as a huge number was written by a machine of the other byte order.
VERSIONS = (2, 3)
# Far above what real files have: Qwen2.5-72B has 963 tensors and 26 keys. ggml has room for names of 63 bytes.
MOST_ENTRIES = 1 << 16
MOST_KEY, MOST_NAME, MOST_TEXT = 1 << 12, 63, 1 << 20
MOST_ALIGNMENT = 1 << 16
MOST_RANK = 1024
# Far above the names, shapes and settings of any adapter.
MOST_HEADER = 1 << 24

SCALARS = {
    code: struct.Struct(f"<{form}")
    for code, form in {
        0: "B",
        1: "b",
        2: "H",
        3: "h",
        4: "I",
        5: "i",
        6: "f",
        7: "B",
        10: "Q",
        11: "q",
        12: "d",
    }.items()
}
T = TypeVar("T")

U32, FLOAT, TEXT, ARRAY, U64 = 4, 6, 8, 9, 10

# The types whose values are looked at: their numbers as integers, and the bits of which all are set in no finite one.
FLOATS = {0: ("<u4", 0x7F800000), 1: ("<u2", 0x7C00), 30: ("<u2", 0x7F80)}


class Broken(ValueError):
    """Why a file cannot be used, as the end of a sentence."""


@dataclass(frozen=True)
class Entry:
    """A value of the metadata with the code of its type; of lists only how many there are is kept."""

    kind: int
    value: int | float | str


@dataclass(frozen=True)
class Tensor:
    """Where a tensor lies in its file, in bytes; `shape` counts from the innermost dimension."""

    shape: tuple[int, ...]
    kind: int
    start: int
    end: int


@dataclass(frozen=True)
class Header:
    """What a GGUF file says of itself, all of it within the file."""

    entries: Mapping[str, Entry]
    tensors: Mapping[str, Tensor]

    def text(self, key: str) -> str:
        """A text of the metadata; empty when there is none or it is no text."""
        found = self.entries.get(key)
        return str(found.value) if found is not None and found.kind == TEXT else ""

    def number(self, key: str, otherwise: int = 0) -> int:
        """A count of the model's architecture; `otherwise` when there is none or it is one for each layer."""
        found = self.entries.get(f"{self.text('general.architecture')}.{key}")
        return int(found.value) if found is not None and found.kind in SCALARS else otherwise


class Cursor:
    """Reads on from where it stands, and never beyond the end."""

    def __init__(self, raw: mmap.mmap) -> None:
        self._raw, self.at, self.size = raw, 0, len(raw)

    def skip(self, size: int) -> int:
        """Go on by `size` bytes; returns where they begin."""
        if size > self.size - self.at:
            raise Broken(f"it ends after {self.size} bytes, in the middle of its header")
        began, self.at = self.at, self.at + size
        return began

    def scalar(self, kind: int) -> int | float:
        form = SCALARS[kind]
        value: int | float = form.unpack_from(self._raw, self.skip(form.size))[0]
        return value

    def count(self, kind: int = U64, *, most: int = MOST_ENTRIES, what: str) -> int:
        """A whole number that may not exceed `most`."""
        found = int(self.scalar(kind))
        if found > most:
            raise Broken(f"it claims {found} {what}, at most {most} make sense")
        return found

    def text(self, most: int, what: str) -> str:
        size = self.count(most=most, what=f"bytes of {what}")
        began = self.skip(size)
        try:
            return self._raw[began : self.at].decode()
        except UnicodeDecodeError:
            raise Broken(f"{what} is no UTF-8") from None

    def skip_list(self) -> int:
        """Go past a list; returns how many values it has."""
        kind, count = self.count(U32, what="as a type"), self.count(most=self.size, what="values")
        if kind in SCALARS:
            self.skip(count * SCALARS[kind].size)
        elif kind == TEXT:
            self._skip_texts(count)
        else:
            raise Broken(f"it holds a list of unknown type {kind}")
        return count

    def _skip_texts(self, count: int) -> None:
        # A vocabulary has hundreds of thousands of them.
        unpack, raw, at, last = SCALARS[U64].unpack_from, self._raw, self.at, self.size - 8
        for _ in range(count):
            if at > last:
                raise Broken(f"it ends after {self.size} bytes, in the middle of a list")
            at += 8 + unpack(raw, at)[0]
        self.skip(at - self.at)


@cache
def sizes() -> dict[int, tuple[int, int]]:
    """Of each type of tensor how many values a block holds, and its bytes."""
    from gguf.constants import GGML_QUANT_SIZES

    return {int(kind): (values, size) for kind, (values, size) in GGML_QUANT_SIZES.items()}


def read_entry(cursor: Cursor) -> Entry:
    kind = cursor.count(U32, what="as a type")
    if kind in SCALARS:
        return Entry(kind, cursor.scalar(kind))
    if kind == TEXT:
        return Entry(kind, cursor.text(MOST_TEXT, "a text"))
    if kind == ARRAY:
        return Entry(kind, cursor.skip_list())
    raise Broken(f"it holds a value of unknown type {kind}")


def read_named(cursor: Cursor, count: int, *, most: int, what: str, read: Callable[[Cursor], T]) -> dict[str, T]:
    """`count` things, each under a name of its own."""
    found: dict[str, T] = {}
    for _ in range(count):
        name = cursor.text(most, what)
        if not name or name in found:
            raise Broken(f"{what} {name!r} is there twice or empty")
        found[name] = read(cursor)
    return found


def read_place(cursor: Cursor) -> Tensor:
    """One tensor as the header lists it, from the beginning of the data on."""
    dimensions = cursor.count(U32, most=4, what="dimensions")
    shape = tuple(cursor.count(most=1 << 40, what="values in a row") for _ in range(dimensions))
    kind, offset = cursor.count(U32, what="as a type"), int(cursor.scalar(U64))
    if kind not in sizes():
        raise Broken(f"a tensor is of unknown type {kind}")
    values, size = sizes()[kind]
    if not shape or 0 in shape or shape[0] % values:
        raise Broken(f"no tensor of type {kind} has the shape {shape}")
    return Tensor(shape, kind, offset, offset + math.prod(shape) // values * size)


def placed(listed: Mapping[str, Tensor], *, begin: int, alignment: int, size: int) -> Iterator[tuple[str, Tensor]]:
    """The tensors at their places in the file: one after the other, aligned, none beyond the end."""
    expected = 0
    for name, tensor in listed.items():
        if tensor.start != expected:
            raise Broken(f"tensor {name!r} begins at {tensor.start} instead of {expected}")
        if begin + tensor.end > size:
            raise Broken(f"it ends after {size} bytes, tensor {name!r} only after {begin + tensor.end}")
        expected = padded(tensor.end, alignment)
        yield name, Tensor(tensor.shape, tensor.kind, begin + tensor.start, begin + tensor.end)


def padded(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment


def alignment_of(entries: Mapping[str, Entry]) -> int:
    """The step at which tensors begin."""
    found = entries.get("general.alignment", Entry(U32, 32))
    step = found.value if found.kind == U32 else 0
    # A power of two has one bit.
    if not isinstance(step, int) or not 8 <= step <= MOST_ALIGNMENT or step & (step - 1):
        raise Broken(f"its alignment is {found.value!r}")
    return step


def read_header(raw: mmap.mmap) -> Header:
    """The header of a whole file. Raises Broken for anything that does not add up."""
    cursor = Cursor(raw)
    if raw[: cursor.skip(4) + 4] != MAGIC:
        raise Broken("it does not begin as GGUF files do")
    if (version := cursor.scalar(U32)) not in VERSIONS:
        raise Broken(f"its GGUF version {version} is unknown")
    tensors, keys = cursor.count(what="tensors"), cursor.count(what="keys")
    entries = read_named(cursor, keys, most=MOST_KEY, what="a key", read=read_entry)
    listed = read_named(cursor, tensors, most=MOST_NAME, what="a tensor's name", read=read_place)
    alignment = alignment_of(entries)
    begin = padded(cursor.at, alignment)
    return Header(entries, dict(placed(listed, begin=begin, alignment=alignment, size=cursor.size)))


@contextmanager
def opened(path: Path, what: str) -> Iterator[mmap.mmap]:
    """A file as bytes. Raises ServiceTrouble with one sentence when it is missing, or Broken is raised inside."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as raw:
            yield raw
    except OSError as error:
        raise ServiceTrouble(f"{str(path)!r} is no {what}: {error.strerror}.", permanent=True) from error
    except ValueError as error:  # also what mmap says of an empty file
        raise ServiceTrouble(f"{str(path)!r} is no {what}: {error}.", permanent=True) from error


def check_base(path: Path) -> Header:
    """The header of a base model's file. Raises ServiceTrouble for one that llama.cpp should not see."""
    with opened(path, "whole GGUF model") as raw:
        header = read_header(raw)
        if header.text("general.type") not in {"", "model"} or not header.text("general.architecture"):
            raise Broken(f"it is of type {header.text('general.type')!r}, wanted is a model with its architecture")
        check_settings(header)
        return header


def check_settings(header: Header) -> None:
    """Raise Broken for counts of a base that no model has."""
    architecture = header.text("general.architecture")
    for name in ("block_count", "embedding_length", "attention.head_count"):
        found = header.entries.get(f"{architecture}.{name}")
        if found is not None and found.kind in SCALARS and not 0 < float(found.value) <= MOST_ENTRIES:
            raise Broken(f"its {name} is {found.value}")


def check_adapter(path: Path, base: Header, *, base_name: str, base_sha256: str = "") -> None:
    """Raise ServiceTrouble for what is no LoRA adapter that fits `base`, or names another base than `base_sha256`."""
    with opened(path, f"adapter for {base_name!r}") as raw:
        header = read_header(raw)
        check_kind(header, base)
        check_pairs(header, base)
        if max(tensor.end for tensor in header.tensors.values()) < len(raw) - MOST_ALIGNMENT:
            raise Broken("it goes on after its last tensor")
        for name, tensor in header.tensors.items():
            if not finite(raw, tensor):
                raise Broken(f"{name!r} holds values that are no numbers")
    trained_on = header.text("twin.base_sha256")
    if base_sha256 and trained_on != base_sha256:
        raise ServiceTrouble(
            f"{str(path)!r} was trained on base {trained_on[:12] or 'unknown'!r}, served is {base_sha256[:12]!r}: "
            "retrain it.",
            permanent=True,
        )


def most_bytes(base: Header) -> int:
    """What no adapter for `base` exceeds: both halves for every matrix, of the highest rank, in full floats."""
    return MOST_HEADER + sum(4 * MOST_RANK * sum(t.shape) for t in base.tensors.values() if len(t.shape) == 2)


def check_kind(header: Header, base: Header) -> None:
    """Raise Broken for what is no plain LoRA of the base's architecture."""
    for key, wanted in (
        ("general.type", "adapter"),
        ("adapter.type", "lora"),
        ("general.architecture", base.text("general.architecture")),
    ):
        if header.text(key) != wanted:
            raise Broken(f"its {key} is {header.text(key)!r}, wanted is {wanted!r}")
    alpha = header.entries.get("adapter.lora.alpha")
    if alpha is None or alpha.kind != FLOAT or not math.isfinite(float(alpha.value)):
        raise Broken("its adapter.lora.alpha is no number")
    if any(key.startswith("adapter.alora.") for key in header.entries):
        raise Broken("it wants to be switched on by words, which this voice cannot")


def check_pairs(header: Header, base: Header) -> None:
    """Raise Broken unless all tensors are pairs that multiply to the shape of a matrix of the base."""
    if not header.tensors:
        raise Broken("it holds no tensors")
    for name in header.tensors:
        target, half = name[: -len(".lora_a")], name[-len(".lora_a") :]
        if half not in {".lora_a", ".lora_b"}:
            raise Broken(f"tensor {name!r} is no half of a LoRA")
        check_pair(header, target, base.tensors.get(target))


def check_pair(header: Header, target: str, matrix: Tensor | None) -> None:
    """Raise Broken unless both halves for `target` are there and fit the base's `matrix`."""
    a, b = (header.tensors.get(f"{target}.lora_{half}") for half in "ab")
    # An embedding is looked up and not multiplied: its halves would lie the other way round.
    if matrix is None or len(matrix.shape) != 2 or target.startswith("token_embd"):
        raise Broken(f"the base has no matrix {target!r} that it could change")
    if a is None or b is None:
        raise Broken(f"of the two halves for {target!r} one is missing")
    if a.kind not in FLOATS or b.kind not in FLOATS:
        raise Broken(f"the halves for {target!r} are of types {a.kind} and {b.kind}, wanted are floats")
    columns, rows = matrix.shape
    rank = a.shape[-1]
    if a.shape != (columns, rank) or b.shape != (rank, rows) or rank > MOST_RANK:
        raise Broken(f"the halves for {target!r} have shapes {a.shape} and {b.shape}, the base's is {matrix.shape}")


def finite(raw: mmap.mmap, tensor: Tensor) -> bool:
    """Whether all values are numbers. Read as integers, which is many times as fast as asking halves."""
    form, bits = FLOATS[tensor.kind]
    values = np.frombuffer(raw, dtype=form, count=math.prod(tensor.shape), offset=tensor.start)
    return not bool(((values & bits) == bits).any())
