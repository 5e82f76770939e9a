"""Adding a part as CONTRIBUTING.md says: in a copy of the package, in at most three files.

Each case edits a copy of the package and runs a script against it, so that what is added is found
by the code that a user runs: `jaxlens run`, `read_lens`, the tables of the store.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import textwrap

import pytest

import jaxlens

PACKAGE = pathlib.Path(jaxlens.__file__).parent
ROOT = PACKAGE.parent
MAX_FILES = 3


def replaced(old, new):
    """An edit of a file: some text, which must stand there once, gives way to another."""

    def edit(text):
        assert text.count(old) == 1, old
        return text.replace(old, new)

    return edit


def script(text):
    return textwrap.dedent(text)


FAMILY = (
    {
        "models/toy.py": (ROOT / "tests" / "toy_family.py").read_text(),
        "models/__init__.py": replaced(
            'FAMILIES: dict[str, str] = {"gpt2": "jaxlens.models.gpt2"',
            'FAMILIES: dict[str, str] = {"toy": "jaxlens.models.toy", '
            '"gpt2": "jaxlens.models.gpt2"',
        ),
    },
    script(
        """
        from jaxlens import models
        from jaxlens.models import toy
        from jaxlens.models.checkpoints import checkpoint
        architecture = models.parse(toy.CONFIG)
        params = models.init(architecture, 0)
        checkpoint.save("toy", architecture, params, "safetensors", tokenizer_from=PACKAGED)
        run = sweep(**{"model.path": "toy"})
        assert run.spec["model"]["architecture"]["model_type"] == "toy"
        assert run["rank_input"].shape[1] == 4
        """
    ),
)

EXECUTOR = (
    {
        "sweep/backwards.py": script(
            '''
            """An executor that computes the last shard first."""

            from jaxlens.sweep import in_process


            def execute(job, tokens, numbers, count, stop):
                print("backwards")
                return in_process.execute(job, tokens, reversed(list(numbers)), count, stop)
            '''
        ),
        "sweep/executors.py": lambda text: replaced(
            '{"process": in_process.execute}',
            '{"process": in_process.execute, "backwards": backwards.execute}',
        )(replaced("import in_process, ", "import backwards, in_process, ")(text)),
    },
    script(
        """
        import pathlib
        forward = sweep(out="one").path
        backward = sweep(out="two", executor="backwards").path
        for shard in sorted(pathlib.Path(forward, "shards").iterdir()):
            assert shard.read_bytes() == pathlib.Path(backward, "shards", shard.name).read_bytes()
        """
    ),
)

QUANTITY = (
    {
        "schema.py": replaced(
            '        _layered("norm", "float", "1", "Euclidean norm of the residual"),\n',
            '        _layered("norm", "float", "1", "Euclidean norm of the residual"),\n'
            '        _layered("peak", "float", "1", "largest magnitude in the residual"),\n',
        ),
        "types.py": replaced(
            "    norm: jax.Array | None = None\n",
            "    norm: jax.Array | None = None\n    peak: jax.Array | None = None\n",
        ),
        "lens/readout.py": replaced(
            '    if options.wants("norm"):\n',
            '    if options.wants("peak"):\n'
            '        values["peak"] = jnp.abs(streams).max(-1)\n'
            '    if options.wants("norm"):\n',
        ),
    },
    script(
        """
        model = jaxlens.load_model("tiny")
        tokens = np.arange(20).reshape(2, 10)
        streams = np.asarray(jaxlens.residuals(model, tokens))
        readout = jaxlens.read_lens(model, tokens, quantities=["peak"])
        np.testing.assert_allclose(readout.peak, np.abs(streams).max(-1), rtol=1e-6)
        run = sweep(**{"store.quantities": ["peak"]})
        assert (run["peak"][:] > 0).all()
        """
    ),
)

READER = (
    {
        "corpus/readers/bars.py": script(
            '''
            """Texts between bars."""

            import pathlib


            def read(source, request):
                for number, text in enumerate(pathlib.Path(source.path).read_text().split("|")):
                    yield source.location(number), (text, None)
            '''
        ),
        "corpus/readers/formats.py": lambda text: replaced(
            "    arrow,\n    delimited,", "    arrow,\n    bars,\n    delimited,"
        )(replaced("_TABLE = (\n", '_TABLE = (\n    Format(".bars", bars.read),\n')(text)),
    },
    script(
        """
        import pathlib
        pathlib.Path("a.bars").write_text("the quick brown fox|jumps over")
        run = sweep(**{"corpus.paths": ["a.bars"]})
        assert run.spec["corpus"]["n_documents"] == 2
        """
    ),
)

DECODER = (
    {
        "config.py": replaced(
            'Decoder = Literal["final_norm", ', 'Decoder = Literal["halved", "final_norm", '
        ),
        "lens/decoders.py": replaced(
            "DECODERS: dict[str, Decoder] = {\n",
            "def _halved(\n"
            "    normed: jax.Array, scale: jax.Array, bias: jax.Array, is_last: jax.Array\n"
            ") -> jax.Array:\n"
            "    return (normed * scale + bias) * jnp.where(is_last, 1.0, 0.5)\n\n\n"
            'DECODERS: dict[str, Decoder] = {\n    "halved": _halved,\n',
        ),
    },
    script(
        """
        model = jaxlens.load_model("tiny")
        tokens = np.arange(20).reshape(2, 10)
        names = ("halved", "final_norm")
        read = {name: jaxlens.read_lens(model, tokens, decoder=name) for name in names}
        # Logits of the head without a bias are halved too: the order stays, the entropy grows.
        ranks = [np.asarray(one.rank_next) for one in read.values()]
        assert (ranks[0] == ranks[1]).mean() > 0.99
        assert (read["halved"].entropy[:-1] > read["final_norm"].entropy[:-1]).all()
        run = sweep(**{"lens.decoder": "halved"})
        assert run.spec["lens"]["decoder"] == "halved"
        """
    ),
)

TALLY = (
    {
        "tally/second_edition.py": replaced(
            "_TYPES: tuple[Tally, ...] = (\n",
            "_TYPES: tuple[Tally, ...] = (\n"
            '    tally.define("opening_count", (), "frequency", "early positions by rarity"),\n',
        ),
        "tally/second_rules.py": replaced(
            "RULES: dict[str, Callable[[Facts], Iterator[Addition]]] = {\n",
            "def _opening_count(rows: Facts) -> Iterator[Addition]:\n"
            '    early = rows.valid & (rows.values["position"] < 9)\n'
            '    yield (rows.frequency["input"],), None, early\n\n\n'
            "RULES: dict[str, Callable[[Facts], Iterator[Addition]]] = {\n"
            '    "opening_count": _opening_count,\n',
        ),
    },
    script(
        """
        one = sweep(**{"store.tallies": "study"})
        position = one["position"][:]
        counted = (position > 0) & (position < 9) & ~np.isnan(one["surprisal"][:])
        assert one.tally["opening_count"].sum() == counted.sum() > 0
        other = sweep(out="other", **{"store.tallies": "study", "store.shard_tokens": 256})
        assert (one.tally["opening_count"] == other.tally["opening_count"]).all()
        """
    ),
)

CASES = {
    "A model family": FAMILY,
    "A quantity of the residual stream": QUANTITY,
    "A decoder": DECODER,
    "A tally": TALLY,
    "A corpus reader": READER,
    "An executor": EXECUTOR,
}

BEGINNING = script(
    """
    import pathlib
    import numpy as np
    import jaxlens
    from jaxlens import config
    from jaxlens.sweep import run
    PACKAGE = pathlib.Path(jaxlens.__file__).parent
    assert PACKAGE == pathlib.Path("package/jaxlens").resolve()
    PACKAGED = PACKAGE / "models" / "packaged"


    def sweep(out="run", executor="process", **settings):
        given = {
            "model.path": "tiny", "corpus.paths": ["texts.jsonl"], "out": out, "devices": 1,
            "plan.length": 32, "plan.step_sequences": 4, "store.shard_tokens": 512,
            "lens.tile": 512, "lens.block": 50, "cache": "none", "corpus.limit": 2000,
        }
        run.run(config.load([], {}, given | settings), executor=executor)
        return jaxlens.open_run(out)
    """
)


# One of them shows that a part is found; with most others the step is another one, which takes
# long to compile.
SHORT = "An executor"


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] * (name != SHORT)) for name in CASES]
)
def test_a_part_is_added_in_the_files_that_contributing_names(name, tiny, texts, tmp_path):
    edits, then = CASES[name]
    assert 1 <= len(edits) <= MAX_FILES
    package = tmp_path / "package" / "jaxlens"
    shutil.copytree(PACKAGE, package)  # with its bytecode, which holds for what is not edited
    for path, edit in edits.items():
        file = package / path
        assert file.exists() == callable(edit), path
        file.write_text(edit(file.read_text()) if callable(edit) else edit)
    (tmp_path / "tiny").symlink_to(tiny)
    (tmp_path / "texts.jsonl").symlink_to(texts)
    environment = os.environ | {"PYTHONPATH": str(package.parent)}
    done = subprocess.run(
        [sys.executable, "-c", BEGINNING + then],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", CASES)
def test_contributing_names_these_files(name):
    page = (ROOT / "CONTRIBUTING.md").read_text()
    (row,) = [line for line in page.splitlines() if line.startswith(f"| {name} ")]
    edited = {path for path, edit in CASES[name][0].items() if callable(edit)}
    files = row.split("|")[2]
    assert edited == set(re.findall(r"`([a-z0-9_/]+\.py)`", files)), row
    assert ("new file" in files) == any(not callable(edit) for edit in CASES[name][0].values())
