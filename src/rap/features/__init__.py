"""The features stage: outputs of the frozen part of a tower, computed once and cached."""
