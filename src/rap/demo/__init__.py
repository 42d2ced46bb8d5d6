"""The embedded demo: generated clips whose captions describe an order in time, each with its reversed twin."""
