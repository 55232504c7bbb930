"""Fetch the study's run from Modal, compare its systems here, and write the report without texts to results/.

python compare_results.py            waits for a step that is under way
python compare_results.py --local    uses what has been fetched, or a run made on this machine
"""

from __future__ import annotations

import argparse
import sys

import config
from ranksaga.errors import RankSagaError


def main() -> int:
    """The command; its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--local", action="store_true", help="do not ask Modal")
    options = parser.parse_args()
    try:
        if not options.local:
            from ranksaga.backends.base import collect

            collect(config.STUDY.name, config.RUN)
        from ranksaga.run.report_from_values import report_from_values

        table = report_from_values(config.RUN, config.RESULTS)
    except RankSagaError as error:
        print(f"ranksaga: {error}", file=sys.stderr)
        return error.exit_code
    print(table)
    print(f"report: {config.RUN / 'report.html'}\nwithout texts: {config.RESULTS / 'comparison_report.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
