"""Reads damaged copies of a database, one after the other, for test_sqlite_fuzz: `damaged_files.py FOLDER FIRST COUNT`.

Each number is a seed that decides on the damage. Prints one JSON line for each. A file of which rows are missing stays in the folder.
"""

import json
import random
import shutil
import sys
from datetime import timedelta
from pathlib import Path

from lakeward.errors import LakewardError
from lakeward_plugins.sources.sqlite import SqliteSource

ENDLESS = 1000  # batches


def flip(content: bytearray, dice: random.Random) -> None:
    for _ in range(dice.choice((1, 1, 2, 8))):
        content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)


def zero(content: bytearray, dice: random.Random) -> None:
    at = dice.randrange(len(content) // 1024) * 1024
    content[at : at + 1024] = bytes(len(content[at : at + 1024]))


def garbage(content: bytearray, dice: random.Random) -> None:
    at = dice.randrange(len(content) // 1024) * 1024
    content[at : at + 1024] = dice.randbytes(len(content[at : at + 1024]))


def stretch(content: bytearray, dice: random.Random) -> None:
    at = dice.randrange(len(content))
    content[at : at + 16] = dice.choice((bytes, dice.randbytes))(len(content[at : at + 16]))


def swap(content: bytearray, dice: random.Random) -> None:
    one, other = (dice.randrange(1, len(content) // 1024) * 1024 for _ in range(2))
    content[one : one + 1024], content[other : other + 1024] = content[other : other + 1024], content[one : one + 1024]


def truncate(content: bytearray, dice: random.Random) -> None:
    del content[dice.randrange(len(content)) :]


KINDS = (flip, flip, zero, garbage, stretch, swap, truncate)


def damaged(folder: Path, seed: int) -> tuple[Path, str]:
    """A copy of one of the two databases in the folder, with one damage in it or in its -wal file."""
    dice = random.Random(seed)
    original = dice.choice(("closed.db", "killed.db"))
    path = folder / f"{seed}.db"
    shutil.copyfile(folder / original, path)
    target, kind = path, dice.choice(KINDS)
    if original == "killed.db":
        shutil.copyfile(folder / "killed.db-wal", f"{path}-wal")
        target = dice.choice((path, Path(f"{path}-wal")))
    content = bytearray(target.read_bytes())
    kind(content, dice)
    target.write_bytes(content)
    return path, f"{kind.__name__} {original}{'-wal' if target != path else ''}"


def read(path: Path, limit: int) -> dict:
    """The rows that came, the ranges that were named, how far it got and how it ended."""
    source = SqliteSource(path, table="readings", busy_timeout=timedelta(0))
    rows, named, position, batches, end = [], [], None, 0, "done"
    try:
        source.schema()
        for batch in source.read(None, limit):
            batches += 1
            assert batches < ENDLESS, "it does not end"
            position = batch.position["id"]
            rows += batch.rows.to_pylist()
            for letter in batch.rejected.to_pylist() if batch.rejected is not None else ():
                high = letter.get("_row_high")
                named.append((letter["_row"], letter["_row"] if high is None else high))
    except LakewardError as error:
        end = f"{type(error).__name__}: {error}"
        assert "\n" not in end, end
    return {"rows": rows, "named": named, "position": position, "end": end}


def compare(truth: dict[int, list], found: dict) -> dict:
    """What is missing without a word, and what came otherwise than it was written."""
    came = {row["_row"]: [row["timestamp"], row["temperature"], row["level"], row["photo"] and row["photo"].hex()] for row in found["rows"]}
    told = found["end"] != "done"
    missing = [
        key
        for key in truth
        if key not in came
        and not any(low <= key <= high for low, high in found["named"])
        and not (told and (found["position"] is None or key > found["position"]))
    ]
    other = sum(1 for key, row in came.items() if truth.get(key) != row)
    return {"missing": missing, "same": len(came) - other, "other": other, "ranges": len(found["named"]), "end": found["end"]}


def main() -> None:
    folder, first, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    truth = {int(key): row for key, row in json.loads((folder / "truth.json").read_text()).items()}
    for seed in range(first, first + count):
        path, kind = damaged(folder, seed)
        found = compare(truth, read(path, random.Random(seed).choice((1000, 150))))
        if not found["missing"]:
            for end in ("", "-wal", "-shm"):
                Path(f"{path}{end}").unlink(missing_ok=True)
        print(json.dumps({"seed": seed, "kind": kind, **found}), flush=True)


if __name__ == "__main__":
    main()
