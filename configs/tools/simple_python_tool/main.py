#!/usr/bin/env python3
"""Counts what is in the file that its argument names. Prints one JSON object."""

import json
import pathlib
import sys


def main():
    if len(sys.argv) != 2:
        print("usage: main.py FILE", file=sys.stderr)
        return 2
    file = pathlib.Path(sys.argv[1])
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        print(f"cannot read {file}: {error}", file=sys.stderr)
        return 1
    report = {
        "file": str(file),
        "lines": len(text.splitlines()),
        "words": len(text.split()),
        "characters": len(text),
        "paragraphs": len([part for part in text.split("\n\n") if part.strip()]),
    }
    print(json.dumps(report, ensure_ascii=False, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
