"""The embedded demo: procedural clips, really encoded, whose captions need time, each with its reversed twin."""
