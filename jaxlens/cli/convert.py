"""Commands that write other formats: convert, export; heavy imports inside each."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from jaxlens.cli import options, run_output, sources, terminal


def convert(
    source: str,
    target: Path,
    /,
    *,
    to: Literal["orbax", "safetensors", "msgpack"],
    dtype: Literal["float32", "float16", "bfloat16"] = "float32",
    output: options.Shown = options.Output(),
) -> None:
    """Convert a checkpoint; at float32 the weights keep every bit.

    Args:
        source: Model directory, GGUF file or hub id (org/name, or org/name:Q4_K_M).
        target: Directory to create.
        to: Format to write.
        dtype: Type to store.
        output: What is printed.
    """
    options.begin(output)
    from jaxlens.models import loading
    from jaxlens.models.checkpoints import checkpoint

    loaded = loading.load_checkpoint(source)
    checkpoint.save(target, loaded.architecture, loaded.params, to, dtype, loaded.directory)
    terminal.say(f"wrote {to} weights to {target}")


def export(
    run_dir: Path,
    /,
    *,
    to: Literal["parquet", "csv", "hdf5"],
    out: Path | None = None,
    layout: Literal["wide", "long"] | None = None,
    quantities: options.Words = None,
    layers: options.Words = None,
    start: int | None = None,
    stop: int | None = None,
    tallies: bool = False,
    output: options.Shown = options.Output(),
) -> None:
    """Write rows or totals of a run for other tools: one table, or one HDF5 file.

    Args:
        run_dir: Run directory.
        to: Format; parquet and csv need the package pyarrow.
        out: File to create (.csv.gz compresses), for tallies a folder; beside the run by
            default, of a run in an object store in the current directory.
        layout: wide: a record a token, a column a layer; long: a record for each token and layer.
        quantities: Quantities to export; all by default.
        layers: Numbers (-1 is the last) or names (h.3) of layers; all by default.
        start: First row.
        stop: End of the rows, exclusive.
        tallies: Export the totals instead, a table each.
        output: What is printed.
    """
    options.begin(output)
    from jaxlens.export import order

    columns = {"layout": layout, "quantities": quantities, "layers": layers}
    rows = {"start": start, "stop": stop, "tallies": tallies}
    ending = order.ending(to, tallies)
    target = out or sources.beside(run_dir, ending)
    with sources.readable(run_dir) as (run,):
        exported = order.export(run, order.Order(to=to, out=target, **columns, **rows))
    run_output.show_exports(exported)
