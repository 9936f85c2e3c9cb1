"""Questions about a given passage, and JSON from a sentence. Every passage is drawn afresh."""

from __future__ import annotations

import json
from dataclasses import dataclass
from random import Random

from training.curriculum.phrasing import ask
from training.curriculum.tables import CITIES, COLORS, FIRST_NAMES, FOODS, JOBS, LAST_NAMES, MONTHS, OBJECTS, WEEK
from training.curriculum.turn import Turn
from training.curriculum.words import pseudo_word

HOBBIES = "chess tennis football painting cooking dancing reading fishing swimming hiking sailing singing".split()
NOT_SAID = "The text does not say."


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody a passage is about. Every field is stated in the text or is not asked for."""

    name: str
    age: int
    city: str
    job: str
    hobby: str
    color: str


def person(rng: Random, first: str) -> Person:
    """A person called ``first``; the city is sometimes one nobody has heard of."""
    name = f"{first} {rng.choice(LAST_NAMES)}" if rng.random() < 0.3 else first
    city = rng.choice(CITIES) if rng.random() < 0.8 else pseudo_word(rng).capitalize()
    return Person(name, rng.randint(6, 99), city, rng.choice(JOBS), rng.choice(HOBBIES), rng.choice(COLORS))


def article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


ASPECTS = {
    "age": (
        ("{n} is {age} years old.", "{n} is {age}.", "{n} turned {age} this year."),
        ("How old is {n}?", "What is {n}'s age?", "What age is {n}?"),
        "{n} is {age} years old.",
    ),
    "city": (
        ("{n} lives in {city}.", "{n} moved to {city}.", "{n} has a house in {city}."),
        ("Where does {n} live?", "In which city does {n} live?", "What city does {n} live in?"),
        "{n} lives in {city}.",
    ),
    "job": (
        ("{n} works as {job}.", "{n} is {job}.", "By day, {n} works as {job}."),
        ("What is {n}'s job?", "What does {n} do for a living?", "What does {n} work as?"),
        "{n} works as {job}.",
    ),
    "hobby": (
        ("{n} likes {hobby}.", "In the evening {n} enjoys {hobby}.", "{n} loves {hobby}."),
        ("What does {n} like?", "What is {n}'s hobby?", "What does {n} enjoy?"),
        "{n} likes {hobby}.",
    ),
    "color": (
        ("{n} has a {color} car.", "{n} drives a {color} car."),
        ("What color is {n}'s car?", "Which color is {n}'s car?"),
        "{n}'s car is {color}.",
    ),
}
WHO = {"city": "Who lives in {city}?", "job": "Who works as {job}?", "hobby": "Who likes {hobby}?", "age": "Who is {age} years old?"}
LAYOUTS = (
    "{p}\n\n{q}",
    "{p} {q}",
    "Text: {p}\nQuestion: {q}",
    "{q}\n\n{p}",
    "Read this: {p} {q}",
    "Answer from the text: {p} {q}",
    "{q} {p}",
    "Here is a text: {p}\n{q}",
    "Passage: {p}\n\nQ: {q}",
    'Given this text: "{p}" {q}',
)


def _slots(who: Person) -> dict[str, object]:
    return {"n": who.name.split()[0], "age": who.age, "city": who.city, "job": article(who.job), "hobby": who.hobby, "color": who.color}


def _told(rng: Random, who: Person, aspects: list[str]) -> str:
    """The aspects as sentences; the first uses the full name, later ones sometimes a short form."""
    sentences = []
    for i, aspect in enumerate(aspects):
        sentence = rng.choice(ASPECTS[aspect][0])
        sentences.append(sentence.format_map({**_slots(who), "n": who.name if i == 0 else who.name.split()[0]}))
    return " ".join(sentences)


def read(rng: Random) -> Turn:
    """One question about a passage on one to three people; sometimes the text does not say."""
    firsts = rng.sample(FIRST_NAMES, rng.choice((1, 2, 2, 3)))
    people = [person(rng, first) for first in firsts]
    told = {who.name: rng.sample(tuple(ASPECTS), rng.randint(2, 4)) for who in people}
    passage = " ".join(_told(rng, who, told[who.name]) for who in people)
    who = rng.choice(people)
    question, answer = _question(rng, who, told[who.name], people)
    user = rng.choice(LAYOUTS).format(p=passage, q=ask(rng, question) if "?" not in question else question)
    return Turn("read", user, answer, f"read:{passage}")


def _question(rng: Random, who: Person, aspects: list[str], people: list[Person]) -> tuple[str, str]:
    slots = _slots(who)
    draw = rng.random()
    if draw < 0.1:
        missing = [a for a in ASPECTS if a not in aspects]
        return rng.choice(ASPECTS[rng.choice(missing)][1]).format_map(slots), NOT_SAID
    aspect = rng.choice(aspects)
    alone = aspect in WHO and all(other is who or getattr(other, aspect) != getattr(who, aspect) for other in people)
    if draw < 0.25 and alone:
        return WHO[aspect].format_map(slots), ASPECTS[aspect][2].format_map(slots)
    _, questions, answer = ASPECTS[aspect]
    return rng.choice(questions).format_map(slots), answer.format_map(slots)


NOTES = (
    "Hello, please write to {email} or call {phone} before {date}.",
    "The meeting on {date} costs {price} dollars. Contact: {email}.",
    "Order {code} will arrive on {date}. Questions? Call {phone}.",
    "Invoice {code}: {price} dollars, due on {date}. Send it to {email}.",
    "{first} said the total is {price} dollars and the order number is {code}.",
    "My phone number is {phone} and my email is {email}.",
    "Your ticket {code} is for {date}. The price was {price} dollars.",
    "Dear {first}, we got your order {code}. Reply to {email} with your address.",
)
FIELDS = {
    "email": (
        "What is the email address?",
        "Extract the email address.",
        "Find the email.",
        "Which email is in the text?",
        "Get the email address.",
    ),
    "phone": ("What is the phone number?", "Extract the phone number.", "Find the phone number.", "Which number should I call?"),
    "date": ("What is the date?", "Extract the date.", "Which date is in the text?", "Find the date."),
    "price": ("What is the price?", "Extract the price.", "How many dollars is it?", "What is the amount?"),
    "code": ("What is the order number?", "Extract the code.", "Find the code.", "Extract the number of the order or ticket."),
}


def _code(rng: Random) -> str:
    return "".join(rng.choice("ABCDEFGHKLMNPRSTXYZ") for _ in range(2)) + "-" + "".join(rng.choice("0123456789") for _ in range(4))


def find(rng: Random) -> Turn:
    """Copy an address, a number, a date, a price or a code out of a note."""
    first = rng.choice(FIRST_NAMES)
    domain = rng.choice(("example.com", "example.org", "mail.example.com", f"{pseudo_word(rng)}.com", f"{pseudo_word(rng)}.net"))
    local = rng.choice(
        (first.lower(), f"{first.lower()}.{rng.choice(LAST_NAMES).lower()}", "info", "hello", f"{first.lower()}{rng.randint(1, 99)}")
    )
    values = {
        "first": first,
        "email": f"{local}@{domain}",
        "date": f"{rng.randint(1, 28)} {rng.choice(MONTHS)}",
        "phone": f"555-{rng.randint(0, 9999):04d}",
        "price": rng.randint(1, 999),
        "code": _code(rng),
    }
    note = rng.choice(NOTES)
    field = rng.choice(tuple(FIELDS))
    text = note.format_map(values)
    answer = str(values[field]) if f"{{{field}}}" in note else NOT_SAID
    answer += " dollars" if field == "price" and answer != NOT_SAID else ""
    user = rng.choice(LAYOUTS).format(p=text, q=rng.choice(FIELDS[field]))
    return Turn("find", user, answer, f"find:{text}")


JSON_ASKS = (
    "Turn this into JSON: {s}",
    "Convert to JSON: {s}",
    "Make JSON from this sentence: {s}",
    "JSON: {s}",
    "Give me this as JSON: {s}",
    "Write this as JSON: {s}",
    "{s} As JSON, please.",
    "Extract the data as JSON: {s}",
    "to json: {s}",
    "{s} Convert this to JSON.",
    "Can you turn this into JSON? {s}",
    "Return JSON for: {s}",
)
KEYED_ASKS = (
    "Turn this into JSON with the keys {k}: {s}",
    "Give me JSON with {k} for this: {s}",
    "{s} As JSON with the keys {k}.",
    "Extract {k} as JSON: {s}",
)


def _record(rng: Random) -> tuple[str, dict[str, object]]:
    """A sentence and what it states, in the order it states it."""
    first, city, job = rng.choice(FIRST_NAMES), rng.choice(CITIES), rng.choice(JOBS)
    if rng.random() < 0.15:
        first, city = pseudo_word(rng).capitalize(), pseudo_word(rng).capitalize()
    age, item, color, price = rng.randint(5, 99), rng.choice(OBJECTS), rng.choice(COLORS), rng.randint(1, 500)
    day, food, count = rng.choice(WEEK), rng.choice(FOODS), rng.randint(2, 40)
    hour, event = rng.randint(1, 12), rng.choice(("meeting", "party", "concert", "lesson", "match", "dinner"))
    records: tuple[tuple[str, dict[str, object]], ...] = (
        (f"{first} is {age} years old and lives in {city}.", {"name": first, "age": age, "city": city}),
        (f"{first}, {age}, lives in {city}.", {"name": first, "age": age, "city": city}),
        (f"{first} is {age} and works as {article(job)}.", {"name": first, "age": age, "job": job}),
        (f"{first} is {article(job)} from {city}.", {"name": first, "job": job, "city": city}),
        (f"{first} works as {article(job)} in {city} and is {age} years old.", {"name": first, "job": job, "city": city, "age": age}),
        (f"The {color} {item} costs {price} dollars.", {"item": item, "color": color, "price": price}),
        (f"{article(color).capitalize()} {item} for {price} dollars.", {"item": item, "color": color, "price": price}),
        (f"The {event} is on {day} at {hour} in {city}.", {"event": event, "day": day, "hour": hour, "city": city}),
        (f"{first} has a {event} on {day}.", {"name": first, "event": event, "day": day}),
        (f"{first} bought {count} units of {food} for {price} dollars.", {"name": first, "count": count, "item": food, "price": price}),
        (f"My name is {first} and I am {age} years old.", {"name": first, "age": age}),
        (f"{first} likes {food} and the color {color}.", {"name": first, "food": food, "color": color}),
    )
    return rng.choice(records)


def to_json(rng: Random) -> Turn:
    """One flat JSON object from one sentence, with all keys or with those asked for."""
    sentence, record = _record(rng)
    user = ask(rng, rng.choice(JSON_ASKS), {"s": sentence})
    if rng.random() < 0.25 and len(record) > 2:
        keys = sorted(rng.sample(tuple(record), 2), key=list(record).index)
        record = {key: record[key] for key in keys}
        user = ask(rng, rng.choice(KEYED_ASKS), {"s": sentence, "k": " and ".join(keys)})
    return Turn("to_json", user, json.dumps(record), f"json:{sentence}")


def is_json(turn: Turn, reply: str) -> bool:
    """The reply parses to the very record that was meant."""
    try:
        return bool(json.loads(reply) == json.loads(turn.answer))
    except ValueError:
        return False


LIST_ASKS = (
    "Make a JSON list of {s}.",
    "Turn {s} into a JSON array.",
    "JSON list: {s}",
    "Write {s} as a JSON list.",
    "Give me a JSON array with {s}.",
)


def to_json_list(rng: Random) -> Turn:
    """A JSON array of the words or numbers given."""
    pool = rng.choice((FOODS, OBJECTS, COLORS, FIRST_NAMES))
    items: list[object] = list(rng.sample(pool, rng.randint(2, 5)))
    if rng.random() < 0.3:
        items = [rng.randint(0, 99) for _ in range(rng.randint(2, 5))]
    user = ask(rng, rng.choice(LIST_ASKS), {"s": ", ".join(map(str, items))})
    return Turn("to_json", user, json.dumps(items), f"json:{items}")
