"""The two roles of a warpgroup in the Hopper kernel: it copies, or it multiplies and reduces.

One warpgroup of a block of threads copies slices of rows and of a tile of the unembedding into a
ring of buffers, and the end layers' logits, which all layers of the block read. The others multiply
64 rows each, of one layer, with one tile after the other, and reduce the product in registers (see
`fragments`).
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from jaxlens.lens.kernels import fragments, hopper_sizes, registers

_ROWS, _LANES = fragments.ROWS, fragments.LANES


class Block:
    """One block of threads: its arrays, its part of the work, and the two roles of a warpgroup."""

    def __init__(
        self,
        refs: tuple[Any, ...],
        buffers: dict[str, Any],
        barriers: dict[str, Any],
        shape: hopper_sizes.Shape,
        interpret: bool,
    ) -> None:
        n_inputs = len(shape.inputs)
        self.inputs = dict(zip(shape.inputs, refs[:n_inputs], strict=True))
        self.outputs = refs[n_inputs:]
        self.buffers, self.barriers, self.shape = buffers, barriers, shape
        self.interpret = interpret
        self.registers = registers.Registers(interpret)
        n_layers, _, embed = self.inputs["rows"].shape
        n_tiles = self.inputs["biases"].shape[1] // shape.tile
        # The last group begins earlier where it would be short: some layers are read twice.
        first = jax.lax.axis_index("group") * shape.layers
        self.first_layer = jnp.minimum(first, n_layers - shape.layers)
        self.tokens = pl.ds(jax.lax.axis_index("block") * _ROWS, _ROWS)
        self.split = jax.lax.axis_index("split")
        self.first_tile = self.split * n_tiles // shape.splits
        self.last_tile = (self.split + 1) * n_tiles // shape.splits
        self.steps = embed // hopper_sizes.DEPTH

    def copy(self) -> None:
        """The warpgroup that copies what the others read, as soon as there is room."""
        all_of = slice(None)
        layers = pl.ds(self.first_layer, self.shape.layers)
        self._copy("rows_came", "reference_logits", (layers, all_of, self.tokens))
        self._copy("rows_came", "ids", (all_of, self.tokens))
        if not self.shape.is_of_ends:
            self._copy("rows_came", "end_log_total", (all_of, self.tokens))
        # Once there is room for this slice, all have reduced the last tile and read its ends.
        ends_at = min(self.shape.stages, self.steps - 1)

        def one(tile: jax.Array, _: None) -> None:
            columns = pl.ds(tile * self.shape.tile, self.shape.tile)

            def copy_ends() -> None:
                pl.when(tile > self.first_tile)(lambda: self._wait("ends_read"))
                self._copy("ends_came", "biases", (all_of, columns))
                if not self.shape.is_of_ends:
                    self._copy("ends_came", "end_logits", (all_of, self.tokens, columns))

            def step(k: jax.Array, _: None) -> None:
                number = self._number(tile, k)
                pl.when(number >= self.shape.stages)(lambda: self._wait("read", number))
                depth = pl.ds(k * hopper_sizes.DEPTH, hopper_sizes.DEPTH)
                of_tile = (depth, columns) if self.interpret else (columns, depth)
                self._copy("came", "rows", (layers, self.tokens, depth), number)
                self._copy("came", "weight", of_tile, number)
                pl.when(k == ends_at)(copy_ends)

            jax.lax.fori_loop(0, self.steps, step, None)

        jax.lax.fori_loop(self.first_tile, self.last_tile, one, None)
        # The waits above lag behind; the last ones are made up for before the buffers go.
        end = self._number(self.last_tile, 0)
        first = jnp.maximum(end - self.shape.stages, 0)
        jax.lax.fori_loop(first, end, lambda number, _: self._wait("read", number), None)
        self._wait("ends_read")

    def _number(self, tile: jax.Array, k: jax.Array | int) -> jax.Array:
        """How many steps this block has made before."""
        return (tile - self.first_tile) * self.steps + k

    def _slot(self, number: jax.Array) -> jax.Array:
        """The buffer of a step."""
        return jax.lax.rem(number, jnp.int32(self.shape.stages))

    def _barrier(self, name: str, number: jax.Array | None) -> Any:
        barrier = self.barriers[name]
        return barrier if number is None else barrier.at[self._slot(number)]

    def _wait(self, name: str, number: jax.Array | None = None) -> None:
        plgpu.barrier_wait(self._barrier(name, number))

    def _copy(self, barrier: str, name: str, index: Any, number: jax.Array | None = None) -> None:
        to = self.buffers[name] if number is None else self.buffers[name].at[self._slot(number)]
        plgpu.copy_gmem_to_smem(self.inputs[name].at[index], to, self._barrier(barrier, number))

    def reduce(self, warpgroup: jax.Array) -> None:
        """A warpgroup that multiplies and reduces the rows of its layer."""
        layer = self.first_layer + warpgroup
        temperature = self.inputs["inverse_temperature"][layer] if self.shape.is_tempered else None
        n_ends = 0 if self.shape.is_of_ends else 2
        references = self.inputs["ids"].shape[0]
        start = fragments.start(references, self.shape.top_k, self.shape.is_tempered, n_ends)
        self._wait("rows_came")
        state = jax.tree.map(self.registers.lay_out, start)

        def one(tile: jax.Array, state: fragments.State) -> fragments.State:
            z = pl.run_scoped(
                functools.partial(self._multiply, warpgroup, tile),
                plgpu.ACC((_ROWS, self.shape.tile), jnp.float32),
            )
            if self.shape.is_of_ends:
                self._write(z, tile, layer, warpgroup)
            self._wait("ends_came")
            return self._add(state, z, tile, warpgroup, temperature)

        state = jax.lax.fori_loop(self.first_tile, self.last_tile, one, state)
        self._store(state, layer, warpgroup, temperature)

    def _multiply(self, warpgroup: jax.Array, tile: jax.Array, accumulator: Any) -> jax.Array:
        def release(number: jax.Array) -> None:
            plgpu.barrier_arrive(self._barrier("read", number))

        def step(k: jax.Array, _: None) -> None:
            number = self._number(tile, k)
            self._wait("came", number)
            weight = self.buffers["weight"].at[self._slot(number)]
            plgpu.wgmma(
                accumulator,
                self.buffers["rows"].at[self._slot(number), warpgroup],
                weight if self.interpret else weight.transpose((1, 0)),
            )
            # The multiply before this one is done when at most one is under way.
            plgpu.wgmma_wait(1)
            pl.when(k > 0)(lambda: release(number - 1))

        jax.lax.fori_loop(0, self.steps, step, None)
        z = accumulator[...]
        release(self._number(tile, self.steps - 1))
        return z

    def _add(
        self,
        state: fragments.State,
        z: jax.Array,
        tile: jax.Array,
        warpgroup: jax.Array,
        temperature: jax.Array | None,
    ) -> fragments.State:
        """Adds the logits of a tile; those of the ends are read a few columns at a time."""
        z = z + self.registers.load_columns(self.buffers["biases"], 0)
        groups = [slice(i, i + _LANES) for i in range(0, self.shape.tile, _LANES)]
        logits = [z[:, group] for group in groups]
        lane = self.registers.lay_out(jax.lax.broadcasted_iota(jnp.int32, (_ROWS, _LANES), 1))
        columns = [lane + (tile * self.shape.tile + group.start) for group in groups]
        old = state.max_logit
        state = fragments.find_best(state, logits, columns)
        state = fragments.rescale(state, old, temperature)
        log2_totals = [
            fragments.log2_of_total(self.registers.load_row(self.buffers["end_log_total"], i))
            for i in range(len(state.means))
        ]
        end_bias = self.registers.load_columns(self.buffers["biases"], 1)
        for first in range(0, self.shape.tile, hopper_sizes.ENDS_WIDTH):
            some = slice(first, first + hopper_sizes.ENDS_WIDTH)
            ends = [
                self.registers.load(self.buffers["end_logits"].at[i, :, some]) + end_bias[:, some]
                for i in range(len(state.means))
            ]
            for group in range(0, hopper_sizes.ENDS_WIDTH, _LANES):
                state = fragments.add_sums(
                    state,
                    logits[(first + group) // _LANES],
                    [end[:, group : group + _LANES] for end in ends],
                    log2_totals,
                    temperature,
                )
        plgpu.commit_smem()  # what was read here is overwritten by copies, which run apart
        plgpu.barrier_arrive(self.barriers["ends_read"])
        references = range(self.inputs["ids"].shape[0])
        return fragments.count_greater(
            state,
            logits,
            columns,
            [
                self.registers.load_row(self.buffers["reference_logits"], (warpgroup, r))
                for r in references
            ],
            [self.registers.load_row(self.buffers["ids"], r) for r in references],
        )

    def _write(self, z: jax.Array, tile: jax.Array, layer: jax.Array, warpgroup: jax.Array) -> None:
        """Writes the logits of a tile, without the bias, while the multiplies go on."""
        plgpu.wait_smem_to_gmem(0, wait_read_only=True)  # the last tile has left the buffer
        buffer = self.buffers["end_logits"].at[warpgroup]
        buffer[...] = z
        plgpu.commit_smem()
        columns = pl.ds(tile * self.shape.tile, self.shape.tile)
        plgpu.copy_smem_to_gmem(buffer, self.outputs[2].at[layer, self.tokens, columns])

    def _store(
        self,
        state: fragments.State,
        layer: jax.Array,
        warpgroup: jax.Array,
        temperature: jax.Array | None,
    ) -> None:
        floats, integers = fragments.combine(state, temperature)
        values = [floats[name] for name in self.shape.floats], integers
        for name, rows, output in zip(
            ("floats", "integers"), values, self.outputs[:2], strict=True
        ):
            buffer = self.buffers[name].at[warpgroup]
            for k, row in enumerate(rows):
                buffer[k] = row
            plgpu.commit_smem()
            plgpu.copy_smem_to_gmem(buffer, output.at[self.split, :, layer, self.tokens])
        plgpu.wait_smem_to_gmem(0)
