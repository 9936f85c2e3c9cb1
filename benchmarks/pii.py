"""What the rule `pii` finds: precision and recall on labelled texts and on numbers made here, false alarms on plain prompts, time.

    python benchmarks/pii.py --data FOLDER/presidio_pii --prompts PROMPTS

A span counts as found when kind, beginning and end are all right. Intervals are Wilson's, 95 %.
"""

from __future__ import annotations

import argparse
import json
import random
import string
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from statistics import median

import phonenumbers
from figures import Row, Share, Table, print_table, wilson
from stdnum import iban, luhn

from penstock.guard.pii import Finder
from penstock.guard.spans import Found

# Labels of presidio-research to kinds. Dates count where the template says that they are of birth.
LABELS = {
    "EMAIL_ADDRESS": "email", "PHONE_NUMBER": "phone", "CREDIT_CARD": "card", "IBAN_CODE": "iban", "US_SSN": "ssn", "IP_ADDRESS": "ip",
}  # fmt: skip
PLAIN = ("gsm8k", "mt_bench", "oasst_vicuna", "ifeval", "self_instruct")
MOST = 6000  # prompts of each folder
ALNUM = string.ascii_letters + string.digits


def labelled(file: Path) -> Iterator[tuple[str, set[tuple[int, int, str]]]]:
    """Each text and the spans that it should give."""
    for row in json.loads(file.read_text()):
        spans = set()
        born = any(word in row["masked"].lower() for word in ("born", "birth"))
        for span in row["spans"]:
            kind = "birth_date" if born and span["entity_type"] == "DATE_TIME" else LABELS.get(span["entity_type"])
            if kind:
                spans.add((span["start_position"], span["end_position"], kind))
        yield row["full_text"], spans


def table(finder: Finder, files: Sequence[Path]) -> Table:
    """Precision, recall and F1 of each kind in these files, and of all kinds together."""
    right, missed, wrong = Counter[str](), Counter[str](), Counter[str]()
    for text, gold in chain.from_iterable(map(labelled, files)):
        found = {(one.start, one.end, one.kind) for one in finder.spans(text)}
        for count, spans in ((right, found & gold), (missed, gold - found), (wrong, found - gold)):
            count.update(kind for *_, kind in spans)
            count["all"] += len(spans)
    made = Table(f"The rule `pii` on {', '.join(file.stem for file in files)}: a find counts where kind, beginning and end are right")
    for kind in sorted({*right, *missed, *wrong}, key=lambda kind: (kind == "all", kind)):
        hits, n, given = right[kind], right[kind] + missed[kind], right[kind] + wrong[kind]
        f1 = 2 * hits / max(n + given, 1)
        made.rows.append(Row(kind, {"n": n, "precision": Share(hits, given), "recall": Share(hits, n), "F1": f1}))
    return made


def made(rng: random.Random) -> Iterator[tuple[str, str, str]]:
    """A name for each sort of value, a sentence and what should be found in it; none of it is anybody's."""
    formats = {"international": phonenumbers.PhoneNumberFormat.INTERNATIONAL, "national": phonenumbers.PhoneNumberFormat.NATIONAL}
    for region in sorted(phonenumbers.SUPPORTED_REGIONS):
        for sort in (0, 1):  # fixed line, mobile
            number = phonenumbers.example_number_for_type(region, sort)
            for name, style in formats.items() if number else ():
                value = phonenumbers.format_number(number, style)
                yield f"phone, {name}, with a word", f"Please call me at {value} tomorrow", value
                yield f"phone, {name}, alone", f"So {value} it was.", value
    for _ in range(300):
        yield "secret", *_secret(rng)
        digits = "4" + "".join(rng.choices(string.digits, k=14))
        card = digits + luhn.calc_check_digit(digits)
        value = rng.choice([card, " ".join(card[at : at + 4] for at in range(0, 16, 4))])
        yield "card", f"Here: {value}, thanks", value
        bban = "".join(rng.choices(string.digits, k=18))
        account = "DE" + iban.calc_check_digits("DE00" + bban) + bban
        value = rng.choice([account, " ".join(account[at : at + 4] for at in range(0, 22, 4))])
        yield "iban", f"Send it to {value} and tell me", value


def _secret(rng: random.Random) -> tuple[str, str]:
    def draw(count: int) -> str:
        return "".join(rng.choices(ALNUM, k=count))

    value, words = rng.choice(
        [
            ("AKIA" + "".join(rng.choices(string.ascii_uppercase + string.digits, k=16)), "id {}"),
            ("ghp_" + draw(36), "use {} for git"),
            ("sk-proj-" + draw(48), "OPENAI_API_KEY={}"),
            ("sk-ant-api03-" + draw(90), "key: {}"),
            ("xoxb-" + draw(40), "slack {}"),
            ("AIza" + draw(35), "maps {}"),
            ("sk_live_" + draw(24), "stripe {}"),
            (draw(40), "Authorization: Bearer {}"),
            (draw(16), "password = {}"),
            (draw(32), '"client_secret": "{}"'),
        ]
    )
    return words.format(value), value


def recalls(finder: Finder) -> dict[str, float]:
    hits, asked = Counter[str](), Counter[str]()
    for name, text, value in made(random.Random(4)):
        asked[name] += 1
        hits[name] += [text[one.start : one.end] for one in finder.spans(text)] == [value]
    print(f"\nmade here\n{'sort':<36}{'n':>5}  recall")
    for name, n in sorted(asked.items()):
        low, high = wilson(hits[name], n)
        print(f"{name:<36}{n:>5}  {hits[name] / n:.3f} [{low:.3f}, {high:.3f}]")
    return {name: hits[name] / n for name, n in asked.items()}


def prompts(folder: Path) -> Iterator[str]:
    def texts(value: object) -> Iterator[str]:
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict | list):
            for one in value.values() if isinstance(value, dict) else value:
                yield from texts(one)

    for file in sorted([*folder.rglob("*.json"), *folder.rglob("*.jsonl")]):
        raw = file.read_text()
        for row in map(json.loads, filter(str.strip, raw.splitlines())) if file.suffix == ".jsonl" else [json.loads(raw)]:
            yield from (text for text in texts(row) if len(text) >= 20)


def plain(finder: Finder, folder: Path) -> tuple[int, int, list[float]]:
    """Texts, texts in which something was found, and seconds for those of 400 to 600 characters."""
    took, num_texts, flagged = [], 0, 0
    print(f"\nplain prompts: whatever is found, mostly rightly\n{'folder':<16}{'texts':>7}{'with a find':>13}  kinds")
    for name in PLAIN:
        kinds, with_find, count = Counter[str](), 0, 0
        for count, text in enumerate(prompts(folder / name), 1):
            start = time.perf_counter()
            found: tuple[Found, ...] = finder.spans(text)
            if 400 <= len(text) <= 600:
                took.append(time.perf_counter() - start)
            with_find += bool(found)
            kinds.update(one.kind for one in found)
            if count == MOST:
                break
        print(f"{name:<16}{count:>7}{with_find:>13}  {dict(kinds)}")
        num_texts, flagged = num_texts + count, flagged + with_find
    return num_texts, flagged, took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder of presidio-research's JSON files")
    parser.add_argument("--prompts", type=Path, help="folder of prompts that hold hardly any personal data")
    given = parser.parse_args()
    finder = Finder()
    finder.spans("+44 20 7946 0958")  # loads what the first search would wait for
    tables = {file.stem: table(finder, [file]) for file in sorted(given.data.glob("*.json"))}
    for one in tables.values():
        print_table(one)
    f1 = {name: {row.name: row.cells["F1"] for row in one.rows} for name, one in tables.items()}
    told: dict[str, object] = {"f1": f1, "recall_made": recalls(finder)}
    if given.prompts:
        texts, flagged, took = plain(finder, given.prompts)
        told |= {
            "prompts": texts,
            "prompts_with_a_find": flagged,
            "p50_ms": median(took) * 1e3,
            "p99_ms": sorted(took)[int(len(took) * 0.99)] * 1e3,
        }
        print(f"\n400 to 600 characters: p50 {told['p50_ms']:.3f} ms, p99 {told['p99_ms']:.3f} ms of {len(took)}")
    print(json.dumps(told))


if __name__ == "__main__":
    main()
