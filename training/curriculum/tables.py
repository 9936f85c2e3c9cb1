"""Word lists and facts the curriculum draws from, all written for it by hand."""

from __future__ import annotations

from typing import NamedTuple


class Element(NamedTuple):
    """A chemical element."""

    number: int
    name: str
    symbol: str


FIRST_NAMES = (
    "Anna Ben Clara David Elena Felix Grace Henry Irene Jonas Kate Leo Maria Noah Olivia Peter Rosa Sam Tina Victor "
    "Walter Zoe Ada Bruno Carla Daniel Emma Frank Gina Hugo Ivan Julia Karl Laura Max Nina Oscar Paula Robert Sara "
    "Thomas Ursula Vera William Yusuf Amir Bella Chen Diego Eva Fatima George Hana Ines James Kenji Lena Marco Nadia "
    "Omar Priya Quentin Ravi Sofia Tom Uma Wei Yara Alice Bob Charlie Dora Eric Fiona Mia Lucas Liam Ella Jack Lily Ali"
).split()
LAST_NAMES = (
    "Adams Baker Clark Diaz Evans Fischer Garcia Hill Ito Jones Kim Lopez Martin Novak Olsen Park Quinn Rossi Smith "
    "Torres Ueda Vance Weber Young Zhang Brown Silva Meyer Moreau Lind Khan Patel"
).split()
THINGS = (
    "apples oranges books pencils cookies marbles stamps coins eggs pears cards flowers shells balloons stickers "
    "candles buttons stones plums lemons cakes toys keys boxes tickets cups peaches bananas sweets nuts"
).split()
ANIMALS = (
    "cat dog fox owl bear rabbit horse mouse duck frog lion tiger elephant turtle wolf goat sheep cow pig hen crow "
    "whale dolphin penguin monkey bee hedgehog squirrel deer snail parrot camel donkey badger otter seal eagle swan "
    "dragon robot unicorn"
).split()
FOODS = (
    "apple bread cheese banana tomato potato carrot lemon orange onion rice pasta soup milk butter honey salt pepper "
    "egg cake cookie grape peach pear plum melon mango garlic bean corn salad yogurt sugar flour chicken fish coffee tea"
).split()
OBJECTS = (
    "lamp chair table bottle book phone laptop bicycle car key ring watch mirror door window box bag shoe hat coat shirt "
    "pencil pen paper knife spoon fork plate cup clock camera radio guitar piano drum ball kite boat train bus plane "
    "bridge house garden tree river mountain island castle tower road field forest desert beach star moon sun cloud "
    "rain snow wind storm fire stone sand gold silver glass wood rope ladder hammer nail engine wheel battery"
).split()
MORE_WORDS = (
    "water earth music school teacher student doctor nurse farmer baker driver painter pilot king queen friend family "
    "mother father sister brother child baby summer winter spring autumn morning evening night day week month year "
    "happy quick quiet green yellow purple silver small large strong gentle bright simple number letter word sentence "
    "story question answer game puzzle picture color circle square triangle market city village country street "
    "kitchen bedroom office station airport hospital library museum theater restaurant strawberry elephant mississippi "
    "computer keyboard internet language hello world python penstock tomorrow yesterday together because between "
    "chocolate pineapple butterfly rainbow sunshine football basketball breakfast dinner lunch notebook newspaper"
).split()
VOCABULARY = tuple(sorted({*ANIMALS, *FOODS, *OBJECTS, *MORE_WORDS}))
CITIES = (
    "Lisbon Paris Berlin Rome Madrid Vienna Oslo Dublin London Prague Athens Cairo Lima Tokyo Delhi Toronto Chicago "
    "Boston Seattle Denver Miami Austin Hamburg Lyon Turin Porto Seville Zurich Geneva Krakow Osaka Seoul Nairobi"
).split()
JOBS = (
    "nurse teacher baker painter pilot farmer doctor driver lawyer chef librarian engineer writer singer gardener "
    "carpenter plumber dentist photographer mechanic tailor waiter clerk electrician"
).split()
COLORS = "red blue green yellow black white orange purple brown pink gray".split()
WEEK = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
MONTH_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)

CAPITALS = dict(
    pair.split(":")
    for pair in (
        "France:Paris,Germany:Berlin,Italy:Rome,Spain:Madrid,Portugal:Lisbon,Austria:Vienna,Switzerland:Bern,"
        "Belgium:Brussels,the Netherlands:Amsterdam,Denmark:Copenhagen,Sweden:Stockholm,Norway:Oslo,Finland:Helsinki,"
        "Iceland:Reykjavik,Ireland:Dublin,the United Kingdom:London,England:London,Scotland:Edinburgh,Wales:Cardiff,"
        "Poland:Warsaw,the Czech Republic:Prague,Slovakia:Bratislava,Hungary:Budapest,Romania:Bucharest,"
        "Bulgaria:Sofia,Greece:Athens,Turkey:Ankara,Ukraine:Kyiv,Russia:Moscow,Belarus:Minsk,Lithuania:Vilnius,"
        "Latvia:Riga,Estonia:Tallinn,Croatia:Zagreb,Slovenia:Ljubljana,Serbia:Belgrade,Albania:Tirana,Malta:Valletta,"
        "Cyprus:Nicosia,Luxembourg:Luxembourg,Monaco:Monaco,Canada:Ottawa,the United States:Washington D.C.,"
        "the USA:Washington D.C.,Mexico:Mexico City,Cuba:Havana,Jamaica:Kingston,Guatemala:Guatemala City,"
        "Panama:Panama City,Costa Rica:San José,Colombia:Bogotá,Venezuela:Caracas,Ecuador:Quito,Peru:Lima,"
        "Bolivia:Sucre,Chile:Santiago,Argentina:Buenos Aires,Uruguay:Montevideo,Paraguay:Asunción,Brazil:Brasília,"
        "Morocco:Rabat,Algeria:Algiers,Tunisia:Tunis,Libya:Tripoli,Egypt:Cairo,Sudan:Khartoum,Ethiopia:Addis Ababa,"
        "Kenya:Nairobi,Uganda:Kampala,Tanzania:Dodoma,Ghana:Accra,Nigeria:Abuja,Senegal:Dakar,Mali:Bamako,"
        "Cameroon:Yaoundé,Angola:Luanda,Zambia:Lusaka,Zimbabwe:Harare,Mozambique:Maputo,South Africa:Pretoria,"
        "Madagascar:Antananarivo,Rwanda:Kigali,Israel:Jerusalem,Lebanon:Beirut,Syria:Damascus,Jordan:Amman,"
        "Iraq:Baghdad,Iran:Tehran,Saudi Arabia:Riyadh,Kuwait:Kuwait City,Qatar:Doha,Oman:Muscat,"
        "the United Arab Emirates:Abu Dhabi,Pakistan:Islamabad,Afghanistan:Kabul,India:New Delhi,Nepal:Kathmandu,"
        "Bangladesh:Dhaka,Sri Lanka:Colombo,China:Beijing,Japan:Tokyo,South Korea:Seoul,North Korea:Pyongyang,"
        "Mongolia:Ulaanbaatar,Taiwan:Taipei,Vietnam:Hanoi,Thailand:Bangkok,Laos:Vientiane,Cambodia:Phnom Penh,"
        "Malaysia:Kuala Lumpur,Singapore:Singapore,Indonesia:Jakarta,the Philippines:Manila,Australia:Canberra,"
        "New Zealand:Wellington,Fiji:Suva,Kazakhstan:Astana,Uzbekistan:Tashkent,Georgia:Tbilisi,Armenia:Yerevan,"
        "Azerbaijan:Baku"
    ).split(",")
)
CAPITALS["Sri Lanka"] = "Sri Jayawardenepura Kotte"

LIGHT_ELEMENTS = tuple(
    Element(number, *entry.split(":"))
    for number, entry in enumerate(
        (
            "hydrogen:H,helium:He,lithium:Li,beryllium:Be,boron:B,carbon:C,nitrogen:N,oxygen:O,fluorine:F,neon:Ne,"
            "sodium:Na,magnesium:Mg,aluminum:Al,silicon:Si,phosphorus:P,sulfur:S,chlorine:Cl,argon:Ar,potassium:K,"
            "calcium:Ca,scandium:Sc,titanium:Ti,vanadium:V,chromium:Cr,manganese:Mn,iron:Fe,cobalt:Co,nickel:Ni,"
            "copper:Cu,zinc:Zn,gallium:Ga,germanium:Ge,arsenic:As,selenium:Se,bromine:Br,krypton:Kr,rubidium:Rb,"
            "strontium:Sr,yttrium:Y,zirconium:Zr,niobium:Nb,molybdenum:Mo,technetium:Tc,ruthenium:Ru,rhodium:Rh,"
            "palladium:Pd,silver:Ag,cadmium:Cd,indium:In,tin:Sn,antimony:Sb,tellurium:Te,iodine:I,xenon:Xe"
        ).split(","),
        start=1,
    )
)
HEAVY_ELEMENTS = (
    (74, "tungsten", "W"),
    (78, "platinum", "Pt"),
    (79, "gold", "Au"),
    (80, "mercury", "Hg"),
    (82, "lead", "Pb"),
    (86, "radon", "Rn"),
    (92, "uranium", "U"),
    (94, "plutonium", "Pu"),
)
ELEMENTS = (*LIGHT_ELEMENTS, *(Element(*entry) for entry in HEAVY_ELEMENTS))

OPPOSITES = tuple(
    tuple(pair.split(":"))
    for pair in (
        "hot:cold,big:small,tall:short,fast:slow,happy:sad,light:dark,old:young,rich:poor,strong:weak,hard:soft,"
        "up:down,left:right,open:closed,full:empty,early:late,near:far,high:low,wet:dry,clean:dirty,loud:quiet,"
        "thick:thin,wide:narrow,heavy:light,day:night,good:bad,true:false,begin:end,win:lose,buy:sell,push:pull,"
        "inside:outside,above:below,first:last,love:hate,sweet:bitter,safe:dangerous,cheap:expensive,deep:shallow,"
        "in:out,on:off,yes:no,black:white,north:south,east:west,summer:winter,friend:enemy,always:never,front:back"
    ).split(",")
)
SOUNDS = dict(
    pair.split(":")
    for pair in (
        "cat:meow,dog:woof,cow:moo,sheep:baa,duck:quack,pig:oink,horse:neigh,hen:cluck,owl:hoot,frog:croak,"
        "lion:roar,bee:buzz,mouse:squeak,crow:caw,wolf:howl,snake:hiss,rooster:cock-a-doodle-doo"
    ).split(",")
)
PLANETS = "Mercury Venus Earth Mars Jupiter Saturn Uranus Neptune".split()
MIXES = {
    ("red", "blue"): "purple",
    ("red", "yellow"): "orange",
    ("blue", "yellow"): "green",
    ("red", "white"): "pink",
    ("black", "white"): "gray",
}
LEGS = {
    "cat": 4,
    "dog": 4,
    "horse": 4,
    "cow": 4,
    "spider": 8,
    "bird": 2,
    "ant": 6,
    "bee": 6,
    "snake": 0,
    "fish": 0,
    "human": 2,
    "duck": 2,
    "elephant": 4,
    "octopus": 0,
}
COLORS_OF = {
    "the sky": "blue",
    "grass": "green",
    "snow": "white",
    "blood": "red",
    "a banana": "yellow",
    "a lemon": "yellow",
    "coal": "black",
    "an orange": "orange",
    "the sun": "yellow",
    "milk": "white",
    "a tomato": "red",
    "chocolate": "brown",
    "the sea": "blue",
    "a leaf": "green",
}
