"""Showers of a described detector, by Geant4 itself: the verb is `metacalo.simulate.run`."""
