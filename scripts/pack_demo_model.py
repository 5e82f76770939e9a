"""Packs the trained demo model into jaxlens/models/packaged, as it is shipped.

    python scripts/pack_demo_model.py PATH/TO/mini-gpt2

Weights become float16 (their rounding is part of the shipped model), the tokenizer's JSON loses
its white space, ``config.json`` is written again from what was understood of it. The model card
beside them is written by hand and stays.
"""

import argparse
import json
import pathlib

from jaxlens.models.checkpoints import checkpoint as weights
from jaxlens.models.checkpoints import formats

TARGET = pathlib.Path(__file__).resolve().parent.parent / "jaxlens" / "models" / "packaged"
LARGEST = 6 * 10**6


def pack(source: pathlib.Path, target: pathlib.Path) -> None:
    """Writes weights, configuration and tokenizer of ``source`` to ``target``."""
    checkpoint = weights.load(source)
    for name in (*formats.SINGLE.values(), "config.json", "tokenizer.json"):
        (target / name).unlink(missing_ok=True)
    weights.save(target, checkpoint.architecture, checkpoint.params, "msgpack", "float16")
    tokenizer = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    compact = json.dumps(tokenizer, ensure_ascii=False, separators=(",", ":"))
    (target / "tokenizer.json").write_text(compact + "\n", encoding="utf-8")


def main() -> None:
    """Packs the directory given on the command line."""
    parser = argparse.ArgumentParser(description="Pack the demo model.")
    parser.add_argument("source", type=pathlib.Path, help="directory of the float32 model")
    parser.add_argument("--target", type=pathlib.Path, default=TARGET)
    arguments = parser.parse_args()
    pack(arguments.source, arguments.target)
    size = sum(path.stat().st_size for path in arguments.target.iterdir())
    if size > LARGEST:
        raise SystemExit(f"{size} bytes are too many to ship, at most {LARGEST}")
    digest = weights.digest(weights.load(arguments.target).params)
    print(f"{arguments.target.name}: {size} bytes, weights {digest}")


if __name__ == "__main__":
    main()
