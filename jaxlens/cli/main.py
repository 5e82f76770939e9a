"""The command line: its commands, and how each of them ends."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Literal

from cyclopts import App

import jaxlens
from jaxlens import interrupts
from jaxlens.cli import (
    ablate,
    bench,
    convert,
    examples,
    merge,
    options,
    probe,
    prompts,
    run,
    show,
    streams,
    study,
)
from jaxlens.files import memory

app = App(
    name="jaxlens",
    help="Corpus-scale logit lens: what each layer of a model would predict if it stopped there.",
    version=jaxlens.__version__,
    default_parameter=options.DEFAULTS,
    help_format="plaintext",
    # `main` says how to go on.
    suppress_keyboard_interrupt=False,
)


def _command(function: Callable[..., None]) -> Callable[..., None]:
    """Makes a function a command, whose help ends with examples."""
    app.command(function, help_epilogue=examples.epilogue(function.__name__))
    return function


for _function in (
    *(show.show, prompts.prompts, study.study, study.compare, study.report, convert.export),
    *(run.run, bench.bench, run.verify, run.repair, run.finalize, convert.convert),
    *(probe.probe, ablate.ablate, run.tokenize, merge.merge, bench.env),
):
    _command(_function)


@_command
def completion(shell: Literal["bash", "zsh", "fish"], /) -> None:
    """Print a script that completes commands and options with Tab.

    Args:
        shell: Which shell; source what is printed, or keep it where the shell looks for such.
    """
    print(app.generate_completion(shell=shell))


def main(words: Sequence[str] | None = None) -> None:
    """Entry point: every error is one line, a hint and a stable exit code."""
    arguments = list(sys.argv[1:] if words is None else words)
    with interrupts.watched() as watch:
        try:
            code = _main(arguments, watch, supervised=words is None)
        # Without memory the handlers there fail too; Python may raise this instead of the error.
        except (MemoryError, SystemError) as error:
            code = options.report(error, arguments)
    if code:
        sys.exit(code)


def _main(arguments: Sequence[str], watch: interrupts.Watch, supervised: bool) -> int:
    """Status of a command."""
    code = 0
    try:
        streams.prepare()
        if "--debug" not in arguments:
            # Where the tokenizer library panics, which becomes an error of ours, it adds pages.
            os.environ["RUST_BACKTRACE"] = "0"
        if supervised:
            memory.supervise()
        app(options.positional_dash(arguments), exit_on_error=False, print_error=False)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has seen enough, as in `| head`
        pass
    except SystemExit as ended:  # rich ends the process at a broken pipe by itself
        if not isinstance(ended.__context__, BrokenPipeError):
            raise
    except (Exception, KeyboardInterrupt) as error:
        watch.end()
        # What a signal has led to, an error of a library for instance, is not reported by itself.
        code = options.report(watch.error or error, arguments)
    finally:
        watch.end()
        streams.flush()
    return code
