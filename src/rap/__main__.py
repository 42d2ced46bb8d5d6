"""The entry of the `rap` command: a signal ends it with one line, even during imports."""

import os
import signal
import sys

from rap.runtime.signals import Ended, end_children, obey


def main() -> None:
    """Entry point. Exit status 2: a user error, one line on stderr. 130, 143, 129: ended by a signal."""
    worker = "RANK" in os.environ  # one of several processes: torchrun ends them, and their parent reports why
    if worker:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    else:
        obey()
    try:
        from rap.cli import run

        run()
    except Ended as ended:
        end_children()  # again: a thread may have started another one
        print(f"rap: {ended}; run the same command again to continue", file=sys.stderr)
        sys.exit(ended.status)


if __name__ == "__main__":
    main()
