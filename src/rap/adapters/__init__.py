"""Methods, one per file. To add a method, add a file that registers a builder; all stages and tests then include it.

A method is an Adapter (base.py) with a Tuner for each tower (rap.clip.towers). Its builder makes the adapter from the
backbone and the method's option groups. The groups are pydantic models, so each method validates its own part of
params.yaml.
"""
