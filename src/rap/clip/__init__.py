"""CLIP in two parts: a frozen prefix, whose output is cached, and a suffix, which adapters edit."""
