"""The text of an optimised XLA program, read into computations and instructions.

Only what `traffic` needs is kept: shapes with their memory, operations, operands, the computations
that an instruction calls, and how often a loop runs.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

BITS = {"pred": 8, "s4": 4, "u4": 4, "s8": 8, "u8": 8, "s16": 16, "u16": 16, "f16": 16}
BITS |= {"bf16": 16, "s32": 32, "u32": 32, "f32": 32, "s64": 64, "u64": 64, "f64": 64, "c64": 64}
"""Bits of an element of each type that these programs hold."""

_ARRAY = re.compile(r"(\w+)\[([\d,]*)\](\{[^{}]*\})?")
_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*->.*\{\s*$")
_INSTRUCTION = re.compile(r"\s*(ROOT )?%?([\w.\-]+) = (.*)$")
_OPERATION = re.compile(r"([\w\-]+)\((.*)$")
_NAME = re.compile(r"%([\w.\-]+)")
_CALLED = re.compile(r"(?:calls|to_apply|body|async_wrapped)=%?([\w.\-]+)")
_CONDITION = re.compile(r"condition=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'known_trip_count":\{"n":"(\d+)"')
_TILING = re.compile(r"T\((\d+),(\d+)\)")


@dataclass(frozen=True)
class Shape:
    """Type, dimensions and layout of an array."""

    dtype: str
    dims: tuple[int, ...]
    layout: str

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.dims)

    @property
    def is_on_chip(self) -> bool:
        """Whether the compiler placed it in the core's own memory (VMEM of a TPU)."""
        return "S(1)" in self.layout

    @property
    def size(self) -> int:
        """Bytes in memory, with the padding of a TPU's tiles of rows and lanes."""
        dims = list(self.dims)
        order = re.match(r"\{([\d,]+)", self.layout)
        if (tiling := _TILING.search(self.layout)) and order and len(dims) > 1:
            minor, second = (int(axis) for axis in order[1].split(",")[:2])
            for axis, unit in ((second, int(tiling[1])), (minor, int(tiling[2]))):
                dims[axis] = -(-dims[axis] // unit) * unit
        return BITS[self.dtype] * math.prod(dims) // 8


@dataclass(frozen=True)
class Instruction:
    """One instruction of a computation.

    Attributes:
        name: In its computation.
        shapes: Arrays of its result, one or those of a tuple.
        operation: For instance ``fusion``.
        operands: Names.
        literal: Text between the parentheses; number of a parameter, value of a constant.
        attributes: Text after them.
        is_root: Whether it is the result of its computation.
    """

    name: str
    shapes: tuple[Shape, ...]
    operation: str
    operands: tuple[str, ...]
    literal: str
    attributes: str
    is_root: bool

    @property
    def called(self) -> tuple[str, ...]:
        """Computations that it calls; of a loop its body."""
        names = _CALLED.findall(self.attributes)
        if branches := _BRANCHES.search(self.attributes):
            names += _NAME.findall(branches[1])
        return tuple(names)

    @property
    def source(self) -> str:
        """Name of the operation in the program that was traced; empty where it has none."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found[1] if found else ""


Computation = dict[str, Instruction]


@dataclass(frozen=True)
class Program:
    """All computations of a program."""

    computations: dict[str, Computation]
    entry: str


def parse(text: str) -> Program:
    """Reads what ``Compiled.as_text()`` returns."""
    computations: dict[str, Computation] = {}
    entry, current = "", None
    for line in text.splitlines():
        if head := _COMPUTATION.match(line):
            current = computations.setdefault(head[2], {})
            entry = head[2] if head[1] else entry
        elif line.startswith("}"):
            current = None
        elif current is not None and (found := _INSTRUCTION.match(line)):
            instruction = _instruction(found[2], found[3], is_root=bool(found[1]))
            if instruction is not None:
                current[instruction.name] = instruction
    return Program(computations, entry)


def trips(program: Program, loop: Instruction) -> int:
    """How often a loop runs, by the compiler or by the bound that its counter is compared with.

    Raises:
        ValueError: Neither is known.
    """
    if known := _TRIPS.search(loop.attributes):
        return int(known[1])
    condition = _CONDITION.search(loop.attributes)
    pending = [condition[1]] if condition else []
    bounds = set()
    while pending:
        for one in program.computations[pending.pop()].values():
            pending += one.called
            if one.operation == "constant" and one.literal.strip().isdigit():
                bounds.add(int(one.literal))
    if len(bounds) != 1:
        raise ValueError(f"the loop {loop.name} has no known number of trips")
    return bounds.pop()


def root(computation: Computation) -> Instruction:
    """The result of a computation, behind bitcasts."""
    found = next(one for one in computation.values() if one.is_root)
    while found.operation == "bitcast" and found.operands:
        found = computation[found.operands[0]]
    return found


def _instruction(name: str, text: str, is_root: bool) -> Instruction | None:
    kind, rest = _split_type(text)
    found = _OPERATION.match(rest)
    if found is None:
        return None
    end = _closing(found[2])
    inside, attributes = found[2][:end], found[2][end + 1 :]
    shapes = tuple(
        Shape(dtype, tuple(int(size) for size in dims.split(",") if size), layout)
        for dtype, dims, layout in _ARRAY.findall(kind)
        if dtype in BITS
    )
    operands = tuple(_NAME.findall(inside))
    return Instruction(name, shapes, found[1], operands, inside, attributes, is_root)


def _split_type(text: str) -> tuple[str, str]:
    """The type of a result, a tuple's in parentheses, and what follows it."""
    end = _closing(text[1:]) + 2 if text.startswith("(") else text.index(" ")
    return text[:end], text[end:].lstrip()


def _closing(text: str) -> int:
    """Index of the parenthesis that closes one before the text."""
    depth = 1
    for index, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if not depth:
            return index
    return len(text)
