"""`python -m metacalo`, and what torchrun starts: `torchrun --nproc-per-node 2 -m metacalo pretrain ...`."""

from __future__ import annotations

from metacalo.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
