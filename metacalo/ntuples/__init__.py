"""ROOT ntuples of Geant4's example Par04, one or several, as showers."""
