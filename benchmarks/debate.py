"""What a debate of noisy agents gains over the vote of their independent answers.

A seeded simulation without a network: debaters of known accuracy answer through the real composite of debates, read what
it shows them, and change their minds as their manners say. The settings are all combinations of the number of debaters,
accuracy, correlation of errors, number of possible answers, an adversary or none, and manners. The adversary always gives
the most plausible wrong answer, always names errors in the others, and persuades.

final_vs_vote        accuracy of the protocol / accuracy of the vote of round 0, the lowest of all settings
final_vs_vote_mean   the same over all settings together
ece                  expected calibration error of the confidence, 10 bins, all settings together

No answer, as after a tie, is no right one. Figures `by_chance` count a tie as what a choice by chance among the tied
answers would give. "Last words" is the majority of what was said last, without any rule of the protocol.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import itertools
import math
import random
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import measure
from google.protobuf.message import Message

from weft.agents.orchestrator.patterns.debate import Debate
from weft.agents.orchestrator.plan.model import CallAction, RetryPlan, Scope
from weft.agents.orchestrator.plan.patterns import DebatePlan, ParticipantPlan
from weft.agents.orchestrator.run.composite import Done, Finished
from weft.v1.workflow_pb2 import DebateResult, DecisionRule, Opinion, Position

BINS = 10
_SOUND, _PLAUSIBLE, _RHETORIC = "sound", "plausible", "rhetoric"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manners:
    """How debaters change their minds: probabilities for one round.

    Attributes:
        learns: one who is wrong finds its error in a sound argument; there are two tries where errors were named.
        misled: somebody takes over a plausible wrong answer, and names a false error; two tries as well.
        conforms: somebody takes over the answer of most, times the share who give it.
        pretends: who conforms names an error that is none.
        argues: who is right and stays names an error in the others.
        quibbles: who is wrong and stays names one.
        persuaded: somebody takes over the adversary's answer, and names the error it claims.
    """

    learns: float
    misled: float
    conforms: float
    pretends: float
    argues: float
    quibbles: float
    persuaded: float


MANNERS: Mapping[str, Manners] = {
    "careful": Manners(
        learns=0.4,
        misled=0.08,
        conforms=0.2,
        pretends=0.1,
        argues=0.6,
        quibbles=0.25,
        persuaded=0.15,
    ),
    "conformist": Manners(
        learns=0.2,
        misled=0.08,
        conforms=0.85,
        pretends=0.3,
        argues=0.4,
        quibbles=0.2,
        persuaded=0.2,
    ),
    # No better than chance at telling right from wrong: a martingale, as 2508.17536 finds.
    "even": Manners(
        learns=0.2, misled=0.2, conforms=0.4, pretends=0.2, argues=0.4, quibbles=0.4, persuaded=0.2
    ),
    # The adversary persuades twice as well as those who are right.
    "gullible": Manners(
        learns=0.25,
        misled=0.12,
        conforms=0.5,
        pretends=0.25,
        argues=0.4,
        quibbles=0.25,
        persuaded=0.5,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Who debates."""

    debaters: int
    accuracy: float
    correlation: float
    options: int
    adversary: bool
    manners: str

    def __str__(self) -> str:
        adversary = ", adversary" if self.adversary else ""
        return (
            f"{self.debaters} debaters, accuracy {self.accuracy}, correlation {self.correlation}, "
            f"{self.options} options, {self.manners}{adversary}"
        )


def settings() -> list[Setting]:
    every = itertools.product(
        (3, 4, 5, 7, 9), (0.55, 0.65, 0.8), (0.0, 0.5), (2, 4), (False, True), MANNERS
    )
    return [
        Setting(
            debaters=debaters,
            accuracy=accuracy,
            correlation=correlation,
            options=options,
            adversary=adversary,
            manners=manners,
        )
        for debaters, accuracy, correlation, options, adversary, manners in every
    ]


@dataclass(slots=True)
class Question:
    """A question with its possible answers; the first one is right, the second the most plausible wrong one."""

    answers: list[str]
    chance: random.Random

    def answer(self, accuracy: float) -> str:
        """What somebody of an accuracy answers."""
        if self.chance.random() < accuracy:
            return self.answers[0]
        wrong = self.answers[1:]
        return wrong[0] if self.chance.random() < 0.6 else self.chance.choice(wrong)


@dataclass(slots=True)
class Debater:
    """One who answers, and may change its mind."""

    question: Question
    manners: Manners
    answer: str
    adversary: bool

    def first(self) -> Opinion:
        """The independent answer."""
        return self._opinion([])

    def again(self, peers: Sequence[Position]) -> Opinion:
        """The answer after the others were read."""
        if self.adversary:
            return self._opinion(["what they say is wrong"])
        others = [each for each in peers if each.answer != self.answer]
        if not others:
            return self._opinion([])
        adopted, error = self._change(others, sum(each.votes for each in peers))
        if adopted:
            self.answer = adopted
            return self._opinion(["that was wrong of me"] if error else [])
        right = self.answer == self.question.answers[0]
        argues = self.manners.argues if right else self.manners.quibbles
        return self._opinion(["what they say is wrong"] if self._chance(argues) else [])

    def _change(self, others: Sequence[Position], votes: int) -> tuple[str, bool]:
        """The answer it takes over, and whether it names an error; empty: it stays."""
        manners, truth = self.manners, self.question.answers[0]
        for each in others:
            if each.answer == truth and self._convinced(manners.learns, each):
                return truth, True
        for each in others:
            if _RHETORIC in each.arguments and self._chance(manners.persuaded):
                return each.answer, True
        wrong = [each for each in others if each.answer != truth]
        plausible = max(wrong, key=lambda each: each.votes) if wrong else None
        if plausible is not None and self._convinced(manners.misled, plausible):
            return plausible.answer, True
        most = max(others, key=lambda each: each.votes)
        if self._chance(manners.conforms * most.votes / votes):
            return most.answer, self._chance(manners.pretends)
        return "", False

    def _convinced(self, probability: float, position: Position) -> bool:
        """Whether it takes an answer over for its arguments; where errors were named it thinks twice."""
        return any(self._chance(probability) for _ in range(2 if position.errors_named else 1))

    def _chance(self, probability: float) -> bool:
        return self.question.chance.random() < probability

    def _opinion(self, errors: Sequence[str]) -> Opinion:
        right = self.answer == self.question.answers[0]
        argument = _RHETORIC if self.adversary else _SOUND if right else _PLAUSIBLE
        return Opinion(answer=self.answer, argument=argument, errors_named=errors)


class Constant:
    """An expression of nothing but itself: debaters here are functions, and nobody is called."""

    source = "'?'"

    def truth(self, scope: Scope) -> bool:
        """None."""
        raise NotImplementedError

    def text(self, scope: Scope) -> str:  # noqa: ARG002  it names nothing
        """The question."""
        return "?"

    def message(self, scope: Scope) -> Message:
        """None."""
        raise NotImplementedError

    def items(self, scope: Scope) -> Sequence[object]:
        """None."""
        raise NotImplementedError


def composite(debaters: int, *, judge: bool) -> Debate:
    retry = RetryPlan(
        attempts=1, first_pause=timedelta(0), max_pause=timedelta(0), codes=frozenset()
    )
    call = CallAction(
        agent="debater",
        path="/debate/Answer",
        request=Constant(),
        response_type="weft.v1.Opinion",
        streams=False,
        timeout=timedelta(seconds=1),
        retry=retry,
    )
    participants = tuple(
        ParticipantPlan(name=f"d{number}", call=call, opinion=None) for number in range(debaters)
    )
    return Debate(
        DebatePlan(
            question=Constant(),
            participants=participants,
            rounds=2,
            rule=DecisionRule.DECISION_RULE_MAJORITY,
            judge=ParticipantPlan(name="judge", call=call, opinion=None) if judge else None,
            least=debaters // 2 + 1,
            seed=0,
        )
    )


def verdict(
    positions: Sequence[Position], truth: str, judge: float, chance: random.Random
) -> Opinion:
    """What a judge says: the right answer as often as `judge`, where it is there; else the one shown first."""
    right = [each.answer for each in positions if each.answer == truth]
    if right and chance.random() < judge:
        return Opinion(answer=right[0])
    return Opinion(answer=positions[0].answer)


def debate(
    setting: Setting, pattern: Debate, chance: random.Random, judge: float = 0.0
) -> tuple[str, DebateResult]:
    """A debate: the right answer, and what came of it."""
    answers = [f"answer {letter}" for letter in "ABCDEFGH"[: setting.options]]
    chance.shuffle(answers)
    question = Question(answers, chance)
    shared = question.answer(setting.accuracy)
    people: dict[str, Debater] = {}
    for number in range(setting.debaters):
        adversary = setting.adversary and number == 0
        copies = chance.random() < setting.correlation
        own = answers[1] if adversary else shared if copies else question.answer(setting.accuracy)
        people[f"d{number}"] = Debater(question, MANNERS[setting.manners], own, adversary)
    course, done = pattern.begin({}, chance.getrandbits(64)), dict[str, Done]()
    while not isinstance(following := course.next(done), Finished):
        for part in following:
            if part.key in done:
                continue
            peers = part.variables["peers"]
            assert isinstance(peers, list)
            if part.key.startswith("judge/"):
                done[part.key] = Done(message=verdict(peers, answers[0], judge, chance))
                continue
            debater = people[part.key.rpartition("/")[2]]
            first = part.variables["round"] == 0
            done[part.key] = Done(message=debater.first() if first else debater.again(peers))
    assert isinstance(following.output, DebateResult)
    return answers[0], following.output


@dataclass(slots=True)
class Tally:
    """What many debates gave: sums, and by confidence how many, and how many of them were right."""

    debates: int = 0
    vote: int = 0
    final: int = 0
    vote_by_chance: float = 0.0
    final_by_chance: float = 0.0
    last_words: float = 0.0
    left: int = 0
    rounds: int = 0
    bins: dict[int, tuple[int, float, int]] = field(default_factory=dict)

    def add(self, truth: str, result: DebateResult) -> None:
        """Counts a debate."""
        independent = votes(result.rounds[0].opinions.values())
        final = {each.answer: each.votes for each in result.positions}
        said: dict[str, Opinion] = {}
        for each in result.rounds:
            said.update(each.opinions)
        self.debates += 1
        self.rounds += len(result.rounds)
        right = result.answer == truth
        self.vote += result.baseline_answer == truth
        self.final += right
        self.vote_by_chance += by_chance(independent, truth)
        self.final_by_chance += float(right) if result.consensus else by_chance(final, truth)
        self.last_words += by_chance(votes(said.values()), truth)
        self.left += bool(result.baseline_answer) and result.answer != result.baseline_answer
        if result.consensus:
            place = min(int(result.confidence * BINS), BINS - 1)
            many, sure, hits = self.bins.get(place, (0, 0.0, 0))
            self.bins[place] = (many + 1, sure + result.confidence, hits + right)

    def __add__(self, other: Tally) -> Tally:
        both = Tally(
            debates=self.debates + other.debates,
            vote=self.vote + other.vote,
            final=self.final + other.final,
            vote_by_chance=self.vote_by_chance + other.vote_by_chance,
            final_by_chance=self.final_by_chance + other.final_by_chance,
            last_words=self.last_words + other.last_words,
            left=self.left + other.left,
            rounds=self.rounds + other.rounds,
            bins=dict(self.bins),
        )
        for place, (many, sure, hits) in other.bins.items():
            had = both.bins.get(place, (0, 0.0, 0))
            both.bins[place] = (had[0] + many, had[1] + sure, had[2] + hits)
        return both

    def ece(self) -> float:
        """Mean distance between confidence and accuracy in a bin, by how many are in it."""
        total = sum(many for many, _, _ in self.bins.values())
        return sum(abs(sure - hits) for _, sure, hits in self.bins.values()) / max(total, 1)


def votes(opinions: Iterable[Opinion]) -> Mapping[str, int]:
    return Counter(each.answer for each in opinions)


def by_chance(tally: Mapping[str, int], truth: str) -> float:
    """How often the right answer comes out where chance decides a tie."""
    most = max(tally.values())
    first = [answer for answer, number in tally.items() if number == most]
    return (truth in first) / len(first)


def ratio(final: float, vote: float) -> float:
    """How many times as often the final answer is right; of few debates none may be."""
    return final / vote if vote else 1.0 + final


def simulate(task: tuple[Setting, int, int, float]) -> tuple[Setting, Tally]:
    setting, trials, seed, judge = task
    pattern, tally = composite(setting.debaters, judge=judge > 0), Tally()
    chance = random.Random(f"{seed}/{setting}")
    for _ in range(trials):
        tally.add(*debate(setting, pattern, chance, judge))
    return setting, tally


def run(trials: int, seed: int, processes: int, judge: float) -> Iterator[tuple[Setting, Tally]]:
    tasks = [(setting, trials, seed, judge) for setting in settings()]
    if processes == 1:
        yield from map(simulate, tasks)
        return
    with concurrent.futures.ProcessPoolExecutor(processes) as pool:
        yield from pool.map(simulate, tasks, chunksize=4)


def by(results: Mapping[Setting, Tally], key: Callable[[Setting], object]) -> dict[str, Tally]:
    """Tallies of settings that have something in common."""
    made: dict[str, Tally] = {}
    for setting, tally in results.items():
        name = str(key(setting))
        made[name] = made.get(name, Tally()) + tally
    return made


def table(tally: Tally) -> str:
    """Reliability: by confidence how many were right."""
    lines = ["confidence      debates   mean    right"]
    for place, (many, sure, hits) in sorted(tally.bins.items()):
        low, high = place / BINS, (place + 1) / BINS
        marks = list("." * 50)
        marks[min(int(50 * sure / many), 49)] = "|"
        marks[min(int(50 * hits / many), 49)] = "o"
        line = f"{low:.1f} to {high:.1f} {many:12,}  {sure / many:.3f}   {hits / many:.3f}"
        lines.append(f"{line}   {''.join(marks)}")
    lines.append("| confidence, o how many were right, from 0 to 1")
    return "\n".join(lines)


def svg(tally: Tally) -> str:
    """The same as a picture: a circle for each bin, its area by the number of debates; the line is perfect."""
    total = sum(many for many, _, _ in tally.bins.values())
    marks = [
        f'<circle cx="{40 + 320 * sure / many:.1f}" cy="{340 - 320 * hits / many:.1f}" '
        f'r="{3 + 24 * math.sqrt(many / total):.1f}"/>'
        for _, (many, sure, hits) in sorted(tally.bins.items())
    ]
    ticks = [
        f'<text x="{40 + 320 * at / 4:.0f}" y="358" text-anchor="middle">{at / 4:g}</text>'
        f'<text x="34" y="{344 - 320 * at / 4:.0f}" text-anchor="end">{at / 4:g}</text>'
        for at in range(5)
    ]
    return "\n".join(
        [
            '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 380 384">',
            "<style>text {font: 11px sans-serif}</style>",
            '<rect width="380" height="384" fill="white"/>',
            '<path d="M40 20V340H360M40 340L360 20" fill="none" stroke="#999"/>',
            '<g fill="#2b6cb0" fill-opacity="0.6">',
            *marks,
            "</g>",
            *ticks,
            '<text x="200" y="376" text-anchor="middle">confidence</text>',
            '<text x="48" y="30">share that was right</text>',
            "</svg>",
            "",
        ]
    )


def shown(results: Mapping[Setting, Tally], total: Tally) -> str:
    lines = [f"{'':24}   vote  last words  protocol     ECE"]
    groups: list[tuple[str, Callable[[Setting], object]]] = [
        ("debaters", lambda each: each.debaters),
        ("accuracy", lambda each: each.accuracy),
        ("correlation", lambda each: each.correlation),
        ("options", lambda each: each.options),
        ("adversary", lambda each: "one" if each.adversary else "none"),
        ("manners", lambda each: each.manners),
    ]
    rows = [
        (f"{name} {value}", tally)
        for name, key in groups
        for value, tally in by(results, key).items()
    ]
    for name, tally in [*rows, ("all", total)]:
        many = tally.debates
        lines.append(
            f"{name:24} {tally.vote / many:6.3f}      {tally.last_words / many:6.3f}    "
            f"{tally.final / many:6.3f}  {tally.ece():6.3f}"
        )
    return "\n".join([*lines, "", table(total)])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--trials", type=int, default=300, help="debates of each setting (300)")
    parser.add_argument("--seed", type=int, default=1, help="settles all chance (1)")
    parser.add_argument("--processes", type=int, default=1, help="beside each other (1)")
    parser.add_argument(
        "--judge",
        type=float,
        default=0.0,
        help="with a judge who finds the right answer so often, and else chooses by place (none)",
    )
    parser.add_argument("--svg", type=Path, help="file for the picture of reliability")
    options = parser.parse_args()
    results: dict[Setting, Tally] = {}
    every = len(settings())
    for setting, tally in run(options.trials, options.seed, options.processes, options.judge):
        results[setting] = tally
        measure.progress(f"{len(results)} of {every} settings")
    measure.progress(f"{every} settings of {options.trials} debates done")
    total = sum(results.values(), Tally())
    if options.svg:
        options.svg.write_text(svg(total), encoding="utf-8")
    if not options.json:
        print(shown(results, total))
    ratios = {setting: ratio(tally.final, tally.vote) for setting, tally in results.items()}
    chance = {
        setting: ratio(tally.final_by_chance, tally.vote_by_chance)
        for setting, tally in results.items()
    }
    worst = min(ratios, key=lambda each: ratios[each])
    figures = {
        "settings": every,
        "debates": total.debates,
        "accuracy_vote": round(total.vote / total.debates, 4),
        "accuracy_last_words": round(total.last_words / total.debates, 4),
        "accuracy_final": round(total.final / total.debates, 4),
        "settings_below_vote": sum(1 for each in results.values() if each.final < each.vote),
        "settings_below_vote_last_words": sum(
            1 for each in results.values() if each.last_words < each.vote_by_chance
        ),
        "accuracy_vote_by_chance": round(total.vote_by_chance / total.debates, 4),
        "accuracy_final_by_chance": round(total.final_by_chance / total.debates, 4),
        "settings_below_vote_by_chance": sum(1 for each in chance.values() if each < 1),
        "lowest_ratio_by_chance": round(min(chance.values()), 4),
        "lowest_setting": str(worst),
        "left_the_vote": round(total.left / total.debates, 4),
        "rounds_mean": round(total.rounds / total.debates, 2),
        "ece_by_setting_median": round(
            statistics.median(each.ece() for each in results.values()), 3
        ),
        "ece_by_setting_highest": round(max(each.ece() for each in results.values()), 3),
    }
    measure.report(
        {
            "final_vs_vote": [ratios[worst]],
            "final_vs_vote_mean": [total.final / total.vote],
            "ece": [total.ece()],
        },
        figures,
        as_json=options.json,
    )


if __name__ == "__main__":
    main()
