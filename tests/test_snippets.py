"""Every command and snippet of README.md and docs/ is executed, or is listed here and why not.

Pages are tests; the snippets of a page run in their order, in one folder and one namespace. What a
snippet prints is compared with the `text` block that follows it.
"""

import bz2
import gzip
import json
import os
import pathlib
import pydoc_data.topics
import shutil
import subprocess

import pytest
import snippets
from snippets import PAGES, ROOT
from sweeps import PACKAGED, STUDY, TEMPERATURES, save_between

from jaxlens import config
from jaxlens.cli import examples, main
from jaxlens.models import loading
from jaxlens.models.checkpoints import checkpoint

# Small steps, measured once.
BENCH = "--rounds 1 --set plan.length=32 --set plan.step_sequences=2 --set lens.block=16"

# Words of the pages that stand for something else here: (page or None for all, theirs, ours, why).
SUBSTITUTIONS = [
    (None, "jaxlens bench gpt2 ", "jaxlens bench --model DIR ", "124 million weights take minutes"),
    (None, "jaxlens bench ", f"jaxlens bench {BENCH} ", "seconds, not minutes"),
    (None, "--model DIR", "--model my-gpt2", "DIR is the reader's"),
    (None, "--sweep --picture", "--picture", "the grid has 12 configurations"),
    (None, "--stop 100000", "--stop 300", "a small run has fewer rows"),
    (None, "-c configs/gpt2.yaml", "-c configs/demo.yaml --model gpt2", "of 256 positions here"),
    ("docs/clusters.md", "git clone <this repository>", "true", "this is the repository"),
    ("docs/clusters.md", "pip install", "true", "the package is installed"),
    ("docs/clusters.md", "scontrol requeue", "true", "SLURM is not installed"),
]

# What is not executed: (page, how the block begins) and why.
NOT_EXECUTED = {
    (
        "docs/object-stores.md",
        "jaxlens run --model gpt2 --corpus texts.jsonl --out s3",
    ): "no bucket",
    ("README.md", "git clone <this repository> jaxlens && cd jaxlens"): "clones and installs",
    (
        "docs/tutorial.md",
        "git clone <this repository> jaxlens && cd jaxlens",
    ): "clones and installs",
    ("docs/export.md", "import polars as pl"): "polars is not among the locked packages",
    ("docs/clusters.md", "#!/bin/bash\n#SBATCH --nodes=4"): "SLURM is not installed",
    ("docs/clusters.md", "apiVersion: ray.io/v1"): "Kubernetes is not installed",
    ("docs/results.md", 'HOW="--model smollm2'): "its packages are 400 MB, and it takes hours",
}
LANGUAGES_NOT_EXECUTED = {
    "r": "R is not installed",
    "sql": "DuckDB is not among the locked packages",
    "matlab": "MATLAB is not installed",
    "julia": "Julia is not installed",
    "bibtex": "an entry for a bibliography",
}

# Outputs that are not compared: (page, how the block begins) and why.
NOT_COMPARED = {
    ("docs/performance.md", "gpt2 on 2 devices: length 256,"): "figures of one machine",
    ("docs/definitions.md", "h_0 = wte[token] + wpe[position]"): "formulas",
    ("docs/definitions.md", "norm(h)           ="): "formulas",
    ("docs/definitions.md", "rank_k(t) = 1 +"): "formulas",
    ("docs/definitions.md", "logp_x            ="): "formulas",
    ("docs/definitions.md", "tau_k            ="): "formulas",
    ("docs/probe.md", "m_k' S^-1 h"): "formulas",
    ("docs/definitions.md", "norm            ="): "formulas",
    ("docs/coming-from.md", 'names = [f"blocks.{k}.hook_resid_pre"'): "needs TransformerLens",
    ("docs/coming-from.md", "with model.trace(ids):"): "needs nnsight",
}


# Where a page does not say otherwise, the packaged text is cut, contexts are short, and no
# temperatures are fitted.
VARIABLES = {
    "JAXLENS_CORPUS_LIMIT": "500",
    "JAXLENS_PLAN_LENGTH": "64",
    "JAXLENS_PLAN_STEP_SEQUENCES": "8",
    "JAXLENS_LENS_TEMPERATURES": "[3, 3, 3, 3, 2.5, 2, 1.5, 1.2, 1]",
    "SLURM_ARRAY_TASK_COUNT": "2",
    "SLURM_ARRAY_TASK_MIN": "0",
    "SLURM_JOB_ID": "1",
}

# Of pages about runs whose model does not matter: the tiny one, in the steps of the fixtures
# `studied` and `decoded`, so that nothing is compiled for the pages alone.
STEP = {
    "JAXLENS_MODEL_PATH": "tiny",
    "JAXLENS_PLAN_LENGTH": "32",
    "JAXLENS_PLAN_STEP_SEQUENCES": "4",
    "JAXLENS_LENS_TILE": "512",
    "JAXLENS_LENS_BLOCK": "50",
    "JAXLENS_LENS_TEMPERATURES": json.dumps(TEMPERATURES),
    "JAXLENS_STORE_QUANTITIES": json.dumps(STUDY["store.quantities"]),
}
# Of a text that is long enough to have held-out documents.
PROBED = {"JAXLENS_CORPUS_LIMIT": "6k"}
# Commands whose examples do not depend on the model.
SMALL = ("compare", "study", "report", "export", "verify", "finalize")
VARIABLES_OF = {
    "docs/compare.md": STEP,
    "docs/cli.md": STEP | {"JAXLENS_STORE_ROWS": "none", "JAXLENS_STORE_TALLIES": "study"},
    "docs/probe.md": STEP | PROBED,
    "docs/report.md": STEP,
    "docs/results.md": STEP,
    "docs/study.md": STEP | PROBED,
}

# Runs that a page takes for granted: those of another page.
RUN = "jaxlens run --model gpt2 --corpus texts.jsonl --out runs/gpt2"
GIVEN = {
    "docs/export.md": RUN,
    "docs/format.md": RUN,
    "docs/citing.md": RUN,
    "docs/coming-from.md": RUN,
}


# What takes over three seconds, but for the two pages that everybody reads.
LONG_PAGES = {
    f"docs/{name}.md"
    for name in (
        *(
            "ablation",
            "clusters",
            "coming-from",
            "compare",
            "controls",
            "corpora",
            "models",
            "performance",
            "probe",
            "prompts",
            "show",
        ),
        *("report", "results", "study"),
    )
}
LONG_EXAMPLES = {"ablate", "bench", "compare", "probe", "report", "show", "study"}


def each(names, long):
    return [pytest.param(name, marks=[pytest.mark.long] * (name in long)) for name in names]


def is_run(block):
    executed = block.kind in ("shell", "python", "data")
    return executed and not is_listed(block, NOT_EXECUTED)


def is_listed(block, exceptions):
    return any(block.begins(*which) for which in exceptions)


@pytest.fixture(scope="session")
def material(tiny, tmp_path_factory):
    """What the pages name: texts, models in folders and in the hub's cache."""
    folder = tmp_path_factory.mktemp("material")
    (folder / "tiny").symlink_to(tiny)
    topics = pydoc_data.topics.topics
    documents = [
        json.dumps({"id": name, "text": text[:180]}) for name, text in sorted(topics.items())
    ]
    text, other = "\n".join(documents[:12]) + "\n", "\n".join(documents[12:18]) + "\n"
    (folder / "texts.jsonl").write_text(text)
    (folder / "held-out.jsonl").write_text(other)
    (folder / "texts.jsonl.bz2").write_bytes(bz2.compress(text.encode()))
    (folder / "texts").mkdir()
    (folder / "texts" / "part-0.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    (folder / "texts" / "a.txt").write_text(topics["assert"])
    (folder / "more").mkdir()
    (folder / "more" / "b.txt").write_text(topics["del"])
    shutil.copytree(ROOT / "configs", folder / "configs")
    for step in (1000, 8000):
        save_between(folder / "checkpoints" / f"step{step}", step / 10_000)
    found = loading.load_checkpoint("packaged")
    checkpoint.save(
        folder / "my-gpt2", found.architecture, found.params, "safetensors", "float32", PACKAGED
    )
    snapshot = folder / "hub" / "models--gpt2" / "snapshots" / ("0" * 40)
    snapshot.parent.mkdir(parents=True)
    shutil.copytree(folder / "my-gpt2", snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text(snapshot.name)
    return folder


@pytest.fixture
def place(material, tmp_path, monkeypatch):
    """A folder with all of it, in a process that finds the hub's cache there."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(material / "hub"))
    monkeypatch.setenv("HF_HUB_CACHE", str(material / "hub"))  # for processes that are started
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    link(material, tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def given(material, tmp_path_factory):
    """Gives the folder of runs that a command leaves; each command is run once."""
    made = {}

    def give(command):
        if command not in made:
            folder = tmp_path_factory.mktemp("given")
            link(material, folder)
            with snippets.Shell(folder, VARIABLES) as shell:
                done = shell.run(f"{command} --quiet")
            assert done.code == 0, done.stderr
            made[command] = folder / "runs"
        return made[command]

    return give


def link(material, folder):
    """Links to all of it but the hub's cache."""
    for entry in material.iterdir():
        if entry.name != "hub":
            os.symlink(entry, folder / entry.name)


def prepared(block):
    """The commands of a block with the substitutions made."""
    text = "".join(line.removeprefix("$ ") for line in block.text.splitlines(keepends=True))
    for page, theirs, ours, _ in SUBSTITUTIONS:
        if page in (None, block.page):
            text = text.replace(theirs, ours)
    return text


def execute(block, shell, namespace):
    """Runs a block, which must succeed; what it printed."""
    if block.kind == "python":
        return snippets.run_python(block, namespace, shell.folder)
    if block.kind == "data":
        return check_data(block, shell.folder)
    tasks = range(int(VARIABLES["SLURM_ARRAY_TASK_COUNT"])) if "#SBATCH" in block.text else [0]
    for task in tasks:
        done = shell.run(prepared(block), SLURM_ARRAY_TASK_ID=str(task))
        assert done.code == 0, f"{block} ended with {done.code}:\n{done.stdout}\n{done.stderr}"
    return done


def check_data(block, folder):
    """A configuration that loads, or JSON that parses."""
    path = pathlib.Path(folder) / "block.yaml"
    path.write_text(block.text)
    if block.language == "yaml":
        config.load([path])
    else:
        json.loads(block.text)
    return snippets.Done(0, "", "")


@pytest.mark.parametrize("page", each(PAGES, LONG_PAGES))
def test_every_snippet_of_a_page_does_what_the_page_says(page, place, given):
    if page == "docs/clusters.md":
        pytest.importorskip("ray", reason="Ray is not installed")
    namespace, done, ran = {"__name__": "__main__"}, None, 0
    blocks = snippets.collect(page)
    with snippets.Shell(place, VARIABLES | VARIABLES_OF.get(page, {})) as shell:
        if page in GIVEN:
            shutil.copytree(given(GIVEN[page]), place / "runs")
        for block in blocks:
            if is_run(block):
                done = execute(block, shell, namespace)
                ran += 1
            elif block.kind == "output" and not is_listed(block, NOT_COMPARED):
                assert done is not None, f"{block}: nothing was run before it"
                printed = (done.stdout, done.stderr + done.stdout)
                shown = any(snippets.says(block.text, text) for text in printed)
                assert shown, f"{block} says otherwise:\n{printed[1]}"
    assert ran == sum(map(is_run, blocks))


@pytest.mark.parametrize("command", each(examples.EXAMPLES, LONG_EXAMPLES))
def test_every_example_of_help_is_executed_as_it_is_written(command, place):
    epilogue = main.app[command].help_epilogue
    lines = [line.strip() for line in epilogue.splitlines()[1:]]
    assert lines == list(examples.EXAMPLES[command]) and f"jaxlens {command}" in epilogue
    text = "\n".join(lines)
    for page, theirs, ours, _ in SUBSTITUTIONS:
        text = text if page else text.replace(theirs, ours)
    of_command = STEP if command in SMALL else PROBED if command == "probe" else {}
    with snippets.Shell(place, VARIABLES | of_command) as shell:
        done = shell.run(text)
        assert done.code == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        assert shell.commands == sum("jaxlens " in line for line in lines)


def test_every_command_has_examples():
    names = {name for name in main.app.resolved_commands() if not name.startswith("-")}
    assert names == set(examples.EXAMPLES)


def test_no_block_is_passed_over():
    for page in PAGES:
        blocks = snippets.collect(page)
        fences = sum(
            line.lstrip().startswith(("```", "~~~"))
            for line in (ROOT / page).read_text().splitlines()
        )
        assert fences == 2 * len(blocks), page
        for block in blocks:
            listed = is_listed(block, NOT_EXECUTED) or block.language in LANGUAGES_NOT_EXECUTED
            assert is_run(block) or listed or block.kind == "output", f"{block}: {block.language}"


def test_the_lists_of_exceptions_name_what_is_there_and_say_why():
    blocks = [block for page in PAGES for block in snippets.collect(page)]
    for which in NOT_EXECUTED:
        assert any(b.begins(*which) and b.kind != "output" for b in blocks), which
    for which in NOT_COMPARED:
        assert any(b.begins(*which) and b.kind == "output" for b in blocks), which
    assert set(LANGUAGES_NOT_EXECUTED) <= {block.language for block in blocks}
    assert {*GIVEN, *VARIABLES_OF, *LONG_PAGES} <= set(PAGES)
    assert set(examples.EXAMPLES) >= LONG_EXAMPLES
    for page, theirs, _, _ in SUBSTITUTIONS:
        texts = [b.text for b in blocks if page in (None, b.page) and is_run(b)]
        assert any(theirs in text for text in texts), theirs
    assert all([*NOT_EXECUTED.values(), *LANGUAGES_NOT_EXECUTED.values(), *NOT_COMPARED.values()])


def test_a_block_fails_where_a_command_does(tmp_path):
    with snippets.Shell(tmp_path, VARIABLES) as shell:
        assert shell.run("jaxlens verify nowhere; echo on").code == 66
        assert shell.run("jaxlens verify nowhere | cat").code == 66
        done = shell.run("A=--help; jaxlens env $A | head -n 1; cat <<'END'\nlast\nEND")
        assert done.code == 0 and done.stdout.endswith("last\n")
        assert shell.commands == 3
        assert shell.run("nothing-of-this-name").code == 127


def test_outputs_are_compared_with_dots_for_anything():
    assert snippets.says("a\n...\nd\n", "a\nb\nc\nd")
    assert snippets.says("took ... s", "took 12 s\n")
    assert not snippets.says("a\n", "a\nb\n")
    assert not snippets.says("a.b", "acb")


def test_fences_are_found_wherever_they_stand(tmp_path, monkeypatch):
    monkeypatch.setattr(snippets, "ROOT", tmp_path)
    inner = "text\n```sh\na\n```\n- list\n    ```python\n    b\n    ```\n~~~\n```\n~~~\n"
    (tmp_path / "page.md").write_text(inner)
    found = [(b.line, b.language, b.text, b.kind) for b in snippets.collect("page.md")]
    assert found == [
        (2, "sh", "a\n", "shell"),
        (6, "python", "b\n", "python"),
        (9, "", "```\n", "shell"),
    ]
    (tmp_path / "page.md").write_text("```sh\n")
    with pytest.raises(AssertionError, match="never closed"):
        snippets.collect("page.md")


def test_the_client_is_the_only_stand_in(tmp_path):
    with snippets.Shell(tmp_path, {}) as shell:
        found = shell.run("command -v jaxlens python").stdout.splitlines()
    assert found[0].endswith("/jaxlens") and pathlib.Path(found[1]).exists()
    assert subprocess.run(["bash", "--version"], capture_output=True, check=False).returncode == 0
