"""Runs schemathesis over a server's OpenAPI document, administration included, and keeps it from locking itself out.

    python -m venv /somewhere/venv && /somewhere/venv/bin/pip install -r tools/clients/requirements.txt
    /somewhere/venv/bin/python tools/clients/schemathesis_run.py http://127.0.0.1:8480 eu-… [schemathesis' own options]

Needs a key with the role `admin`. What is generated makes, changes, rotates and removes keys and tenants like anything else; a
request that would change the very key or tenant of this run goes to one that there is not instead. Nothing else is left out:
that key and tenant are still read. Exit code of schemathesis; 2 if the key is gone all the same at the end.

The file is its own module of hooks: schemathesis loads it by the name that stands in SCHEMATHESIS_HOOKS.
"""

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import unquote

KEY_ID = "EULALIA_KEY_ID"
TENANT = "EULALIA_TENANT"
PREFIX, ID_LENGTH = "eu-", 8
NOBODY = {"id": "00000000", "name": "nobody"}


def main(base_url: str, key: str, *options: str) -> int:
    base_url = base_url.rstrip("/")
    own_id = key.removeprefix(PREFIX)[:ID_LENGTH]
    own = show(base_url, key, own_id)
    environment = os.environ | {
        KEY_ID: own_id,
        TENANT: own["tenant"],
        "SCHEMATHESIS_HOOKS": str(Path(__file__).resolve()),
    }
    program = Path(sys.executable).with_name("schemathesis")
    command = [program, "run", f"{base_url}/openapi.json", "-H", f"Authorization: Bearer {key}", *options]
    code = subprocess.run(command, env=environment).returncode
    try:
        show(base_url, key, own_id)
    except urllib.error.HTTPError as error:
        print(f"the key of this run opens nothing any more ({error.code}): what followed that was not tested")
        return 2
    return code


def show(base_url: str, key: str, key_id: str) -> dict:
    """What the server says of a key."""
    request = urllib.request.Request(
        f"{base_url}/admin/v1/keys/{key_id}", headers={"Authorization": f"Bearer {key}"}
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def is_own(name: str, value: object) -> bool:
    """Whether a part of a path names the key or the tenant of this run, in any way that the server would understand."""
    text = unquote(str(value))
    if name == "id":
        return text.removeprefix(PREFIX)[:ID_LENGTH] == os.environ[KEY_ID]
    return name == "name" and text == os.environ[TENANT]


def protect(context, case, kwargs) -> None:
    if case.method.upper() == "GET" or not case.path.startswith("/admin/"):
        return
    for name, value in case.path_parameters.items():
        if is_own(name, value):
            case.path_parameters[name] = NOBODY[name]


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
elif KEY_ID in os.environ:
    import schemathesis

    schemathesis.hook("before_call")(protect)
