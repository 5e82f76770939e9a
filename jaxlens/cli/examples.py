"""Command lines that ``--help`` and the documentation show; a test executes all of them."""

from __future__ import annotations

EXAMPLES: dict[str, tuple[str, ...]] = {
    "run": (
        "jaxlens run --out runs/demo",
        "jaxlens run --model gpt2 --corpus texts.jsonl --limit 10M --dry-run",
        "jaxlens run --model gpt2 --corpus texts.jsonl --limit 10M --out runs/gpt2",
        "jaxlens run --corpus texts.jsonl --null shuffled --seed 1 --out runs/null",
    ),
    "show": (
        "jaxlens show 'Other times, when people say plasma'",
        "jaxlens show 'Other times, when people say plasma' --follow ' people' ' the'",
        "echo 'Other times, when' | jaxlens show - --metric kl_final",
        "jaxlens show 'Other times, when' --metric entropy --html prompt.html",
    ),
    "prompts": (
        r"printf 'prompt,answer\nThe train was,late\nThe tea was,hot\n' > facts.csv",
        "jaxlens prompts facts.csv",
        "jaxlens prompts facts.csv --out facts.parquet --figure facts.png",
    ),
    "compare": (
        "jaxlens run --out runs/a",
        "jaxlens run --set lens.decoder=plain --out runs/b",
        "jaxlens compare runs/a runs/b",
    ),
    "study": (
        "jaxlens run --tallies study --out runs/a",
        "jaxlens run --tallies study --null shuffled --out runs/null",
        "jaxlens study runs/a --null runs/null",
    ),
    "probe": (
        "jaxlens run --out runs/demo",
        "jaxlens probe runs/demo",
        "jaxlens probe gpt2 --corpus texts.jsonl --out runs/probed",
    ),
    "report": (
        "jaxlens run --out runs/demo",
        "jaxlens report runs/demo --out demo.html",
    ),
    "export": (
        "jaxlens run --out runs/demo",
        "jaxlens export runs/demo --to parquet --out demo.parquet",
        "jaxlens export runs/demo --to csv --quantities rank_next --layers -2 -1",
    ),
    "ablate": (
        "jaxlens run --out runs/demo",
        "jaxlens ablate runs/demo --arms embedding whole --layers 0 1 --blocks 8 --copies 8",
        "jaxlens ablate gpt2 --corpus texts.jsonl --limit 10M --out gpt2-ablation --blocks 8",
    ),
    "bench": (
        "jaxlens bench gpt2 --json bench.jsonl",
        "jaxlens bench --model gpt2 --rows core",
    ),
    "verify": (
        "jaxlens run --out runs/demo",
        "jaxlens verify runs/demo",
        "jaxlens verify runs/demo --untrusted",
    ),
    "repair": (
        "jaxlens run --model gpt2 --corpus texts.jsonl --out runs/gpt2",
        "jaxlens repair runs/gpt2 --model gpt2 --corpus texts.jsonl",
    ),
    "finalize": (
        "jaxlens run --out runs/demo",
        "jaxlens finalize runs/demo",
    ),
    "merge": (
        "head -n 6 texts.jsonl > a.jsonl && tail -n +7 texts.jsonl > b.jsonl",
        "jaxlens run --corpus a.jsonl --out runs/a",
        't=$(python -c \'import json; print(json.load(open("runs/a/RUN.json"))["lens"]'
        '["temperatures"])\')',
        'jaxlens run --corpus b.jsonl --set "lens.temperatures=$t" --out runs/b',
        "jaxlens merge runs/both runs/a runs/b",
        "jaxlens verify runs/both",
    ),
    "convert": ("jaxlens convert gpt2 gpt2-orbax --to orbax --dtype bfloat16",),
    "tokenize": ("jaxlens tokenize --model gpt2 --corpus texts.jsonl --out runs/gpt2",),
    "env": ("jaxlens env",),
    "completion": ("jaxlens completion bash > jaxlens.bash && source jaxlens.bash",),
}
"""By command; those of one command are executed in their order, in one folder."""


def epilogue(command: str) -> str:
    """What the help of a command ends with."""
    return "\n".join(["Examples:", *(f"  {line}" for line in EXAMPLES[command])])
