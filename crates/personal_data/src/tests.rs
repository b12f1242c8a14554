//! What is found, what is left alone. Numbers are published examples, test numbers or ranges reserved for fiction.

use super::*;

fn check_in(language: &str, text: &str, expected: &str) {
    let language = Language::from_code(language).unwrap();
    let redacted = redact(text, Some(language));
    assert_eq!(redacted.text, expected);
    let again = redact(expected, Some(language));
    assert_eq!(again.text, expected, "redacting again changes nothing");
}

fn check(text: &str, expected: &str) {
    check_in("en", text, expected);
}

#[test]
fn email_addresses() {
    check("Write to ana.lopez+news@post.example.", "Write to <EMAIL>.");
    check("(info@sub.site.example)", "(<EMAIL>)");
    check_in("de", "Schreiben an jürgen@müller.example!", "Schreiben an <EMAIL>!");
    check_in("el", "στο νίκος@ταχυδρομείο.παράδειγμα", "στο <EMAIL>");
    check("mailto:a@b.example, @handle, a@b, price @ 3.50", "mailto:<EMAIL>, @handle, a@b, price @ 3.50");
}

#[test]
fn ip_addresses() {
    check("from 192.0.2.17, then", "from <IP_ADDRESS>, then");
    check("at 203.0.113.9.", "at <IP_ADDRESS>.");
    check("2001:db8::17 and 2001:0db8:85a3:0000:0000:8a2e:0370:7334", "<IP_ADDRESS> and <IP_ADDRESS>");
    for left in [
        "127.0.0.1",
        "192.168.1.1",
        "version 1.2.3.4",
        "1.2.3.4.5",
        "300.1.1.1",
        "12:30:45",
        "std::fs",
        "a::b",
        "::1",
    ] {
        check(left, left);
    }
}

#[test]
fn phone_numbers() {
    check("+49 (0)30 23125-000", "<PHONE_NUMBER>");
    check("call +353 20 912 0000.", "call <PHONE_NUMBER>.");
    check("(+44) 20 7946 0018", "<PHONE_NUMBER>");
    check("0043 1 234 5678", "<PHONE_NUMBER>");
    check_in("de", "Tel. (030) 23125 000, werktags", "Tel. <PHONE_NUMBER>, werktags");
    check_in("de", "erreichbar (Tel. 030 23125 000) täglich", "erreichbar (Tel. <PHONE_NUMBER>) täglich");
    check_in("fr", "appelez le 01 99 00 12 34", "appelez le <PHONE_NUMBER>");
    check_in("fr", "au 01.99.00.12.34", "au <PHONE_NUMBER>");
    check_in("sv", "ring 031-390 06 12", "ring <PHONE_NUMBER>");
    check_in("hu", "telefon: 06 1 234 5678", "telefon: <PHONE_NUMBER>");
    check_in("pl", "tel. 123 456 789", "tel. <PHONE_NUMBER>");
    check_in("es", "teléfono 912 345 678", "teléfono <PHONE_NUMBER>");
    check_in("el", "τηλ. 210 123 4567", "τηλ. <PHONE_NUMBER>");
    check_in("bg", "тел. 02 123 4567", "тел. <PHONE_NUMBER>");
    check_in("lv", "tālr. 67 123 456", "tālr. <PHONE_NUMBER>");
    check_in("mt", "ċempel 2123 4567", "ċempel <PHONE_NUMBER>");
    check_in("mt", "2123 4567 (tel)", "<PHONE_NUMBER> (tel)");
    check_in("da", "tlf. eller mobil 20 12 34 56", "tlf. eller mobil <PHONE_NUMBER>");
}

#[test]
fn ordinary_numbers_stay() {
    for (language, text) in [
        ("de", "Am 01.02.2026 um 10.30 Uhr"),
        ("de", "1.234.567,89 Euro und 83 200 000 Einwohner"),
        ("pl", "Mieszka tu 123 456 789 osób"),
        ("fr", "entre 1914 et 1918, 2 300 000 habitants"),
        ("en", "ISBN 0-306-40615-2, ISBN 978-0-306-40615-7"),
        ("en", "pi is 3.14159265358979"),
        ("es", "entre 2019-2020 y 1 000 000 000"),
        ("cs", "v letech 1939–1945, 2026/27"),
        ("en", "https://site.example/2026/03/12/0301234567890"),
        ("it", "dal 12/05/2024 al 13/06/2025"),
    ] {
        check_in(language, text, text);
    }
}

#[test]
fn bank_accounts_and_cards() {
    check("IBAN DE89 3704 0044 0532 0130 00 today", "IBAN <IBAN> today");
    check("GB29NWBK60161331926819", "<IBAN>");
    check("MT84MALT011000012345MTLCAST001S, thanks", "<IBAN>, thanks");
    check("FR14 2004 1010 0505 0001 3M02 606", "<IBAN>");
    check("DE88 3704 0044 0532 0130 00", "DE88 3704 0044 0532 0130 00");
    check("card 4111 1111 1111 1111 expires", "card <PAYMENT_CARD> expires");
    check("5555-5555-5555-4444", "<PAYMENT_CARD>");
    check("378282246310005", "<PAYMENT_CARD>");
    check("4111 1111 1111 1112", "4111 1111 1111 1112");
}

#[test]
fn national_identifiers() {
    // The published example of each country.
    for text in [
        "6101057509",            // BG ЕГН
        "710319/2745",           // CZ rodné číslo
        "211062-5629",           // DK CPR
        "37605030299",           // EE isikukood
        "33309240064",           // LT asmens kodas
        "131052-308T",           // FI henkilötunnus
        "880320-0016",           // SE personnummer
        "19880320-0016",         // SE with the century
        "44051401359",           // PL PESEL
        "1630615123457",         // RO CNP
        "0101006500006",         // SI EMŠO
        "161175-19997",          // LV personas kods
        "85.07.30-033 28",       // BE rijksregisternummer
        "RCCMNL83S18D969H",      // IT codice fiscale
        "54362315K",             // ES DNI
        "X2482300W",             // ES NIE
        "1234567T",              // IE PPSN
        "1 51 02 46 102 043 25", // FR NIR
        "1237 010180",           // AT Sozialversicherungsnummer
        "01013099997",           // GR AMKA
    ] {
        let redacted = redact(text, None);
        assert_eq!(redacted.text, "<NATIONAL_ID>", "{text}");
    }
    check_in("nl", "BSN 111222333", "BSN <NATIONAL_ID>");
    check_in("pt", "NIF 501964843", "NIF <NATIONAL_ID>");
    check_in("hr", "OIB: 33392005961", "OIB: <NATIONAL_ID>");
    check_in("de", "Steuer-ID 36574261809", "Steuer-ID <NATIONAL_ID>");
    check_in("hu", "TAJ-száma 111111110", "TAJ-száma <NATIONAL_ID>");
    check_in("nl", "111222333 inwoners", "111222333 inwoners");
}

#[test]
fn counts_by_kind() {
    let text = "a@b.example, c@d.example, IBAN DE89370400440532013000";
    let counts = redact(text, None).counts;
    assert_eq!(counts, BTreeMap::from([(PersonalData::EmailAddress, 2), (PersonalData::Iban, 1)]));
}

#[test]
fn addresses_of_all_forms() {
    for address in
        ["a@b.co", "A.B-C_d%e+f@sub.site-3.example.org", "x@xn--mller-kva.example", "мария@школа.бг"]
    {
        check(&format!("<{address}>"), "<<EMAIL>>");
    }
    for left in
        ["logo@2x.png", "a@b", "@anna", "a@.example.org", "a@-b.example", "price@3.50", "a.@b.example"]
    {
        check(left, left);
    }
    check("x@site.example. Next", "<EMAIL>. Next");
    check("0301234567@post.example", "<EMAIL>");
    check("anna.berg (at) post.example!", "<EMAIL>!");
    check("Anna[AT]post[dot]co[dot]example, or", "<EMAIL>, or");
    check("anna (at) post (dot) example", "<EMAIL>");
    check("look (at) me. Now", "look (at) me. Now");
    check("2a02:810:0:1::17, ::ffff:192.0.2.1", "<IP_ADDRESS>, <IP_ADDRESS>");
    check("[2001:db8::1]:443", "[<IP_ADDRESS>]:443");
    for left in [
        "fe80::1",
        "fd00:1::2",
        "00:1a:2b:3c:4d:5e",
        "10:30:00",
        "chapter 2.1.4.3",
        "1.2.3.4",
        "10.0.19045.3086",
    ] {
        check(left, left);
    }
    check("the server at 1.2.3.4", "the server at <IP_ADDRESS>");
}

#[test]
fn numbers_in_disguise() {
    check_in("de", "Tel. ０３０ ２３１２５ ０００", "Tel. <PHONE_NUMBER>");
    check_in("de", "Tel. 030\u{200B} 231\u{200B}25 0\u{AD}00", "Tel. <PHONE_NUMBER>");
    check("card 4111\u{A0}1111\u{202F}1111\u{2009}1111", "card <PAYMENT_CARD>");
    check("DE89\u{200B}3704 0044 0532 0130\u{FEFF}00", "<IBAN>");
    check("DE 89 3704 0044 0532 0130 00", "<IBAN>");
    check_in("fr", "au 01‑99‑00‑12‑34", "au <PHONE_NUMBER>");
}

#[test]
fn what_numbers_are_called() {
    check_in("hu", "a 123456788 TAJ-számon", "a <NATIONAL_ID> TAJ-számon");
    check_in("el", "Α.Φ.Μ. 094259216", "Α.Φ.Μ. <NATIONAL_ID>");
    check_in("cs", "r. č. 7103192745", "r. č. <NATIONAL_ID>");
    check_in("en", "identity card 0123456M", "identity card <NATIONAL_ID>");
    check_in("es", "DNI 54.362.315-K", "DNI <NATIONAL_ID>");
    check_in("es", "NIE X-2482300-W", "NIE <NATIONAL_ID>");
    check_in("it", "rccmnl83s18d969h", "<NATIONAL_ID>");
    check_in("fi", "puh.\n040 123 4567", "puh.\n<PHONE_NUMBER>");
    for (language, left) in [
        ("de", "Bestellnummer 0301-2345-678"),
        ("en", "phones sold: 912 345 678 units"),
        ("fr", "commande n° 4111111111111111"),
        ("pl", "zamówienie nr 44051401359"),
        ("es", "ISBN 978-84-376-0494-7"),
        ("da", "ring mellem 18.00-20.00"),
        ("lv", "zvanīja 2019-2024"),
        ("ro", "la tel. 12.03.2024"),
    ] {
        check_in(language, left, left);
    }
}

/// Texts made to be slow: each has to be looked through in a time that grows with its length alone.
#[test]
fn hostile_texts_are_no_slower_than_their_length() {
    let long = |unit: &str| unit.repeat((1 << 18) / unit.len());
    let units = [
        "1",
        "@",
        "a@",
        "a@a.",
        "1 ",
        "1.",
        "1-",
        "12 34 ",
        "+",
        "(0",
        "::",
        "1:",
        "a:1:",
        "DE89",
        "DE89 ",
        "X1",
        "A1 ",
        "１",
        "1\u{200B}",
        "\u{200B}",
        "0",
        "00",
        "0049 30 ",
        "tel 1",
        "tel. 030 123 ",
        "www.1",
        "http://1",
        "4111 ",
        "4111111111111111 ",
        "1.2.3.4.",
        "192.0.2.1 ",
        "192.0.2.1,",
        "a1@b2.c",
        "..@",
        "a(at)",
        "(at)a.",
        "[dot]",
        "\u{FF10}a",
        "\u{EFBF}",
        "131052-308T",
        "1234567A ",
        "ÄÖ1",
    ];
    for unit in units {
        let text = long(unit);
        let started = std::time::Instant::now();
        find(&text, None);
        let seconds = started.elapsed().as_secs_f64();
        assert!(seconds < 30.0, "{unit:?}: {seconds} s for {} bytes", text.len());
    }
}

/// Whatever the text, findings stand in their order, do not overlap, and begin and end at characters.
#[test]
fn findings_are_in_order_in_any_text() {
    let pieces = [
        "1",
        "23",
        "456",
        "0",
        "+49",
        "00",
        " ",
        " ",
        "-",
        ".",
        "/",
        "(",
        ")",
        ":",
        "::",
        "@",
        "a",
        "é",
        "α",
        "я",
        "x.example",
        "DE89",
        "\n",
        "\u{200B}",
        "\u{FEFF}",
        "４",
        "tel. ",
        "BSN ",
        "www.",
        "://",
        "X",
        "-A",
        "T",
        "\u{A0}",
        "4111111111111111",
        "192.0.2.1",
        "2001:db8",
        "131052-308T",
        ",",
        "€",
    ];
    let mut state = 1u64;
    let mut draw = |bound: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % bound
    };
    for round in 0..20_000 {
        let text: String = (0..draw(40)).map(|_| pieces[draw(pieces.len())]).collect();
        let language = Language::all().nth(round % 25);
        let mut last = 0;
        for Finding { range, .. } in find(&text, language) {
            assert!(last <= range.start && range.start < range.end, "{text:?}");
            assert!(text.get(range.clone()).is_some(), "{text:?}");
            last = range.end;
        }
        redact(&text, language);
    }
}

#[test]
fn numbers_without_area_code_and_from_across_the_sea() {
    check_in("pt", "tel. 289-3609", "tel. <PHONE_NUMBER>");
    check_in("de", "Tel. Nr.: 231 25-0, Herr Wolf", "Tel. Nr.: <PHONE_NUMBER>, Herr Wolf");
    check_in("de", "Telefone wurden 231 250 verkauft", "Telefone wurden 231 250 verkauft");
    check("my office, (212) 555-0123.", "my office, <PHONE_NUMBER>.");
    check("or 020 7946 0018", "or <PHONE_NUMBER>");
    check("212-555-0123 or 212.555.0123", "<PHONE_NUMBER> or <PHONE_NUMBER>");
    check("order 212-555-0123", "order 212-555-0123");
    check("fax, Washington, D.C. 20006-3700", "fax, Washington, D.C. 20006-3700");
    check_in("nl", "Apollo (212) 555-0123", "Apollo (212) 555-0123");
}
