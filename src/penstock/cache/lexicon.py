"""Word lists by which a question is read: English, short, written for this purpose."""

from __future__ import annotations

from typing import Final


def _table(text: str) -> dict[str, str]:
    """`"a=b c=d"` as a dict."""
    return dict(pair.split("=", 1) for pair in text.split())


def _list(text: str) -> list[str]:
    return text.split()


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


STOPWORDS: Final = _words(
    """
    a an the this that these those i you he she it we they me him her us them my your his its our their mine yours myself yourself
    itself themselves one ones someone somebody anyone anybody everyone people is are was were be been being am do does did doing
    done has have had having will would shall should can could may might must ought and or but if then else so as of at by for with
    about against between into through during to from in on off over under up down out than too very just also only own same such
    both each few more most other some any all much many lot lots what which who whom whose when where why how whether while because
    until there here get gets got getting go goes going make makes made making let lets please tell explain describe know want need
    like way ways thing things kind kinds type types sort sorts really actually exactly best good better great different difference
    example examples mean means meaning using use used uses ever still even yet already again etc eg ie s t d ll re ve m
    """
)
FILLERS: Final = _words(
    """
    what which who whom whose when where why how is are was were do does did can could should would will has have the and or but if
    in on at for to of a an please
    """
)

AMBIGUOUS: Final = _words(
    """
    a all am an as do has he i in is it me no on so to was will must us
    """
)  # words of other languages, too

NEGATIONS: Final = _words(
    """
    not no never none nobody nothing nowhere neither nor without cannot non hardly barely except excluding avoid avoids avoiding
    avoided stop stops stopping stopped prevent prevents preventing refuse refuses refusing
    """
)

CONTRACTIONS: Final = {
    "can't": "can not", "won't": "will not", "shan't": "shall not", "ain't": "is not", "cannot": "can not", "what's": "what is",
    "who's": "who is", "where's": "where is", "how's": "how is", "when's": "when is", "why's": "why is", "it's": "it is",
    "that's": "that is", "there's": "there is", "i'm": "i am", "you're": "you are", "we're": "we are", "they're": "they are",
    "i've": "i have", "you've": "you have", "we've": "we have", "they've": "they have", "i'll": "i will", "i'd": "i would",
    "let's": "let us", "he's": "he is", "she's": "she is",
}  # fmt: skip
ABBREVIATIONS: Final = {
    "cannot": "can not", "cant": "can not", "dont": "do not", "doesnt": "does not", "isnt": "is not", "wont": "will not",
    "didnt": "did not",
    "whats": "what is", "ive": "i have", "u": "you", "r": "are", "ur": "your", "pls": "please", "plz": "please",
}  # fmt: skip

# Forms that the endings alone would not bring together.
IRREGULAR: Final = _table(
    """men=man women=woman children=child feet=foot teeth=tooth mice=mouse people=person lives=life wives=wife knives=knife
    bought=buy sold=sell went=go gone=go took=take taken=take gave=give given=give wrote=write written=write ran=run
    spoke=speak spoken=speak thought=think taught=teach caught=catch found=find lost=lose losing=lose left=leave kept=keep
    told=tell said=say saw=see seen=see knew=know known=know grew=grow grown=grow began=begin begun=begin broke=break broken=break
    chose=choose chosen=choose drove=drive driven=drive ate=eat eaten=eat fell=fall fallen=fall felt=feel flew=fly forgot=forget
    forgotten=forget held=hold led=lead meant=mean met=meet paid=pay sent=send slept=sleep spent=spend stole=steal stolen=steal
    swam=swim threw=throw thrown=throw understood=understand woke=wake won=win wore=wear built=build came=come beat=beat
    dying=die died=die lying=lie tying=tie using=use used=use data=datum colour=color favourite=favorite programme=program
    learnt=learn dreamt=dream earliest=early biggest=big cheapest=cheap fastest=fast easiest=easy easily=easy quickly=quick
    marriage=marry married=marry bigger=big faster=fast cheaper=cheap easier=easy mobile=phone smartphone=phone cellphone=phone
    exams=exam examination=exam examinations=exam movies=film movie=film films=film photos=picture photo=picture"""
)

NUMBER_WORDS: Final = {
    "zero": 0, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10, "eleven": 11,
    "twelve": 12,
    "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16, "seventeen": 17, "eighteen": 18, "nineteen": 19, "twenty": 20,
    "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90, "hundred": 100, "thousand": 1000,
    "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12, "half": 0.5, "twice": 2, "double": 2, "triple": 3, "lakh": 10**5,
    "crore": 10**7, "once": 1, "single": 1,
}  # fmt: skip
ORDINALS: Final = {
    "first": "1th", "1st": "1th", "2nd": "2th", "third": "3th", "3rd": "3th", "fourth": "4th", "4th": "4th", "fifth": "5th", "5th": "5th",
    "sixth": "6th", "seventh": "7th", "eighth": "8th", "ninth": "9th", "tenth": "10th",
}  # fmt: skip
MULTIPLES: Final = {
    "hundred": 100, "thousand": 1000, "k": 1000, "million": 10**6, "mn": 10**6, "billion": 10**9, "bn": 10**9, "trillion": 10**12,
    "lakh": 10**5, "lakhs": 10**5, "lac": 10**5, "crore": 10**7, "crores": 10**7, "dozen": 12, "thousands": 1000, "millions": 10**6,
}  # fmt: skip
UNITS: Final = _table(
    """km=km kms=km kilometer=km kilometers=km kilometre=km kilometres=km m=m meter=m meters=m metre=m metres=m cm=cm mm=mm
    mile=mile miles=mile mi=mile inch=inch inches=inch foot=foot feet=foot ft=foot yard=yard yards=yard
    kg=kg kgs=kg kilogram=kg kilograms=kg kilo=kg kilos=kg g=g gram=g grams=g mg=mg lb=lb lbs=lb pound=lb pounds=lb ounce=oz ounces=oz oz=oz
    l=l liter=l liters=l litre=l litres=l ml=ml gallon=gallon gallons=gallon
    second=s seconds=s sec=s secs=s minute=min minutes=min min=min mins=min hour=h hours=h hr=h hrs=h day=day days=day week=week weeks=week
    month=month months=month year=year years=year yr=year yrs=year decade=decade decades=decade century=century centuries=century
    percent=percent percentage=percent celsius=celsius fahrenheit=fahrenheit kelvin=kelvin degrees=degree degree=degree
    dollar=dollar dollars=dollar usd=dollar euro=euro euros=euro eur=euro rupee=rupee rupees=rupee rs=rupee inr=rupee yen=yen gbp=pound
    kb=kb mb=mb gb=gb tb=tb hz=hz mhz=mhz ghz=ghz w=w kw=kw mw=mw v=v volt=v volts=v watt=w watts=w mph=mph kmph=kmph"""
)

TIME_WORDS: Final = _words(
    """
    today yesterday tomorrow tonight now nowadays currently recently lately daily weekly monthly yearly annually hourly morning
    afternoon evening night noon midnight weekend monday tuesday wednesday thursday friday saturday sunday january february april
    june july august september october november december spring summer autumn winter ancient medieval modern future past
    """
)

# Two of one row on different sides turn a question round.
OPPOSITES: Final = tuple(
    tuple(row.split("/"))
    for row in _list(
        """
        best/worst good/bad better/worse increase/decrease increase/reduce raise/lower rise/fall grow/shrink gain/lose
        before/after buy/sell lend/borrow import/export push/pull open/close begin/end start/end enter/exit enter/leave
        arrive/depart high/low higher/lower highest/lowest tall/short long/short longer/shorter longest/shortest big/small
        bigger/smaller biggest/smallest large/small largest/smallest fast/slow faster/slower fastest/slowest hot/cold
        hotter/colder hottest/coldest warm/cool early/late earlier/later earliest/latest old/new oldest/newest old/young
        older/younger oldest/youngest rich/poor richest/poorest cheap/expensive cheaper/costlier cheapest/costliest easy/hard
        easy/difficult easier/harder easiest/hardest simple/complex strong/weak stronger/weaker strongest/weakest light/heavy
        light/dark bright/dark thick/thin wide/narrow deep/shallow full/empty wet/dry clean/dirty safe/dangerous safe/unsafe
        hard/soft loud/quiet public/private male/female man/woman men/women boy/girl husband/wife father/mother son/daughter
        brother/sister boyfriend/girlfriend king/queen love/hate like/dislike like/hate accept/reject allow/forbid allow/ban
        permit/prohibit enable/disable include/exclude add/remove add/subtract add/delete create/delete create/destroy
        build/destroy insert/delete install/uninstall connect/disconnect lock/unlock encrypt/decrypt encode/decode
        compress/decompress mount/unmount subscribe/unsubscribe follow/unfollow block/unblock hide/show attach/detach
        upload/download send/receive give/take give/receive win/lose pass/fail succeed/fail success/failure attack/defend
        agree/disagree appear/disappear ascend/descend ascending/descending asc/desc min/max minimum/maximum minimise/maximise
        minimize/maximize most/least more/less more/fewer above/below over/under up/down upward/downward inside/outside
        internal/external input/output front/back forward/backward left/right top/bottom north/south east/west first/last
        next/previous everyone/nobody true/false yes/no positive/negative plus/minus profit/loss advantage/disadvantage
        advantages/disadvantages pros/cons benefit/harm benefits/risks benefits/drawbacks strength/weakness strengths/weaknesses
        cause/effect causes/effects cause/cure question/answer teacher/student doctor/patient employer/employee parent/child
        buyer/seller legal/illegal possible/impossible healthy/unhealthy lucky/unlucky happy/sad happy/unhappy married/single
        alive/dead born/die birth/death life/death war/peace day/night morning/evening sunrise/sunset acid/base solid/liquid
        credit/debit asset/liability supply/demand lossy/lossless synchronous/asynchronous mutable/immutable static/dynamic
        vertical/horizontal vertically/horizontally client/server serialize/deserialize gain/loss remember/forget sleep/wake
        approve/reject approve/deny admit/deny freeze/melt expand/contract absorb/emit import/deport introvert/extrovert
        optimist/pessimist optimistic/pessimistic ally/enemy friend/enemy hire/fire ugly/beautiful attractive/unattractive
        smart/stupid smart/dumb intelligent/stupid urban/rural odd/even liberal/conservative debug/release
        """
    )
)
PREFIXES: Final = ("un", "in", "im", "il", "ir", "dis", "non", "de", "anti", "mis")  # of a word that is its opposite

CODE_NAMES: Final = {
    name: name
    for name in _list(
        """
        python java javascript typescript c++ c# f# .net rust golang ruby perl php swift kotlin scala haskell erlang elixir
        clojure matlab fortran cobol lua dart sql mysql postgresql postgres sqlite mongodb redis html css xml json yaml csv bash
        powershell jquery react angular vue django flask rails spring nodejs hadoop spark numpy pandas pytorch tensorflow keras
        docker kubernetes git svn linux windows macos ubuntu debian android ios aws azure gcp
        """
    )
} | {"js": "javascript", "ts": "typescript", "py": "python", "k8s": "kubernetes"}

# Words between which two things may change places without changing what is asked.
SYMMETRIC: Final = _words(
    """
    and or vs versus between with nor & , / compare comparison difference similar same
    """
)
