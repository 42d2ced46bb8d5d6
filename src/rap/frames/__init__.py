"""The frames stage: from videos to frames of a fixed size."""
