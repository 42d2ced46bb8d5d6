"""The embedded demo: procedural clips whose captions need time, really encoded, each with its time-reversed twin."""

from rap.demo.corpus import prepare

__all__ = ["prepare"]
