from __future__ import annotations

import torch
from hypothesis import settings

# tests are small: one thread is fastest, and a busy machine may be slow without being wrong
torch.set_num_threads(1)
settings.register_profile("metacalo", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("metacalo")
