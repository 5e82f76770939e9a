"""The commands on the page make probe and ablation again, to the bit, and name every setting."""

import dataclasses
import html
import re
import shlex
import shutil
from pathlib import Path

import pytest
from study.report.pages import Page, made
from sweeps import run_cli

from jaxlens.store import ablation_file, probe_file, reader
from jaxlens.study.report import commands, facts, measured, page

PROBE = ("--tokens", "2000", "--held-out-tokens", "10000", "--seed", "3")
ABLATION = ("--layers", "0", "--arms", "whole", "foreign", "--blocks", "4", "--copies", "4")
FILES = (
    f"{probe_file.FOLDER}/{probe_file.RESULT}",
    f"{ablation_file.FOLDER}/{ablation_file.RESULT}",
)


@pytest.fixture(scope="module")
def probed(studied, tmp_path_factory):
    """A run and a null of it, with a probe and an ablation that are not the usual ones."""
    folder = tmp_path_factory.mktemp("commands")
    model = ("--model", facts.gather(studied / "trained").settings["model"]["path"])
    for name in ("trained", "random-1"):
        shutil.copytree(studied / name, folder / name)
        assert run_cli("probe", folder / name, *model, *PROBE) == 0
    assert run_cli("ablate", folder / "trained", *model, *ABLATION) == 0
    return folder


@pytest.mark.usefixtures("undrawn")
@pytest.mark.long
def test_commands_on_the_page_make_probe_and_ablation_again(studied, decoded, probed, tmp_path):
    report = made(probed / "trained", [probed / "random-1"], [decoded / "trained"])
    again = html.unescape(report[report.index('id="again"') :])
    found = [shlex.split(words) for words in re.findall(r"<pre>(jaxlens \w+ .*?)</pre>", again)]
    # The run, its null and its variant; and the page itself is named without its runs here.
    assert [words[1] for words in found] == ["run", "probe", "ablate", "run", "probe", "run"]
    assert "lens.decoder=plain" in found[5] and "random-init" in found[3]
    for number, name in ((1, "trained"), (4, "random-1")):
        assert found[number][2] == facts.gather(studied / name).settings["out"]
        shutil.copytree(studied / name, tmp_path / name)
    for words in (*found[1:3], found[4]):
        assert run_cli(words[1], tmp_path / Path(words[2]).name, *words[3:]) == 0
    for name, files in (("trained", FILES), ("random-1", FILES[:1])):
        for file in files:
            ours, theirs = (folder / name / file for folder in (tmp_path, probed))
            assert ours.read_bytes() == theirs.read_bytes()
    told = " ".join(Page(report).text)
    for words in ("held out tokens 10000", "seed 3", "arms foreign whole", "blocks 4", "copies 4"):
        assert words in told


def test_an_ablation_comes_before_a_probe_that_it_did_not_know(probed):
    with reader.open_run(probed / "trained") as run:
        found = measured.read(run)
    assert [words.split()[1] for words in commands.of_run("r", {}, found)] == ["probe", "ablate"]
    settings = found.ablation.spec["ablation"] | {"probe_sha256": None}
    spec = found.ablation.spec | {"ablation": settings}
    found = dataclasses.replace(found, ablation=dataclasses.replace(found.ablation, spec=spec))
    assert [words.split()[1] for words in commands.of_run("r", {}, found)] == ["ablate", "probe"]


def test_a_run_without_either_has_the_command_of_its_sweep_alone(studied):
    gathered = facts.gather(studied / "trained")
    assert [words.split()[1] for words in gathered.commands] == ["run"]
    assert not {"linear probe", "ablation"} & {what for what, _ in gathered.provenance}


@pytest.mark.usefixtures("undrawn")
def test_the_page_names_the_command_that_writes_its_table(bare, studied, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(studied / "trained", copy)
    page.write(copy, [studied / "random-1"])
    shown = html.unescape((copy / page.NAME).read_text())
    (words,) = re.findall(r"<pre>(jaxlens study .*?)</pre>", shown)
    assert shlex.split(words)[2:] == [str(copy), "--null", str(studied / "random-1")]
    assert "results.csv" in shown and not (copy / "study").exists()
    assert run_cli(*shlex.split(words)[1:]) == 0
    assert (copy / "study" / "results.csv").is_file()
    page.write(bare, out=tmp_path / "bare.html")
    assert "jaxlens study" not in (tmp_path / "bare.html").read_text().split('id="again"')[1]
