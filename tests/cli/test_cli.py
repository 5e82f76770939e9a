"""What the command line does with words, streams and variables of the environment."""

import contextlib
import io
import json
import logging
import os
import shutil
import subprocess
import sys

import pytest
from sweeps import flags, refused, run_cli

import jaxlens
from jaxlens import errors
from jaxlens.cli import main, options, progress, streams, terminal
from jaxlens.lens import numerics
from jaxlens.sweep import run

COMMAND = [sys.executable, "-m", "jaxlens"]


def called(*words, **more):
    """The command line in a process of its own."""
    command = [*COMMAND, *map(str, words)]
    return subprocess.run(command, capture_output=True, check=False, **more)


def shelled(line, **variables):
    """A line of the shell, in which `jaxlens` is the command."""
    script = f'jaxlens() {{ "{sys.executable}" -m jaxlens "$@"; }}; {line}'
    return subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ) | variables,
    )


def test_the_module_is_the_command():
    done = called("--version")
    assert done.returncode == 0 and done.stdout.decode().strip() == jaxlens.__version__


@pytest.mark.parametrize("words", [("-", "--json"), ("--json", "-"), ("--json", "--", "-")])
def test_a_dash_reads_standard_input(words, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("Other times\n"))
    assert run_cli("show", *words) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["text"] == "Other times"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("verify", "-"), "standard input"),
        (("run", "--out", "-"), "--out"),
        (("run", "--corpus", "-"), "--corpus: - (standard input) is only read by jaxlens show"),
        (("show", "a", "--html", "-"), "--html"),
        (("verify", "run", "-"), "'-'"),
    ],
)
def test_a_dash_is_nothing_else(words, why, capsys):
    said = refused(capsys, 2, *words)
    assert why in said and "\0" not in said and "x00" not in said


@pytest.mark.parametrize(
    ("words", "instead"),
    [
        (("study", "--null", "A", "RUN"), "jaxlens study RUN --null A"),
        (("study", "--null", "A"), "jaxlens study RUN_DIR --null A"),
        (("report", "--null", "A", "--variant", "B", "C", "R"), "report R --null A --variant B C"),
        (("export", "--to", "csv", "--layers", "1", "-1", "my run"), "export 'my run' --to csv"),
        (("show", "--follow", " the", "The cat"), "jaxlens show 'The cat' --follow ' the'"),
        (("prompts", "--layers", "1", "a.csv"), "jaxlens prompts a.csv --layers 1"),
        (("prompts", "--answer-column", "a"), "no file: --answer-column takes all words"),
    ],
)
def test_an_argument_that_an_option_took_is_given_back_in_the_hint(words, instead, capsys):
    said = refused(capsys, 2, *words)
    assert "takes all words after it" in said and instead in said


@pytest.mark.parametrize(
    "words",
    [
        ("study", "x", "--null"),
        ("report", "x", "--variant"),
        ("run", "--corpus"),
        ("show", "a", "--follow"),
        ("prompts", "x.csv", "--layers"),
        ("export", "x", "--to", "csv", "--quantities", "--layers", "1"),
    ],
)
def test_an_option_without_its_value_is_not_passed_over(words, capsys):
    option = "--quantities" if "--quantities" in words else words[-1]
    assert f"{option} without a value" in refused(capsys, 2, *words)


def test_a_panic_of_the_tokenizer_library_writes_no_backtrace(monkeypatch, capsys):
    monkeypatch.setenv("RUST_BACKTRACE", "1")
    assert run_cli("env", "--debug") == 0
    assert os.environ["RUST_BACKTRACE"] == "1"
    assert run_cli("env") == 0
    assert os.environ["RUST_BACKTRACE"] == "0"


def test_tokenize_can_stop_at_the_first_malformed_line(tmp_path, capsys):
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n{"text"\n')
    words = ("tokenize", "--corpus", tmp_path / "a.jsonl", "--out", tmp_path / "out")
    assert "a.jsonl:2: bad JSON" in refused(capsys, 65, *words, "--strict")
    assert run_cli(*map(str, words)) == 0


def test_several_prompts_become_one_figure_beside_their_page(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    page, figure = tmp_path / "a.html", tmp_path / "a.svg"
    assert run_cli("show", "a b", "c d", "--html", str(page), "--svg", str(figure)) == 0
    assert page.exists()
    text = figure.read_text()
    assert text.count("<!-- probability of the best token -->") == 2


def test_the_options_that_take_all_words_are_known():
    greedy = set()
    for name in main.app.resolved_commands():
        if not name.startswith("-"):
            for argument in main.app[name].assemble_argument_collection():
                if argument.parameter.consume_multiple:
                    greedy.add(argument.names[0])
    assert greedy == set(options.GREEDY)


def test_words_without_quotes_are_pointed_out(capsys):
    assert run_cli("show", "Other", "times,", "when", "--tokens", "0:1") == 0
    assert "jaxlens show 'Other times, when'" in capsys.readouterr().err
    assert run_cli("show", "Other times", "when", "--tokens", "0:1") == 0
    assert "to read them as one" not in capsys.readouterr().err


def test_quiet_is_quiet(tiny, texts, tmp_path, capsys):
    assert run_cli(*flags(tiny, texts, tmp_path / "out"), "--quiet") == 0
    assert capsys.readouterr() == ("", "")
    assert run_cli("verify", tmp_path / "out", "--quiet") == 0
    assert capsys.readouterr() == ("", "")
    (tmp_path / "out" / "summary.h5").unlink()
    said = refused(capsys, 65, "verify", tmp_path / "out", "--quiet")
    assert "1 finding, the first in summary.h5" in said


def test_a_run_that_goes_on_is_not_finished(swept, tmp_path, capsys):
    out = shutil.copytree(swept, tmp_path / "run")
    for name in ("MANIFEST", "summary.h5", "index.h5"):
        (out / name).unlink()
    last = max((out / "shards").glob("*.h5"))
    last.unlink()
    for how in ((), ("--fast",), ("--untrusted",)):
        said = refused(capsys, 75, "verify", out, *how)
        assert "not finished" in said and "finding" not in said
    first = min((out / "shards").glob("*.h5"))
    first.write_bytes(first.read_bytes()[:-1])
    said = refused(capsys, 65, "verify", out)
    assert "1 finding in a run that is not finished" in said and first.name in said


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252", "ascii:strict"])
def test_an_encoding_that_lacks_a_sign_decides_nothing(swept, tiny, texts, encoding, tmp_path):
    out = io.TextIOWrapper(io.BytesIO(), *encoding.split(":"))
    err = io.TextIOWrapper(io.BytesIO(), *encoding.split(":"))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert run_cli(*flags(tiny, texts, swept)) == 0
        assert run_cli("show", "日本 ·", "--tokens", "0:2") == 0
        assert run_cli("verify", tmp_path / "\udcff…") == 66
    printed = out.buffer.getvalue().decode(encoding.partition(":")[0])
    assert "KL(final|layer)" in printed and "layer " in printed
    widths = {
        len(line) for line in printed.splitlines() if line.startswith(("layer ", "input ", "h.0"))
    }
    assert len({w for w in widths if w > 60}) == 1  # columns stay aligned
    assert b"error: " in err.buffer.getvalue()


@pytest.mark.long
def test_a_terminal_that_is_not_utf_8_from_outside(swept, tiny, texts):
    words = " ".join(f"'{word}'" for word in map(str, flags(tiny, texts, swept)))
    done = shelled(f"jaxlens {words}", PYTHONIOENCODING="latin-1")
    assert done.returncode == 0, done.stderr
    strict = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    assert shelled(f"jaxlens {words}", **strict).returncode == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize(
    "ways",
    [
        (">/dev/full", "<&- >&- 2>&-", "| true"),
        pytest.param(("2>/dev/full", ">&-", "2>&-"), marks=pytest.mark.long),
    ],
    ids=["one of a kind", "others"],
)
def test_streams_that_cannot_be_written_do_not_decide_how_finished_work_ends(swept, ways):
    line = f"jaxlens verify --fast {swept}"
    for lost in ways:
        done = shelled(f"set -o pipefail; {line} {lost}")
        assert done.returncode == 0, (lost, done.stderr)
        assert "Traceback" not in done.stderr and "Exception" not in done.stderr
        if lost == ">/dev/full":
            assert "No space left on device; the work itself is done" in done.stderr
    # What was asked for is missing where it cannot be written.
    done = shelled("jaxlens completion bash >/dev/full")
    assert done.returncode == 74 and done.stderr.startswith("error: ")
    assert shelled("jaxlens verify nowhere 2>/dev/full").returncode == 66
    assert shelled("jaxlens verify nowhere 2>&-").returncode == 66


def test_a_finished_run_ends_well_where_its_summary_cannot_be_printed(tiny, texts, swept):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(28, "No space left on device")

    with contextlib.redirect_stdout(Full()), contextlib.redirect_stderr(io.StringIO()) as err:
        assert run_cli(*flags(tiny, texts, swept)) == 0
    assert "No space left on device" in err.getvalue()


@pytest.mark.parametrize(
    ("command", "hint"), [("run", "run the same command to resume"), ("env", "again")]
)
def test_ctrl_c_is_130_and_says_how_to_go_on(command, hint, tmp_path, capsys, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "run", interrupted)
    monkeypatch.setattr("jaxlens.sweep.environment.describe", interrupted)
    more = ("--out", tmp_path / "out") if command == "run" else ()
    said = refused(capsys, 130, command, *more)
    assert said.startswith("error: interrupted by Ctrl-C") and said.endswith(hint)


@pytest.mark.parametrize("as_json", [False, True])
def test_a_bar_is_drawn_on_terminals_and_not_among_json(as_json, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    terminal.start_logging(False, False, "json" if as_json else "text")
    stream = sys.stderr
    with progress.Bar() as bar:
        bar.begin(100, 0)
        logging.getLogger("jaxlens").info("a line")
        bar.advance(50)
    assert ("of 100 tokens" in stream.getvalue()) is not as_json
    assert "a line" in stream.getvalue()


@pytest.mark.long
def test_jax_debug_nans_does_not_mind_missing_values(tiny, texts, tmp_path, capsys):
    import jax

    with jax.debug_nans(True):
        assert run_cli(*flags(tiny, texts, tmp_path / "out")) == 0, capsys.readouterr().err
        assert run_cli("show", "Other times, when people say plasma", "--follow", " the") == 0
        assert jax.config.jax_debug_nans


def test_without_compilation_commands_refuse_to_begin(tiny, texts, tmp_path, capsys):
    import jax

    with jax.disable_jit():
        for words in (flags(tiny, texts, tmp_path / "out"), ("show", "a cat"), ("bench",)):
            assert "unset JAX_DISABLE_JIT" in refused(capsys, 2, *words)
    assert not (tmp_path / "out").exists()
    numerics.require_compilation()


def test_numbers_agree_with_their_nouns():
    assert errors.count(1, "token") == "1 token"
    assert errors.count(0, "token") == "0 tokens"
    assert errors.count(2000, "document or line", "documents or lines") == (
        "2,000 documents or lines"
    )


def test_a_run_of_one_token_speaks_of_one_token(tiny, tmp_path, capsys):
    (tmp_path / "one.txt").write_text("a")
    out = tmp_path / "out"
    assert run_cli(*flags(tiny, tmp_path / "one.txt", out)) == 0
    printed = capsys.readouterr().out
    assert f"{out}: 1 token in 1 shard, " in printed
    assert "median ranks are interpolated" in printed
    assert "\nclipped in the sums: none of " in printed
    assert run_cli("verify", out) == 0
    assert capsys.readouterr().out.endswith("ok, 1 shard, 1 row\n")
    assert run_cli("tokenize", "--model", tiny, "--corpus", tmp_path / "one.txt", "--out", out) == 0
    assert ": 1 token, 1 document\n" in capsys.readouterr().out


def test_help_has_examples_and_no_empty_defaults(capsys):
    for name in main.app.resolved_commands():
        if not name.startswith("-"):
            assert run_cli(name, "--help") == 0
            printed = capsys.readouterr().out
            assert "Examples:\n  " in printed, name
            assert "default: ()" not in printed and "default: None" not in printed
            assert "default: False" not in printed


def test_stand_ins_are_one_column_each():
    assert all(len(one) == 1 and one.isascii() for one in streams._INSTEAD.values())


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["--help"], id="help"),
        pytest.param(
            ["show", "The United", "--against-decoder", "plain"], id="show", marks=pytest.mark.long
        ),
    ],
)
def test_a_reader_who_has_seen_enough_is_no_failure(words):
    command = [sys.executable, "-m", "jaxlens", *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)
    process.stdout.read(1)
    process.stdout.close()
    said = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait() == 0, said
    assert "Traceback" not in said and "error:" not in said
