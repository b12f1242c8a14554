"""Random addresses, telephone numbers, accounts and cards, written the ways people write them."""

import ipaddress
import re
import string

import phonenumbers
from phonenumbers import PhoneNumberFormat, PhoneNumberType
from stdnum import iban as stdnum_iban
from stdnum import luhn
from stdnum.numdb import get as number_database

# Countries in whose national form numbers stand in a text of the language.
COUNTRIES = {
    "bg": ["BG"], "cs": ["CZ"], "da": ["DK"], "de": ["DE", "AT", "LU", "BE"], "el": ["GR", "CY"], "en": ["IE", "MT"],
    "es": ["ES"], "et": ["EE"], "fi": ["FI"], "fr": ["FR", "BE", "LU"], "ga": ["IE"], "hr": ["HR"], "hu": ["HU"],
    "it": ["IT"], "lt": ["LT"], "lv": ["LV"], "mt": ["MT"], "nl": ["NL", "BE"], "pl": ["PL"], "pt": ["PT"],
    "ro": ["RO"], "sk": ["SK"], "sl": ["SI"], "sv": ["SE", "FI"],
}
MEMBERS = sorted({country for countries in COUNTRIES.values() for country in countries})
assert len(MEMBERS) == 27

# Countries of the Single Euro Payments Area (European Payments Council, EPC409-09).
SEPA = (
    "AD AL AT BE BG CH CY CZ DE DK EE ES FI FR GB GI GR HR HU IE IS IT LI LT LU LV MC MD ME MK MT NL NO PL PT RO RS SE SI "
    "SK SM VA"
).split()

NO_BREAK = "\u00a0"


def email(random):
    """Under the domains that RFC 2606 and RFC 6761 reserve."""
    first = random.choice(["anna", "j", "maria.clara", "o.brien", "info", "piotr", "kontakt", "jürgen", "νίκος", "иван", "zoë"])
    last = random.choice(["", ".berg", "_novak", "-1985", ".kovacs77", "+news", ".de.vries", "%lists", "2024"])
    host = random.choice(["post", "mail.firma", "uni-sued", "x1", "müller", "sub.site-3", "школа", "a"])
    top = random.choice([".example", ".example.org", ".example.net", ".example.com", ".co.example"])
    address = first + last + "@" + host + top
    hidden = first + last + random.choice([" (at) ", "(at)", " [at] ", "[at]", " (AT) "]) + host + top
    dotted = (host + top).replace(".", random.choice([" (dot) ", "(dot)", " [dot] "]))
    hidden_throughout = first + last + " (at) " + dotted
    return random.choice([address] * 10 + [address.upper(), address.title(), hidden, hidden_throughout])


def ipv4(random):
    while True:
        address = ipaddress.IPv4Address(random.getrandbits(32))
        if (address.is_global or random.random() < 0.05) and int(str(address).split(".")[0]) in range(1, 224):
            if not (address.is_private or address.is_loopback) and any(int(part) > 31 for part in str(address).split(".")):
                return str(address)


def ipv6(random):
    prefix = random.choice(["2001:db8", "2a02:810", "2003:e1", "2600:1f18"])
    filled = random.choice([2, 3, 6, 6])
    groups = [f"{random.getrandbits(16):x}" for _ in range(filled)]
    text = prefix + (":" + ":".join(groups) if filled == 6 else ":" + ":".join(groups[:-1]) + "::" + groups[-1])
    address = ipaddress.IPv6Address(text)
    return random.choice([str(address)] * 4 + [str(address).upper(), address.exploded])


def phone(random, country):
    """(number, whether it is written in the national form)"""
    parsed = subscriber(random, country)
    if random.random() < 0.5:
        return national(random, parsed, country), True
    return international(random, parsed, country), False


def phone_international(random, country):
    return international(random, subscriber(random, country), country)


def subscriber(random, country):
    """The library's example number with its last digits drawn anew until the library accepts it."""
    kind = random.choice([PhoneNumberType.MOBILE, PhoneNumberType.FIXED_LINE])
    example = phonenumbers.example_number_for_type(country, kind)
    text = phonenumbers.national_significant_number(example)
    while True:
        kept = random.randrange(1, len(text) - 4)
        drawn = text[:kept] + "".join(random.choice(string.digits) for _ in text[kept:])
        number = phonenumbers.PhoneNumber(
            country_code=example.country_code, national_number=int(drawn), italian_leading_zero=example.italian_leading_zero
        )
        allowed = (PhoneNumberType.MOBILE, PhoneNumberType.FIXED_LINE, PhoneNumberType.FIXED_LINE_OR_MOBILE)
        if phonenumbers.is_valid_number_for_region(number, country) and phonenumbers.number_type(number) in allowed:
            return number


def national(random, number, country):
    text = phonenumbers.format_number(number, PhoneNumberFormat.NATIONAL)
    styles = [text, text, text, text.replace(" ", "-"), text.replace(" ", "."), re.sub(r"[ ()\-/]", "", text)]
    styles += [text.replace(" ", NO_BREAK)]
    first, _, rest = text.partition(" ")
    if rest and "(" not in text:
        styles += [f"{first}/{rest}", f"{first} / {rest}", f"{first}-{rest}", f"{first}/{rest.replace(' ', '')}"]
        if country in ("DE", "AT", "BG", "HR", "SI", "PT", "LV", "IE"):
            styles.append(f"({first}) {rest}")
    return random.choice(styles)


def international(random, number, country):
    text = phonenumbers.format_number(number, PhoneNumberFormat.INTERNATIONAL)
    plain = phonenumbers.format_number(number, PhoneNumberFormat.E164)
    styles = [text, text, text, plain, plain, "00" + plain[1:], "00" + text[1:], text.replace(" ", "-"), text.replace(" ", ".")]
    code, _, rest = text.partition(" ")
    styles += [f"({code}) {rest}", text.replace(" ", NO_BREAK), f"{code} {rest.replace(' ', '')}", f"{code}/{rest}"]
    if country in ("DE", "AT", "BE", "NL", "FR", "SE", "FI", "IE", "SK", "SI", "HR", "RO", "BG"):
        styles += [f"{code} (0){rest}", f"{code} (0) {rest}", f"{code}(0){rest.replace(' ', '')}"]
    return random.choice(styles)


def iban(random, country):
    """By the registry's structure, check digits by mod 97; the library has the last word."""
    structure = number_database("iban").info(country)[0][1]["bban"]
    alphabets = {"n": string.digits, "a": string.ascii_uppercase, "c": string.digits + string.ascii_uppercase}
    while True:
        account = ""
        for length, alphabet in re.findall(r"([0-9]+)!([nac])", structure):
            # Accounts have digits nearly everywhere that the registry allows letters.
            letters = alphabets[alphabet] if alphabet != "c" or random.random() < 0.2 else string.digits
            account += "".join(random.choice(letters) for _ in range(int(length)))
        number = country + stdnum_iban.calc_check_digits(country + "00" + account) + account
        if stdnum_iban.is_valid(number, check_country=False):
            break
    fours = [number[begin : begin + 4] for begin in range(0, len(number), 4)]
    return random.choice([number, number, " ".join(fours), " ".join(fours), " ".join(fours), NO_BREAK.join(fours), "-".join(fours)])


def card(random):
    """(number, network): prefixes and lengths as the networks publish them."""
    network, prefixes, length = random.choice(
        [
            ("visa", ["4"], 16),
            ("visa", ["4"], 16),
            ("mastercard", ["51", "52", "53", "54", "55", "2221", "2500", "2720"], 16),
            ("mastercard", ["51", "52", "53", "54", "55", "2300"], 16),
            ("american express", ["34", "37"], 15),
            ("diners", ["36", "38", "300", "305"], 14),
            ("discover", ["6011", "65"], 16),
            ("jcb", ["3528", "3560", "3589"], 16),
            ("maestro", ["6759", "5018", "6304"], 16),
        ]
    )
    prefix = random.choice(prefixes)
    body = prefix + "".join(random.choice(string.digits) for _ in range(length - 1 - len(prefix)))
    number = body + luhn.calc_check_digit(body)
    lengths = {16: (4, 4, 4, 4), 15: (4, 6, 5), 14: (4, 6, 4)}[length]
    parts, begin = [], 0
    for part in lengths:
        parts.append(number[begin : begin + part])
        begin += part
    return random.choice([number, " ".join(parts), " ".join(parts), "-".join(parts), NO_BREAK.join(parts)]), network
