"""The download stage: fetch missing videos, inspect every video, write the manifest."""
