"""The train stage: an adapter learns from the feature cache."""
