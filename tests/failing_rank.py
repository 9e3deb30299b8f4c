"""The second of two processes fails while the first waits for it: `torchrun tests/failing_rank.py`."""

from __future__ import annotations

import sys

from metacalo.cli import main
from metacalo.cli.app import app
from metacalo.errors import ConfigError
from metacalo.runtime.distributed import joined_ranks


def meet() -> None:
    with joined_ranks() as ranks:
        if not ranks.first:
            raise ConfigError("only here")
        ranks.wait()


if __name__ == "__main__":
    app.command()(meet)
    sys.argv[1:] = ["meet"]
    main()
