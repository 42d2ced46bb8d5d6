"""Environment variables that MLflow reads at import; the user's settings take precedence."""

import os

SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",  # rap.report.tracking reports each error once
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # an unreachable server must not delay a finished training
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}


def prepare() -> None:
    """Call it before MLflow is imported."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
