#!/usr/bin/env python3
"""Counts what is in a text: the argument text, else stdin. Prints one JSON object."""

import collections
import json
import os
import re
import sys


def arguments():
    """All arguments of the run. A long text is not in the environment, but it is always in this file."""
    with open(os.environ["ARGS_FILE"], encoding="utf-8") as file:
        return json.load(file)["args"]


def analyze(text, top):
    words = re.findall(r"\w+(?:['’-]\w+)*", text)
    common = collections.Counter(word.lower() for word in words).most_common(top)
    return {
        "characters": len(text),
        "words": len(words),
        "unique_words": len({word.lower() for word in words}),
        "lines": len(text.splitlines()),
        "sentences": len([part for part in re.split(r"[.!?…]+", text) if part.strip()]),
        "average_word_length": round(sum(map(len, words)) / len(words), 2) if words else 0,
        "most_frequent": [{"word": word, "count": count} for word, count in common],
    }


def main():
    args = arguments()
    text = args["text"] if "text" in args else sys.stdin.read()
    if not text.strip():
        print("there is no text: give the argument text, or something on stdin", file=sys.stderr)
        return 1
    json.dump(analyze(text, args.get("top", 5)), sys.stdout, ensure_ascii=False, indent=2)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
