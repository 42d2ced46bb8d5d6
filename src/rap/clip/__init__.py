"""CLIP, cut in two: a frozen prefix whose output is cached, and a suffix that adapters work in."""
