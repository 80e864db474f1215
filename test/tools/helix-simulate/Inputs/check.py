"""Checks what helix-simulate wrote for one step against each other: JSON, Chrome trace and picture."""

import json
import sys
import xml.etree.ElementTree as tree

report, trace, picture = sys.argv[1:]
report, trace = json.load(open(report)), json.load(open(trace))
svg = tree.parse(picture).getroot()

commands = report["commands"]
assert abs(max(c["end_s"] for c in commands) - report["step_s"]) < 1e-12
assert report["ttl_s"] == report["step_s"] and abs(report["tokens_per_s_per_user"] * report["ttl_s"] - 1) < 1e-12
path = report["critical_path"]
spent = sum(sum(path[phase].values()) for phase in ("kvp", "tp", "other")) + path["events_s"]
assert abs(spent - report["step_s"]) < 1e-12, (spent, report["step_s"])
# The weights of a step are those of its products and the embedding's rows.
weights = sum(part["weights"] for part in report["per_rank"].values())
assert abs(weights - sum(c.get("weight_bytes", 0) for c in commands)) < 1e-6 and weights > 0

events = [e for e in trace["traceEvents"] if e["ph"] == "X"]
assert len(events) == len(commands)
for event, command in zip(events, commands):
    assert abs(event["ts"] - 1e6 * command["start_s"]) < 1e-6 and event["tid"] == command["stream"]
    assert event["args"]["kind"] == command["what"]
assert abs(trace["helix"]["steps"][0]["wall_us"] - 1e6 * report["step_s"]) < 1e-6

assert svg.tag.endswith("svg")
width = float(svg.attrib["viewBox"].split()[2])
boxes = [r for r in svg.iter() if r.tag.endswith("rect") and list(r)]
assert len(boxes) == sum(c["end_s"] > c["start_s"] for c in commands)
assert all(0 <= float(b.attrib["x"]) and float(b.attrib["x"]) + float(b.attrib["width"]) <= width for b in boxes)
titles = " ".join(t.text for t in svg.iter() if t.tag.endswith("title"))
assert all(c["source"] in titles for c in commands)
print("consistent:", len(commands), "commands")
