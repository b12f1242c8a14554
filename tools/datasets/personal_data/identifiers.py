"""Random national identifiers with true check digits. Each function takes a `random.Random` and gives a number as people
write it. Whether a candidate is right is always decided by `python-stdnum` where it knows the number."""

import datetime
import string

from stdnum import luhn, verhoeff
from stdnum.at import vnr
from stdnum.be import nn
from stdnum.bg import egn as bg_egn
from stdnum.cy import vat as cy_vat
from stdnum.cz import rc as cz_rc
from stdnum.de import idnr
from stdnum.dk import cpr as dk_cpr
from stdnum.ee import ik
from stdnum.es import dni as es_dni
from stdnum.es import nie as es_nie
from stdnum.fi import hetu as fi_hetu
from stdnum.fr import nir as fr_nir
from stdnum.gr import amka as gr_amka
from stdnum.gr import vat as gr_vat
from stdnum.hr import oib as hr_oib
from stdnum.ie import pps as ie_pps
from stdnum.it import codicefiscale
from stdnum.lt import asmens
from stdnum.lv import pvn
from stdnum.nl import bsn as nl_bsn
from stdnum.pl import nip as pl_nip
from stdnum.pl import pesel as pl_pesel
from stdnum.pt import nif as pt_nif
from stdnum.ro import cnp as ro_cnp
from stdnum.se import personnummer as se_personnummer
from stdnum.si import ddv
from stdnum.si import emso as si_emso
from stdnum.sk import rc as sk_rc

LETTERS = string.ascii_uppercase


def digits(random, count):
    return "".join(random.choice(string.digits) for _ in range(count))


def birthday(random, first=1930, last=2019):
    start = datetime.date(first, 1, 1)
    return start + datetime.timedelta(days=random.randrange((datetime.date(last, 12, 31) - start).days))


def until_valid(candidate, is_valid):
    """Asks for candidates until one is accepted."""
    for _ in range(100_000):
        number = candidate()
        if is_valid(number):
            return number
    raise RuntimeError("no candidate is accepted: is the form right?")


def grouped(number, *lengths, separator=" "):
    """`number` cut into groups."""
    parts, begin = [], 0
    for length in lengths:
        parts.append(number[begin : begin + length])
        begin += length
    assert begin == len(number), (number, lengths)
    return separator.join(parts)


def egn(random):
    def candidate():
        born = birthday(random, 1930)
        month = born.month + (40 if born.year >= 2000 else 0)
        return f"{born:%y}{month:02}{born:%d}" + digits(random, 4)

    return until_valid(candidate, bg_egn.is_valid)


def czechoslovak(random, is_valid):
    def candidate():
        born = birthday(random, 1954)
        month = born.month + random.choice([0, 50])
        return f"{born:%y}{month:02}{born:%d}" + digits(random, 4)

    number = until_valid(candidate, is_valid)
    return random.choice([number[:6] + "/" + number[6:]] * 3 + [number, number[:6] + " / " + number[6:]])


def cpr(random):
    number = until_valid(lambda: f"{birthday(random):%d%m%y}" + digits(random, 4), dk_cpr.is_valid)
    return random.choice([number[:6] + "-" + number[6:]] * 3 + [number, number[:6] + " " + number[6:]])


def steuer_id(random):
    number = until_valid(lambda: digits(random, 11), idnr.is_valid)
    return random.choice([number, grouped(number, 2, 3, 3, 3)])


def svnr(random):
    def candidate():
        return digits(random, 4) + f"{birthday(random):%d%m%y}"

    def second_look(number):
        weights = (3, 7, 9, 0, 5, 8, 4, 2, 1, 6)
        return sum(weight * int(digit) for weight, digit in zip(weights, number)) % 11 == int(number[3])

    number = until_valid(candidate, lambda number: vnr.is_valid(number) and second_look(number))
    return random.choice([number, grouped(number, 4, 6), grouped(number, 4, 2, 2, 2)])


def amka(random):
    return until_valid(lambda: f"{birthday(random):%d%m%y}" + digits(random, 5), gr_amka.is_valid)


def afm(random):
    return until_valid(lambda: random.choice("0123456789") + digits(random, 8), gr_vat.is_valid)


def tic(random):
    return until_valid(lambda: "0" + digits(random, 7) + random.choice(LETTERS), cy_vat.is_valid)


def pps(random):
    def candidate():
        return digits(random, 7) + random.choice(LETTERS) + random.choice(["", "A", "B"])

    number = until_valid(candidate, ie_pps.is_valid)
    return random.choice([number] * 3 + [number[:7] + " " + number[7:]])


def malta_id(random):
    """Seven digits (a serial of up to five and the year) and a letter; there are no check digits."""
    return f"{random.randrange(1, 100_000):05}{random.randrange(30, 100):02}" + random.choice("MMMMGAP")


def dni(random):
    number = until_valid(lambda: digits(random, 8) + random.choice(LETTERS), es_dni.is_valid)
    pointed = f"{number[:2]}.{number[2:5]}.{number[5:8]}"
    return random.choice([number] * 3 + [number[:8] + "-" + number[8], pointed + "-" + number[8]])


def nie(random):
    number = until_valid(lambda: random.choice("XYZ") + digits(random, 7) + random.choice(LETTERS), es_nie.is_valid)
    return random.choice([number, number, f"{number[0]}-{number[1:8]}-{number[8]}"])


def baltic(random, is_valid):
    def candidate():
        born = birthday(random)
        century = 3 if born.year < 2000 else 5
        return f"{century + random.choice([0, 1])}{born:%y%m%d}" + digits(random, 4)

    return until_valid(candidate, is_valid)


def hetu(random):
    def candidate():
        born = birthday(random)
        mark = random.choice("-----YXW") if born.year < 2000 else random.choice("AAAABCD")
        serial = f"{random.randrange(2, 900):03}"
        return f"{born:%d%m%y}{mark}{serial}" + random.choice("0123456789ABCDEFHJKLMNPRSTUVWXY")

    return until_valid(candidate, fi_hetu.is_valid)


def nir(random):
    def candidate():
        born = birthday(random)
        place = random.choice([f"{random.randrange(1, 96):02}"] * 5 + ["2A", "2B", "99"])
        if place == "20":
            place = "21"
        return (
            random.choice("12") + f"{born:%y%m}" + place + f"{random.randrange(1, 600):03}{random.randrange(1, 999):03}"
            + digits(random, 2)
        )

    number = until_valid(candidate, fr_nir.is_valid)
    return random.choice([number, grouped(number, 1, 2, 2, 2, 3, 3, 2), grouped(number[:13], 1, 2, 2, 2, 3, 3) + " " + number[13:]])


def niss(random):
    number = until_valid(lambda: f"{birthday(random):%y%m%d}" + digits(random, 5), nn.is_valid)
    pointed = f"{number[:2]}.{number[2:4]}.{number[4:6]}-{number[6:9]}"
    return random.choice([pointed + "." + number[9:], pointed + "." + number[9:], pointed + "-" + number[9:], number])


def matricule(random):
    """YYYYMMDD, serial of three, Luhn's digit over these eleven, Verhoeff's digit over the same eleven."""
    body = f"{birthday(random):%Y%m%d}" + digits(random, 3)
    number = body + luhn.calc_check_digit(body) + verhoeff.calc_check_digit(body)
    assert luhn.is_valid(number[:12]) and verhoeff.is_valid(body + number[12])
    return random.choice([number, grouped(number, 4, 4, 5), grouped(number, 4, 2, 2, 5)])


def oib(random):
    return until_valid(lambda: digits(random, 11), hr_oib.is_valid)


def taj(random):
    """Weights 3 and 7 by turns, modulo 10 (Hungarian Act LXXXIII of 1997, annex)."""
    body = digits(random, 8)
    check = sum(int(digit) * (3, 7)[place % 2] for place, digit in enumerate(body)) % 10
    number = body + str(check)
    return random.choice([number, grouped(number, 3, 3, 3), grouped(number, 3, 3, 3, separator="-")])


def ado(random):
    """8, days since 1867-01-01, serial of three, sum of digit times place modulo 11, which is never 10."""
    while True:
        days = (birthday(random) - datetime.date(1867, 1, 1)).days
        body = f"8{days:05}" + digits(random, 3)
        check = sum(int(digit) * (place + 1) for place, digit in enumerate(body)) % 11
        if check < 10:
            number = body + str(check)
            return random.choice([number, number, grouped(number, 4, 3, 3)])


def codice_fiscale(random):
    consonants, vowels = "BCDFGLMNPRSTVZ", "AEIOU"

    def candidate():
        born = birthday(random)
        surname = "".join(random.choice(consonants) for _ in range(3))
        name = random.choice(consonants) + random.choice(consonants + vowels) + random.choice(consonants)
        day = born.day + random.choice([0, 40])
        place = random.choice("ABCDEFGHILMZ") + digits(random, 3)
        return f"{surname}{name}{born:%y}{'ABCDEHLMPRST'[born.month - 1]}{day:02}{place}" + random.choice(LETTERS)

    number = until_valid(candidate, codicefiscale.is_valid)
    return random.choice([number] * 4 + [grouped(number, 3, 3, 5, 5), number.lower()])


def personas_kods(random):
    def candidate():
        if random.random() < 0.3:
            return "32" + digits(random, 9)
        born = birthday(random)
        return f"{born:%d%m%y}{1 if born.year < 2000 else 2}" + digits(random, 4)

    number = until_valid(candidate, pvn.is_valid)
    return random.choice([number[:6] + "-" + number[6:]] * 4 + [number])


def bsn(random):
    number = until_valid(lambda: digits(random, 9), nl_bsn.is_valid)
    return random.choice([number] * 3 + [grouped(number, 4, 2, 3, separator="."), grouped(number, 3, 3, 3)])


def pesel(random):
    def candidate():
        born = birthday(random)
        month = born.month + (20 if born.year >= 2000 else 0)
        return f"{born:%y}{month:02}{born:%d}" + digits(random, 5)

    return until_valid(candidate, pl_pesel.is_valid)


def nip(random):
    number = until_valid(lambda: random.choice("123456789") + digits(random, 9), pl_nip.is_valid)
    return random.choice([number, grouped(number, 3, 3, 2, 2, separator="-"), grouped(number, 3, 2, 2, 3, separator="-")])


def nif(random):
    number = until_valid(lambda: random.choice("12") + digits(random, 8), pt_nif.is_valid)
    return random.choice([number, number, grouped(number, 3, 3, 3)])


def cnp(random):
    def candidate():
        born = birthday(random)
        sex = random.choice("12" if born.year < 2000 else "56")
        return f"{sex}{born:%y%m%d}{random.randrange(1, 47):02}" + digits(random, 4)

    return until_valid(candidate, ro_cnp.is_valid)


def emso(random):
    def candidate():
        born = birthday(random)
        return f"{born:%d%m}{born.year % 1000:03}50" + digits(random, 4)

    return until_valid(candidate, si_emso.is_valid)


def davcna(random):
    return until_valid(lambda: random.choice("123456789") + digits(random, 7), ddv.is_valid)


def personnummer(random):
    def candidate():
        born = birthday(random)
        return f"{born:%y%m%d}-" + digits(random, 4), born

    number, born = until_valid(candidate, lambda pair: se_personnummer.is_valid(pair[0]))
    century = f"{born.year // 100}"
    return random.choice([number, number, century + number, century + number.replace("-", "")])


# Slot of a frame: what makes its values.
MAKERS = {
    "egn": egn,
    "cpr": cpr,
    "steuer_id": steuer_id,
    "svnr": svnr,
    "amka": amka,
    "afm": afm,
    "tic": tic,
    "pps": pps,
    "malta_id": malta_id,
    "dni": dni,
    "nie": nie,
    "isikukood": lambda random: baltic(random, ik.is_valid),
    "asmens_kodas": lambda random: baltic(random, asmens.is_valid),
    "hetu": hetu,
    "nir": nir,
    "niss": niss,
    "matricule": matricule,
    "oib": oib,
    "taj": taj,
    "ado": ado,
    "codice_fiscale": codice_fiscale,
    "personas_kods": personas_kods,
    "bsn": bsn,
    "pesel": pesel,
    "nip": nip,
    "nif": nif,
    "cnp": cnp,
    "emso": emso,
    "davcna": davcna,
    "personnummer": personnummer,
}


def make(slot, language, random):
    """A value for an identifier's slot in a text of this language."""
    if slot == "rodne_cislo":
        return czechoslovak(random, cz_rc.is_valid if language == "cs" else sk_rc.is_valid)
    return MAKERS[slot](random)


def is_known(slot):
    return slot == "rodne_cislo" or slot in MAKERS
