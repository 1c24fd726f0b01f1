"""The door: ``python -m vlsafe VERB ...`` and the console script ``vlsafe``.

Exit status: 0 success; 2 a usage or configuration error; 130 interrupted; 143 stopped by SIGTERM or SIGUSR1; 1 anything
else.
"""

from __future__ import annotations

import gc
import os
import sys
import traceback

import vlsafe
from vlsafe.account import program_begins
from vlsafe.stopping import STOP, Stopped
from vlsafe.verbs import VERBS, Verb


def main(argv: list[str] | None = None) -> int:
    """Run one verb. ``argv`` excludes the program's name and defaults to the process's arguments."""
    program_begins()
    with STOP.watched():
        return _until_stopped(sys.argv[1:] if argv is None else argv)


def _until_stopped(argv: list[str]) -> int:
    try:
        status = _dispatch(argv)
        sys.stdout.flush()  # a reader that has gone away shows here, not after main has returned
        return status
    except Stopped as stop:
        return stop.status
    except KeyboardInterrupt:  # where another thread than the main one called, its signals are not ours
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        if not _reader_has_gone():
            raise
        return 1
    except Exception as error:
        if STOP.received is None:
            raise
        if not _follows_stop(error):
            traceback.print_exc()  # mostly: other processes of the run have ended already
        return STOP.status


def _follows_stop(error: BaseException | None) -> bool:
    """Whether it comes of tearing down what a stop found half made."""
    while error is not None and not isinstance(error, Stopped):
        error = error.__context__
    return error is not None


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    name, *rest = argv
    if name in ("-V", "--version"):
        print(f"vlsafe {vlsafe.__version__}")
        return 0
    if name not in VERBS:
        print(_unknown(name), file=sys.stderr)
        return 2
    return _run(VERBS[name], [name, *rest] if VERBS[name].passes_name else rest)


def _run(verb: Verb, argv: list[str]) -> int:
    import importlib

    from vlsafe.errors import VlsafeError

    module, _, name = verb.target.partition(":")
    function = getattr(importlib.import_module(module), name)
    STOP.deliver()
    try:
        status: int | None = function(argv)
    except VlsafeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    return status or 0


def usage() -> str:
    """What ``--help`` prints: every verb with one line of purpose and one of what it reads and writes."""
    width = max(map(len, VERBS))
    lines = [
        "usage: vlsafe VERB [options]      (or: python -m vlsafe VERB [options])",
        "",
        vlsafe.__doc__.split("\n")[0],
    ]
    lines += ["", "verbs:"]
    lines += [f"  {name:<{width}}  {verb.summary}  [{verb.reads_writes}]" for name, verb in VERBS.items()]
    lines += ["", "vlsafe VERB --help tells a verb's options; vlsafe --version prints the version."]
    return "\n".join(lines)


def _unknown(name: str) -> str:
    import difflib

    near = difflib.get_close_matches(name, VERBS, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"error: unknown verb {name!r}.{hint} Verbs: {', '.join(VERBS)}. See: vlsafe --help"


def _reader_has_gone() -> bool:
    """Whether standard output itself is the broken pipe (``vlsafe ... | head``); if so, silence it.

    Pointing the descriptor elsewhere keeps the interpreter from complaining about its last flush.
    """
    import select

    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)  # errors and hang-ups are always reported
    if not poll.poll(0):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def entry() -> None:
    """``python -m vlsafe`` and the console script.

    ``sys.exit`` is looked up after the verb has run: W&B may have put its own there by then, which tells a sweep that
    the trial failed.
    """
    status = main()
    gc.freeze()  # what torch and transformers hold need not be searched for cycles at the end: a second of every verb
    sys.exit(status)


if __name__ == "__main__":
    entry()
