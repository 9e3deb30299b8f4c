"""The invertible map between showers in MeV and normal latents, fitted on the shots and shrunk to a prior."""
