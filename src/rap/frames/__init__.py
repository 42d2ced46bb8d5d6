"""The frames stage: videos to fixed-size frames."""
