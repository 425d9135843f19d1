"""The command `review`: open a finished run, listen on this machine alone, until stopped."""

from __future__ import annotations

import getpass
import secrets
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from shlex import quote

from forgetfilter.errors import DONE


def run_review(
    folder: Path,
    *,
    by: str | None = None,
    port: int = 0,
    open_browser: bool = False,
    say: Callable[[str], None],
    show: Callable[[str], None],
) -> int:
    """Serve the review page of the run in `folder` until stopped; returns the exit code.

    Its address is shown, all else is said. `by`: who judges; the user's name where None.
    """
    from forgetfilter.guide.serving.command import listen, refuse_missing
    from forgetfilter.review import likeness, local
    from forgetfilter.review.app import Review, application, name_of
    from forgetfilter.review.decisions import NAME, Decisions
    from forgetfilter.review.run_files import open_run, refuse_changed

    refuse_missing("review")
    run = open_run(folder)
    refuse_changed(run)
    decisions = Decisions(folder / NAME, len(run))
    review = Review(run, decisions, secrets.token_urlsafe(32), name_of(_user() if by is None else by))
    with listen("127.0.0.1", port) as listening:
        address = f"http://127.0.0.1:{listening.getsockname()[1]}/#{review.token}"
        say(
            f"{folder}: {len(run):,} rows, {len(decisions.given):,} judged. Open in a browser on this machine:"
        )
        show(address)
        say(f"Decisions are written to {decisions.path} as they are made. Ctrl-C ends.")
        looking = threading.Thread(target=likeness.search, args=(run, review.twins, say), daemon=True)
        looking.start()
        if open_browser:
            import webbrowser

            webbrowser.open(address)
        try:
            with suppress(KeyboardInterrupt):
                local.server(application(review)).run(sockets=[listening])
        finally:
            review.twins.stop.set()
            looking.join(5)
    say(
        f"{len(decisions.given):,} rows judged. Write the final files: forgetfilter apply {quote(str(folder))}"
    )
    return DONE


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""
