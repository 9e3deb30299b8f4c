"""Settings, presets, plan and stages of pretraining."""
