"""transformers and peft made quiet, and the first line of what their errors say."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import contextmanager

# Where it is installed, transformers and peft import bitsandbytes, which asks for an optional kernel each time and
# later speaks of casts in every product.
if logging.getLogger("bitsandbytes").level == logging.NOTSET:
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


@contextmanager
def quiet() -> Generator[None]:
    """No progress bars, log lines or warnings of transformers and peft inside; everything as it was after."""
    import warnings

    from transformers.utils import logging as shown

    verbosity, bars = shown.get_verbosity(), shown.is_progress_bar_enabled()
    shown.set_verbosity_error()
    shown.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        shown.set_verbosity(verbosity)
        if bars:
            shown.enable_progress_bar()


def first_line(error: BaseException) -> str:
    """The first line of what an error says, the next one too where it is only announced; its type where it says
    nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
