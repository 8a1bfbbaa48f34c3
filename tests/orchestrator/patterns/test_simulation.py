"""The short form of benchmarks/debate.py: debates of noisy agents are never worse than the vote they begin with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "debate.py"


def test_debates_are_no_worse_than_votes_and_their_confidence_is_calibrated(tmp_path: Path) -> None:
    picture = tmp_path / "reliability.svg"
    command = [sys.executable, SCRIPT, "--json", "--trials", "2", "--seed", "3", "--svg", picture]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    told = json.loads(ended.stdout)
    assert told["figures"]["settings_below_vote"] == 0
    assert told["ratios"]["final_vs_vote"] >= 1
    assert told["ratios"]["final_vs_vote_mean"] > 1.005, "ties are decided"
    assert told["ratios"]["ece"] < 0.1
    assert told["figures"]["settings_below_vote_last_words"] > 100, (
        "and that is no matter of course"
    )
    assert picture.read_text(encoding="utf-8").startswith("<svg")
