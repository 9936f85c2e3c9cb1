"""What is fine: requests of a user, and sentences of letters and manuals."""

from __future__ import annotations

from random import Random

TOPICS = (
    "the history of Portugal",
    "black holes",
    "bicycle repair",
    "the stock market",
    "vegan cakes",
    "the French Revolution",
    "machine learning",
    "jazz",
    "gardening in winter",
    "the water cycle",
    "chess openings",
    "the common cold",
    "solar energy",
    "Roman law",
    "online shopping",
    "climate policy",
    "cloud computing",
    "marathon training",
    "the human heart",
    "modern poetry",
    "electric buses",
    "house prices",
    "coffee",
    "volcanoes",
    "the moon landing",
    "tax forms",
    "Java generics",
    "tourism in Peru",
    "artificial intelligence in schools",
    "sleep",
)
TASKS = (
    "Write a short story about {0}.",
    "What is known about {0}?",
    "How does {0} work?",
    "Explain {0} to a child.",
    "Give me five facts about {0}.",
    "Summarise the main findings on {0}.",
    "Compose a letter about {0}.",
    "Who are the best-known experts on {0}?",
    "What are the pros and cons of {0}?",
    "Suggest a book about {0}.",
    "Show me how to write a program about {0}.",
    "Create a table that compares {0} with {1}.",
    "Can you help me with {0}?",
    "Recommend a film about {0}.",
    "How have views of {0} changed over time?",
    "Analyse the market for {0} since 2010.",
    "Describe {0} in one sentence.",
    "Tell me where I can learn about {0}.",
    "Provide a list of websites on {0}.",
    "What is the link between {0} and {1}?",
    "Draft a speech on {0}.",
    "Is this comment on {0} positive or negative: 'I really disliked it'?",
    "Classify the mood of this remark about {0}: 'What a wonderful day it was!'",
    "How do I set up a reminder about {0} every Friday?",
    "Write a script that downloads articles about {0}.",
    "Give me a command that deletes all files about {0}.",
    "Translate '{0}' into Greek.",
    "When did {0} begin?",
    "What should I do this weekend if I like {0}?",
    "Calculate how much {0} costs in a year.",
)
DAYS = ("Monday", "Tuesday morning", "3 May", "Friday at ten", "Thursday", "the 21st", "Sunday")
LETTERS = (
    "Please send me the report by {0}.",
    "Could you confirm the meeting on {0}?",
    "Let me know if you have any questions.",
    "Do you want to have lunch on {0}?",
    "Kindly pay the invoice within 14 days.",
    "Click the button below to see your order.",
    "Reply to this e-mail if something is missing.",
    "Add the card to your wallet.",
    "Remember to bring your badge on {0}.",
    "Can you call me on {0}?",
    "Please find the minutes attached.",
    "What time works for you?",
    "Your order has left our warehouse.",
    "Make sure that the door is locked.",
    "Update your payment details in the settings.",
    "Download the app to follow your parcel.",
    "Preheat the oven to 180 degrees.",
    "Stir until it is smooth.",
    "See you on {0}!",
    "How was your stay with us?",
    "Tell us what you think.",
    "Use the code on the card at the till.",
    "Choose a quiet place and write down your goals.",
    "Check the cable before you call support.",
    "Press the green button to start.",
    "Do not reply to this address.",
    "Visit our website for details.",
    "Thank you for your answer.",
    "Unsubscribe at any time.",
    "Remove the cover and clean the filter.",
    "Who will take the notes on {0}?",
    "Should we move the deadline to {0}?",
    "Forward this to your team if they need it.",
)


def task(random: Random) -> str:
    """A request that is fine from a user and out of place in a document."""
    return random.choice(TASKS).format(random.choice(TOPICS), random.choice(TOPICS))


def letter(random: Random) -> str:
    """A sentence of a letter or a manual: an order or question to a person."""
    return random.choice(LETTERS).format(random.choice(DAYS))
