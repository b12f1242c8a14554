"""Numbers that look like personal data and are none: order numbers, book numbers, dates, amounts and so on."""

import datetime
import hashlib
import string
import uuid

from stdnum import ean as stdnum_ean
from stdnum import isbn as stdnum_isbn
from stdnum import issn as stdnum_issn


def digits(random, count):
    return "".join(random.choice(string.digits) for _ in range(count))


def order(random):
    year = random.randrange(2012, 2027)
    return random.choice(
        [
            f"A-{year}-{digits(random, 6)}",
            f"{year}-{digits(random, 3)}-{digits(random, 4)}",
            f"45{digits(random, 8)}",
            f"#{digits(random, 10)}",
            f"{digits(random, 2)}-{digits(random, 7)}",
            f"ORD-{digits(random, 8)}",
            f"{digits(random, 3)}-{digits(random, 4)}-{digits(random, 3)}",
            f"00{digits(random, 8)}",
            f"{year}/{digits(random, 5)}",
            f"{digits(random, 4)} {digits(random, 4)} {digits(random, 4)}",
            digits(random, 9),
            digits(random, 11),
            f"RE{year}{digits(random, 7)}",
        ]
    )


def isbn(random):
    body = random.choice(["978", "979"]) + random.choice("0123456789") + digits(random, 8)
    thirteen = body + stdnum_ean.calc_check_digit(body)
    assert stdnum_ean.is_valid(thirteen)
    if thirteen.startswith("978") and random.random() < 0.5:
        ten = stdnum_isbn.to_isbn10(thirteen)
        return random.choice([ten, f"{ten[0]}-{ten[1:4]}-{ten[4:9]}-{ten[9]}", f"{ten[0]} {ten[1:4]} {ten[4:9]} {ten[9]}"])
    return random.choice([thirteen, f"{thirteen[:3]}-{thirteen[3]}-{thirteen[4:8]}-{thirteen[8:12]}-{thirteen[12]}"])


def issn(random):
    body = digits(random, 7)
    number = body + stdnum_issn.calc_check_digit(body)
    return number[:4] + "-" + number[4:]


def ean(random):
    body = random.choice(["400", "301", "590", "761", "859"]) + digits(random, 9)
    number = body + stdnum_ean.calc_check_digit(body)
    short = digits(random, 7)
    return random.choice([number, number, f"{number[0]} {number[1:7]} {number[7:]}", short + stdnum_ean.calc_check_digit(short)])


def day(random):
    return datetime.date(1900, 1, 1) + datetime.timedelta(days=random.randrange(46_000))


def date(random):
    chosen = day(random)
    style = random.choice(["%d.%m.%Y", "%Y-%m-%d", "%d/%m/%Y", "%d. %m. %Y", "%d-%m-%Y", "%Y.%m.%d", "%Y%m%d", "%d.%m.%y"])
    return f"{chosen:{style}}"


def time(random):
    hour, minute = random.randrange(24), random.randrange(60)
    return random.choice(
        [f"{hour}:{minute:02}", f"{hour:02}.{minute:02}", f"{hour}:{minute:02}:{random.randrange(60):02}",
         f"{hour:02}:{minute:02}–{(hour + 2) % 24:02}:{minute:02}", f"{hour:02}.{minute:02} - {(hour + 3) % 24:02}.{minute:02}"]
    )


def thousands(random, separator, groups):
    return separator.join([str(random.randrange(1, 1000))] + [digits(random, 3) for _ in range(groups - 1)])


def amount(random):
    groups = random.choice([2, 3, 3, 4])
    return random.choice(
        [
            thousands(random, ".", groups) + ",50 €",
            "€ " + thousands(random, " ", groups),
            thousands(random, " ", groups) + ",99 EUR",
            thousands(random, ",", groups) + " EUR",
            thousands(random, "\u00a0", groups) + " €",
            "EUR " + thousands(random, ".", groups),
            f"{random.randrange(10_000_000, 999_999_999)} €",
        ]
    )


def count(random):
    groups = random.choice([2, 3, 3, 4])
    return random.choice(
        [thousands(random, " ", groups), thousands(random, ".", groups), thousands(random, "\u00a0", groups),
         thousands(random, ",", groups), thousands(random, "\u202f", groups), str(random.randrange(10_000_000, 999_999_999))]
    )


def law(random):
    year = random.randrange(1950, 2027)
    number = random.randrange(1, 1500)
    return random.choice([f"{number}/{year}", f"{year}-{number}", f"{number}/{year % 100:02}", f"{year}:{number}", f"L {digits(random, 4)}-{number % 30}"])


def regulation(random):
    year = random.randrange(1990, 2027)
    return random.choice([f"{year}/{random.randrange(1, 2500)}", f"{random.randrange(1, 1500)}/{year}", f"{year % 100}/{random.randrange(1, 130)}"])


def version(random):
    small = random.randrange
    return random.choice(
        [
            f"{small(1, 9)}.{small(9)}.{small(9)}.{small(9)}",
            f"{small(1, 30)}.{small(20)}.{small(20)}",
            f"2.6.{small(10, 40)}-{small(100, 999)}",
            f"{small(90, 140)}.0.{small(1000, 9000)}.{small(10, 250)}",
            f"{small(1, 9)}.{small(20)}.0.{digits(random, 8)}",
            f"{small(2, 12)}.{small(10)}.{small(100)}.{small(10)}",
            f"{small(2000, 2027)}.{small(1, 13)}.{small(1, 10)}",
        ]
    )


def coordinates(random):
    latitude, longitude = random.uniform(35, 70), random.uniform(-10, 30)
    return random.choice(
        [
            f"{latitude:.6f}, {longitude:.6f}",
            f"{latitude:.4f},{longitude:.4f}",
            f"{latitude:.7f} {longitude:.7f}",
            f"{int(latitude)}°{random.randrange(60):02}′{random.randrange(60):02}″ N {int(abs(longitude))}°{random.randrange(60):02}′{random.randrange(60):02}″ E",
            f"{int(latitude)}° {random.uniform(0, 60):06.3f}' N, 0{int(abs(longitude)):02}° {random.uniform(0, 60):06.3f}' E",
        ]
    )


def score(random):
    return random.choice(
        ["6-4 3-6 7-6 6-3", "21:18", "3:2 (1:1)", "6:4, 6:7, 7:5", "25-21, 25-19, 22-25, 15-12", "11-9 11-7 8-11 11-6", "6/4 6/7 7/5", "102-98", "6–4, 7–6, 10–8"]
    )


def product(random):
    return random.choice(
        [
            f"0{digits(random, 2)}-{digits(random, 4)}-{digits(random, 3)}",
            f"7L-{digits(random, 4)}/{digits(random, 2)}",
            f"X{digits(random, 3)}-{digits(random, 4)}",
            f"{digits(random, 4)}-{digits(random, 2)}-{digits(random, 3)}",
            f"BX {digits(random, 4)} {digits(random, 3)}",
            f"6ES7 {digits(random, 3)}-1AG40-0XB0",
            f"{digits(random, 5)}-{digits(random, 4)}",
            f"{digits(random, 3)}.{digits(random, 3)}.{digits(random, 2)}",
            digits(random, 8),
        ]
    )


def years(random):
    begin = random.randrange(1500, 1990)
    end = begin + random.randrange(1, 40)
    return random.choice([f"{begin}-{end}", f"{begin}–{end}", f"{begin}/{end}", f"{begin}–{end}, {end + 2}–{end + 9}", f"{begin}-{end} / {end}-{end + 11}"])


def cas(random):
    body = str(random.randrange(1, 10)) + digits(random, random.randrange(1, 6)) + digits(random, 2)
    check = sum(int(digit) * (place + 1) for place, digit in enumerate(reversed(body))) % 10
    return f"{body[:-2]}-{body[-2:]}-{check}"


def hash_value(random):
    value = random.randbytes(32)
    return random.choice(
        [
            hashlib.md5(value).hexdigest(),
            hashlib.sha1(value).hexdigest(),
            hashlib.sha256(value).hexdigest(),
            hashlib.sha1(value).hexdigest()[:10],
            str(uuid.UUID(bytes=value[:16])),
            hashlib.md5(value).hexdigest().upper(),
            f"{int.from_bytes(value[:8], 'big')}",
            f"0x{value[:8].hex()}",
        ]
    )


MAKERS = {
    "order": order, "isbn": isbn, "issn": issn, "ean": ean, "date": date, "time": time, "amount": amount, "count": count,
    "law": law, "regulation": regulation, "version": version, "coordinates": coordinates, "score": score,
    "product": product, "years": years, "cas": cas, "hash": hash_value,
}
