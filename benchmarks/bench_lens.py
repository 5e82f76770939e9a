"""The lens alone, random weights: tiled beside reference and beside its matrix multiplies.

python benchmarks/bench_lens.py [--shape gpt2] [--tokens 256] [--precision float32] [--alone]
"""

from __future__ import annotations

import argparse
import functools
import statistics

import harness
import jax
import jax.numpy as jnp
import numpy as np

from jaxlens import schema, types
from jaxlens.bench import random_model
from jaxlens.lens import numerics, reference, tiled, unembedding
from jaxlens.lens.options import Options
from jaxlens.sweep import environment

SHAPES = {  # residual streams, embed, vocabulary
    "mini": (9, 128, 4096),
    **{
        name: (blocks + 1, embed, 50257) for name, (blocks, _, embed) in random_model.SHAPES.items()
    },
}
PROFILES = {
    name: tuple(n for n in schema.PROFILES[name] if n in schema.LAYERED)
    for name in ("core", "full")
}
PROFILES["required"] = (*PROFILES["full"], "top_logp")


def main() -> None:
    """Times the candidates and prints a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--shape", choices=SHAPES, default="gpt2")
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--quantities", choices=PROFILES, default="required")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tile", type=int)
    parser.add_argument("--block", type=int)
    parser.add_argument("--alone", action="store_true", help="tiled only, for its memory")
    given = parser.parse_args()
    case = make_case(*SHAPES[given.shape], given.tokens)
    options = Options(PROFILES[given.quantities], None, 1, given.precision, given.tile, given.block)
    table = unembedding.tile_unembedding(case[1], options)
    candidates = {"tiled": lambda: tiled_read(*case, options, table)}
    if not given.alone:
        candidates["reference"] = lambda: reference_read(*case, options)
        candidates["multiplies"] = lambda: multiplies(case[0], table, given.precision)
    seconds = harness.time_in_turn(candidates, given.rounds)
    rates = {n: given.tokens / statistics.median(s) for n, s in seconds.items()}
    peak = environment.peak_bytes()
    measured = {
        **vars(given),
        "seconds": seconds,
        "tokens_per_second": rates,
        "peak_bytes": peak,
    }
    for name, rate in rates.items():
        print(f"{name:<12} {rate:10,.1f} tok/s")
    if not given.alone:
        measured["tiled_over_reference"] = harness.median_ratio(
            seconds["reference"], seconds["tiled"]
        )
        measured["of_multiplies"] = harness.median_ratio(seconds["multiplies"], seconds["tiled"])
        measured["worst_difference"] = worst_difference(case, options, table)
        print(f"tiled is {measured['tiled_over_reference']:.2f} times as fast as reference")
        print(f"tiled runs at {measured['of_multiplies']:.2f} of the matrix-multiply rate")
        print(f"largest difference of a float: {measured['worst_difference']:.2g}")
    print(f"peak memory {peak / 2**30:.2f} GiB")
    harness.record("bench_lens", measured)


def make_case(
    layers: int, embed: int, vocab: int, tokens: int
) -> tuple[jax.Array, types.Unembed, types.References]:
    """Residuals, head and references of one line of tokens."""
    random = np.random.default_rng(0)

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(random.standard_normal(shape, np.float32))

    def ids() -> jax.Array:
        return jnp.asarray(random.integers(0, vocab, (1, tokens)), jnp.int32)

    weight = 0.05 * normal(vocab, embed)
    unembed = types.Unembed("final_norm", jnp.ones(embed), jnp.zeros(embed), 1e-5, weight)
    mask = jnp.ones((1, tokens), bool)
    references = types.References(ids(), ids(), ids(), ids(), mask)
    return normal(layers, 1, tokens, embed), unembed, references


tiled_read = jax.jit(tiled.read, static_argnums=3)
reference_read = jax.jit(reference.read, static_argnums=3)


@functools.partial(jax.jit, static_argnums=2)
def multiplies(
    streams: jax.Array, table: unembedding.TiledUnembedding, precision: str
) -> jax.Array:
    """Every product that the lens needs, in its own tiles, and next to no reduction."""
    rows = streams.reshape(-1, streams.shape[-1]).astype(table.weight.dtype)

    def body(total: jax.Array, weight: jax.Array) -> tuple[jax.Array, None]:
        contract = (((1,), (1,)), ((), ()))
        z = jax.lax.dot_general(rows, weight, contract, preferred_element_type=jnp.float32)
        return total + jax.lax.optimization_barrier(z)[:, 0], None

    with numerics.matmul_precision(precision):
        return jax.lax.scan(body, jnp.zeros(len(rows)), table.weight)[0]


def worst_difference(case: tuple, options: Options, table: unembedding.TiledUnembedding) -> float:
    """Greatest difference from the float32 reference over all float quantities."""
    exact = Options(options.quantities, None, 1, "float32")
    got = tiled_read(*case, options, table).present()
    want = reference_read(*case, exact).present()
    return max(
        float(jnp.nanmax(jnp.abs(got[name] - want[name])))
        for name in got
        if schema.QUANTITIES[name].kind == "float"
    )


if __name__ == "__main__":
    main()
