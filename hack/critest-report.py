#!/usr/bin/env python3
"""critest-report.py REPORT.json LIST [--update|--partial]: compares a ginkgo report with the list of specs that pass.

A spec of LIST that did not pass fails the run; --update adds what passes now (the list only grows); --partial compares
nothing, because only some specs ran, and fails if one of those did. Failures are shown with their messages; skips are counted with their reason.
"""
import json
import sys

BAD = ("failed", "panicked", "timedout", "interrupted", "aborted")


def specs(path):
    with open(path) as f:
        suites = json.load(f)
    for node in (node for suite in suites for node in suite["SpecReports"] or []):
        name = " ".join([*(node["ContainerHierarchyTexts"] or []), node["LeafNodeText"]]).replace("[k8s.io] ", "")
        message = (node.get("Failure") or {}).get("Message", "")
        yield node["LeafNodeType"], node["State"], name, message


def main():
    report, list_path, *flags = sys.argv[1:]
    with open(list_path) as f:
        expected = {line.strip() for line in f if line.strip() and not line.startswith("#")}
    passed, failed, skipped = set(), {}, {}
    for kind, state, name, message in specs(report):
        if kind != "It":
            if state in BAD:
                failed[f"({kind})"] = message
        elif state == "passed":
            passed.add(name)
        elif state in BAD:
            failed[name] = message
        elif message:
            skipped[name] = message
    for name, message in sorted(failed.items()):
        print(f"FAILED {name}\n    " + "\n    ".join(message.splitlines()[:12]))
    for name, message in sorted(skipped.items()):
        print(f"SKIPPED {name}: {message.splitlines()[0][:160]}")
    new, lost = passed - expected, expected - passed
    print(f"critest: {len(passed)} passed, {len(failed)} failed, {len(skipped)} skipped")
    if "--partial" in flags:
        return 1 if failed else 0
    if "--update" in flags:
        head = "# Specs of critest that creel passes: hack/critest fails if one of them does not. The list may only grow.\n"
        with open(list_path, "w") as f:
            f.write(head + "".join(f"{name}\n" for name in sorted(expected | passed)))
    elif new:
        print("passes now, to be added with hack/critest --update:", *sorted(new), sep="\n    ")
    for name in sorted(lost):
        print(f"LOST {name}")
    return 1 if lost else 0


sys.exit(main())
