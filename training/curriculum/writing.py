"""Short made-up texts: stories from templates, haiku, rhymes and jokes."""

from __future__ import annotations

from random import Random

from training.curriculum.phrasing import ask
from training.curriculum.tables import ANIMALS, CITIES, COLORS, FIRST_NAMES, FOODS, JOBS, OBJECTS, VOCABULARY
from training.curriculum.turn import Turn
from training.curriculum.words import pseudo_word

STORY = (
    "Tell me a story.",
    "Tell me a story",
    "Write a short story.",
    "Can you tell me a story?",
    "Tell a story.",
    "I want a story.",
    "Make up a story.",
    "story please",
    "Tell me a bedtime story.",
    "a short story please",
    "Write a story.",
    "Tell me a short story.",
    "Read me a story.",
    "Give me a story.",
    "Once upon a time",
)
STORY_ABOUT = (
    "Tell me a story about {x}.",
    "Tell me a story about {x}",
    "Write a story about {x}.",
    "Write a short story about {x}.",
    "Can you tell me a story about {x}?",
    "Tell a story about {x}.",
    "I want a story about {x}.",
    "Make up a story about {x}.",
    "story about {x}",
    "A story about {x}, please.",
    "Tell me a short story about {x}.",
    "Tell me a tale about {x}.",
    "write me a story about {x}",
    "Give me a story about {x}.",
    "Could you write a short tale about {x}?",
)
NAMES = "Milo Luna Pip Nora Otto Ruby Finn Hazel Toby Iris Max Daisy Oscar Willow Bruno Poppy Rufus Maple Basil Juno".split()
MOODS = "small brave curious gentle clever cheerful shy kind quiet lively".split()
PLACES = (
    "a quiet village",
    "an old forest",
    "a town by the sea",
    "a green valley",
    "a house on a hill",
    "a busy city",
    "an old lighthouse",
    "a little farm",
    "a castle of stone",
    "a garden full of flowers",
)
WISHES = (
    "wanted to see the sea",
    "dreamed of touching the moon",
    "was looking for a friend",
    "wanted to learn to sing",
    "wished to find the end of the rainbow",
    "wanted to know what was behind the mountain",
)
TROUBLES = (
    "a great storm came and the path was lost",
    "the night grew dark and the stars went away",
    "a wide river blocked the way",
    "a heavy fog covered everything",
    "the bridge was broken",
    "snow began to fall and the wind was cold",
)
HELPERS = (
    "an old owl",
    "a friendly fox",
    "a tiny mouse",
    "a wise turtle",
    "a kind baker",
    "a singing bird",
    "a patient donkey",
    "a girl with a lantern",
)
HELPS = (
    "showed a hidden way",
    "shared some warm bread",
    "lit a small light",
    "told a good joke and offered to help",
    "sang until the fear was gone",
    "drew a map in the sand",
)
ENDS = (
    "From that day on, they were the best of friends.",
    "That evening they laughed together under the stars.",
    "And {name} learned that a little help goes a long way.",
    "{name} came home happy and slept until noon.",
    "Everyone in the place still tells of that day.",
    "And so {name} found that the best things are near.",
)


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _hero(rng: Random) -> str:
    group = rng.choices((ANIMALS, JOBS, OBJECTS, VOCABULARY), (6, 1, 2, 2))[0]
    return rng.choice(group) if rng.random() < 0.88 else pseudo_word(rng)


def tale(rng: Random, hero: str, name: str) -> str:
    """A story of four or five sentences about ``hero`` called ``name``."""
    return " ".join(
        (
            f"Once upon a time there was a {rng.choice(MOODS)} {hero} named {name} who lived in {rng.choice(PLACES)}.",
            f"{name} {rng.choice(WISHES)}.",
            f"One day {name} set out, but {rng.choice(TROUBLES)}.",
            f"Then {rng.choice(HELPERS)} came along and {rng.choice(HELPS)}.",
            rng.choice(ENDS).format(name=name),
        )
    )


def story(rng: Random) -> Turn:
    """A short story, often about something or somebody the user names."""
    hero, name = _hero(rng), rng.choice(NAMES)
    draw = rng.random()
    if draw < 0.25:
        hero = rng.choice(ANIMALS)
        user = ask(rng, rng.choice(STORY))
    elif draw < 0.4:
        hero, name = rng.choice(("child", "cat", "dog", "rabbit", "traveler")), rng.choice(FIRST_NAMES)
        user = ask(rng, rng.choice(STORY_ABOUT), {"x": name})
    elif draw < 0.55:
        name = rng.choice(FIRST_NAMES)
        user = ask(rng, rng.choice(STORY_ABOUT), {"x": f"{_a(hero)} {rng.choice(('named', 'called'))} {name}"})
    else:
        shown = rng.choice((_a(hero), _a(hero), hero, f"the {hero}", f"my {hero}"))
        user = ask(rng, rng.choice(STORY_ABOUT), {"x": shown})
    return Turn("story", user, tale(rng, hero, name), f"story:{user}")


def told(turn: Turn, reply: str) -> bool:
    """The reply is a whole story about the hero the model answer has."""
    opening = turn.answer.split(" who lived")[0].split(" there was a ")[1].split(" ", 1)[1]
    hero, name = opening.split(" named ")
    wanted = hero if hero in turn.user else name if name in turn.user else ""
    whole = reply.startswith("Once upon a time there was a ") and reply.rstrip().endswith(".") and reply.count(".") >= 5
    return whole and wanted in reply and any(wish in reply for wish in WISHES)


FIVES = (
    "Old pond in the rain",
    "Soft light on the snow",
    "A crow calls at dusk",
    "Wind over the hills",
    "The first leaf has turned",
    "Morning on the lake",
    "One star in the sky",
    "The cat sleeps all day",
    "Rain on the tin roof",
    "A boat on the sea",
)
SEVENS = (
    "a quiet road leads homeward",
    "the river hums to itself",
    "the garden waits for the spring",
    "somewhere a small bell is heard",
    "the moon looks into the well",
    "the old tree bends and listens",
    "the night has opened its eyes",
    "no one but the wind is here",
)
LASTS = (
    "and the day is done",
    "the world holds its breath",
    "I put down my pen",
    "and nothing else moves",
    "then silence again",
    "the tea has gone cold",
    "how still the stones are",
    "summer is leaving",
)
HAIKU = (
    "Write a haiku.",
    "write a haiku",
    "Tell me a haiku.",
    "Can you write a haiku?",
    "haiku please",
    "Give me a haiku.",
    "Make a haiku.",
    "Write me a haiku.",
    "Compose a haiku.",
    "a haiku",
)
HAIKU_ABOUT = (
    "Write a haiku about {x}.",
    "haiku about {x}",
    "Can you write a haiku about {x}?",
    "Give me a haiku about {x}.",
    "Write me a haiku on {x}.",
)


def haiku(rng: Random) -> Turn:
    """Three lines of five, seven and five syllables, on nature whatever the subject."""
    about = rng.random() < 0.4
    slots = {"x": rng.choice((_hero(rng), _a(_hero(rng)), f"the {_hero(rng)}"))}
    user = ask(rng, rng.choice(HAIKU_ABOUT), slots) if about else ask(rng, rng.choice(HAIKU))
    text = f"{rng.choice(FIVES)},\n{rng.choice(SEVENS)},\n{rng.choice(LASTS)}."
    return Turn("haiku", user, text, f"haiku:{user}")


def is_haiku(turn: Turn, reply: str) -> bool:
    """Three lines, each one of those that were written for its place."""
    lines = [line.rstrip(",.") for line in reply.strip().split("\n")]
    return len(lines) == 3 and lines[0] in FIVES and lines[1] in SEVENS and lines[2] in LASTS


RHYMES = (
    "The sun goes down, the moon is bright,\nthe little stars all say good night.",
    "A mouse once found a piece of cheese,\nand shared it with the bumblebees.",
    "The rain came down upon the town,\nand turned the dusty streets to brown.",
    "A bird sat singing in a tree,\nas happy as a bird can be.",
    "The river runs down to the sea,\nand sings a quiet song for me.",
    "The wind went dancing through the wheat,\nwith silver shoes upon its feet.",
)
POEM = (
    "Write a poem.",
    "Write me a poem.",
    "Tell me a poem.",
    "Can you write a poem?",
    "Give me a short poem.",
    "poem please",
    "Make a rhyme.",
    "Write a rhyme.",
    "Write a short poem.",
    "Write a poem about {x}.",
    "Write a short poem about {x}.",
    "a poem about {x}",
)
JOKES = (
    "Why did the computer go to the doctor? It had a virus.",
    "What do you call a bear without teeth? A gummy bear.",
    "Why did the bicycle fall over? It was two tired.",
    "What has hands but cannot clap? A clock.",
    "Why is six afraid of seven? Because seven eight nine.",
    "What do you call a fish without eyes? A fsh.",
    "Why did the scarecrow win a prize? He was outstanding in his field.",
    "What gets wetter the more it dries? A towel.",
)
JOKE = (
    "Tell me a joke.",
    "Tell me a joke",
    "joke please",
    "Do you know a joke?",
    "Make me laugh.",
    "Say something funny.",
    "Can you tell me a joke?",
    "a joke",
    "Tell a joke.",
    "Give me a joke.",
    "Tell me something funny.",
    "Know any jokes?",
    "Tell me a joke about {x}.",
)
FILLS = ("{n}", "a {n}", "the {n}", "{n}")


def verse(rng: Random) -> Turn:
    """A rhyme or a joke from the small store of them."""
    task, asked, store = rng.choice((("poem", POEM, RHYMES), ("joke", JOKE, JOKES)))
    user = ask(rng, rng.choice(asked), {"x": rng.choice(FILLS).format(n=rng.choice(VOCABULARY))})
    return Turn(task, user, rng.choice(store), f"{task}:{user}", also=store)


FRUITS = "apple banana orange grape peach pear plum melon mango lemon cherry".split()
GROUPS = {"colors": COLORS, "animals": ANIMALS[:-3], "foods": FOODS, "cities": CITIES, "names": FIRST_NAMES, "jobs": JOBS, "fruits": FRUITS}
SOME = (
    "List {n} {x}.",
    "Name {n} {x}.",
    "Give me {n} {x}.",
    "Tell me {n} {x}.",
    "list {n} {x}",
    "Can you name {n} {x}?",
    "I need {n} {x}.",
    "{n} {x}",
    "Give me a list of {n} {x}.",
)
COUNTS = {2: "two", 3: "three", 4: "four", 5: "five"}


def some(rng: Random) -> Turn:
    """A few examples of a kind of thing."""
    group, n = rng.choice(tuple(GROUPS)), rng.choice((2, 3, 3, 3, 4, 5, 5))
    chosen = rng.sample(GROUPS[group], n)
    user = ask(rng, rng.choice(SOME), {"n": rng.choice((n, COUNTS[n])), "x": group})
    return Turn("some", user, ", ".join(chosen), f"some:{user}")


def are_some(turn: Turn, reply: str) -> bool:
    """As many different members of the group as the answer has."""
    wanted = turn.answer.split(", ")
    named = reply.strip().split(", ")
    groups = [set(members) for members in GROUPS.values() if set(wanted) <= set(members)]
    return len(set(named)) == len(wanted) and any(set(named) <= group for group in groups)
