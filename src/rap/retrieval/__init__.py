"""Retrieval: models, similarity matrices, ranks, recalls, twin accuracy."""
