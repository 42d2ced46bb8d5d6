"""Methods, one per file. To add one, add a file that registers a builder: every stage and test then knows it.

A method is an Adapter (base.py): a Tuner for each tower (rap.clip.towers), made by a builder from the backbone and the
option groups of the method. The groups are pydantic models, so the method itself validates its part of params.yaml.
"""
