"""Parts of arrays by number: the same bits as plain indexing, and no copy of the whole array."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlens.lens import slicing


def stack(dtype):
    """Every pattern of 16 bits, NaN and subnormal numbers among them."""
    bits = np.arange(2**16, dtype=np.uint16).reshape(64, 32, 32)
    return jax.lax.bitcast_convert_type(jnp.asarray(bits), jnp.bfloat16).astype(dtype)


def bits(x):
    return np.asarray(x).view(np.uint16 if x.dtype == jnp.bfloat16 else np.uint32)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_entries_and_rows_have_the_bits_of_the_array(dtype):
    array = stack(dtype)
    taken = jax.jit(slicing.entry)({"a": array, "b": array[:, 0]}, jnp.int32(41))
    np.testing.assert_array_equal(bits(taken["a"]), bits(array)[41])
    np.testing.assert_array_equal(bits(taken["b"]), bits(array)[41, 0])
    numbers = jnp.array([[3, 63], [0, 3]])
    np.testing.assert_array_equal(
        bits(jax.jit(slicing.rows)(array[:, 5], numbers)), bits(array)[np.asarray(numbers), 5]
    )


def test_a_loop_over_bfloat16_holds_no_copy_of_what_it_takes_from():
    weights = jax.ShapeDtypeStruct((64, 128, 128), jnp.bfloat16)
    table = jax.ShapeDtypeStruct((4096, 128), jnp.bfloat16)
    ids = jax.ShapeDtypeStruct((5,), jnp.int32)

    def loop(weights, table, ids, x):
        def body(x, number):
            kernel = slicing.entry(weights, number)
            x = jnp.matmul(x.astype(kernel.dtype), kernel, preferred_element_type=jnp.float32)
            return x + slicing.rows(table, ids).astype(jnp.float32), None

        return jax.lax.scan(body, x, jnp.arange(64))[0]

    x = jax.ShapeDtypeStruct((5, 128), jnp.float32)
    compiled = jax.jit(loop).lower(weights, table, ids, x).compile()
    assert "f32[64,128,128]" not in compiled.as_text()
    assert "f32[4096,128]" not in compiled.as_text()
    assert compiled.memory_analysis().temp_size_in_bytes < 2 * 64 * 128 * 128 / 4
