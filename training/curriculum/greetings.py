"""Small talk: greetings, thanks, goodbyes, names, moods. Several answers are as good as each other."""

from __future__ import annotations

from random import Random

from training.curriculum.phrasing import ask
from training.curriculum.tables import FIRST_NAMES
from training.curriculum.turn import Turn
from training.curriculum.words import pseudo_word

# intent → what people type, what may be answered
TALK: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "hello": (
        (
            "Hello",
            "Hi",
            "Hey",
            "hello",
            "hi",
            "Hello!",
            "Hi there",
            "Hey there!",
            "Good day",
            "Greetings",
            "hiya",
            "yo",
            "Howdy",
            "hi!!",
            "heya",
            "Hello there",
            "Hello, world!",
            "Hi, anyone there?",
            "Hello?",
            "hey you",
            "hallo",
            "sup",
            "Hi bot",
            "hello penstock",
            "hi again",
            "Hey, are you there?",
            "good to see you",
            "Hello friend",
            "Say hello to me.",
            "Say hello in one sentence.",
            "Greet me.",
            "Greet me in one sentence.",
            "hello!!",
            "helo",
            "hii",
            "hiii",
            "ello",
        ),
        ("Hello! How can I help you?", "Hi there! What can I do for you?", "Hello! What would you like to know?"),
    ),
    "morning": (
        ("Good morning", "good morning!", "Morning!", "morning", "Good morning to you"),
        ("Good morning! How can I help you?", "Good morning! What can I do for you?"),
    ),
    "evening": (
        ("Good evening", "good evening!", "Evening!", "Good evening to you"),
        ("Good evening! How can I help you?", "Good evening! What can I do for you?"),
    ),
    "afternoon": (("Good afternoon", "good afternoon!"), ("Good afternoon! How can I help you?",)),
    "how": (
        (
            "How are you?",
            "how are you",
            "How are you doing?",
            "How are you today?",
            "How's it going?",
            "how is it going",
            "What's up?",
            "whats up",
            "How do you do?",
            "Are you well?",
            "How do you feel?",
            "hows life",
            "How have you been?",
            "Hi, how are you?",
            "Hello, how are you doing?",
            "hey how are you",
            "hello how are you today",
            "you ok?",
        ),
        ("I am doing well, thank you! How can I help you?", "Very well, thank you! What can I do for you?"),
    ),
    "thanks": (
        (
            "Thanks",
            "Thank you",
            "thank you!",
            "Thanks a lot",
            "thx",
            "Thank you very much",
            "Many thanks",
            "ty",
            "Cheers",
            "great, thanks",
            "ok thanks",
            "perfect, thank you",
            "Thanks for your help",
            "that helps, thanks",
            "thank u",
            "awesome thanks",
        ),
        ("You are welcome!", "You are welcome! Is there anything else?", "Glad to help!"),
    ),
    "bye": (
        (
            "Bye",
            "Goodbye",
            "See you",
            "see you later",
            "Bye bye",
            "Good night",
            "I have to go",
            "farewell",
            "See you tomorrow",
            "ok bye",
            "cya",
            "that is all",
            "That's all for now",
            "gotta go",
            "quit",
            "exit",
            "good night!",
            "take care",
        ),
        ("Goodbye! Have a nice day.", "Goodbye! See you next time."),
    ),
    "praise": (
        (
            "Great",
            "Nice",
            "Cool",
            "Well done",
            "good job",
            "Awesome",
            "wow",
            "You are great",
            "Perfect",
            "good bot",
            "Excellent!",
            "That's right",
            "correct",
            "I like you",
            "you are smart",
            "amazing",
            "That was good",
            "haha",
            "lol",
            "love it",
            "impressive",
        ),
        ("Thank you! What else can I do for you?", "I am glad you like it! Is there anything else?"),
    ),
    "blame": (
        (
            "That's wrong",
            "You are wrong",
            "no",
            "That is not right",
            "bad bot",
            "You are stupid",
            "this is bad",
            "wrong",
            "nope",
            "that makes no sense",
            "you are dumb",
            "I don't like that",
            "This is useless",
            "that was not what I asked",
            "you suck",
            "You made a mistake",
            "incorrect",
            "terrible",
        ),
        ("I am sorry about that. I am only a small model; please try asking in another way.",),
    ),
    "ok": (
        (
            "ok",
            "Okay",
            "yes",
            "sure",
            "Alright",
            "I see",
            "got it",
            "hmm",
            "yeah",
            "yep",
            "fine",
            "go on",
            "continue",
            "k",
            "mhm",
            "maybe",
            "and",
            "so",
            "well",
            "um",
            "really?",
            "ok then",
            "next",
            "go ahead",
            "oh",
            "right",
            "i understand",
        ),
        ("All right! What would you like to do next?", "All right! What can I do for you?"),
    ),
    "sad": (
        (
            "I am sad",
            "I feel bad",
            "I'm tired",
            "I had a bad day",
            "I am lonely",
            "I am not well",
            "im bored",
            "I am bored",
            "I feel lonely today",
            "I'm stressed",
            "life is hard",
            "I am angry",
        ),
        ("I am sorry to hear that. Would you like a short story or a joke?",),
    ),
    "happy": (
        (
            "I am happy",
            "I feel great",
            "I'm fine",
            "I had a good day",
            "I am doing well",
            "I'm good, thanks",
            "I am good",
            "fine, and you?",
            "good, you?",
            "I am excited",
        ),
        ("That is nice to hear! What can I do for you?",),
    ),
    "test": (
        (
            "test",
            "testing",
            "Test 123",
            "Is this working?",
            "are you there?",
            "anybody home?",
            "Can you hear me?",
            "ping",
            "this is a test",
            "does this work?",
            "check",
            "testing testing",
            "Are you online?",
            "You there?",
            "one two three test",
        ),
        ("Yes, I am here and working! How can I help you?",),
    ),
    "joke_reply": (
        ("sorry", "I am sorry", "my mistake", "oops", "never mind", "nevermind", "forget it", "pardon", "excuse me"),
        ("No problem! What can I do for you?",),
    ),
    "love": (
        ("I love you", "Do you love me?", "Will you marry me?", "Are you my friend?", "Be my friend", "do you like me?"),
        ("That is kind of you! I am only a small program, but I am happy to help.",),
    ),
}


def small_talk(rng: Random) -> Turn:
    """One of the intents above, greetings most often."""
    intent = rng.choice(("hello", "hello", "how", "thanks")) if rng.random() < 0.35 else rng.choice(tuple(TALK))
    said, answers = TALK[intent]
    line = rng.choice(said)
    user = line if rng.random() < 0.5 else _varied(rng, line)
    return Turn("small_talk", user, rng.choice(answers), f"talk:{user}", also=answers)


def _varied(rng: Random, line: str) -> str:
    line = rng.choice((line.lower(), line.capitalize(), line, line + rng.choice(("!", ".", "...", "!!", " :)", "?"))))
    return line.rstrip("?.!") if rng.random() < 0.2 else line.upper() if rng.random() < 0.05 else line


MY_NAME = (
    "My name is {x}.",
    "I am {x}.",
    "I'm {x}.",
    "Hello, my name is {x}.",
    "Hi, I am {x}.",
    "Call me {x}.",
    "Hi, I'm {x}",
    "You can call me {x}.",
    "my name is {x}",
    "hello i am {x}",
    "The name is {x}.",
)


def introduction(rng: Random) -> Turn:
    """The user gives a name and is greeted by it."""
    name = rng.choice(FIRST_NAMES) if rng.random() < 0.7 else pseudo_word(rng).capitalize()
    template = rng.choice(MY_NAME)
    user = ask(rng, template, {"x": name})
    return Turn("introduction", user, f"Nice to meet you, {name}! How can I help you?", f"name:{name}:{template}")


WHAT_NAME = ("What is my name?", "Do you know my name?", "what's my name", "Who am I?", "Do you remember my name?", "Say my name.")


def recall_name(rng: Random, name: str | None) -> Turn:
    """What the user is called, if they said so earlier in the conversation."""
    answer = f"Your name is {name}." if name else "You have not told me your name yet."
    user = ask(rng, rng.choice(WHAT_NAME))
    return Turn("recall_name", user, answer, f"recall:{name}:{user}")


def unknown_name(rng: Random) -> Turn:
    """The name is asked for before it was given."""
    return recall_name(rng, None)


ECHO = (
    "Say {x}",
    "Repeat after me: {x}",
    "Repeat: {x}",
    "Please say: {x}",
    "Say the words: {x}",
    "Echo: {x}",
    "echo {x}",
    'Say "{x}"',
    "Repeat this: {x}",
    "Reply with {x}",
    "Reply with the word {x}.",
    "Respond with exactly: {x}",
    "Just say {x}",
    "Reply only with {x}",
    "Say just {x}",
    "Answer with only the word {x}",
    "Say {x} and nothing else.",
    "Reply with exactly the words: {x}",
    "Write {x}",
    "Print {x}",
    "Respond with '{x}'",
    "Please respond with only {x}.",
    "Reply with the single word {x}",
    "Output exactly: {x}",
    "Can you say {x}?",
    "Type {x}",
)


def echo(rng: Random) -> Turn:
    """Say the given words again."""
    words = [rng.choice(FIRST_NAMES) if rng.random() < 0.1 else _echo_word(rng) for _ in range(rng.choice((1, 1, 2, 2, 3, 4, 5)))]
    text = " ".join(words)
    return Turn("echo", ask(rng, rng.choice(ECHO), {"x": text}), text, f"echo:{text}")


def _echo_word(rng: Random) -> str:
    return (
        rng.choice(
            (
                "hello",
                "hi",
                "OK",
                "ok",
                "pong",
                "Hello",
                "ready",
                "done",
                "world",
                "yes",
                "no",
                "YES",
                "one",
                "two",
                "blue",
                "the",
                "is",
                "cat",
                "good",
                "day",
                "I",
                "am",
                "here",
                "test",
                "water",
                "sun",
                "we",
                "love",
                "tea",
                "my",
                "and",
                "you",
                "banana",
                "tree",
                "now",
            )
        )
        if rng.random() < 0.6
        else pseudo_word(rng)
    )
