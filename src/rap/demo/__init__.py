"""The embedded demo: procedural video clips with captions about time, each with its time-reversed twin."""
