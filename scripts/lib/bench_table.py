"""Tables of what vmoba-native's benches print (JSON lines): bench_table.py <log ...>; text that is no such line passes through."""

import json
import sys

COLUMNS = {
    "attention": ("data", "partition", "target", "density", "denseMs", "ms", "routingMs", "attentionMs", "speedup", "efficiency", "denseTflops", "tflops", "meanBlocks", "tileUnion", "valid"),
    "check": ("check", "partition", "error", "allowed", "holds"),
    "model": ("policy", "streamed", "seconds", "linears", "attention", "routing", "other", "density", "speedup", "mixedSpeedup", "streamSlowdown", "ceiling", "linearTflops", "poolPeakGB"),
}


def kind_of(row):
    return "attention" if "target" in row else "check" if "check" in row else "model" if "linearGflops" in row else None


def shown(row):
    row = dict(row)
    if "target" in row:
        row.update({name + "Ms": 1e3 * row[key] for name, key in (("", "seconds"), ("dense", "denseSeconds"), ("routing", "routing"), ("attention", "attention")) if key in row})
        row["ms"] = 1e3 * row["seconds"]
        row.update(denseTflops=row["denseGflops"] / 1e3, tflops=row["gflops"] / 1e3)
    if "linearGflops" in row:
        row.update(linearTflops=row["linearGflops"] / 1e3, poolPeakGB=row.get("poolPeakBytes", 0) / 1e9)
    return row


def text(value):
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, float):
        return f"{value:.3f}" if 0.01 <= abs(value) < 1e5 or value == 0 else f"{value:.2e}"
    return "-" if value is None else str(value)


def main():
    tables = {}
    for path in sys.argv[1:]:
        with open(path, errors="replace") as log:
            for line in log:
                try:
                    row = json.loads(line) if line.startswith("{") else None
                except ValueError:
                    row = None
                if row is None:
                    print(line.rstrip()[:400])
                elif kind_of(row):
                    tables.setdefault(kind_of(row), []).append(shown(row))
                elif isinstance(row.get("rows"), list):  # the whole result: what its rows do not say
                    print(json.dumps({key: value for key, value in row.items() if key not in ("rows", "checks", "rivals")}))
                else:
                    print(json.dumps(row)[:2000])
    for kind, rows in tables.items():
        columns = [column for column in COLUMNS[kind] if any(column in row for row in rows)]
        cells = [columns] + [[text(row.get(column)) for column in columns] for row in rows]
        widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
        print()
        for line in cells:
            print("  ".join(cell.rjust(width) for cell, width in zip(line, widths)))


main()
