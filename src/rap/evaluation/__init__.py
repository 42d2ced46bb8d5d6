"""The evaluate stage: a trained adapter on the test split."""
