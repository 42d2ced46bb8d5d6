"""The download stage: fetch the missing videos, inspect each, write the manifest."""
