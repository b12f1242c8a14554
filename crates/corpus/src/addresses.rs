//! Addresses and domains made comparable: case, port, `www.`, and names in other scripts than Latin, which stand as they
//! are read (`пример.example`) or in the form that the name system uses (`xn--e1afmkfd.example`).

use unicode_normalization::UnicodeNormalization;

/// The host of an address, without user, port and closing dot, in the form of [`ascii_domain`].
pub fn host_of(url: &str) -> Option<String> {
    let host = authority_of(url)?.split(':').next()?;
    let host = host.trim_end_matches('.');
    (!host.is_empty()).then(|| ascii_domain(host))
}

/// Host and port of an address, without the ports that http and https have anyway: what a robots.txt is for.
pub fn site_of(url: &str) -> Option<String> {
    let host = host_of(url)?;
    let port = authority_of(url)?.rsplit_once(':').map(|(_, port)| port).unwrap_or_default();
    Some(match port {
        "" | "80" | "443" => host,
        port => format!("{host}:{port}"),
    })
}

/// The address from its path on, without the fragment; `/` where it has none.
pub fn path_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split('#').next().unwrap_or_default();
    match rest.find(['/', '?']) {
        Some(start) => &rest[start..],
        None => "/",
    }
}

fn authority_of(url: &str) -> Option<&str> {
    let url = url.trim();
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?', '#']).next()?.rsplit('@').next()
}

/// An address without scheme, `www.`, fragment and closing slash: what two spellings of one page share.
pub fn comparable(url: &str) -> String {
    let Some(site) = site_of(url) else { return url.trim().to_string() };
    let path = path_of(url.trim()).trim_end_matches('/');
    format!("{}{path}", site.strip_prefix("www.").unwrap_or(&site))
}

/// The domain itself and every domain above it: `a.b.example`, `b.example`, `example`.
pub fn domain_and_parents(host: &str) -> impl Iterator<Item = &str> {
    let parents = host.match_indices('.').map(|(dot, _)| &host[dot + 1..]);
    std::iter::once(host).chain(parents)
}

/// A domain in lower case, its labels beyond ASCII in Punycode (RFC 3492; mapping as in RFC 5895: lower case and NFC).
pub fn ascii_domain(domain: &str) -> String {
    if domain.is_ascii() {
        return domain.to_ascii_lowercase();
    }
    // Ideographic full stops separate labels too.
    let labels = domain.split(['.', '\u{3002}', '\u{FF0E}', '\u{FF61}']).map(|label| {
        let label: String = label.nfkc().flat_map(char::to_lowercase).nfc().collect();
        if label.is_ascii() { label } else { format!("xn--{}", punycode(&label)) }
    });
    labels.collect::<Vec<_>>().join(".")
}

/// RFC 3492, section 6.3.
fn punycode(label: &str) -> String {
    const BASE: u32 = 36;
    let characters: Vec<u32> = label.chars().map(u32::from).collect();
    let mut encoded: String = label.chars().filter(char::is_ascii).collect();
    let basic = encoded.len() as u32;
    let mut handled = basic;
    if basic > 0 {
        encoded.push('-');
    }
    let (mut code, mut delta, mut bias) = (128u32, 0u32, 72u32);
    while (handled as usize) < characters.len() {
        let next = characters.iter().copied().filter(|&character| character >= code).min().unwrap_or(code);
        delta = delta.saturating_add((next - code).saturating_mul(handled + 1));
        code = next;
        for &character in &characters {
            if character < code {
                delta += 1;
            }
            if character == code {
                let (mut rest, mut place) = (delta, BASE);
                loop {
                    let threshold = place.saturating_sub(bias).clamp(1, 26);
                    if rest < threshold {
                        break;
                    }
                    encoded.push(digit(threshold + (rest - threshold) % (BASE - threshold)));
                    rest = (rest - threshold) / (BASE - threshold);
                    place += BASE;
                }
                encoded.push(digit(rest));
                bias = adapted(delta, handled + 1, handled == basic);
                delta = 0;
                handled += 1;
            }
        }
        delta += 1;
        code += 1;
    }
    encoded
}

fn digit(value: u32) -> char {
    char::from(if value < 26 { b'a' + value as u8 } else { b'0' + (value - 26) as u8 })
}

/// RFC 3492, section 6.1.
fn adapted(delta: u32, points: u32, is_first: bool) -> u32 {
    let mut delta = if is_first { delta / 700 } else { delta / 2 };
    delta += delta / points;
    let mut bias = 0;
    while delta > 455 {
        delta /= 35;
        bias += 36;
    }
    bias + 36 * delta / (delta + 38)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_any_script_have_one_form() {
        let check = |domain: &str, expected: &str| assert_eq!(ascii_domain(domain), expected);
        // The names that IANA registered for tests (2007), and the samples of RFC 3492, section 7.1.
        check("παράδειγμα.δοκιμή", "xn--hxajbheg2az3al.xn--jxalpdlp");
        check("пример.испытание", "xn--e1afmkfd.xn--80akhbyknj4f");
        check("例え.テスト", "xn--r8jz45g.xn--zckzah");
        check("BÜCHER.Example", "xn--bcher-kva.example");
        check("Pročprostěnemluvíčesky", "xn--proprostnemluvesky-uyb24dma41a");
        check("A.Example", "a.example");
        check("xn--BCHER-KVA.example", "xn--bcher-kva.example");
    }

    #[test]
    fn parts_of_addresses() {
        let url = "https://user@Bücher.Example:8080/a/b?c=d#e";
        assert_eq!(host_of(url).unwrap(), "xn--bcher-kva.example");
        assert_eq!(site_of(url).unwrap(), "xn--bcher-kva.example:8080");
        assert_eq!(path_of(url), "/a/b?c=d");
        assert_eq!(site_of("http://a.example:80/").unwrap(), "a.example");
        assert_eq!(path_of("https://a.example"), "/");
        assert_eq!(path_of("https://a.example?x"), "?x");
        assert_eq!(comparable("http://www.A.example/page/#part"), "a.example/page");
        assert_eq!(comparable("a.example/page"), "a.example/page");
        assert_eq!(host_of("/only/a/path"), None);
        assert_eq!(
            domain_and_parents("a.b.example").collect::<Vec<_>>(),
            ["a.b.example", "b.example", "example"]
        );
    }
}
