"""A part of `on_device.py`: every path of the lens against float64 NumPy, on this device.

The definitions are those of ``tests/oracle.py``. The lens reads float32 streams that the float64
lens reads too, so that its own rounding is seen alone; the forward pass is checked by itself.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import pathlib
import tempfile
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import harness
import jax
import numpy as np

from jaxlens import config, load_model, models, open_run, run_sweep, schema, types
from jaxlens.corpus import references
from jaxlens.lens import implementations, options, temperature
from jaxlens.models import loading

TESTS = pathlib.Path(__file__).resolve().parents[1] / "tests"
STREAMS = {"float32": 1e-4, "bfloat16": 3e-2}
"""Most of the difference of streams, as norms."""

NATS = {"float32": 1e-3, "bfloat16": 0.1}
"""Most of the difference of a float; that of the gate at every run's start."""

GAP = 1e-3
"""Logits nearer than this may change places in float32."""

SIZES = {"n_layer": 4, "n_head": 4, "n_embd": 128, "n_positions": 128, "vocab_size": 5_003}


def main() -> None:
    """Prints a line a check."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--small", action="store_true")
    small = parser.parse_args().small
    oracle, random_model = _test_module("oracle"), _test_module("random_model")
    parsed = models.parse({"model_type": "gpt2", "bos_token_id": None} | SIZES)
    seed = int.from_bytes(np.random.default_rng().bytes(4), "little")  # other weights every time
    fresh = loading.Model(parsed, random_model.random_params(SIZES, seed), None)
    for name, model in (("packaged", load_model("packaged")), (f"seed {seed}", fresh)):
        ids = np.random.default_rng(seed).integers(
            0, model.config.vocab_size, (2, 24 if small else 96)
        )
        streams = oracle.residuals(model.params, model.config, ids)
        for precision in STREAMS:
            say(f"{name}: forward {precision}", *_forward(model, ids, streams, precision))
        for what, right, found in _lens(oracle, model, ids, streams.astype(np.float32), small):
            say(f"{name}: {what}", right, found)
    say("packaged: tallies of a sweep", *_tallies())


def say(check: str, right: bool, found: str) -> None:
    """Prints a line."""
    print(json.dumps({"check": check, "right": bool(right), "found": found}), flush=True)


def _forward(
    model: loading.Model, ids: np.ndarray, wanted: np.ndarray, precision: str
) -> tuple[bool, str]:
    rounded = jax.tree.map(lambda leaf: jax.numpy.asarray(leaf, precision), model.params)
    got = np.asarray(loading.forward(rounded, model.config, ids, precision, None), np.float64)
    apart = float(np.linalg.norm(got - wanted) / np.linalg.norm(wanted))
    return apart <= STREAMS[precision], f"{apart:.2g} of the norm"


def _lens(
    oracle: ModuleType, model: loading.Model, ids: np.ndarray, streams: np.ndarray, small: bool
) -> Iterator[tuple[str, bool, str]]:
    known = references.in_memory(ids, None, 0)
    unembed = models.unembed(model.params, model.config)
    tau = np.linspace(2.0, 1.0, len(streams)).astype(np.float32)
    tempered = dataclasses.replace(unembed, temperature=jax.numpy.asarray(tau))
    exact = oracle.lens(streams, unembed, known, gap=GAP, tau=tau)
    for implementation, precision in _paths():
        for profile in ("full",) if small else ("core", "full"):
            wanted = [n for n in schema.PROFILES[profile] if n in schema.LAYERED]
            request = options.Options(tuple(wanted), None, 1, precision)
            read = jax.jit(implementations.IMPLEMENTATIONS[implementation], static_argnums=3)
            what = f"lens {implementation} {profile} {precision}"
            try:
                found = read(jax.numpy.asarray(streams), tempered, known, request).present()
            except Exception as error:  # one path that a device lacks must not hide the others
                yield what, False, f"{type(error).__name__}: {error}"[:300]
                continue
            yield what, *_compare(exact, found, precision)
    if small:
        return
    mask = np.ones(ids.shape, bool)
    fitted = temperature.of_batch(jax.numpy.asarray(streams), mask, unembed, "float32")
    apart = _slope_change(oracle, streams, unembed, fitted)
    yield "temperatures", apart <= 2e-3, f"{apart:.2g} from the crossing, relative"


def _paths() -> Iterator[tuple[str, str]]:
    for implementation in implementations.IMPLEMENTATIONS:
        if implementation == "pallas" and not harness.has_kernel():
            continue
        yield implementation, "float32"
        if implementation != "reference":
            yield implementation, "bfloat16"


def _compare(
    exact: Mapping[str, np.ndarray], found: Mapping[str, Any], precision: str
) -> tuple[bool, str]:
    """Floats within the limit; ranks and best tokens up to near ties, in float32."""
    worst, ranks, top = 0.0, 1.0, 1.0
    # Where a near tie made another token the best of the last layer, its logp and rank are of
    # another reference.
    same = np.asarray(found["top_id"])[-1, ..., 0] == exact["top_id"][-1, ..., 0]
    for name, value in found.items():
        got, kind = np.asarray(value), schema.QUANTITIES[name].kind
        if kind == "float" and name in exact:
            if (np.isnan(got) != np.isnan(exact[name])).any():
                return False, f"{name} is missing elsewhere"
            apart = np.abs(got - exact[name])[:, same if name == "logp_final" else ...]
            worst = max(worst, float(np.nanmax(apart, initial=0.0)))
        elif kind == "rank":
            near = (got >= exact[f"{name}_low"]) & (got <= exact[f"{name}_high"])
            near = near[:, same if name == "rank_final" else ...]
            ranks = min(ranks, float(near.mean()))
        elif name == "top_id":
            clear = exact["top_gap"] > GAP
            top = float((got[..., 0] == exact["top_id"][..., 0])[clear].mean())
    right = worst <= NATS[precision]  # False for NaN
    if precision == "float32":
        right = right and ranks == top == 1.0
    return right, f"{worst:.2g} nat, {ranks:.2%} of ranks and {top:.2%} of best tokens as exact"


def _slope_change(
    oracle: ModuleType, streams: np.ndarray, unembed: types.Unembed, fitted: tuple[float, ...]
) -> float:
    """How far, relative, temperatures are from the zero of the float64 slope, by Newton's step."""
    z = oracle.logits(streams, unembed).reshape(len(streams), -1, unembed.weight.shape[0])
    p = oracle.softmax(z[-1])
    far = []
    for layer, tau in zip(z[:-1], fitted[:-1], strict=True):
        if not temperature.LIMITS[0] < tau < temperature.LIMITS[1]:
            continue
        q = oracle.softmax(layer / tau)
        mean = (q * layer).sum(-1)
        slope = (mean - (p * layer).sum(-1)).sum()
        change = ((q * layer**2).sum(-1) - mean**2).sum()  # of the slope, by inverse temperature
        # What is rounded away is allowed.
        far.append(max(0.0, abs(slope / change) * tau - 10.0**-temperature.DECIMALS / tau))
    return max(far, default=0.0)


def _tallies() -> tuple[bool, str]:
    """Totals that the device counted, against rows that it stored, in float64."""
    with tempfile.TemporaryDirectory(prefix="jaxlens-device-") as scratch:
        folder = pathlib.Path(scratch)
        text = "The quick brown fox jumps over the lazy dog, and the dog sleeps on. " * 12
        (folder / "text.jsonl").write_text(
            "\n".join(json.dumps({"text": text[i:]}) for i in range(4))
        )
        given = {"corpus.paths": [str(folder / "text.jsonl")], "out": str(folder / "run")}
        given |= {"plan.length": 64, "plan.step_sequences": 4, "cache": "none"}
        run_sweep(config.load([], {}, given))
        with open_run(folder / "run") as run:
            names = ("entropy", "kl_final", "kl_input")
            summary = run.summary()
            worst = 0.0
            for name in names:
                means = np.nanmean(np.asarray(run[name][:], np.float64), 0)
                got = [summary[layer][f"mean_{name}"] for layer in run.layer_names]
                worst = max(worst, float(np.abs(means - got).max()))
    return worst <= 1e-4, f"means differ by {worst:.2g} nat"


def _test_module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, TESTS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
