"""The command ``jaxlens ablate``: what it prints, what it refuses, how it resumes."""

import shutil

import pytest
from sweeps import refused, run_cli

from jaxlens.store import ablation_file

FEW = ("--layers", "0", "h.0", "--blocks", "4", "--copies", "6", "--set", "devices=1")


@pytest.fixture
def run_dir(swept, tmp_path):
    return shutil.copytree(swept, tmp_path / "run")


def test_a_run_is_ablated_and_the_same_command_is_done_at_once(run_dir, tiny, capsys):
    command = ("ablate", run_dir, "--model", tiny, *FEW)
    assert run_cli(*command) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert lines[0].startswith(f"{run_dir}/ablation: 10 sequences, 5 arms at 2 layers, ")
    assert "natural copies: loss of log-probability in nat; copy gain" in printed.out
    assert "layer  embedding  foreign  random   whole    rest" in printed.out
    assert f"losses of each sequence: {run_dir}/ablation/ablation.h5" in printed.out
    # The corpus has too few kinds of tokens for blocks, and no probe: both are said.
    assert "repeated blocks: left out" in printed.err
    # Six copies of 32 tokens: two clean runs, and five arms at two layers.
    assert "ablating 10 sequences: 5 arms at 2 layers, " in printed.err
    assert f"need the directions of a probe: jaxlens probe {run_dir}" in printed.err
    assert run_cli(*command) == 0
    again = capsys.readouterr()
    assert "/ablation: finished already, 10 sequences" in again.out
    assert "ablating" not in again.err and "directions of a probe" in again.err
    arms = ("--arms", "embedding", "foreign", "random", "whole", "rest")
    assert run_cli(*command, *arms) == 0
    assert "directions of a probe" not in capsys.readouterr().err
    assert ablation_file.read(run_dir / "ablation").layers == (0, 1)


def test_a_model_is_ablated_in_a_run_that_is_begun_for_it(tiny, texts, tmp_path, capsys):
    out = tmp_path / "out"
    # Steps as in the runs of other tests, so that nothing is compiled again.
    how = ("--arms", "whole", "--set", "plan.step_sequences=4", *FEW)
    command = ("ablate", tiny, "--corpus", texts, "--out", out, *how)
    assert run_cli(*command) == 0
    assert sorted(p.name for p in (out / "ablation").iterdir()) == ["ABLATION.json", "ablation.h5"]
    assert (out / "RUN.json").exists() and not list((out / "shards").iterdir())
    # There is nothing to study before its shards are computed.
    assert "jaxlens study" not in capsys.readouterr().out
    said = refused(capsys, 2, *command, "--seed", "3")
    assert "of another ablation: ablation.seed is 0 there, 3 here" in said
    assert "begin anew" in said


def test_options_that_do_not_belong_together_are_refused(run_dir, tiny, texts, tmp_path, capsys):
    out = ("--out", tmp_path / "out")
    assert "--out was given" in refused(capsys, 2, "ablate", run_dir, *out)
    assert "--corpus was given" in refused(capsys, 2, "ablate", run_dir, "--corpus", texts)
    assert "--limit was given" in refused(capsys, 2, "ablate", run_dir, "--limit", "1k")
    said = refused(capsys, 2, "ablate", tiny, *out, "--model", tiny)
    assert "--model was given" in said
    assert "--out" in refused(capsys, 2, "ablate", tiny, "--corpus", texts)
    said = refused(capsys, 66, "ablate", tmp_path / "none")
    assert "holds no run" in said and "--out" in said
    assert not (tmp_path / "out").exists() and not (run_dir / "ablation").exists()


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("--arms", "wole"), "wole"),
        (("--arms", "probe"), "the arm probe needs the directions of a probe"),
        (("--layers", "2"), "there is no layer 2"),
        (("--layers", "-1"), "there is no layer -1"),
        (("--layers", "h.7"), "there is no layer 'h.7'"),
        (("--blocks", "-1"), "blocks is -1"),
        (("--blocks", "99999999999999999999"), "give at most 1,000,000"),
        (("--copies", "1000001"), "give at most 1,000,000"),
        (("--blocks", "0", "--copies", "0"), "neither blocks nor copies"),
        (("--seed", "x"), "seed"),
    ],
)
def test_wrong_options_are_refused(run_dir, tiny, capsys, words, what):
    command = ("ablate", run_dir, "--model", tiny, "--set", "devices=1")
    assert what in refused(capsys, 2, *command, *words)
    assert not (run_dir / "ablation").exists()


def test_another_model_is_refused(run_dir, capsys):
    said = refused(capsys, 2, "ablate", run_dir, "--set", "devices=1")
    assert f"jaxlens ablate {run_dir} --model" in said


def test_a_run_without_its_tokens_names_the_way_back(run_dir, tiny, capsys):
    (run_dir / "tokens" / "tokens.bin").unlink()
    said = refused(capsys, 65, "ablate", run_dir, "--model", tiny)
    assert "token file is missing or damaged" in said and "jaxlens repair" in said


def test_a_link_out_of_the_run_is_not_followed(run_dir, tiny, tmp_path, capsys):
    (tmp_path / "elsewhere").mkdir()
    (run_dir / "ablation").symlink_to(tmp_path / "elsewhere")
    said = refused(capsys, 65, "ablate", run_dir, "--model", tiny, *FEW)
    assert "leads out of" in said
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_an_interruption_says_how_to_resume(run_dir, tiny, capsys, monkeypatch):
    from jaxlens.sweep.ablation import compute

    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(compute, "part", interrupt)
    assert run_cli("ablate", run_dir, "--model", tiny, *FEW) == 130
    assert "run the same command to resume" in capsys.readouterr().err
    monkeypatch.undo()
    assert run_cli("ablate", run_dir, "--model", tiny, *FEW) == 0
