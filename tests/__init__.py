"""Tests; a package, so that no other distribution's `tests` in site-packages stands for it (learn2learn 0.2.0 installs one)."""
