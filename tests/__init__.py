"""A package, or that `tests` would be imported which learn2learn 0.2.0 leaves in site-packages."""
