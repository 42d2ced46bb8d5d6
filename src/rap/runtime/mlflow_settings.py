"""What MLflow reads from the environment when it is imported; a user's own setting wins."""

import os

SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",  # an error is told once, by rap.report.tracking
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # a server that is down must not hold up a finished training
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}


def prepare() -> None:
    """Call it before MLflow is imported."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
