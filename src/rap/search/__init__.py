"""Search: an index of video embeddings, queries by text, contact sheets."""
