"""Datasets: annotations and videos in, a manifest out; then frames, cut from the videos."""
