"""Bad input through the real command line: every named case of tests/bad_input and thousands of mutations, as a table.

python benchmarks/bad_input.py [--mutations 2000] [--process-every 20]

Right is: exit code 2 and one line "error: ..." (0 where the damage left the model valid), at most 20 s and 1 GiB, no
traceback, no raw control character, no file changed or left behind. Commands run in this process; one in
--process-every runs in a process of its own as well. Exit code 1 when anything was not right.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from machine import heading

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/bad_input"))

from bad_files import FILES
from bad_models import MODELS
from judge import SECONDS, UNFORESEEN, Case, Verdict, judge
from mutations import mutation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutations", type=int, default=2000)
    parser.add_argument("--process-every", type=int, default=20)
    args = parser.parse_args()
    logging.disable()  # onnx_ir logs what it skips; the command line shows that no more than a user's terminal does
    print(heading(), "\n")
    verdicts: dict[str, list[tuple[Case, Verdict]]] = defaultdict(list)
    mutations = [(mutation(seed), (0, 2)) for seed in range(args.mutations)]
    for i, (case, codes) in enumerate([*((case, ()) for case in (*MODELS, *FILES)), *mutations]):
        verdicts[case.kind].append((case, in_empty_folder(case, codes, process=False)))
        if i % args.process_every == args.process_every - 1:
            verdicts["(in a process of its own)"].append((case, in_empty_folder(case, codes, process=True)))
    table(verdicts)
    faults = [
        f"- {case.kind}, {case.name}: {'; '.join(v.faults)}"
        for found in verdicts.values()
        for case, v in found
        if v.faults
    ]
    print("\nNot right:\n" if faults else "\nEvery one as it should be.", *faults, sep="\n")
    sys.exit(bool(faults))


def in_empty_folder(case: Case, codes: tuple[int, ...], *, process: bool) -> Verdict:
    with tempfile.TemporaryDirectory() as folder:
        return judge(case, Path(folder), process=process, codes=codes)


def table(verdicts: dict[str, list[tuple[Case, Verdict]]]) -> None:
    """Each class: its cases, exit codes, and the slowest command. "generic": errors that the last safety net words."""
    print(f"| class | cases | exit 0 | exit 2 | other, or over {SECONDS} s | generic | not right | slowest s |")
    print("|---|---|---|---|---|---|---|---|")
    own = [found for kind, found in verdicts.items() if not kind.startswith("(")]
    for kind, found in [*verdicts.items(), ("**all in this process**", [pair for part in own for pair in part])]:
        codes = [v.code for _, v in found]
        generic = sum(UNFORESEEN in v.message for _, v in found)
        print(
            f"| {kind} | {len(found)} | {codes.count(0)} | {codes.count(2)} | "
            f"{len(codes) - codes.count(0) - codes.count(2)} | {generic} | {sum(bool(v.faults) for _, v in found)} | "
            f"{max(v.seconds for _, v in found):.1f} |"
        )


if __name__ == "__main__":
    main()
