"""Writes tickets.csv, a file of questions without labels to try the commands on, from intents.csv."""

from __future__ import annotations

import csv
import random
from pathlib import Path

HERE = Path(__file__).parent
DOMAINS = ("accounts", "banking", "travel")
ROWS = 400


def main() -> None:
    """Draws the rows, the same ones each time, in random order."""
    with (HERE / "intents.csv").open(encoding="utf-8", newline="") as file:
        questions = [row["question"] for row in csv.DictReader(file) if row["intent"].split("/")[0] in DOMAINS]
    drawn = random.Random(0).sample(questions, ROWS)
    with (HERE / "tickets.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["ticket", "title"])
        writer.writerows((f"T{number:03}", title) for number, title in enumerate(drawn, start=1))


if __name__ == "__main__":
    main()
