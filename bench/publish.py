#!/usr/bin/python3
"""Puts a run into docs/benchmarks.md: its tables, in the place of all below the marker, and its charts.

usage: publish.py RUN COMMIT

RUN is what `annulet_bench --json RUN` left, and COMMIT what that was built of. Refused is a run that is not
to be quoted: of some benches only, a quick one, one beside other work, one built without optimisation.
"""
import json
import re
import subprocess
import sys
from itertools import groupby
from pathlib import Path

import matplotlib
from matplotlib import pyplot, ticker

DOCS = Path(__file__).resolve().parent.parent / "docs"
MARKER = "<!-- What follows is written by bench/publish.py. -->"


def refuse(why):
    sys.exit(f"publish.py: {why}")


# --- Cells


def times(ratio):
    return f"{ratio:.2g}x" if ratio < 0.0995 else f"{ratio:.2f}x" if ratio < 9.95 else f"{ratio:,.0f}x"


def spread(ratio):
    """The median, and the quartiles where they differ from it in what is shown."""
    low, middle, high = (times(ratio[key]) for key in ("q1", "median", "q3"))
    return middle if low == high else f"{middle} ({low} to {high})"


def nanoseconds(value):
    return f"{value:.1f}" if value < 99.95 else f"{value:,.0f}"


def table(head, rows):
    """Of rows of texts. Columns in which nothing stands are left out."""
    kept = [column for column in range(len(head)) if any(row[column] for row in rows)]
    for row in [head, ["---"] * len(head), *rows] if rows else []:
        yield "| " + " | ".join(row[column].replace("|", "\\|") for column in kept) + " |"
    yield ""


def remark(result):
    return f"{result['setting']}: " + re.sub(r"\s*\n\s*", "; ", result["remark"].strip("; \n")) + "."


# --- What is lost


def is_lost(ratio):
    """Whether three pairs of four, or more, were."""
    return ratio is not None and ratio["q1"] > 1


def cheaper_ones(result):
    """By what the contest is judged by, or else by CPU. Other ways to do it with annulet are no rivals."""
    for line in result["contenders"][1:]:
        if line["name"].startswith("annulet"):
            continue
        if is_lost(line["subject_to_this"]):
            yield f"{line['name']} {spread(line['subject_to_this'])}"
        elif is_lost(line["subject_to_this_by_cpu"]):
            yield f"{line['name']} {spread(line['subject_to_this_by_cpu'])} by CPU"


def lost_variants(result):
    return [[result["bench"], result["setting"], f"{line['rival']} {spread(line['this_to_rival'])}"]
            for line in result["contenders"] if "rival" in line and is_lost(line["this_to_rival"])]


def verdicts(results, met):
    return [(result, one) for result in results for one in result["verdicts"] if one["met"] is met]


def losses(results):
    missed = verdicts(results, False)
    yield from ["## What is lost", ""]
    yield f"Of what was asked, {len(verdicts(results, True))} targets were met. {len(missed)} were missed:"
    yield ""
    yield from table(["bench", "setting", "asked", "found"],
                     [[result["bench"], result["setting"], one["asked"], one["found"]]
                      for result, one in missed])
    yield "Asked or not, these were cheaper, in three pairs of four or more (annulet's cost / theirs):"
    yield ""
    cheaper = [[result["bench"], result["setting"], ", ".join(cheaper_ones(result))] for result in results]
    yield from table(["bench", "setting", "to"], [row for row in cheaper if row[2]])
    yield "And these are where annulet on its other engine loses (its cost / theirs):"
    yield ""
    yield from table(["bench", "setting", "to"], [row for result in results for row in lost_variants(result)])
    for result, one in verdicts(results, None):
        yield f"Not judged: {result['bench']}, {result['setting']}: {one['asked']}; {one['found']}."
        yield ""


# --- Charts, where a curve says more


def curves(results, bench, setting):
    """{who: [(x, line)]} of the bench's contests whose setting matches; its group is the x."""
    found = {}
    for result in results:
        match = re.fullmatch(setting, result["setting"]) if result["bench"] == bench else None
        for line in result["contenders"] if match else []:
            found.setdefault(line["name"], []).append((int(match[1].replace(",", "")), line))
    ordered = {who: sorted(points, key=lambda point: point[0]) for who, points in found.items()}
    return {who: points for who, points in ordered.items() if len(points) > 1}


def draw(name, lines, value, x_label, y_label):
    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for number, (who, points) in enumerate(lines.items()):
        xs, ys = zip(*((x, value(line)) for x, line in points))
        axes.plot(xs, ys, "-" if number < 10 else "--", marker="o", markersize=3, label=who,
                  linewidth=2.5 if "annulet" in who else 1)
    axes.set(xscale="log", yscale="log", xlabel=x_label, ylabel=y_label)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(ticker.StrMethodFormatter("{x:,.10g}"))
    axes.set_xticks(sorted({x for points in lines.values() for x, _ in points}))
    axes.xaxis.set_minor_locator(ticker.NullLocator())
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_formatter(ticker.NullFormatter())
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(DOCS / f"bench-{name}.svg", metadata={"Date": None})
    pyplot.close(figure)


def draw_all(results):
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "annulet"})  # text stays text
    draw("sel_scale", curves(results, "sel_scale", r"1 active, ([\d,]+) idle"),
         lambda line: line["wall_ns"]["median"], "idle descriptors", "ns a round, 1 active")
    draw("echo", curves(results, "echo", r"([\d,]+) connections, 64 B, saturated"),
         lambda line: line["this_to_reference_by_cpu"]["median"],
         "connections", "CPU an echo / that of epoll")


# --- All that was measured


def standing(result, line):
    ratio, by_cpu = line["subject_to_this"], line["subject_to_this_by_cpu"]
    syscalls, sleeps = line["syscalls"], line["client_sleeps"]
    return [
        result["setting"] if line is result["contenders"][0] else "",
        line["name"],
        nanoseconds(line["wall_ns"]["median"]),
        nanoseconds(line["cpu_ns"]["median"]),
        f"{syscalls:.2f}" if syscalls is not None else "",
        f"{100 * sleeps['median']:.0f}" if sleeps is not None else "",
        "" if ratio is None else f"**{spread(ratio)}**" if is_lost(ratio) else spread(ratio),
        times(by_cpu["median"]) if by_cpu is not None and result["judged_by"] != "cpu" else "",
        f"{spread(line['this_to_rival'])} of {line['rival']}" if "rival" in line else "",
    ]


def contests(results):
    def kind(result):
        return result["operation"], result["judged_by"], result["pairs"], result["turn_ns"]

    for (operation, judged_by, pairs, turn), alike in groupby(results, key=kind):
        yield f"An operation is {operation}. {pairs} pairs, of turns of {turn / 1e6:g} ms or more."
        yield ""
        ratio = f"annulet's {'CPU' if judged_by == 'cpu' else 'time'} / its"
        yield from table(
            ["setting", "who", "ns", "CPU ns", "system calls", "client's sleeps in 100", ratio, "by CPU",
             "itself"],
            [standing(result, line) for result in alike for line in result["contenders"]])


def bench(name, results):
    yield from [f"### {name}", ""]
    yield from contests([result for result in results if result["contenders"]])
    for result in results:
        for one in result["verdicts"] if not result["contenders"] else []:
            yield from [f"{result['setting']}: {one['found']} (asked: {one['asked']}).", ""]
        if "remark" in result:
            yield from [remark(result), ""]


def document(run, commit):
    yield from [f"Of commit {commit}, on {run['processor']} under Linux {run['kernel']}.", ""]
    yield from table(["floor of the machine", "ns"],
                     [[name, nanoseconds(ns)] for name, ns in run["floors_ns"].items()])
    yield from losses(run["results"])
    yield from ["## Two curves", ""]
    yield from ["![Time a round, by idle descriptors](bench-sel_scale.svg)", ""]
    yield from ["![CPU an echo, by connections, saturated](bench-echo.svg)", ""]
    yield from ["## All that was measured", ""]
    for name, results in groupby(run["results"], key=lambda result: result["bench"]):
        yield from bench(name, list(results))


def main(arguments):
    if len(arguments) != 2:
        refuse("RUN and COMMIT are wanted")
    target = DOCS / "benchmarks.md"
    try:
        run = json.loads(Path(arguments[0]).read_text())
        text = target.read_text()
        asked = ["git", "-C", DOCS, "rev-parse", "--short", "--verify", arguments[1] + "^{commit}"]
        commit = subprocess.run(asked, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        refuse(error)
    if run["quick"] or not run["whole"] or not run["optimised"] or run["load"] > 0.5:
        refuse("that run was quick, or of some benches, or not optimised, or had company")
    if text.count(MARKER) != 1:
        refuse(f"{target} has not one line {MARKER!r}")
    whole = text.split(MARKER)[0] + "\n".join([MARKER, "", *document(run, commit)])
    draw_all(run["results"])
    target.write_text(whole)


if __name__ == "__main__":
    main(sys.argv[1:])
