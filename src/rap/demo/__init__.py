"""The embedded demo: procedural clips whose captions need time, really encoded, each with its time-reversed twin."""
