"""What a sweep of 10^9 to 10^12 tokens takes: shards, storage, memory, devices and hours.

python benchmarks/scale_arithmetic.py [--model gpt2] [--price 2.0]

Sizes come from the code that chooses them. Rates are those that the tables of docs/performance.md
give for GPT-2 small; of accelerators they are what the compiled program allows, not measurements.
"""

from __future__ import annotations

import argparse
import dataclasses

from jaxlens import config
from jaxlens.bench import random_model
from jaxlens.store import layout
from jaxlens.sweep import resolve

TALLY_MIB = {"gpt2": 9.0, "gpt2-xl": 23.0}
"""Compressed tallies of the study in a shard, whatever its tokens."""

PLAN_BYTES = 62 * 2**20 / 1.4e9
"""Memory of the plan for each token, measured at 1.4e9 tokens in documents of 1,024."""

RATES = {  # tokens a second of one device, gpt2, bfloat16, rows core
    "2 CPU cores": 463.0,
    "v5e": 80_823.0,
    "v6e": 143_712.0,
    "H100 (without kernel)": 3.35e12 / 14.39e6,
}
FINALIZE_SECONDS_A_SHARD = 1e-4
"""Reading a record and comparing a size, see ``bench_scale.py store``."""


@dataclasses.dataclass(frozen=True)
class Row:
    """A corpus and what it takes."""

    tokens: float
    rows: str
    shard_tokens: int
    shards: float
    segments: float
    storage_tib: float
    plan_gib: float
    records_seconds: float


def main() -> None:
    """Prints two tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="gpt2", choices=sorted(TALLY_MIB))
    parser.add_argument("--price", type=float, default=2.0, help="of a device hour")
    given = parser.parse_args()
    print("tokens   rows   shard tokens    shards  segments  storage TiB  plan GiB  records s")
    for exponent in (9, 10, 11, 12):
        for rows in ("none", "core"):
            row = sizes(given.model, 10.0**exponent, rows)
            print(
                f"10^{exponent:<5} {row.rows:5} {row.shard_tokens:13,} {row.shards:9,.0f} "
                f"{row.segments:9,.0f} {row.storage_tib:12.2f} {row.plan_gib:9.2f} "
                f"{row.records_seconds:10.1f}"
            )
    if given.model != "gpt2":
        return
    print("\ndevice                   tokens/s  hours a 10^9   cost a 10^9   10^12 on 1,000, hours")
    for device, rate in RATES.items():
        hours = 1e9 / rate / 3600
        print(
            f"{device:22} {rate:10,.0f} {hours:13,.1f} {hours * given.price:13,.1f} "
            f"{1.04 * hours:19,.1f}"
        )


def sizes(model: str, tokens: float, rows: str) -> Row:
    """What a corpus takes, with the study's tallies."""
    settings = {"model.path": model, "store.rows": rows, "store.tallies": "study"}
    resolved = resolve.resolve(
        config.load([], {}, settings), random_model.architecture(model), platform="gpu"
    ).with_corpus(int(tokens))
    shards = tokens / resolved.shard_tokens
    segments = shards / layout.SHARDS_PER_SEGMENT if shards > layout.SHARDS_PER_SEGMENT else 0.0
    tallies = (shards + segments) * TALLY_MIB[model] * 2**20
    return Row(
        tokens,
        rows,
        resolved.shard_tokens,
        shards,
        segments,
        (tokens * resolved.row_bytes + tallies + 2 * tokens) / 2**40,
        tokens * PLAN_BYTES / 2**30,
        shards * FINALIZE_SECONDS_A_SHARD,
    )


if __name__ == "__main__":
    main()
