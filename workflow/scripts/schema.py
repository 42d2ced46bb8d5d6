"""Write workflow/schemas/params.schema.json, with which editors complete and check params.yaml.

    python workflow/scripts/schema.py

Types come from rap.params, descriptions from the comments of params.yaml. Run it after a change of either.
"""

import json
import re
from pathlib import Path

from rap.files import write_text
from rap.params import Params

FILE = Path("workflow/schemas/params.schema.json")
LINE = re.compile(r"^(?P<indent> *)(?P<key>\w+):.*?#\s*(?P<comment>.+)$")


def comments(text: str) -> dict[tuple[str, ...], str]:
    """The comment after each key, by the key's path."""
    found: dict[tuple[str, ...], str] = {}
    path: list[str] = []
    for line in text.splitlines():
        if key := re.match(r"^( *)(\w+):", line):
            path = [*path[: len(key[1]) // 2], key[2]]
            if said := LINE.match(line):
                found[tuple(path)] = said["comment"]
    return found


def described(schema: dict, text: str) -> dict:
    """The schema with the comments of params.yaml as descriptions."""
    for path, comment in comments(text).items():
        group = schema
        for key in path[:-1]:
            group = _resolved(schema, group.get("properties", {}).get(key, {}))
        if path[-1] in group.get("properties", {}):
            group["properties"][path[-1]]["description"] = comment
    return schema


def _resolved(schema: dict, part: dict) -> dict:
    return schema["$defs"][part["$ref"].rpartition("/")[2]] if "$ref" in part else part


def rendered() -> str:
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Params.model_json_schema()}
    text = Path("params.yaml").read_text(encoding="utf-8")
    return json.dumps(described(schema, text), indent=1, ensure_ascii=False, sort_keys=True) + "\n"


if __name__ == "__main__":
    write_text(FILE, rendered())
