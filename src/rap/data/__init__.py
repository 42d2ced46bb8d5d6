"""Datasets: from annotations and videos to the manifest that every later stage reads."""
