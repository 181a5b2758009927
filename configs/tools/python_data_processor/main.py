#!/usr/bin/env python3
"""Statistics of numbers, and figures of a text or a file.

Arguments come as environment variables: ARG_OPERATION (stats, numbers, text, file), ARG_DATA, ARG_FILE and ARG_FORMAT
(text, json). Exits with 1 when there is nothing to work on, with the reason on stderr.
"""

import json
import os
import statistics
import sys


class Unusable(Exception):
    """What was given cannot be processed."""


def parse_numbers(data):
    parts = [part.strip() for part in data.replace("\n", ",").split(",") if part.strip()]
    if not parts:
        raise Unusable("there are no numbers in the data")
    try:
        return [float(part) for part in parts]
    except ValueError as error:
        raise Unusable(f"not a number: {error}") from error


def numbers(data):
    values = parse_numbers(data)
    return {
        "count": len(values),
        "sum": sum(values),
        "mean": statistics.fmean(values),
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "range": max(values) - min(values),
        "std_dev": statistics.stdev(values) if len(values) > 1 else 0.0,
    }


def text(data):
    words = data.split()
    if not words:
        raise Unusable("there is no text in the data")
    return {
        "char_count": len(data),
        "word_count": len(words),
        "sentence_count": len([part for part in data.split(".") if part.strip()]),
        "avg_word_length": sum(map(len, words)) / len(words),
        "unique_words": len({word.lower().strip(".,!?;:") for word in words}),
        "longest_word": max(words, key=len),
    }


def stats(data):
    try:
        return numbers(data)
    except Unusable:
        return text(data)


def file(path):
    if not path:
        raise Unusable("the operation file needs the argument file")
    try:
        with open(path, encoding="utf-8") as opened:
            content = opened.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Unusable(f"cannot read {path}: {error}") from error
    try:
        values = json.loads(content)
    except json.JSONDecodeError:
        return stats(content)
    if isinstance(values, list) and all(isinstance(value, (int, float)) for value in values):
        return numbers(",".join(map(str, values)))
    return {"json": type(values).__name__, "size": len(values) if isinstance(values, (dict, list, str)) else 1}


def main():
    operation = os.environ.get("ARG_OPERATION", "stats")
    data = os.environ.get("ARG_DATA", "")
    try:
        if operation == "file":
            analysis = file(os.environ.get("ARG_FILE", ""))
        else:
            analysis = {"numbers": numbers, "text": text, "stats": stats}[operation](data)
    except Unusable as error:
        print(f"python_data_processor: {error}", file=sys.stderr)
        return 1
    if os.environ.get("ARG_FORMAT", "text") == "json":
        print(json.dumps({"operation": operation, "analysis": analysis}, ensure_ascii=False, indent=2))
        return 0
    print(f"operation: {operation}")
    for name, value in analysis.items():
        print(f"{name}: {value:g}" if isinstance(value, float) else f"{name}: {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
