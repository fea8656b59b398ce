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


def main() -> None:
    database, count = sys.argv[1], int(sys.argv[2])
    now_ms = int(time.time() * 1000)
    rows = [device(number, now_ms) for number in range(count)]
    columns = list(rows[0])
    statement = f"INSERT INTO devices ({', '.join(columns)}) VALUES ({', '.join(':' + column for column in columns)})"
    with sqlite3.connect(database) as connection:
        connection.executemany(statement, rows)
        (there,) = connection.execute("SELECT count(*) FROM devices").fetchone()
    print(json.dumps({"devices": there}))


main()
