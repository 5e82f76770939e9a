"""Leaves that the layouts of several families are made of, as transformers' newer models name them.

A layer's kernel is stored by PyTorch the other way round; what reads the residual stream is split
over devices along its outputs, what adds to it along its inputs.
"""

from __future__ import annotations

from collections.abc import Iterator

from jaxlens.models.checkpoints import layout


def gain(name: str, size: int) -> layout.Leaf:
    """Gain of a norm of each block, which has no bias."""
    return layout.Leaf(f"layers/{name}", f"{_torch(name)}.weight", f"{name}/weight", (size,))


def dense(
    name: str, rows: int, columns: int, split: int, has_bias: bool = True
) -> Iterator[layout.Leaf]:
    """Kernel of a layer of each block, and its bias if it has one.

    Args:
        name: Such as ``mlp/up_proj``.
        rows: Entries that it reads.
        columns: Entries that it gives.
        split: Axis of the kernel that devices which share the model split.
        has_bias: Whether it has one.
    """
    yield layout.Leaf(
        f"layers/{name}/kernel",
        f"{_torch(name)}.weight",
        f"{name}/kernel",
        (rows, columns),
        transposed_in=("torch",),
        split=split,
    )
    if has_bias:
        yield layout.Leaf(
            f"layers/{name}/bias",
            f"{_torch(name)}.bias",
            f"{name}/bias",
            (columns,),
            split=0 if split == 1 else None,
        )


def attention(
    embed: int, query: int, key: int, qkv_bias: bool, output_bias: bool
) -> Iterator[layout.Leaf]:
    """Four projections of attention: of ``query`` entries and, of key and value, ``key`` each."""
    yield from dense("self_attn/q_proj", embed, query, 1, qkv_bias)
    yield from dense("self_attn/k_proj", embed, key, 1, qkv_bias)
    yield from dense("self_attn/v_proj", embed, key, 1, qkv_bias)
    yield from dense("self_attn/o_proj", query, embed, 0, output_bias)


def gated_mlp(embed: int, inner: int, has_bias: bool = False) -> Iterator[layout.Leaf]:
    """Three layers of a gated MLP."""
    yield from dense("mlp/gate_proj", embed, inner, 1, has_bias)
    yield from dense("mlp/up_proj", embed, inner, 1, has_bias)
    yield from dense("mlp/down_proj", inner, embed, 0, has_bias)


def _torch(name: str) -> str:
    return name.replace("/", ".")
