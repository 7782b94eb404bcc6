"""What the webhook of a system makes of a pod that is created: asked over TLS as an API server asks, its JSON patch applied.

Must not know what it should make of it.
"""

from __future__ import annotations

import base64
import copy
import json
import ssl
import urllib.request
from typing import Any

Json = dict[str, Any]


class Rejected(Exception):
    """The webhook refused the pod: its sentence."""


def injected(url: str, ca_file: str, pod: Json) -> Json:
    """The pod as it would be stored. Raises Rejected."""
    review = {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "1",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "name": pod["metadata"]["name"],
            "namespace": pod["metadata"]["namespace"],
            "operation": "CREATE",
            "object": pod,
        },
    }
    request = urllib.request.Request(
        f"{url}/mutate--v1-pod", json.dumps(review).encode(), {"Content-Type": "application/json"}
    )
    trust = ssl.create_default_context(cafile=ca_file)
    with urllib.request.urlopen(request, timeout=10, context=trust) as answer:
        response = json.loads(answer.read())["response"]
    if not response["allowed"]:
        raise Rejected(response["status"]["message"])
    operations: list[Json] = json.loads(base64.b64decode(response["patch"])) if "patch" in response else []
    return _patched(pod, operations)


def _patched(document: Json, operations: list[Json]) -> Json:
    """RFC 6902, as far as maps and the ends of lists go."""
    found = copy.deepcopy(document)
    for operation in operations:
        *parents, last = (
            part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]
        )
        place: Json | list[Any] = found
        for part in parents:
            place = place[part] if isinstance(place, dict) else place[int(part)]
        if isinstance(place, dict):
            if operation["op"] == "remove":
                del place[last]
            else:
                place[last] = operation["value"]
        elif last == "-":
            place.append(operation["value"])
        else:
            assert operation["op"] == "replace", operation
            place[int(last)] = operation["value"]
    return found
