"""Completion by Tab, in the shell itself."""

import shutil
import subprocess

import pytest
from sweeps import run_cli

from jaxlens.cli import main


def completed(script, *words):
    """What bash offers for the last of the words."""
    program = (
        'source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); '
        'f=$(complete -p jaxlens | sed "s/.*-F \\([^ ]*\\).*/\\1/"); '
        '"$f" jaxlens "${COMP_WORDS[$COMP_CWORD]}" "${COMP_WORDS[$COMP_CWORD-1]}"; '
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    command = ["bash", "--norc", "-c", program, script, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("completion") / "jaxlens.bash"
    path.write_text(main.app.generate_completion(shell="bash"))
    return path


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("jaxlens", "re"), {"report", "repair"}),
        (("jaxlens", "run", "--tal"), {"--tallies"}),
        (("jaxlens", "export", "--to"), {"--to"}),
    ],
)
def test_bash_offers_the_commands_and_options_that_there_are(script, words, expected):
    assert completed(script, *words) == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_has_a_script_that_names_every_command(shell, capsys):
    assert run_cli("completion", shell) == 0
    printed = capsys.readouterr().out
    names = [name for name in main.app if not name.startswith("-")]
    assert {"run", "show", "report", "study", "completion"} <= set(names)
    assert all(name in printed for name in names)
