"""RAP: text-video retrieval with parameter-efficient adapters on a frozen, cached CLIP."""

import os

# Threads that wait must sleep, not spin: two jobs of two threads on two cores ran ten times slower when they spun.
# OpenMP reads this once, when torch loads it, and nothing here imports torch before this package.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
