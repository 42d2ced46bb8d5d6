"""What a similarity matrix is worth: ranks, recalls, twin accuracy."""
