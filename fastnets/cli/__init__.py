"""The command line. Parsing and printing only: every command calls one public function of the library."""

from __future__ import annotations

import logging
import signal
import sys
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, NoReturn

from cyclopts import App, CycloptsError

from fastnets.cli.doctor import doctor
from fastnets.cli.explain import explain
from fastnets.cli.info import info
from fastnets.cli.models import models
from fastnets.cli.predict import predict
from fastnets.cli.profile import profile
from fastnets.cli.show import print_error
from fastnets.cli.verify import verify
from fastnets.errors import InputError

BAD_INPUT = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells do

# Readers log what they then raise, and Python prints logs that nobody handles: one line is enough.
_SILENT = logging.NullHandler()

HELP = """The classic image-analysis networks, run exactly and fast over whole slides and volumes.

For example:

```
fastnets predict -i slide.svs -o out/ -m nuclei_demo
fastnets predict -i scans/*.nii.gz -o masks/ -m brain_unet3d
fastnets models
fastnets info slide.svs
```
"""

app = App(
    name="fastnets",
    help=HELP,
    version=lambda: version("fastnets"),
    help_format="markdown",
    suppress_keyboard_interrupt=False,
)
for _command in (predict, verify, explain, models, info, doctor, profile):
    app.command(_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line (by default the process's own) and returns the exit code.

    0: done. 1: `verify` found a difference above the tolerance. 2: an argument or an input cannot be used; one
    line on stderr says which. 130: Ctrl-C. Anything else that goes wrong is a bug and keeps its traceback.
    """
    if arguments is None:  # this process is ours, not a program's that calls main()
        signal.signal(signal.SIGTERM, _terminate)
    logging.getLogger().addHandler(_SILENT)
    with warnings.catch_warnings():
        if not sys.warnoptions:
            warnings.simplefilter("ignore")
        try:
            return _run(arguments)
        except CycloptsError as error:
            print_error(f"{_sentence(error)}: see `fastnets {_command_of(error)}--help`")
            return BAD_INPUT
        except InputError as error:
            print_error(str(error))
            return BAD_INPUT
        except KeyboardInterrupt:
            print_error("interrupted: finished files were kept, unfinished ones removed", kind="")
            return INTERRUPTED


def _terminate(number: int, frame: object) -> NoReturn:
    """Batch systems stop a job with SIGTERM, which would leave unfinished files behind."""
    raise SystemExit(128 + number)


def _run(arguments: Sequence[str] | None) -> int:
    code: Any = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    return code if isinstance(code, int) else 0


def _sentence(error: CycloptsError) -> str:
    text = " ".join(str(error).split()).rstrip(".")
    return text[:1].lower() + text[1:]


def _command_of(error: CycloptsError) -> str:
    return "".join(f"{name} " for name in error.command_chain or ())
