"""Puts devices into the database of a server that is stopped.

seed_devices.py DATABASE COUNT: the devices `cam-00000` and on, of three boards, offline, with the labels `ring` and `site`.
Prints how many there are.
"""

import json
import sqlite3
import sys
import time

BOARDS = ("raspberry-pi-4", "jetson-orin-nano", "generic-arm64")
RINGS = ("canary", "early", "late")
SITES = ("berlin", "osaka", "lima", "pune")


def device(number: int, now_ms: int) -> dict:
    """One row."""
    return {
        "id": f"cam-{number:05}",
        "board": BOARDS[number % len(BOARDS)],
        "agent_version": "0.1.0",
        "labels": json.dumps({"ring": RINGS[number % len(RINGS)], "site": SITES[number // 4 % len(SITES)]}),
        "online": 0,
        "enrolled_at": now_ms - 86_400_000,
        "seen_at": now_ms - 1000 * number,
        "generation": 0,
        "assignments": "[]",
        "desired_at": 0,
        "chunk_bytes": 65_536,
    }


def insert(connection: sqlite3.Connection, table: str, rows: list[dict]) -> None:
    """All rows, each with the same columns."""
    columns = list(rows[0])
    names, values = ", ".join(columns), ", ".join(f":{column}" for column in columns)
    connection.executemany(f"INSERT INTO {table} ({names}) VALUES ({values})", rows)


def main() -> None:
    database, count = sys.argv[1], int(sys.argv[2])
    now_ms = int(time.time() * 1000)
    rows = [device(number, now_ms) for number in range(count)]
    labels = [
        {"device": row["id"], "key": key, "value": value}
        for row in rows
        for key, value in json.loads(row["labels"]).items()
    ]
    with sqlite3.connect(database) as connection:
        insert(connection, "devices", rows)
        insert(connection, "device_labels", labels)
        (there,) = connection.execute("SELECT count(*) FROM devices").fetchone()
    print(json.dumps({"devices": there}))


main()
