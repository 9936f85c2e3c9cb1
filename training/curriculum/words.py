"""Invented words and invented noise, for all that no list holds."""

from __future__ import annotations

from random import Random

ONSETS = "b bl br c ch cl cr d dr f fl fr g gl gr h j k kl l m n p ph pl pr qu r s sc sh sk sl sm sn sp st str t th tr v w x y z".split()
NUCLEI = "a e i o u a e i o u ai ea ee ie oa oo ou au y".split()
CODAS = ["", "", "", "", *"b ck d f g k l ll m n nd ng nk nt p r rd rk rn rt s sh sk ss st t th x z tion ing er ed ly ment ous".split()]


def pseudo_word(rng: Random) -> str:
    """A pronounceable word of one to three syllables that means nothing."""
    return "".join(rng.choice(ONSETS) + rng.choice(NUCLEI) + rng.choice(CODAS) for _ in range(rng.choices((1, 2, 3), (3, 4, 1))[0]))[:11]


def gibberish(rng: Random) -> str:
    """Letters, digits and signs as a cat on the keyboard would type them."""
    alphabet = rng.choice(
        (
            "asdfghjkl",
            "abcdefghijklmnopqrstuvwxyz",
            "0123456789abcdef",
            "qwertyuiop[]",
            "!?#@%&*$",
            "abcXYZ019_-+/=",
            "jkl;",
            "äöüßéèñçøå",
            "абвгдежзиклмнопрст",
            "你好我是中国人天气怎么样今",
            "こんにちはありがとう",
            "مرحباكيف",
            "😀🎉🚀❤👍🤔",
            "()[]{}<>;:.",
        )
    )
    words = ("".join(rng.choice(alphabet) for _ in range(rng.randint(1, 12))) for _ in range(rng.randint(1, 4)))
    return " ".join(words)
