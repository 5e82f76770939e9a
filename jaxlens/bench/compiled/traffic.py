"""Bytes and operations of a compiled program, counted in its optimised text.

XLA's own cost analysis counts the body of a loop once; here it counts as often as it runs. Of a
fusion its operands are read and its result is written, once; of an operand that is only sliced,
the slices; of a kernel what it declares, as it may fetch its blocks several times. What fits a
cache is counted as well: it is an upper bound of what moves.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from jaxlens.bench.compiled import hlo

_FREE = {"parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all", "iota"}
_FREE |= {"partition-id", "replica-id", "copy-done", "slice-done", "async-done"}
_SLICES = {"dynamic-slice", "slice", "gather"}
_DECLARED = re.compile(
    r'"cost_estimate":\{"flops":"(\d+)","transcendentals":"\d+","bytes_accessed":"(\d+)"'
)
_UNDECLARED = "mosaic_gpu"
"""Name of the calls of kernels for GPUs, which cannot declare anything."""
_STARTED = {  # which of the arrays that an asynchronous operation carries is its result
    "copy-start": lambda shapes: shapes[:1],  # result, operand, context
    "slice-start": lambda shapes: shapes[-2:-1],  # operand, result, context
    "async-start": lambda shapes: shapes[-2:-1],
}


@dataclass(frozen=True)
class Work:
    """What one instruction does.

    Attributes:
        instruction: Itself.
        path: Names of the loops around it, the outermost first.
        times: How often it runs.
        read: Bytes of device memory, each time.
        written: Likewise.
        flops: Of matrix multiplies, each time.
    """

    instruction: hlo.Instruction
    path: tuple[str, ...]
    times: int
    read: int
    written: int
    flops: float

    @property
    def moved(self) -> int:
        """Bytes of all its runs."""
        return self.times * (self.read + self.written)


def count(program: hlo.Program) -> list[Work]:
    """The work of every instruction that is not free."""
    return list(_walk(program, program.entry, (), 1))


def moved(works: list[Work]) -> int:
    """Bytes read and written in device memory."""
    return sum(work.moved for work in works)


def flops(works: list[Work]) -> float:
    """Operations of matrix multiplies."""
    return sum(work.times * work.flops for work in works)


def states_flops(works: list[Work]) -> bool:
    """Whether the program states the operations of all its kernels."""
    calls = (work.instruction for work in works if work.instruction.operation == "custom-call")
    return not any(_UNDECLARED in call.attributes for call in calls)


def _walk(program: hlo.Program, name: str, path: tuple[str, ...], times: int) -> Iterator[Work]:
    computation = program.computations[name]
    for one in computation.values():
        if one.operation in _FREE:
            continue
        if one.operation == "while":
            runs = times * hlo.trips(program, one)
            for body in one.called:
                yield from _walk(program, body, (*path, one.name), runs)
        elif one.operation in ("call", "conditional"):
            for called in one.called:
                yield from _walk(program, called, path, times)
        else:
            read, written = _bytes(program, computation, one)
            yield Work(one, path, times, read, written, _flops(program, computation, one))


def _bytes(
    program: hlo.Program, computation: hlo.Computation, one: hlo.Instruction
) -> tuple[int, int]:
    """Bytes that are read and written off the chip."""
    if declared := _DECLARED.search(one.attributes):
        written = _written(computation, None, one)
        return max(0, int(declared[2]) - written), written
    fused = program.computations[one.called[0]] if one.operation == "fusion" else None
    read = 0
    for number, name in enumerate(one.operands):
        operand = computation.get(name)
        if operand is None or len(operand.shapes) != 1 or operand.shapes[0].is_on_chip:
            continue
        size = operand.shapes[0].size
        if fused is not None:
            size = min(size, _used(program, fused, _parameter(fused, number), size))
        elif one.operation in _SLICES and number == 0:
            size = sum(shape.size for shape in one.shapes)
        elif one.operation == "slice-start":
            size = _STARTED["slice-start"](one.shapes)[0].size
        elif one.operation == "dynamic-update-slice" and number == 0:
            size = 0
        read += size
    return read, _written(computation, fused, one)


def _written(
    computation: hlo.Computation, fused: hlo.Computation | None, one: hlo.Instruction
) -> int:
    last, place = (one, computation) if fused is None else (hlo.root(fused), fused)
    shapes = one.shapes
    if last.operation == "dynamic-update-slice" and len(shapes) == 1:
        return 0 if shapes[0].is_on_chip else place[last.operands[1]].shapes[0].size
    if one.operation in _STARTED:
        shapes = _STARTED[one.operation](shapes)
    return sum(shape.size for shape in shapes if not shape.is_on_chip)


def _parameter(computation: hlo.Computation, number: int) -> str:
    return next(
        one.name
        for one in computation.values()
        if one.operation == "parameter" and one.literal.strip() == str(number)
    )


def _used(program: hlo.Program, computation: hlo.Computation, name: str, size: int) -> int:
    """Bytes that a fusion reads of a parameter: all, or what it slices from it."""
    total = 0
    for user in computation.values():
        if name not in user.operands:
            continue
        if user.operation in _SLICES and user.operands[0] == name:
            total += user.shapes[0].size
        elif user.operation == "dynamic-update-slice" and user.operands[0] == name:
            total += 0
        elif user.operation == "bitcast":
            total += _used(program, computation, user.name, size)
        elif user.operation == "fusion":
            inner = program.computations[user.called[0]]
            number = user.operands.index(name)
            total += _used(program, inner, _parameter(inner, number), size)
        else:
            return size
    return min(size, total)


def _flops(program: hlo.Program, computation: hlo.Computation, one: hlo.Instruction) -> float:
    if one.operation == "dot":
        left = computation[one.operands[0]].shapes[0].dims
        contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", one.attributes)
        axes = [int(axis) for axis in contracted[1].split(",") if axis] if contracted else []
        return 2.0 * one.shapes[0].elements * math.prod(left[axis] for axis in axes)
    if declared := _DECLARED.search(one.attributes):
        return float(declared[1])
    if one.operation == "custom-call" and "gemm" in one.attributes[:200]:
        left = computation[one.operands[0]].shapes[0].dims
        contracted = re.search(r'"lhs_contracting_dimensions":\["(\d+)"', one.attributes)
        return 2.0 * one.shapes[0].elements * left[int(contracted[1])] if contracted else 0.0
    if one.operation == "convolution":
        return _convolution_flops(computation, one)
    if one.operation in ("fusion", "async-start"):
        inner = program.computations[one.called[0]]
        return sum(_flops(program, inner, each) for each in inner.values())
    return 0.0


def _convolution_flops(computation: hlo.Computation, one: hlo.Instruction) -> float:
    """Of the convolution as which a TPU's compiler writes a matrix multiply."""
    labels = re.search(r"dim_labels=[\w?]+_([\w?]+)->", one.attributes)
    kernel = computation[one.operands[1]].shapes[0].dims
    if labels is None:
        return 0.0
    # Batches are windows that are padded or dilated: of those a result sees one place.
    is_batched = "lhs_dilate" in one.attributes or "pad=" in one.attributes
    seen = [
        size
        for label, size in zip(labels[1], kernel, strict=True)
        if label != "o" and not (is_batched and label.isdigit())
    ]
    return 2.0 * one.shapes[0].elements * math.prod(seen)
