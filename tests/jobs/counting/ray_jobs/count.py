"""Counts aloud until a file tells it with which status to end, then says how far it has come.

Lines are written in two pieces, some with a pause in the midst of a character. With `--bytes` one
is no text at all.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from pathlib import Path


def main(ending: Path, *flags: str) -> int:
    for number in itertools.count():
        os.write(1, f"line {number} h".encode() + b"\xc3")
        time.sleep(1.5 if number == 10 else 0.01)
        os.write(1, b"\xb6r\n")
        if number == 60 and "--bytes" in flags:
            os.write(1, b"\xff\n")
        ending.with_name("counted").write_text(str(number))
        time.sleep(0.04)
        if ending.exists():
            break
    os.write(1, json.dumps({"last": number}).encode())
    return int(ending.read_text())


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
