"""`python -m metacalo.cli`."""

from __future__ import annotations

from metacalo.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
