from __future__ import annotations

import signal

import torch
from hypothesis import settings

# tests are small: one thread is fastest, and a busy machine may be slow without being wrong
torch.set_num_threads(1)
settings.register_profile("metacalo", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("metacalo")

# tests send signals; whoever starts them in the background, as by nohup, has them ignored
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
