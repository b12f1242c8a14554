//! Whatever the bytes are: no panic, no overflow of the stack, no more than linear time.

use std::time::{Duration, Instant};

use crate::site::{self, Random};

/// Generous for slow machines: what is not linear takes minutes on these.
const LONGEST: Duration = Duration::from_secs(60);

fn check(name: &str, html: &[u8]) -> pages::Page {
    let start = Instant::now();
    let page = pages::extract(html, Some("text/html"), Some("https://a.example/"));
    assert!(start.elapsed() < LONGEST, "{name}: {} bytes took {:?}", html.len(), start.elapsed());
    page
}

#[test]
fn deep_nesting_neither_overflows_nor_takes_quadratic_time() {
    for tags in [
        "<div>",
        "<b>",
        "<p><b>",
        "<ul><li>",
        "<table><tr><td>",
        "<a href=x>",
        "<font size=1><p>",
        "<h1>",
        "<dl><dt><dd>",
        "<svg>",
        "<select><option>",
        "<blockquote><p>",
        "<details><summary>",
        "<b 1><i 2></b>",
        "<table>",
        "<pre>",
        "<form>",
        "</p>",
        "</br>",
        "<li>",
        "<tr>",
    ] {
        let name = format!("100,000 × {tags}");
        check(&name, tags.repeat(100_000).as_bytes());
        let page = check(&name, format!("{}Il-mitħna daret.", tags.repeat(100_000)).as_bytes());
        let hidden = ["<svg>", "<select><option>"].contains(&tags) || tags.starts_with("<a");
        assert!(hidden || page.text.contains("Il-mitħna daret."), "{name}: {:?}", page.text);
    }
}

#[test]
fn closing_tags_in_the_wrong_order_do_not_multiply_the_tree() {
    let formats: String = (0..3000).map(|number| format!("<b {number}><i {number}>")).collect();
    check("formats", format!("{formats}{}", "x</b>".repeat(3000)).as_bytes());
    check("paragraphs", format!("{formats}{}", "<p>x".repeat(3000)).as_bytes());
}

#[test]
fn long_pages_take_time_by_their_length() {
    let attribute = format!("<p class=\"{}\" style=\"{0}\">x", "nav a ".repeat(100_000));
    check("long attributes", attribute.as_bytes());
    check("many attributes", format!("<p {}>x", "a=1 ".repeat(200_000)).as_bytes());
    check("one word", "x".repeat(2_000_000).as_bytes());
    check("spaces", " \n".repeat(1_000_000).as_bytes());
    check("entities", "&amp;&notit;&#x20AC;".repeat(100_000).as_bytes());
    check("open comment", format!("<!--{}", "<p>--".repeat(200_000)).as_bytes());
    check("open script", format!("<script>{}", "<!--<script></scrip".repeat(50_000)).as_bytes());
    check("links", "<a href=/x>read the whole story</a><p>x</p>".repeat(50_000).as_bytes());
    check("controls", "<div><button>x</button></div>".repeat(50_000).as_bytes());
    check(
        "titles",
        format!("<title>{}</title>{}", "a ".repeat(50_000), "<h1>a a a a</h1>".repeat(50_000)).as_bytes(),
    );
    check(
        "meta",
        "<meta name=robots content=a><meta name=license content=b><meta name=language content=mt>"
            .repeat(30_000)
            .as_bytes(),
    );
    check("letters of no encoding", &b"\xff\xc3\x28\xe1<p>".repeat(100_000));
}

#[test]
fn cut_and_mutated_pages_are_read_without_panic() {
    let mut random = Random(24);
    for language in ["mt", "el", "bg", "ga"] {
        for page in site::pages(language, 1, &["whole"]) {
            for _ in 0..6 {
                let mut bytes = page.bytes.clone();
                bytes.truncate(random.below(bytes.len() as u64 + 1) as usize);
                for _ in 0..random.below(60) {
                    mutate(&mut bytes, &mut random);
                }
                let found = check(&page.name, &bytes);
                assert!(found.text.len() <= 4 * bytes.len() + 16, "{}: more text than bytes", page.name);
            }
        }
    }
}

/// Changes, copies, moves and drops pieces where markup hurts most.
fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    if bytes.is_empty() {
        return;
    }
    let length = bytes.len() as u64;
    let (from, to) = (random.below(length) as usize, random.below(length) as usize);
    let end = (from + random.below(40) as usize).min(bytes.len());
    match random.below(5) {
        0 => bytes[from] = random.next() as u8,
        1 => bytes[from] = b"<>\"\'=/&;-! \0\xff"[random.below(13) as usize],
        2 => drop(bytes.drain(from..end)),
        3 => {
            let piece = bytes[from..end].to_vec();
            drop(bytes.splice(to..to, piece));
        }
        _ => {
            let tag: &[u8] = [
                &b"</div>"[..],
                b"<table>",
                b"<td>",
                b"</a>",
                b"<a>",
                b"<p>",
                b"</p>",
                b"<li>",
                b"<!--",
                b"<script>",
            ][random.below(10) as usize];
            drop(bytes.splice(to..to, tag.iter().copied()));
        }
    }
}
