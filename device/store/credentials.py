"""The store's credentials: from systemd, the environment, or the provider's own chain.

systemd (LoadCredential=store:/etc/lakevision/credentials) passes the service a file that only the service can read,
in $CREDENTIALS_DIRECTORY. The file holds lines NAME=value, with the names of the provider's own tools:

    S3           AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN
    Azure        AZURE_STORAGE_ACCOUNT_KEY, or AZURE_STORAGE_SAS_TOKEN,
                 or AZURE_CLIENT_ID + AZURE_CLIENT_SECRET + AZURE_TENANT_ID
    Google       GOOGLE_SERVICE_ACCOUNT_KEY (the key file's JSON on one line),
                 or GOOGLE_APPLICATION_CREDENTIALS (a path)
    MLflow       MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME + MLFLOW_TRACKING_PASSWORD (models only)
    acting       WEBHOOK_TOKEN (sent as a bearer token), MQTT_USERNAME + MQTT_PASSWORD
    Databricks   DATABRICKS_CLIENT_ID + DATABRICKS_CLIENT_SECRET (OAuth of a service principal), or DATABRICKS_TOKEN

Credentials are never logged, put on a command line or written to the spool; redact() is the last line of defence.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote, unquote

NAMES = {
    "s3": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
    "azure": (
        "AZURE_STORAGE_ACCOUNT_NAME",
        "AZURE_STORAGE_ACCOUNT_KEY",
        "AZURE_STORAGE_SAS_TOKEN",
        "AZURE_CLIENT_ID",
        "AZURE_CLIENT_SECRET",
        "AZURE_TENANT_ID",
    ),
    "gs": ("GOOGLE_SERVICE_ACCOUNT_KEY", "GOOGLE_APPLICATION_CREDENTIALS"),
    "volume": ("DATABRICKS_CLIENT_ID", "DATABRICKS_CLIENT_SECRET", "DATABRICKS_TOKEN"),
    "mlflow": ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"),
    "act": ("WEBHOOK_TOKEN", "MQTT_USERNAME", "MQTT_PASSWORD"),
    "file": (),
}
SECRET = re.compile(r"SECRET|TOKEN|KEY|PASSWORD|SAS", re.IGNORECASE)
IN_URL = re.compile(
    r"(?i)\b(sig|signature|x-amz-signature|x-amz-security-token|x-amz-credential|token|authorization)"
    r"(=|: (?:Bearer |Basic )?)[^&\s\"')]+"
)


class CredentialsError(ValueError):
    """The credentials file is malformed; the message names the line, never its value."""


def load(provider: str) -> dict[str, str]:
    """{NAME: value} for a provider (a key of NAMES), from the file if there is one, and from the environment.

    If the dict is empty, the provider's own chain applies: workload identity, instance metadata.
    Raises CredentialsError, OSError.
    """
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    file = Path(folder, "store") if folder else None
    given = {**os.environ, **(_parse(file) if file and file.exists() else {})}
    return {name: given[name] for name in NAMES[provider] if given.get(name)}


def _parse(file: Path) -> dict[str, str]:
    values = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        name, separator, value = line.partition("=")
        if not separator or not re.fullmatch(r"[A-Z][A-Z0-9_]*", name.strip()):
            raise CredentialsError(f"{file}, line {number}: should be NAME=value")
        value = value.strip()
        if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        values[name.strip()] = value
    return values


def redact(text: str, credentials: dict[str, str]) -> str:
    """Replaces every secret value of `credentials`, in any URL encoding, and every signature in a URL."""
    secrets = {value for name, value in credentials.items() if SECRET.search(name) and len(value) >= 4}
    for secret in sorted(
        {form for value in secrets for form in (value, quote(value, safe=""), quote(value), unquote(value))},
        key=len,
        reverse=True,
    ):
        text = text.replace(secret, "[redacted]")
    return IN_URL.sub(r"\1\2[redacted]", text)
