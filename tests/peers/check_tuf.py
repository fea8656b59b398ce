"""Verifies a model repository with python-tuf: role by role, and as a client that begins at each root.

check_tuf.py FOLDER: FOLDER holds N.root.json, N.targets.json, N.snapshot.json, timestamp.json and delegated roles.
Prints {"keys", "versions", "vouched", "targets"}: the key ids of each role in the newest root; the version of each
role in force; for each file of a top-level role, the roots whose keys signed it; the paths that the targets list.
"""

import json
import pathlib
import sys
import tempfile

from tuf.api.exceptions import DownloadHTTPError, UnsignedMetadataError
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp
from tuf.ngclient import FetcherInterface, Updater

TOP_LEVEL = (Root, Targets, Snapshot, Timestamp)


class Folder(FetcherInterface):
    def __init__(self, path: pathlib.Path) -> None:
        self.path = path

    def _fetch(self, url: str):
        file = self.path / url.rpartition("/")[2]
        if not file.is_file():
            raise DownloadHTTPError(f"no {file.name}", 404)
        return iter([file.read_bytes()])


def signed_by(delegator, role: str, metadata: Metadata) -> bool:
    try:
        delegator.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    except UnsignedMetadataError:
        return False
    return True


def need(is_so: bool, what: str) -> None:
    if not is_so:
        sys.exit(what)


def main() -> None:
    folder = pathlib.Path(sys.argv[1])
    files = {path.name: path.read_bytes() for path in sorted(folder.glob("*.json"))}

    def read(kind, name: str) -> Metadata:
        return Metadata[kind].from_bytes(files[name])

    # Each root is signed by its own keys and by those of the one before.
    roots = []
    while f"{len(roots) + 1}.root.json" in files:
        root = read(Root, f"{len(roots) + 1}.root.json")
        for judge in [*roots[-1:], root]:
            need(signed_by(judge.signed, "root", root), f"root {root.signed.version} is unsigned")
        roots.append(root)
    newest = roots[-1].signed

    timestamp = read(Timestamp, "timestamp.json")
    pin = timestamp.signed.snapshot_meta
    snapshot = read(Snapshot, f"{pin.version}.snapshot.json")
    pin.verify_length_and_hashes(files[f"{pin.version}.snapshot.json"])
    in_force = {}
    for name, pin in snapshot.signed.meta.items():
        pin.verify_length_and_hashes(files[f"{pin.version}.{name}"])
        in_force[name.removesuffix(".json")] = read(Targets, f"{pin.version}.{name}")
    targets = in_force["targets"]
    for role, metadata in [("timestamp", timestamp), ("snapshot", snapshot), ("targets", targets)]:
        need(signed_by(newest, role, metadata), f"{role} is unsigned")
    for role, metadata in in_force.items():
        if role != "targets":
            need(signed_by(targets.signed, role, metadata), f"{role} is unsigned")

    vouched = {}
    for kind in TOP_LEVEL:
        for name in files:
            if name == f"{kind.type}.json" or name.partition(".")[2] == f"{kind.type}.json":
                signed = [signed_by(root.signed, kind.type, read(kind, name)) for root in roots]
                vouched[name] = [at for at, is_so in enumerate(signed, 1) if is_so]

    # A device may have slept since any of the roots.
    for root in roots:
        with tempfile.TemporaryDirectory() as kept:
            start = files[f"{root.signed.version}.root.json"]
            client = Updater(kept, "folder://", fetcher=Folder(folder), bootstrap=start)
            client.refresh()
            for path, target in targets.signed.targets.items():
                need(client.get_targetinfo(path) == target, f"the client finds another {path}")
            need(client.get_targetinfo("models/nobody-signed") is None, "the client finds what is not there")

    roles = {"root": roots[-1], "timestamp": timestamp, "snapshot": snapshot, **in_force}
    json.dump(
        {
            "keys": {role: sorted(of.keyids) for role, of in newest.roles.items()},
            "versions": {role: metadata.signed.version for role, metadata in roles.items()},
            "vouched": vouched,
            "targets": sorted(targets.signed.targets),
        },
        sys.stdout,
    )


main()
