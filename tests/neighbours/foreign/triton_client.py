"""Runs in the environment of tritonclient: nothing of voxplain is imported here."""

import json
import sys

import tritonclient.grpc


def told(title: str, fault: str = "") -> None:
    """Report one check."""
    print(json.dumps({"title": title, "fault": fault}), flush=True)


if __name__ == "__main__":
    arguments = json.loads(sys.argv[1])
    told("its client can be imported", "" if tritonclient.grpc.InferenceServerClient else "there is none")
