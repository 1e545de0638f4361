"""The page that explains how somebody else adds a row."""

from __future__ import annotations

_PAGE = """\
# Adding a row to the leaderboard

A row is a record: one JSON file that a finished run has written. Nothing else is asked for, no
weights, no text. Tables, figures and pages are rendered from records alone.

## 1. Run

```bash
pip install -c constraints.txt .
dihal-bench run --interface NAME --from 7 --layer 8 --seed 0  # and --seed 1, --seed 2
dihal-bench score runs/NAME-... --tasks samples               # generated text, if you like
```

Three seeds: rows of fewer have no rank. `--include my_interface.py` brings an interface of your
own; `dihal-bench check NAME --include my_interface.py` holds it against the contract first.

Rows are ranked among interfaces that replace as many blocks, and a rank says of how many it is. A
row of the table is named by its place, (a, b]: `--from a` and `--layer b` put a run there, so look
at `leaderboards/tables` or `leaderboards/index.html` for the places that rivals have. The command
above stands in for the last of the bundled backbone's eight blocks, (7, 8]. Without `--from` a run
begins at 0, and what generates tokens ends at the last block: it replaces all of them, (0, 8].

Leave the budget as the table has it. A run that declares another has a table of its own, among the
matched ones; one that spends more or less than it declares stands among the unmatched.

## 2. Check and add

```bash
dihal-bench leaderboard add runs/NAME-...        # copies record.json into leaderboards/records
dihal-bench leaderboard verify                   # what the pull request will be asked
dihal-bench leaderboard                          # renders; look at leaderboards/index.html
```

`add` refuses a record with a likelihood and no passed leak gate, a score without its kind, numbers
that do not follow from the sums per document beside them, and a second record of the same run with
other content. A run that was scored further takes the place of its earlier record.

## 3. Open a pull request

It holds `leaderboards/records/ID.json`, one file per run, what `dihal-bench leaderboard` has
rendered from them, and a few lines: what the interface is, where its code can be read, what machine
it ran on. Do not edit a record: its id stands for its content, and a changed field is named.

## What is checked there, from the records alone

```yaml
# .github/workflows/leaderboard.yml
name: leaderboard
on:
  pull_request:
    paths: ["leaderboards/**"]
permissions:
  contents: read
jobs:
  records:
    runs-on: ubuntu-24.04
    steps:
      - uses: actions/checkout@11bd71901bbe5b1630ceea73d27597364c9af683  # v4.2.2
      - uses: actions/setup-python@a26af69be951a213d495a4c3e4e4022e16d87065  # v5.6.0
        with:
          python-version: "3.11"
      - run: pip install -c constraints.txt . --extra-index-url https://download.pytorch.org/whl/cpu
      - run: dihal-bench leaderboard verify
      - run: dihal-bench leaderboard --check --readme README.md
```

- Every file is a record of this version: its fields, their types, finite numbers, a kind for every
  score, a passed leak gate for every likelihood, and a name and seal that fit its content.
- Scores on the run's own text, with their intervals, are computed anew from the sums per document,
  ranks and ties from those of all rows, and what was spent is held against the budget. Scores on
  other tasks have no sums and are taken as they are, but that a perplexity at the entropy of real
  text has to lie on its frontier.
- Files that are rendered are those that the records give, to the byte.

That a run took place as its record says cannot be seen from the record. Reviewers run the command
of one seed again; on the bundled model it gives the same numbers.
"""


def page() -> str:
    """Return the page, in Markdown."""
    return _PAGE
